"""Networks with more than layers of weights: lookups are not measured and count as T8, products of activations are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.workload.inputs import parse_input, tensors
from dse.workload.networks import Network
from search.costs import share, shares
from search.data.sets import Dataset, Split
from search.layers.mixed_layer import MixedLayer
from search.layers.mixed_product import Operand
from search.networks.vit import Attention
from search.sensitivity.correct import correct, uniform_choices
from search.sensitivity.own_loop import assignment_front, sensitivities
from search.sensitivity.sensitivities import Sensitivities
from search.sensitivity.study import Settings, Study
from search.supernet import SearchableNetwork, searchable, uniform
from tests.search.conftest import synthetic_table


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention, self.head = nn.Embedding(9, 8), Attention(8, 2), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(self.attention(self.words(ids)).mean(1))
        return result


@pytest.fixture
def model() -> SearchableNetwork:
    torch.manual_seed(0)
    network = Reader()
    table = synthetic_table(Network("reader", network, (), tensors([parse_input("2,5:int64")])))
    return searchable(network, table)


IDS = torch.randint(9, (40, 5), generator=torch.Generator().manual_seed(0))
CONSTANT = {"words": "T8"}
PRODUCTS = ("attention.matmul_1", "attention.matmul_2")


def test_what_is_not_measured_has_the_reference_and_costs_what_it_costs(
    model: SearchableNetwork, tmp_path: Path
) -> None:
    before = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    found = sensitivities(model, IDS, IDS.sum(1) % 3)
    assert found.layers == ("attention.qkv", *PRODUCTS, "attention.proj", "head") and found.constant == CONSTANT
    assert [choice.fixed for choice, _ in model.choices()] == [None] * 6
    assert all(before[name].equal(value) for name, value in model.state_dict().items() if name in before)
    front = assignment_front(model, found)
    table = synthetic_table(Network("reader", Reader(), (), tensors([parse_input("2,5:int64")])))
    for i in range(len(front)):
        chosen = front.assignment(i)
        assert chosen == chosen | CONSTANT
        assert front.costs[i] == pytest.approx(share(table, chosen))
        assert model.discretise(chosen)(IDS[:2]).isfinite().all()
    found.save(tmp_path / "s.json")
    again = Sensitivities.load(tmp_path / "s.json")
    assert again.constant == CONSTANT
    text = (tmp_path / "s.json").read_text()
    (tmp_path / "s.json").write_text(text.replace('"words": "T8"', '"words": "T9"'))
    with pytest.raises(InputError, match=r"s.json: constant.words: found 'T9'"):
        Sensitivities.load(tmp_path / "s.json")


@pytest.mark.parametrize("changed", [None, *((name, c) for name in PRODUCTS for c in ("T4", "T2"))])
def test_losses_are_those_of_the_network_with_one_product_changed(
    model: SearchableNetwork, changed: tuple[str, str] | None
) -> None:
    # A mixture of T8, T4 and T2 would be measured if products were left undecided.
    labels = IDS.sum(1) % 3
    found = sensitivities(model, IDS, labels)
    assignment = dict.fromkeys(model.assignment(), "T8") | ({} if changed is None else dict([changed]))
    fixed = model.discretise(assignment)
    fixed.eval()(IDS)  # decides the signs of inputs
    for module in fixed.modules():
        if isinstance(module, MixedLayer | Operand):  # statistics of the batch
            module.scale.momentum = 1.0
            module.scale.train()
            module.training = isinstance(module, Operand)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(fixed(IDS), labels)
    measured = found.reference_loss
    if changed is not None:
        measured = float(found.losses[found.layers.index(changed[0]), found.candidates.index(changed[1])])
        assert measured != found.reference_loss
    assert measured == pytest.approx(float(loss), rel=1e-5)


def test_products_have_typical_candidates_only(model: SearchableNetwork) -> None:
    found = sensitivities(model, IDS, IDS.sum(1) % 3)
    of_product = found.losses[found.layers.index(PRODUCTS[0])]
    assert [c for c, loss in zip(found.candidates, of_product, strict=True) if np.isfinite(loss)] == ["T8", "T4", "T2"]


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_assignments_choose_products_too(model: SearchableNetwork, tmp_path: Path, budget: float) -> None:
    split = Split(IDS, IDS.sum(1) % 3)
    settings = Settings(images=40, calibration_steps=2, corrections=8)
    study = Study(model, Dataset(split, split, split, 3, None), settings, tmp_path)
    found = study.sensitivities
    table = synthetic_table(Network("reader", Reader(), (), tensors([parse_input("2,5:int64")])))
    costs = found.costs(shares(table, "energy", "all"), table.layers, table.candidates)
    measurements = study.measurements(costs)
    uniforms = uniform_choices(measurements.costs, measurements.uniform)
    named = {found.candidates[j]: found.assignment(choice) for j, choice in uniforms.items()}
    # As the baselines of a run are.
    assert named == {name: uniform(table, name) | CONSTANT for name in table.candidates}
    best = correct(measurements, budget, settings.corrections)
    assert best.cost <= budget and best.cost == pytest.approx(share(table, found.assignment(best.choice)))
    for candidate, assignment in named.items():
        if share(table, assignment) <= budget:
            assert best.loss <= measurements(uniforms[found.candidates.index(candidate)]).loss
    if budget == 0.3:  # below what it costs with both products at T8
        assert {found.assignment(best.choice)[name] for name in PRODUCTS} <= {"T4", "T2"}
