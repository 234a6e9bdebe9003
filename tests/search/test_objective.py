from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.workload.networks import Network
from search.costs import expected_share, share
from search.data.datasets import digits
from search.objective import STRIDE, EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.supernet import SearchableNetwork, searchable


class Four(nn.Module):
    """Layers of different size, so that energy can be moved between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a, self.b, self.c):
            x = functional.relu(layer(x))
        return self.fc(x.flatten(1))


@pytest.fixture
def table(make_table: Any) -> CostTable:  # type: ignore[no-untyped-def]
    """Cycles fall with the precision, as with subword parallelism."""
    rows = make_table(Network("four", Four(), (1, 1, 8, 8))).rows
    return CostTable(tuple({**row, "cycles": row["cycles"] * row["bits"]} for row in rows))


def train(model: SearchableNetwork, regulariser: Regulariser, steps: int, scale: float = 1.0) -> None:
    """A user's own loop, on real digits: alpha and theta together."""
    split = digits(subset=400).train
    optimisers = [torch.optim.Adam(model.alphas(), lr=0.05), torch.optim.Adam(model.thetas(), lr=0.01)]
    for step in range(steps):
        chosen = torch.arange(step * 32, step * 32 + 32) % len(split)
        task = functional.cross_entropy(model(split.images[chosen]), split.labels[chosen])
        for optimiser in optimisers:
            optimiser.zero_grad()
        (scale * task + regulariser(model)).backward()
        for optimiser in optimisers:
            optimiser.step()
        regulariser.update(model)


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_expected_energy_is_held_at_the_budget_and_the_decided_network_meets_it(
    table: CostTable, budget: float
) -> None:
    torch.manual_seed(0)
    model = searchable(Four(), table, pins={"fc": "T8"})
    train(model, EnergyBudget(budget), 30)
    assert model.energy().item() == pytest.approx(budget, rel=1e-3)
    decided = share(table, model.assignment(budget))
    assert 0.98 * budget <= decided <= budget
    assert expected_share(table, model.probabilities()) == pytest.approx(budget, rel=1e-3)


def test_assignments_and_samples_are_those_that_the_regulariser_allows(table: CostTable) -> None:
    model, generator = searchable(Four(), table), torch.Generator().manual_seed(0)
    assert WeightedEnergy(1.0).assignment(model) == model.assignment()
    for found in (EnergyBudget(0.4).assignment(model), EnergyBudget(0.4).sample(model, generator)):
        assert 0.98 * 0.4 <= share(table, found) <= 0.4
    drawn = [share(table, WeightedEnergy(1.0).sample(model, generator)) for _ in range(10)]
    assert max(drawn) - min(drawn) > 0.05
    found = LatencyBudget(0.4).sample(model, generator)
    assert 0.98 * 0.4 <= share(table, found, "latency") <= 0.4


def test_a_latency_budget_holds_the_cycles(table: CostTable) -> None:
    torch.manual_seed(0)
    model = searchable(Four(), table)
    train(model, LatencyBudget(0.4), 30)
    assert model.latency().item() == pytest.approx(0.4, rel=1e-3)
    decided = share(table, model.assignment(0.4, "latency"), "latency")
    assert 0.98 * 0.4 <= decided <= 0.4


def test_energy_counts_beside_a_latency_budget(table: CostTable) -> None:
    """Of operators that take as long, the cheaper are preferred the more, the larger their weight."""
    model = searchable(Four(), table)
    assert LatencyBudget(0.4)(model).item() == 0
    assert LatencyBudget(0.4, 0.5)(model).item() == pytest.approx(0.5 * model.energy().item())
    energies = []
    for weight in (0.0, 0.3, 3.0):
        torch.manual_seed(0)
        model = searchable(Four(), table)
        train(model, LatencyBudget(0.4, weight), 30)
        assert model.latency().item() < 0.4 * (1 + 1e-3)
        energies.append(model.energy().item())
    assert energies[0] > energies[1] > energies[2]


@pytest.mark.parametrize("weight", [0.0, 0.3, 30.0])
def test_with_a_weight_of_energy_a_latency_budget_is_an_upper_bound(table: CostTable, weight: float) -> None:
    """As in the constrained optimum that can be computed: the multiplier is positive, or 0 where cycles are left."""
    model = searchable(Four(), table)
    task, regulariser = Preferences(model, seed=1), LatencyBudget(0.4, weight)
    optimiser = torch.optim.Adam(model.alphas(), lr=0.05)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        optimiser.zero_grad()
        (task(model) + regulariser(model)).backward()
        optimiser.step()
        regulariser.update(model)
    found = share(table, regulariser.assignment(model), "latency")
    if weight == 30.0:
        assert model.latency().item() < 0.3 and found < 0.3 and regulariser.lam < 1e-3
        assert regulariser.assignment(model) == model.assignment()
    else:
        energies = [weight * costs for _, costs in model.choices()]
        task.losses = [r + torch.as_tensor(e) for r, e in zip(task.losses, energies, strict=True)]
        lam, p = task.solution([costs for _, costs in model.choices("latency")], 0.4)
        assert lam > 0 and regulariser.lam == pytest.approx(lam, rel=0.05)
        for (layer, _), best in zip(model.choices(), p, strict=True):
            np.testing.assert_allclose(layer.probabilities().detach().numpy(), best, atol=0.02)
        assert found <= 0.4
    generator = torch.Generator().manual_seed(0)
    assert share(table, regulariser.sample(model, generator), "latency") <= 0.4


