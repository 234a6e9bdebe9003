"""The cost table: one row per (layer, operator, precision), the place where hardware and learning meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dse.core.errors import InputError
from dse.core.fields import shown
from dse.table.checks import check_columns, check_described, check_rows, convert
from dse.table.columns import COLUMNS, COSTS, DESCRIPTION, STATUS, LevelColumn, Row, energy_columns
from dse.table.rows import read_rows, write_rows
from dse.table.shapes import read_shape

if TYPE_CHECKING:  # numpy is imported where arrays are asked for, pydantic where a file has a header
    import numpy as np
    import numpy.typing as npt

    from dse.table.provenance import Provenance

    FloatArray = npt.NDArray[np.float64]
else:
    FloatArray = Any

Transmission = Literal["all", "on_chip"]
_TRANSMISSION = {"all": "e_tx_pj", "on_chip": "e_tx_on_chip_pj"}

_DESCRIBED = 4
"""The first schema with the columns of kind and shape."""

_NEGLIGIBLE = 1e-9
"""Share of a layer's energy below which a difference of sums is rounding."""


@dataclass(frozen=True, eq=False)
class CostTable:
    """Energies of every layer under every candidate; rows are layer-major in execution order.

    Example:
        >>> table = CostTable.load("table.csv")
        >>> table.energy_pj().shape  # (layers, candidates)
        (26, 9)
    """

    rows: tuple[Row, ...]
    provenance: Provenance | None = None
    """What made it; None for a table of schema 1."""

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
        import numpy as np

        return np.array([self.row(layer, self.candidates[0])["n_ops"] for layer in self.layers], dtype=np.float64)

    @cached_property
    def e_op_pj(self) -> FloatArray:
        """Energy of one operation, E_OP of Eq. 2, in pJ; shape (layers, candidates).

        It depends on the layer where accumulators are as wide as its sums need.
        """
        import numpy as np

        rows = [[self.row(layer, c)["e_op_pj"] for c in self.candidates] for layer in self.layers]
        return np.array(rows, dtype=np.float64)

    def mean_e_op_pj(self, candidate: str) -> float:
        """Energy of one operation of a candidate in pJ, the mean over all operations of the network.

        Raises:
            InputError: an unknown candidate.

        Example:
            >>> round(CostTable.load("table.csv").mean_e_op_pj("T8"), 1)
            1.2
        """
        rows = [self.row(layer, candidate) for layer in self.layers]
        of_layers = {row["e_op_pj"] for row in rows}
        if len(of_layers) == 1:
            return float(of_layers.pop())
        return float(sum(row["n_ops"] * row["e_op_pj"] for row in rows) / sum(row["n_ops"] for row in rows))

    def kind(self, layer: str) -> str | None:
        """What a layer is: ``conv``, ``linear``, ``matmul`` ...; None in a table of an earlier schema.

        Raises:
            InputError: an unknown layer.
        """
        kind = self.row(layer, self.candidates[0]).get("kind")
        return None if kind is None else str(kind)

    def shape(self, layer: str) -> dict[str, int] | None:
        """Dimensions and coefficients of a layer, those of size 1 left out; None in a table of an earlier schema.

        Two layers have the same shape if these are equal: a name that is missing stands for 1.

        Raises:
            InputError: an unknown layer.
        """
        if layer not in self._shapes:
            text = self.row(layer, self.candidates[0]).get("shape")
            self._shapes[layer] = None if text is None else read_shape(text, f"table: {layer}: shape")
        shape = self._shapes[layer]
        return None if shape is None else dict(shape)

    @cached_property
    def _shapes(self) -> dict[str, dict[str, int] | None]:
        """The shapes that have been asked for, by layer."""
        return {}

    def e_tx_pj(self, transmission: Transmission = "all") -> FloatArray:
        """Transmission energy E_TX of Eq. 2 in pJ; shape (layers, candidates); inf where no mapping exists."""
        import numpy as np

        column = _TRANSMISSION[transmission]
        return np.array([[self._energy(layer, c, column) for c in self.candidates] for layer in self.layers])

    def energy_pj(self, transmission: Transmission = "all") -> FloatArray:
        """Compute plus transmission energy in pJ: N_OP * E_OP + E_TX; shape (layers, candidates)."""
        return self.n_ops[:, None] * self.e_op_pj + self.e_tx_pj(transmission)

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
        return sum(self.layer_pj(layer, assignment[layer], transmission) for layer in self.layers)

    def layer_pj(self, layer: str, candidate: str, transmission: Transmission = "all") -> float:
        """Compute plus transmission energy in pJ of a layer under a candidate; inf where no mapping exists."""
        row = self.row(layer, candidate)
        return float(row["n_ops"] * row["e_op_pj"]) + self._energy(layer, candidate, _TRANSMISSION[transmission])

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

    def same_costs(self, other: CostTable) -> bool:
        """Whether both have the same energies and cycles, whatever made them."""
        columns = ("layer", "candidate", "n_ops", "e_op_pj", "e_tx_pj", "e_tx_on_chip_pj", "cycles")
        return [[row[c] for c in columns] for row in self.rows] == [[row[c] for c in columns] for row in other.rows]

    @cached_property
    def off_chip(self) -> frozenset[str]:
        """Names of the levels off the chip; of a table without provenance, what its numbers show."""
        return self.provenance.off_chip if self.provenance else _off_chip_by_sums(self)

    @cached_property
    def level_columns(self) -> tuple[LevelColumn, ...]:
        """The columns of levels and tensors that any row has, in their order."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return tuple(column for column in map(LevelColumn.parse, names) if column is not None)

    @cached_property
    def off_chip_counts(self) -> tuple[tuple[str, str], ...]:
        """The columns of reads, fills and updates of the levels off the chip: name, and name of the level."""
        counts = (column for column in self.level_columns if column.quantity != "energy_pj")
        return tuple((column.name, column.level) for column in counts if column.level in self.off_chip)

    def save(self, path: Path | str) -> None:
        """Writes the table as CSV, Parquet or JSON, by the file's suffix, with what made it."""
        columns = list(dict.fromkeys([*COLUMNS, *(c for row in self.rows for c in row)]))
        write_rows(self.rows, columns, path, self.provenance.document if self.provenance else None)

    @staticmethod
    def load(path: Path | str) -> CostTable:
        """Reads a table that `save` wrote, also of earlier schemas: 1 has neither leakage nor provenance.

        Before schema 4 there were no kinds and shapes: `kind` and `shape` then give None.

        Raises:
            InputError: a file that is not a table, a column that is missing or unknown, a value of the wrong type, a
                row that is missing or there twice, numbers that do not fit one another (see `dse.table.checks`), a
                schema that is newer than this program.
        """
        file = read_rows(path)
        version, provenance = _provenance(file.about, path) if file.about is not None else (1, None)
        rows = file.rows
        for row in rows:
            row.setdefault("leakage_pj", None)  # of schema 1; it is filled in below
            if version < _DESCRIBED:
                for column in DESCRIPTION:
                    row.setdefault(column, None)
        check_columns(dict.fromkeys(column for row in rows for column in row), COLUMNS, path)
        typed = [_typed(row, f"{path}: row {i + 1}", provenance is None) for i, row in enumerate(rows)]
        if provenance is None:
            _fill_leakage(typed)
        table = CostTable(tuple(typed), provenance)
        check_rows(table.rows, path)
        if not len(table.rows) == len(table._index) == len(table.layers) * len(table.candidates):
            raise InputError(path, f"{len(table.rows)} rows for {len(table.layers)} layers and "
                             f"{len(table.candidates)} candidates", "one row for each pair")  # fmt: skip
        return table


