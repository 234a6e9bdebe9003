"""What must hold between the numbers of a cost table, so that no wrong one reaches a search."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dse.core.errors import InputError, did_you_mean, unknown
from dse.core.fields import LARGEST, MOST, only, shown
from dse.table.columns import COSTS, LevelColumn, Row
from dse.table.shapes import EMBEDDING, operations, read_shape
from dse.workload.shapes import KINDS, names_of

_REMAINDER = re.compile(r"\d,\d")  # in a loop nest: a loop's iterations, and those of its last run
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

_RELATIVE = 1e-6
_ROUNDED = 0.01  # pJ; what stats.txt of Timeloop rounds away of a level


def check_columns(found: Collection[Any], fixed: Collection[str], path: object) -> None:
    """Refuses columns that no table has: ``fixed`` ones and those of levels and tensors are known.

    Raises:
        InputError: an unknown column, or a fixed one that is missing.
    """
    for column in found:
        if column not in fixed and LevelColumn.parse(column) is None:
            near = did_you_mean(str(column), fixed)
            raise InputError(path, f"unknown column {shown(column)}{near}", [*fixed, "LEVEL.TENSOR.reads, ..."])
    for column in fixed:
        if column not in found:
            raise InputError(path, f"column {column!r} is missing")


def check_described(kind: str | None, shape: str | None, where: str) -> None:
    """Refuses a kind that no layer has, and a shape of another kind; both are None in tables of earlier schemas.

    Raises:
        InputError: also where one of them is missing.
    """
    if (kind is None) != (shape is None):
        raise InputError(
            f"{where}: {'kind' if kind is None else 'shape'}", "is empty", "both kind and shape, or neither"
        )
    if kind is None or shape is None:
        return
    if kind not in KINDS:
        raise unknown(f"{where}: kind", "kind", kind, KINDS)
    only(read_shape(shape, f"{where}: shape"), names_of(kind), f"{where}: shape", "dimension or coefficient")


def convert(value: Any, kind: type, where: str) -> Any:
    """A cell as text, truth value or number of at least 0; CSV has all of them as text."""
    if kind is bool:
        if value in ("True", "False"):
            return value == "True"
        if isinstance(value, bool):
            return value
        raise InputError(where, f"found {shown(value)}", "True or False")
    if kind is str:
        if isinstance(value, str):
            return value
        raise InputError(where, f"found {shown(value)}", "text")
    number = _number(value, kind)
    most = LARGEST if kind is int else MOST
    if number is None or not 0 <= number <= most:
        what = "a whole number" if kind is int else "a finite number"
        raise InputError(where, f"found {shown(value)}", f"{what} from 0 to {most:g}")
    return number


def _number(value: Any, kind: type) -> Any:
    """The number that a cell holds; None for another one."""
    if isinstance(value, str) and (_INTEGER if kind is int else _NUMBER).fullmatch(value) and len(value) <= 60:
        return kind(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and kind is int:
        return int(value) if value.is_integer() else None
    return kind(value) if abs(value) <= MOST else None


def check_rows(rows: Sequence[Row], path: object) -> None:
    """Checks rows, whose cells are converted, each by itself and against one another.

    Raises:
        InputError: at the row, for a number that cannot stand beside the others.
    """
    first: dict[tuple[str, Any], tuple[int, Row]] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        for column, problem, allowed in _problems(row):
            raise InputError(f"{where}: {column}", problem, allowed)
        for of, same in _CONSTANT.items():
            other, known = first.setdefault((of, row.get(of)), (number, row))
            for column in same:
                if row[column] != known[column]:
                    of_what = f"of {of} {row[of]}" if of else "of the table"
                    raise InputError(
                        f"{where}: {column}", f"found {shown(row[column])}, but {shown(known[column])} in row {other}",
                        f"one value for all rows {of_what}",
                    )  # fmt: skip


_CONSTANT = {"": ("workload",), "layer": ("n_ops", "kind", "shape"), "candidate": ("operator", "bits")}
"""What rows share that agree in a column; the first is for all rows."""


def _problems(row: Row) -> Iterator[tuple[str, str, str]]:
    """Column, problem and what is allowed, of each number that cannot stand in its row."""
    for column in ("layer", "candidate", "operator"):
        if not row[column].strip():
            yield column, "is empty", "a name"
    memory_only = row["kind"] == EMBEDDING
    for column in ("n_ops", "bits"):
        if row[column] < 1 and not (memory_only and column == "n_ops"):
            yield column, f"found {row[column]}", "at least 1"
    if row["shape"] is not None:
        computed = operations(row["kind"], read_shape(row["shape"], "shape"))
        if row["n_ops"] != computed:
            yield "n_ops", f"found {row['n_ops']}", f"{computed}, those of shape {row['shape']}"
    if row["status"] == "no_mapping":
        for column in (*COSTS, *filter(LevelColumn.parse, row)):
            if row[column] is not None:
                yield column, f"found {shown(row[column])}, but there is no mapping", "an empty cell"
        return
    if row["cycles"] < 1:
        yield "cycles", f"found {row['cycles']}", "at least 1"
    if not (0 < row["utilisation"] <= 1 + _RELATIVE or (memory_only and row["utilisation"] == 0)):
        yield "utilisation", f"found {row['utilisation']}", "a share above 0, at most 1"
    compute = row["n_ops"] * row["e_op_pj"]
    # With remainders Timeloop charges the operations of an average unit, rounded, which are more or fewer.
    exact = str(row["engine"]).startswith("native") or not _REMAINDER.search(row["mapping"] or "")
    if exact and not math.isclose(row["e_compute_pj"], compute, rel_tol=_RELATIVE, abs_tol=_ROUNDED):
        yield "e_compute_pj", f"found {row['e_compute_pj']!r}", f"n_ops times e_op_pj, {compute!r}"
    if row["e_tx_on_chip_pj"] > row["e_tx_pj"] * (1 + _RELATIVE) + _ROUNDED:
        yield "e_tx_on_chip_pj", f"found {row['e_tx_on_chip_pj']!r}", f"at most e_tx_pj, {row['e_tx_pj']!r}"
    parts = [row[c] or 0.0 for c in row if (level := LevelColumn.parse(c)) and level.quantity == "energy_pj"]
    levels = math.fsum([*parts, row["leakage_pj"]])
    rounded = _ROUNDED * (len(parts) + 1)
    if parts and not math.isclose(row["e_tx_pj"], levels, rel_tol=_RELATIVE, abs_tol=rounded):
        yield "e_tx_pj", f"found {row['e_tx_pj']!r}", f"the energies of the levels and leakage_pj, {levels!r}"
