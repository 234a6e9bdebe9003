"""The best assignments of a trained network on every accelerator of a sweep, and the front over both.

Sensitivities are of the network, energies of the chip: measured once, they serve every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse.core.errors import InputError
from dse.sweep.sweep_table import SweepTable
from dse.table.columns import Row
from dse.table.rows import write_rows
from search.knapsack import Front, front
from search.sensitivity.sensitivities import FloatArray, Sensitivities


@dataclass(frozen=True)
class Assigned:
    """The assignment of least predicted loss of one architecture within an energy.

    Attributes:
        point: number of the architecture in the sweep, from 1.
        energy: share of `Architectures.unit_pj`.
        increase: predicted increase of the loss over the reference, in nats.
        assignment: layer -> candidate.
    """

    point: int
    energy: float
    increase: float
    assignment: Mapping[str, str]


@dataclass(frozen=True)
class Architectures:
    """The fronts of all architectures of a sweep.

    Attributes:
        sensitivities: of the network.
        unit_pj: energy of the network with the reference in all layers, on the architecture where it is least. All
            energies are shares of it, so that architectures are compared at equal energies.
        unit_point: number of this architecture.
        fronts: point of the sweep -> its front; architectures that cannot map some layer are missing.
    """

    sensitivities: Sensitivities
    unit_pj: float
    unit_point: int
    fronts: Mapping[int, Front]

    def within(self, budget: float) -> dict[int, Assigned]:
        """For each architecture that can meet the budget, its assignment of least predicted loss."""
        found = {}
        for point, own in self.fronts.items():
            index = int(np.searchsorted(own.costs, budget * (1 + 1e-9), side="right")) - 1
            if index >= 0:
                found[point] = self._assigned(point, index)
        return found

    def best(self, budget: float) -> Assigned:
        """Architecture and assignment of the least predicted loss; among equal losses that of the least energy.

        Raises:
            InputError: a budget that no architecture can meet; it names the smallest possible one.
        """
        found = self.within(budget)
        if not found:
            least = min(float(own.costs[0]) for own in self.fronts.values())
            smallest = np.ceil(least * 1e4) / 1e4
            raise InputError("--budget", f"{budget:g} is below the cheapest assignment", f"at least {smallest:g}")
        return min(found.values(), key=lambda a: (a.increase, a.energy, a.point))

    def front(self) -> list[Assigned]:
        """The Pareto front of energy and predicted loss over architectures and assignments, cheapest first."""
        every = [
            (float(cost), float(value), point, i)
            for point, own in self.fronts.items()
            for i, (cost, value) in enumerate(zip(own.costs, own.values, strict=True))
        ]
        kept, least = [], np.inf
        for _, value, point, i in sorted(every):
            if value < least:
                least = value
                kept.append(self._assigned(point, i))
        return kept

    def save_front(self, path: Path) -> None:
        """Writes `front` as CSV, Parquet or JSON, by the file's suffix: point, energies, increase, a column a layer."""
        rows: list[Row] = [
            {"point": a.point, "energy": a.energy, "energy_pj": a.energy * self.unit_pj,
             "predicted_loss_increase": a.increase, **a.assignment}
            for a in self.front()
        ]  # fmt: skip
        write_rows(rows, list(rows[0]), path)

    def _assigned(self, point: int, index: int) -> Assigned:
        own = self.fronts[point]
        names = self.sensitivities.assignment([int(i) for i in own.choices[index]])
        return Assigned(point, float(own.costs[index]), float(own.values[index]), names)


def architectures(sensitivities: Sensitivities, sweep: SweepTable) -> Architectures:
    """The front of every architecture of a sweep: energy against the predicted increase of the loss.

    Args:
        sensitivities: of a network with the layers of the sweep's workload.
        sweep: with every candidate of the sensitivities.

    Raises:
        InputError: layers or candidates that only one of both has; no architecture can map the reference everywhere.
    """
    wanted = sensitivities.candidates
    for name in wanted:
        if name not in sweep.candidates:
            raise InputError("--sensitivities", f"candidate {name!r} is not in the sweep", sweep.candidates)
    costs = {point.number: _energies(sweep, point.number) for point in sweep.points}
    reference = sweep.candidates.index(sensitivities.reference)
    totals = {point: float(c[:, reference].sum()) for point, c in costs.items()}
    unit_point = min(totals, key=lambda point: totals[point], default=None)
    if unit_point is None or not np.isfinite(totals[unit_point]):
        raise InputError("--sensitivities", f"no point of the sweep can map {sensitivities.reference} in all layers")
    fronts, increases = {}, sensitivities.increases()
    for point, energies in costs.items():
        own = sensitivities.costs(energies / totals[unit_point], sweep.layers, sweep.candidates)
        if all(np.isfinite(layer).any() for layer in own):
            fronts[point] = front(increases, own)
    return Architectures(sensitivities, totals[unit_point], unit_point, fronts)


def _energies(sweep: SweepTable, point: int) -> FloatArray:
    """pJ of each layer and candidate at a point, inf where there is no mapping."""
    rows = [[sweep.energy_pj(point, layer, name) for name in sweep.candidates] for layer in sweep.layers]
    return np.array([[np.inf if energy is None else energy for energy in row] for row in rows])
