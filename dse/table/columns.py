"""The columns of a cost table: the fixed ones, and ``<level>.<tensor>.<quantity>``, which only this module parses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

COLUMNS: dict[str, type] = {
    "workload": str,
    "layer": str,
    "kind": str,  # conv, linear, matmul ...; empty in tables of schemas that had no such column
    "shape": str,  # dse.table.shapes; empty likewise
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
    "leakage_pj": float,
    "cycles": int,
    "utilisation": float,
    "engine": str,
    "optimal": bool,
    "mapping": str,
}
"""The fixed columns and their types. After them, for each level and tensor that the hardware keeps:
``<level>.<tensor>.<reads|fills|updates|energy_pj>`` (accesses in words over all instances, energies in pJ). ``e_tx_pj``
is the sum of these energies and of ``leakage_pj``."""

STATUS = ("ok", "no_mapping")

DESCRIPTION = ("kind", "shape")
"""Columns that tables have since schema 4; they are empty in an older table that was read and written again."""

COSTS = ("e_compute_pj", "e_tx_pj", "e_tx_on_chip_pj", "leakage_pj", "cycles", "utilisation", "optimal")
"""Columns that are empty where there is no mapping."""

QUANTITIES = ("reads", "fills", "updates", "energy_pj")


@dataclass(frozen=True)
class LevelColumn:
    """A column of what a level of the hardware does for a tensor.

    Example:
        >>> LevelColumn("glb", "Inputs", "reads").name
        'glb.Inputs.reads'
        >>> LevelColumn.parse("pe.spad.Weights.energy_pj")
        LevelColumn(level='pe.spad', tensor='Weights', quantity='energy_pj')
    """

    level: str
    tensor: str
    quantity: str

    @property
    def name(self) -> str:
        return f"{self.level}.{self.tensor}.{self.quantity}"

    @staticmethod
    def parse(name: object) -> LevelColumn | None:
        """The column of this name; None if it is not one of a level and a tensor. A level's name may have dots."""
        level, _, rest = name.rpartition(".")[0].rpartition(".") if isinstance(name, str) else ("", "", "")
        quantity = str(name).rpartition(".")[2]
        return LevelColumn(level, rest, quantity) if level and rest and quantity in QUANTITIES else None


def energy_columns(rows: Iterable[Row]) -> tuple[LevelColumn, ...]:
    """The columns of levels' energies that any of the rows has, innermost level first."""
    names = dict.fromkeys(name for row in rows for name in row)
    parsed = (LevelColumn.parse(name) for name in names)
    return tuple(column for column in parsed if column is not None and column.quantity == "energy_pj")
