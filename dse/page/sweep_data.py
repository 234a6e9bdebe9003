"""The page's data of an architecture sweep, from a file of `enos sweep --summary`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.sweep.sweep_table import LEVEL_ENERGY
from dse.table.columns import Row
from dse.table.rows import read_rows

_NEEDED = ("point", "workload", "candidate", "status", "n_ops", "energy_pj", "compute_pj", "cycles")
_AREA = "area_mm2"


def sweep_data(path: Path | str) -> dict[str, Any]:
    """The points of a sweep that have a total.

    Returns:
        ``workload``, ``candidates``; ``axes``, the settings that vary and are numbers, and the area of the chip where
        it is known; ``parts``, the parts of the energy (compute, then levels, innermost first); ``points``, each with
        its ``candidate``, its ``x`` on every axis, ``n_ops``, ``cycles``, ``energy_pj`` and the energy in pJ of every
        part; ``missing``, a text for each candidate and point without a total, with the reason.

    Raises:
        InputError: the file is not a summary, or a value is not a number.
    """
    rows = read_rows(path).rows
    for column in _NEEDED:
        if column not in rows[0]:
            raise InputError(path, f"column {column!r} is missing", "a file of `enos sweep --summary`")
    columns = [str(column) for column in rows[0]]
    settings = columns[columns.index("point") + 1 : columns.index("workload")]
    axes = [s for s in settings if _varies(rows, s)]
    mapped = [row for row in rows if row["status"] == "ok"]
    if _AREA in columns and all(row[_AREA] not in (None, "") for row in mapped) and _varies(mapped, _AREA):
        axes.append(_AREA)  # of the chip: a size like those that are set
    if not axes:
        raise InputError(path, "has no numeric setting that varies", "a sweep of at least two sizes")
    parts = {"compute": "compute_pj", **{c.removesuffix(LEVEL_ENERGY): c for c in columns if c.endswith(LEVEL_ENERGY)}}
    if "leakage_pj" in columns:
        parts["leakage"] = "leakage_pj"
    numbered = [(f"{path}: row {i}", row) for i, row in enumerate(rows, 1)]
    points = [
        {
            "candidate": row["candidate"],
            "x": [_number(row, axis, where) for axis in axes],
            **{column: _number(row, column, where) for column in ("n_ops", "cycles", "energy_pj")},
            "parts": [_number(row, column, where) for column in parts.values()],
        }
        for where, row in numbered
        if row["status"] == "ok"
    ]
    used = [i for i, _ in enumerate(parts) if any(p["parts"][i] for p in points)]
    return {
        "workload": rows[0]["workload"],
        "axes": axes,
        "candidates": list(dict.fromkeys(row["candidate"] for row in rows)),
        "parts": [list(parts)[i] for i in used],
        "points": [{**p, "parts": [p["parts"][i] for i in used]} for p in points],
        "missing": [
            f"{row['candidate']} at {', '.join(f'{s} = {row[s]}' for s in settings)}: "
            f"{row.get('reason') or row['status']}"
            for row in rows
            if row["status"] != "ok"
        ],
    }


def _varies(rows: Sequence[Row], setting: str) -> bool:
    try:
        return len({float(row[setting]) for row in rows}) > 1
    except (TypeError, ValueError):
        return False


def _number(row: Row, column: str, where: str) -> float:
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: {column}", f"found {row.get(column)!r}", "a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {column}", f"found {row[column]!r}", "a finite number")
    return value
