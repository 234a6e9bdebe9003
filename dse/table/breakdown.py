"""Where the energy of a network goes: by level of the hardware, tensor and layer."""

from __future__ import annotations

from collections.abc import Iterable

from dse.core.errors import InputError, unknown
from dse.table.cost_table import CostTable, Row


def energy_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """The columns ``<level>.<tensor>.energy_pj`` that any of the rows has, innermost level first."""
    columns = dict.fromkeys(c for row in rows for c in row)
    return tuple(c for c in columns if c.count(".") >= 2 and c.endswith(".energy_pj"))


def level_energies(table: CostTable, candidate: str) -> list[tuple[str, str, list[float | None]]]:
    """(level, tensor, pJ in each layer) of a candidate, innermost level first; None where a layer has no mapping.

    Raises:
        InputError: a candidate that the table does not have, or a table without the breakdown.
    """
    if candidate not in table.candidates:
        raise unknown("candidate", "candidate", candidate, table.candidates)
    rows = [table.row(layer, candidate) for layer in table.layers]
    columns = energy_columns(rows)
    if not columns:
        raise InputError("table", "has no columns of levels and tensors", hint="take a table with its breakdown")
    found = []
    for column in columns:
        level, tensor = column.removesuffix(".energy_pj").rsplit(".", 1)
        energies = [(row.get(column) or 0.0) if row["status"] == "ok" else None for row in rows]
        found.append((level, tensor, energies))
    return found