class Preferences(nn.Module):
    """Stands for the accuracy loss where its solution under a budget can be computed: sum of p * losses, + entropy."""

    def __init__(self, model: SearchableNetwork, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.losses = [torch.rand(len(alpha), generator=generator) for alpha in model.alphas()]

    def forward(self, model: SearchableNetwork) -> torch.Tensor:
        terms = [(a.softmax(0) * (r + 0.3 * a.log_softmax(0))).sum()
                 for a, r in zip(model.alphas(), self.losses, strict=True)]  # fmt: skip
        return torch.stack(terms).sum()

    def solution(self, costs: list[np.ndarray], budget: float) -> tuple[float, list[np.ndarray]]:
        """Lambda and p of the constrained optimum: p ~ exp(-(losses + lambda * cost) / 0.3), by bisection."""
        low, high = -100.0, 100.0
        for _ in range(100):
            lam = (low + high) / 2
            p = [np.exp(-(r.double().numpy() + lam * c) / 0.3) for r, c in zip(self.losses, costs, strict=True)]
            p = [row / row.sum() for row in p]
            spent = sum(float((row * c).sum()) for row, c in zip(p, costs, strict=True))
            low, high = (lam, high) if spent > budget else (low, lam)
        return lam, p


@pytest.mark.parametrize(("budget", "scale"), [(0.35, 0.01), (0.35, 100.0), (0.7, 1.0)])
def test_lambda_is_found_whatever_the_scale_of_the_loss(table: CostTable, budget: float, scale: float) -> None:
    model = searchable(Four(), table)
    task, regulariser = Preferences(model, seed=1), EnergyBudget(budget)
    optimiser = torch.optim.Adam(model.alphas(), lr=0.05)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        optimiser.zero_grad()
        (scale * task(model) + regulariser(model)).backward()
        optimiser.step()
        regulariser.update(model)
    lam, p = task.solution([costs for _, costs in model.choices()], budget)
    assert regulariser.lam == pytest.approx(scale * lam, rel=0.02)
    for (layer, _), best in zip(model.choices(), p, strict=True):
        np.testing.assert_allclose(layer.probabilities().detach().numpy(), best, atol=0.01)


def test_the_first_steps_go_towards_the_budget_without_leaping(table: CostTable) -> None:
    model = searchable(Four(), table)
    before = model.energy().item()
    regulariser = EnergyBudget(0.26)
    regulariser.update(model)
    assert model.energy().item() == pytest.approx(before - STRIDE)
    for _ in range(20):
        regulariser.update(model)
    assert model.energy().item() == pytest.approx(0.26, rel=1e-4)


def test_a_budget_that_nothing_exceeds_changes_nothing(table: CostTable) -> None:
    model = searchable(Four(), table)
    regulariser = EnergyBudget(1.0)
    regulariser(model).backward()
    regulariser.update(model)
    assert all(not alpha.any() for alpha in model.alphas())
    assert regulariser.lam == 0


def test_pinned_and_fixed_layers_count_and_stay(table: CostTable) -> None:
    model = searchable(Four(), table, pins={"first": "T8"})
    model.fix("b", "BC2")
    regulariser = EnergyBudget(0.5)
    for _ in range(20):
        regulariser.update(model)
    assert model.energy().item() == pytest.approx(0.5, rel=1e-3)
    found = model.assignment(0.5)
    assert (found["a"], found["b"]) == ("T8", "BC2")
    assert 0.49 <= share(table, found) <= 0.5


def test_an_impossible_budget_is_refused_with_the_smallest_possible_one(table: CostTable) -> None:
    model = searchable(Four(), table)
    for refused in (lambda: EnergyBudget(0.2).update(model), lambda: model.assignment(0.2),
                    lambda: model.check_budget(0.2)):  # fmt: skip
        with pytest.raises(InputError, match=r"^energy budget: 0.2 is below the cheapest .*at least 0.25\)"):
            refused()
    with pytest.raises(InputError, match=r"^latency budget: 0.2 is below the cheapest"):
        LatencyBudget(0.2).update(model)


def test_a_budgets_state_is_kept(table: CostTable) -> None:
    torch.manual_seed(0)
    model, regulariser = searchable(Four(), table), EnergyBudget(0.4)
    train(model, regulariser, 5)
    other = EnergyBudget(0.4)
    other.load_state_dict(regulariser.state_dict())
    assert regulariser.lam != 0
    assert other.report(model) == regulariser.report(model)
    assert set(other.report(model)) == {"energy", "latency", "lambda"}


def test_latency_is_a_second_term(table: CostTable) -> None:
    model = searchable(Four(), table)
    energy, latency = model.energy().item(), model.latency().item()
    assert WeightedEnergy(0.5)(model).item() == pytest.approx(0.5 * energy)
    assert WeightedEnergy(0.5, 2.0)(model).item() == pytest.approx(0.5 * energy + 2 * latency)
    WeightedEnergy(0.0, 1.0)(model).backward()
    for layer, _ in model.choices():
        assert layer.alpha is not None and layer.alpha.grad is not None
        names = [c.name for c in layer.candidates]
        assert {names[i] for i in layer.alpha.grad.topk(3).indices} == {"T8", "MF8", "BC8"}  # most cycles
