"""Assignments on every architecture of a sweep, against all assignments on all of them."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dse.core.errors import InputError
from dse.sweep.axes import Point
from dse.sweep.sweep_table import SweepTable
from dse.table.columns import Row
from search.sensitivity.architectures import architectures
from search.sensitivity.sensitivities import Sensitivities

NAMES = ("T8", "T4", "BC2")
LAYERS = ("a", "b", "c")


@dataclass(frozen=True)
class Random:
    """Losses (layers, candidates), energies in pJ (points, layers, candidates); inf where there is no mapping."""

    sensitivities: Sensitivities
    energies: np.ndarray

    @property
    def sweep(self) -> SweepTable:
        points = tuple(Point(i + 1, (i,), {"glb.depth": 2**i}) for i in range(len(self.energies)))
        rows: list[Row] = []
        summary: list[Row] = []
        for p, layers in zip(points, self.energies, strict=True):
            for layer, energies in zip(LAYERS, layers, strict=True):
                for name, energy in zip(NAMES, energies, strict=True):
                    ok = np.isfinite(energy)
                    costs = {"e_compute_pj": 0.25 * energy, "e_tx_pj": 0.75 * energy} if ok else {}
                    status = "ok" if ok else "no_mapping"
                    rows.append({"point": p.number, "layer": layer, "candidate": name, "status": status, **costs})
            summary += [{"point": p.number, "candidate": name} for name in NAMES]
        return SweepTable("net", (), points, tuple(rows), tuple(summary))

    def every(self, unit: float) -> list[tuple[float, float, int]]:
        """Energy as a share of `unit`, increase of the loss and point of every assignment on every architecture."""
        increases = np.maximum(self.sensitivities.losses - self.sensitivities.reference_loss, 0)
        found = []
        for point, energies in enumerate(self.energies, 1):
            for choice in itertools.product(range(len(NAMES)), repeat=len(LAYERS)):
                energy = sum(energies[i, c] for i, c in enumerate(choice))
                if np.isfinite(energy):
                    found.append((energy / unit, float(sum(increases[i, c] for i, c in enumerate(choice))), point))
        return found


def random_case(seed: int) -> Random:
    rng = np.random.default_rng(seed)
    losses = np.column_stack([np.ones(3), 1 + rng.uniform(0, 0.5, 3), 1 + rng.uniform(0, 2, 3)])
    measured = Sensitivities("net", "T8", 1.0, 0.9, LAYERS, NAMES, losses, np.full((3, 3), 0.5),
                             {layer: layer for layer in LAYERS}, 100)  # fmt: skip
    energies = rng.uniform(1, 2, (3, 3, 1)) * np.array([8.0, 4.0, 2.0]) * rng.uniform(0.8, 1.2, (3, 3, 3))
    if seed % 2:
        energies[rng.integers(3), rng.integers(3), 1 + rng.integers(2)] = np.inf
    return Random(measured, energies)


@pytest.mark.parametrize("seed", range(20))
def test_budgets_and_front_are_those_of_every_assignment(seed: int) -> None:
    case = random_case(seed)
    found = architectures(case.sensitivities, case.sweep)
    totals = case.energies[:, :, 0].sum(1)
    assert found.unit_pj == pytest.approx(totals.min()) and found.unit_point == 1 + int(totals.argmin())
    every = case.every(found.unit_pj)
    for budget in (0.4, 0.6, 0.8, 1.0, 2.0):
        for point, assigned in found.within(budget).items():
            best = min(value for energy, value, p in every if p == point and energy <= budget)
            assert assigned.energy <= budget * (1 + 1e-9)
            # The steps of the front decide between assignments that cost nearly the whole budget.
            slack = 3 * found.fronts[point].tolerance
            inside = [value for energy, value, p in every if p == point and energy <= budget - slack]
            assert best - 1e-9 <= assigned.increase <= min(inside, default=np.inf) + 1e-9
    joint = found.front()
    assert all(x.energy < y.energy and x.increase > y.increase for x, y in itertools.pairwise(joint))
    for energy, value, _ in every:
        assert any(a.energy <= energy + 1e-3 and a.increase <= value + 1e-9 for a in joint)
    for a in joint:
        costs = [case.energies[a.point - 1, i, NAMES.index(a.assignment[layer])] for i, layer in enumerate(LAYERS)]
        assert sum(costs) / found.unit_pj == pytest.approx(a.energy)


def test_the_best_of_a_budget_is_the_best_of_all_points() -> None:
    found = architectures(random_case(3).sensitivities, random_case(3).sweep)
    assert found.best(0.6).increase == min(a.increase for a in found.within(0.6).values())
    with pytest.raises(InputError, match=r"--budget: 0.01 is below the cheapest assignment \(allowed: at least 0\.\d+"):
        found.best(0.01)


def test_the_front_is_written(tmp_path: Path) -> None:
    found = architectures(random_case(4).sensitivities, random_case(4).sweep)
    found.save_front(tmp_path / "front.csv")
    with (tmp_path / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["energy"]) for row in rows] == pytest.approx([a.energy for a in found.front()])
    assert list(rows[0]) == ["point", "energy", "energy_pj", "predicted_loss_increase", *LAYERS]


def test_a_point_that_cannot_map_the_reference_is_not_the_unit() -> None:
    case = random_case(0)
    case.energies[:2, 1, 0] = np.inf
    assert architectures(case.sensitivities, case.sweep).unit_point == 3
    case.energies[2, 0, 0] = np.inf
    with pytest.raises(InputError, match="no point of the sweep can map T8 in all layers"):
        architectures(case.sensitivities, case.sweep)
