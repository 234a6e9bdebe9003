"""Sensitivities and the front for a network in a training loop of one's own."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.workload.networks import Network
from search import assignment_front, searchable, sensitivities
from search.costs import share
from search.sensitivity.sensitivities import Sensitivities
from search.supernet import SearchableNetwork
from tests.search.conftest import synthetic_table


class Net(nn.Module):
    """Two layers, of which one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.mix(torch.relu(self.conv(x))))
        return self.fc(torch.relu(self.mix(y)).mean((2, 3)))


def made(**options: Any) -> tuple[SearchableNetwork, CostTable]:
    torch.manual_seed(0)
    network = Net()
    table = synthetic_table(Network("net", network, (1, 1, 6, 6)))
    return searchable(network, table, **options), table


def images(n: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.arange(n) % 3


def test_a_sensitivity_is_the_loss_with_one_layer_changed() -> None:
    model, table = made(candidates=["T8", "T2"])
    before = copy.deepcopy(model.state_dict())
    x, y = images(200)  # one batch, whose statistics are those of the scales
    found = sensitivities(model, x, y)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    for layer, candidate in itertools.product(("conv", "mix", "fc"), ("T8", "T2")):
        assignment = {row: candidate if row.split("#")[0] == layer else "T8" for row in table.layers}
        fixed = model.discretise(assignment)
        with torch.no_grad():
            expected = float(functional.cross_entropy(fixed(x), y))  # a fresh network takes the scales of its batch
        i, j = found.layers.index(layer), found.candidates.index(candidate)
        assert found.losses[i, j] == pytest.approx(expected, rel=1e-3)
    assert found.increases()[0].max() > 1e-4


def test_loss_and_metric_may_be_ones_own() -> None:
    model, _ = made(candidates=["T8", "T2"])
    x, y = images()
    found = sensitivities(
        model,
        x,
        y,
        loss=lambda outputs, targets: 7 + 0 * outputs.sum(),
        metric=lambda outputs, targets: torch.ones(()) / 4,
    )
    assert np.allclose(found.losses, 7) and np.allclose(found.accuracies, 0.25)


def test_the_front_has_the_best_assignment_for_every_budget() -> None:
    model, table = made(candidates=["T8", "T4", "BC2"], transmission="on_chip", pins={"fc": "T8"})
    found = sensitivities(model, *images())
    front = assignment_front(model, found)
    choices = []
    for names in itertools.product(("T8", "T4", "BC2"), repeat=2):
        assignment = {"conv": names[0], "mix": names[1], "mix#2": names[1], "fc": "T8"}
        loss = sum(row[i] for row, i in zip(found.increases(), found.choice(assignment), strict=True))
        choices.append((share(table, assignment, "energy", "on_chip"), float(loss)))
    for i in range(len(front)):
        own = front.assignment(i)
        assert share(table, own, "energy", "on_chip") == pytest.approx(front.costs[i])
        assert own["fc"] == "T8" and own["mix"] == own["mix#2"]
    for budget in np.linspace(front.costs[0], 1.0, 23):
        best = min(loss for cost, loss in choices if cost <= budget - front._front.tolerance or cost == front.costs[0])
        own = front.within(float(budget))
        assert share(table, own, "energy", "on_chip") <= budget * (1 + 1e-9)
        assert sum(row[i] for row, i in zip(found.increases(), found.choice(own), strict=True)) <= best + 1e-9
    model.discretise(front.within(0.6))


def test_the_front_of_cycles_has_the_costs_of_cycles() -> None:
    model, table = made()
    front = assignment_front(model, sensitivities(model, *images()), "latency")
    assert front.costs[-1] == pytest.approx(share(table, front.assignment(-1), "latency"))
    assert len(front) == 1, "all candidates of the synthetic table take as long"


@pytest.mark.parametrize(
    ("budget", "problem"),
    [
        (0.01, r"energy budget: 0.01 is below the cheapest assignment \(allowed: at least 0.\d+\)"),
        (True, r"energy budget: found True \(allowed: a number above 0\)"),
        (float("nan"), "energy budget: found nan"),
        ("0.4", "energy budget: found '0.4'"),
    ],
)
def test_a_wrong_budget_is_one_line(budget: Any, problem: str) -> None:
    model, _ = made()
    front = assignment_front(model, sensitivities(model, *images(64)))
    with pytest.raises(InputError, match=problem):
        front.within(budget)


def test_wrong_images_are_one_line() -> None:
    model, _ = made()
    x, y = images(64)
    for inputs, targets, problem in ((x[:0], y[:0], "inputs: are empty"), (x, y[:9], "targets: are 9 for 64 inputs")):
        with pytest.raises(InputError, match=problem):
            sensitivities(model, inputs, targets)
    with pytest.raises(InputError, match="reference: unknown candidate 'T9'"):
        sensitivities(model, x, y, reference="T9")


def test_sensitivities_of_another_network_are_refused() -> None:
    model, _ = made()
    few, _ = made(candidates=["T8", "T4"])
    of_few = sensitivities(few, *images(64))
    with pytest.raises(InputError, match=r"sensitivities: unknown candidate 'T2' \(allowed: T8, T4\)"):
        assignment_front(model, of_few)
    other = Sensitivities("x", "T8", 1.0, 0.5, ("conv", "fc"), ("T8", "T4"), of_few.losses[:2], of_few.accuracies[:2],
                          {"conv": "conv", "fc": "fc"}, 64)  # fmt: skip
    with pytest.raises(InputError, match=r"sensitivities: do not fit the network in mix \(allowed: conv, mix, fc\)"):
        assignment_front(few, other)