def _provenance(document: Any, path: Path | str) -> tuple[int, Provenance]:
    """The schema of a file, and what made it."""
    from dse.core.schema import validated
    from dse.table.provenance import SCHEMA, Provenance

    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        problem = f"has schema {version}, which is newer than this program's"
        raise InputError(f"{path}: header", problem, f"at most {SCHEMA}", "update enos-dse")
    if type(version) is int and version in range(2, SCHEMA):
        document = {**document, "schema_version": SCHEMA}
        if version == 2 and "imperfect" in document:
            document = {("remainders" if key == "imperfect" else key): value for key, value in document.items()}
    return version if type(version) is int else SCHEMA, validated(Provenance, document, f"{path}: header")


def _fill_leakage(rows: list[Row]) -> None:
    """Leakage of a table of schema 1: what the energies of the levels leave of ``e_tx_pj``, unless it has no levels."""
    columns = energy_columns(rows)
    for row in rows:
        if row["status"] == "ok" and row["leakage_pj"] is None:
            rest = row["e_tx_pj"] - math.fsum(row.get(column.name) or 0.0 for column in columns) if columns else 0.0
            row["leakage_pj"] = rest if rest > _NEGLIGIBLE * row["e_tx_pj"] else 0.0


def _off_chip_by_sums(table: CostTable) -> frozenset[str]:
    """The outermost levels whose energy is the difference between all and on-chip transmission in every row.

    Empty where no such levels exist, as in a table without the columns of levels.
    """
    columns = energy_columns(table.rows)
    levels = list(dict.fromkeys(column.level for column in columns))
    mapped = [row for row in table.rows if row["status"] == "ok"]
    for first in range(len(levels) - 1, -1, -1):
        outer = [column for column in columns if column.level in levels[first:]]
        if mapped and all(_is_difference(row, outer) for row in mapped):
            return frozenset(levels[first:])
    return frozenset()


def _is_difference(row: Row, columns: list[LevelColumn]) -> bool:
    moved = math.fsum(float(row.get(column.name) or 0.0) for column in columns)
    everything, on_chip = float(row["e_tx_pj"]), float(row["e_tx_on_chip_pj"])
    return abs(moved - (everything - on_chip)) <= _NEGLIGIBLE * everything


def _typed(row: Row, where: str, schema_1: bool) -> Row:
    """A row with converted cells; only costs and accesses may be empty, where there is no mapping or no access."""
    for column in COLUMNS:
        if column not in row:
            raise InputError(where, f"column {column!r} is missing")
    if row["status"] not in STATUS:
        raise InputError(f"{where}: status", f"found {shown(row['status'])}", STATUS)
    typed: Row = {}
    for column, value in row.items():
        level = LevelColumn.parse(column)
        kind = COLUMNS.get(column) or (float if level and level.quantity == "energy_pj" else int)
        empty = value is None or (value == "" and (kind is not str or column in DESCRIPTION))
        needed = column not in DESCRIPTION and (row["status"] == "ok" or column not in COSTS)
        if empty and column in COLUMNS and needed and not (schema_1 and column == "leakage_pj"):
            raise InputError(f"{where}: {column}", "is empty", kind.__name__)
        typed[column] = None if empty else convert(value, kind, f"{where}: {column}")
    check_described(typed["kind"], typed["shape"], where)
    return typed
