"""The cost table: one row per (layer, operator, precision), the place where hardware and learning meet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dse.core.documents import read_json, read_text, readable
from dse.core.errors import InputError
from dse.core.fields import shown
from dse.table.checks import COSTS, STATUS, check_columns, check_rows, convert

FloatArray = npt.NDArray[np.float64]
Transmission = Literal["all", "on_chip"]

COLUMNS: dict[str, type] = {
    "workload": str,
    "layer": str,
    "operator": str,
    "bits": int,
    "candidate": str,
    "status": str,  # "ok" or "no_mapping"
    "reason": str,
    "n_ops": int,
    "e_op_pj": float,
    "e_compute_pj": float,
    "e_tx_pj": float,
    "e_tx_on_chip_pj": float,
    "cycles": int,
    "utilisation": float,
    "engine": str,
    "optimal": bool,
    "mapping": str,
}
"""The fixed columns and their types. Behind them, for each level and tensor the hardware keeps:
``<level>.<tensor>.<reads|fills|updates|energy_pj>`` (accesses in words over all instances, energies in pJ)."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class CostTable:
    """Energies of every layer under every candidate; rows are layer-major in execution order."""

    rows: tuple[Row, ...]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row["layer"] for row in self.rows))

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """Candidate names (``T8`` ...), in the order of the table's columns of energies."""
        return tuple(dict.fromkeys(row["candidate"] for row in self.rows))

    @cached_property
    def n_ops(self) -> FloatArray:
        """Operations of each layer, N_OP of Eq. 2; shape (layers,)."""
        return np.array([self.row(layer, self.candidates[0])["n_ops"] for layer in self.layers], dtype=np.float64)

    @cached_property
    def e_op_pj(self) -> FloatArray:
        """Energy of one operation of each candidate, E_OP of Eq. 2, in pJ; shape (candidates,)."""
        return np.array([self.row(self.layers[0], c)["e_op_pj"] for c in self.candidates], dtype=np.float64)

    def e_tx_pj(self, transmission: Transmission = "all") -> FloatArray:
        """Transmission energy E_TX of Eq. 2 in pJ; shape (layers, candidates); inf where no mapping exists."""
        column = {"all": "e_tx_pj", "on_chip": "e_tx_on_chip_pj"}[transmission]
        return np.array([[self._energy(layer, c, column) for c in self.candidates] for layer in self.layers])

    def energy_pj(self, transmission: Transmission = "all") -> FloatArray:
        """Compute plus transmission energy in pJ: N_OP * E_OP + E_TX; shape (layers, candidates)."""
        return self.n_ops[:, None] * self.e_op_pj[None, :] + self.e_tx_pj(transmission)

    def total_pj(self, assignment: Mapping[str, str], transmission: Transmission = "all") -> float:
        """Energy in pJ of a network under an assignment (layer name -> candidate name).

        Raises:
            InputError: a layer of the table without a candidate, or an unknown name.
        """
        for layer, candidate in assignment.items():
            if (layer, candidate) not in self._index:
                problem = f"the table has no row for candidate {candidate!r}"
                raise InputError(f"assignment.{layer}", problem, self.candidates)
        for layer in self.layers:
            if layer not in assignment:
                raise InputError("assignment", f"layer {layer!r} is missing")
        energy = self.energy_pj(transmission)
        return float(sum(energy[i, self.candidates.index(assignment[n])] for i, n in enumerate(self.layers)))

    def row(self, layer: str, candidate: str) -> Row:
        try:
            return self.rows[self._index[layer, candidate]]
        except KeyError:
            raise InputError("table", f"has no row for layer {layer!r}, candidate {candidate!r}") from None

    @cached_property
    def _index(self) -> dict[tuple[str, str], int]:
        return {(row["layer"], row["candidate"]): i for i, row in enumerate(self.rows)}

    def _energy(self, layer: str, candidate: str, column: str) -> float:
        row = self.row(layer, candidate)
        return float(row[column]) if row["status"] == "ok" else float("inf")

    def save(self, path: Path | str) -> None:
        """Writes the table as CSV, Parquet or JSON, by the file's suffix."""
        write_rows(self.rows, _columns(self.rows), path)

    @staticmethod
    def load(path: Path | str) -> CostTable:
        """Reads a table that `save` wrote.

        Raises:
            InputError: a file that is not a table, a column that is missing or unknown, a value of the wrong type, a
                row that is missing or there twice, numbers that do not fit one another (see `dse.table.checks`).
        """
        rows = read_rows(path)
        check_columns(dict.fromkeys(column for row in rows for column in row), COLUMNS, path)
        table = CostTable(tuple(_typed(row, f"{path}: row {i + 1}") for i, row in enumerate(rows)))
        check_rows(table.rows, path)
        if not len(table.rows) == len(table._index) == len(table.layers) * len(table.candidates):
            raise InputError(path, f"{len(table.rows)} rows for {len(table.layers)} layers and "
                             f"{len(table.candidates)} candidates", "one row for each pair")  # fmt: skip
        return table


