"""Where the energy of a network goes: by level of the hardware, tensor and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.core.errors import InputError, unknown
from dse.table.columns import LevelColumn, energy_columns
from dse.table.cost_table import CostTable


@dataclass(frozen=True)
class Breakdown:
    """Energies in pJ of each layer of a network; None where a layer has no mapping.

    `levels[column][i]` is what a level of the hardware needs for a tensor in layer i, innermost level first.
    """

    layers: tuple[str, ...]
    candidates: tuple[str, ...]
    compute: tuple[float | None, ...]
    levels: dict[LevelColumn, tuple[float | None, ...]]
    leakage: tuple[float | None, ...]

    @property
    def parts(self) -> dict[str, tuple[float, ...]]:
        """Compute, then each level over all its tensors, then leakage where there is any; 0 without a mapping."""
        parts = {"compute": tuple(pj or 0.0 for pj in self.compute)}
        for column, energies in self.levels.items():
            sums = parts.get(column.level, (0.0,) * len(self.layers))
            parts[column.level] = tuple(pj + (more or 0.0) for pj, more in zip(sums, energies, strict=True))
        leakage = tuple(pj or 0.0 for pj in self.leakage)
        return {**parts, "leakage": leakage} if any(leakage) else parts


def breakdown(table: CostTable, assignment: Mapping[str, str] | str) -> Breakdown:
    """The breakdown of a network under an assignment (layer -> candidate), or with one candidate in all layers.

    Raises:
        InputError: a candidate that the table does not have, or a table without the columns of levels.
    """
    if isinstance(assignment, str):
        assignment = dict.fromkeys(table.layers, assignment)
    for candidate in assignment.values():
        if candidate not in table.candidates:
            raise unknown("candidate", "candidate", candidate, table.candidates)
    columns = energy_columns(table.rows)
    if not columns:
        raise InputError("table", "has no columns of levels and tensors", hint="take a table with its breakdown")
    rows = [table.row(layer, assignment[layer]) for layer in table.layers]
    mapped = [row["status"] == "ok" for row in rows]

    def energies(column: str) -> tuple[float | None, ...]:
        return tuple((row.get(column) or 0.0) if ok else None for row, ok in zip(rows, mapped, strict=True))

    return Breakdown(
        layers=table.layers,
        candidates=tuple(assignment[layer] for layer in table.layers),
        compute=energies("e_compute_pj"),
        levels={column: energies(column.name) for column in columns},
        leakage=energies("leakage_pj"),
    )
