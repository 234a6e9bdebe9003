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

from dse.errors import InputError

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
                raise InputError(f"assignment.{layer}", f"{candidate!r} is not in the table", self.candidates)
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
            InputError: a file that is no table, a column missing, a value of the wrong type, or a missing row.
        """
        rows = read_rows(path)
        table = CostTable(tuple(_typed(row, f"{path}: row {i + 1}") for i, row in enumerate(rows)))
        if len(table.rows) != len(table.layers) * len(table.candidates):
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
    try:
        rows = _rows_of(path)
    except OSError as e:
        raise InputError(path, f"cannot be read: {(e.strerror or str(e)).lower()}") from None
    except InputError:
        raise
    except (ValueError, csv.Error) as e:  # pyarrow's and json's errors are ValueErrors
        raise InputError(path, f"not a table: {str(e).splitlines()[0]}") from None
    if not rows:
        raise InputError(path, "the table is empty")
    return rows


def _rows_of(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as f:
            return list(csv.DictReader(f))
    if path.suffix == ".json":
        loaded = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(loaded, list) or not all(isinstance(row, dict) for row in loaded):
            raise ValueError("expected a list of rows")
        return loaded
    if path.suffix == ".parquet":
        from pyarrow import parquet

        found: list[Row] = parquet.read_table(path).to_pylist()
        return found
    raise InputError(path, f"cannot read a table from {path.suffix!r}", ".csv, .parquet, .json")


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys([*COLUMNS, *(c for row in rows for c in row)]))


def _typed(row: Row, where: str) -> Row:
    for column in COLUMNS:
        if column not in row:
            raise InputError(where, f"column {column!r} is missing")
    ok = row["status"] == "ok"
    return {
        c: _convert(v, _kind(c), f"{where}: {c}", required=c in COLUMNS and (ok or c not in _COSTS))
        for c, v in row.items()
    }


def _kind(column: str) -> type:
    return COLUMNS.get(column) or (float if column.endswith("_pj") else int)


_COSTS = {"e_compute_pj", "e_tx_pj", "e_tx_on_chip_pj", "cycles", "utilisation", "optimal"}


def _convert(value: Any, kind: type, where: str, required: bool) -> Any:
    if value is None or (value == "" and kind is not str):
        if required:
            raise InputError(where, "is empty", kind.__name__)
        return None
    try:
        if kind is bool and isinstance(value, str):
            return {"True": True, "False": False}[value]
        converted = kind(value)
    except (TypeError, ValueError, KeyError):
        raise InputError(where, f"found {value!r}", kind.__name__) from None
    if kind is float and not np.isfinite(converted):
        raise InputError(where, f"found {value!r}", "a finite number")
    return converted