def write_rows(rows: Sequence[Row], columns: Sequence[str], path: Path | str) -> None:
    """Writes rows as CSV, Parquet or JSON, by the file's suffix; a column that a row lacks is empty.

    Raises:
        InputError: a suffix that is none of these.
    """
    path = Path(path)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({c: [row.get(c) for row in rows] for c in columns}), path)
    else:
        raise InputError(path, f"cannot write a table as {path.suffix!r}", ".csv, .parquet, .json")


def read_rows(path: Path | str) -> list[Row]:
    """Reads rows that `write_rows` wrote; in those of a CSV file every value is text.

    Raises:
        InputError: a file that is none of these forms, or has no rows.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise InputError(path, f"cannot read a table from {path.suffix!r}", ", ".join(readers))
    rows = readers[path.suffix](path)
    if not rows:
        raise InputError(path, "the table is empty")
    return rows


def _csv_rows(path: Path) -> list[Row]:
    """The rows of a CSV file; each has a cell for every column."""
    try:
        lines = csv.reader(read_text(path).splitlines(keepends=True), strict=True)
        head = next(lines, [])
        _no_duplicates(head, path)
        rows = []
        for cells in lines:
            if cells and len(cells) != len(head):
                raise InputError(
                    f"{path}: line {lines.line_num}", f"has {len(cells)} cells", f"{len(head)}, as its head"
                )
            if cells:
                rows.append(dict(zip(head, cells, strict=True)))
    except csv.Error as e:
        raise InputError(path, f"not a table: {e}") from None
    return rows


def _json_rows(path: Path) -> list[Row]:
    loaded = read_json(path)
    if not isinstance(loaded, list) or not all(isinstance(row, dict) for row in loaded):
        raise InputError(path, "not a table", "a list of rows, each a mapping of columns to values")
    return loaded


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    data = readable(path, Path.read_bytes)  # of a file alone: pyarrow takes a folder for a table in parts
    try:
        table = parquet.read_table(pa.BufferReader(data))
        _no_duplicates(table.column_names, path)
        found: list[Row] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as e:
        raise e if isinstance(e, InputError) else InputError(path, f"not a table: {e}") from None
    return found


def _no_duplicates(columns: Sequence[str], path: Path) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(path, f"column {column!r} is there twice", "each column once")


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys([*COLUMNS, *(c for row in rows for c in row)]))


def _typed(row: Row, where: str) -> Row:
    """A row with converted cells; only costs and accesses may be empty, where there is no mapping or no access."""
    for column in COLUMNS:
        if column not in row:
            raise InputError(where, f"column {column!r} is missing")
    if row["status"] not in STATUS:
        raise InputError(f"{where}: status", f"found {shown(row['status'])}", STATUS)
    found: Row = {}
    for column, value in row.items():
        kind = COLUMNS.get(column) or (float if column.endswith("_pj") else int)
        empty = value is None or (value == "" and kind is not str)
        if empty and column in COLUMNS and (row["status"] == "ok" or column not in COSTS):
            raise InputError(f"{where}: {column}", "is empty", kind.__name__)
        found[column] = None if empty else convert(value, kind, f"{where}: {column}")
    return found
