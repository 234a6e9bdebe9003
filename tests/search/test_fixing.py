"""Layers that are decided while others are still searched, and layers that compute a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.supernet import SearchableNetwork, searchable, uniform
from tests.search.conftest import RELATIVE
from tests.search.tiny import tiny

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def table(make_table: Any) -> CostTable:  # type: ignore[no-untyped-def]
    return make_table(tiny())


@pytest.fixture
def model(table: CostTable) -> SearchableNetwork:
    torch.manual_seed(0)
    return searchable(tiny().module, table).eval()


def test_a_fixed_layer_computes_its_candidate_and_learns_alpha_no_more(model: SearchableNetwork) -> None:
    model(X)  # the first batch sets the scales
    whole = model.discretise(uniform_of(model, "BC4"))
    assert model.undecided() == ["conv", "fc"]
    model.fix("conv", "BC4")
    assert model.undecided() == ["fc"]
    of_conv, of_fc = torch.autograd.grad(model(X).square().sum(), model.alphas(), allow_unused=True)
    assert of_conv is None and of_fc.any()
    model.fix("fc", "BC4")
    assert torch.allclose(model(X), whole.eval()(X))
    assert model.energy().item() == pytest.approx(RELATIVE["BC4"], rel=1e-5)
    assert model.assignment() == uniform_of(model, "BC4") and model.undecided() == []
    with torch.no_grad():
        model.alphas()[0][0] = 100  # what alpha says is over
    assert model.assignment()["conv"] == "BC4"


def uniform_of(model: SearchableNetwork, candidate: str) -> dict[str, str]:
    return dict.fromkeys(model.assignment(), candidate)


def test_what_is_fixed_is_part_of_the_state(model: SearchableNetwork, table: CostTable) -> None:
    model.fix("fc", "T2")
    other = searchable(tiny().module, table)
    other.load_state_dict(model.state_dict())
    assert other.undecided() == ["conv"] and other.assignment()["fc"] == "T2"


@pytest.mark.parametrize(
    ("layer", "candidate", "problem"), [("x", "T8", "unknown layer 'x'"), ("fc", "T9", "unknown candidate 'T9'")]
)
def test_what_cannot_be_fixed_is_named(model: SearchableNetwork, layer: str, candidate: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        model.fix(layer, candidate)


def test_relaxed_shares_replace_softmax_of_alpha_for_a_while(model: SearchableNetwork, table: CostTable) -> None:
    model(X)
    mixture, energy = model(X), model.energy()
    picked = [torch.eye(9)[table.candidates.index("MF2")] for _ in model.alphas()]
    with model.relaxed(picked):
        assert torch.allclose(model(X), model.discretise(uniform(table, "MF2")).eval()(X), atol=1e-5)
        assert torch.equal(model.energy(), energy)
    assert torch.equal(model(X), mixture)


def test_samples_follow_softmax_of_alpha(model: SearchableNetwork, table: CostTable) -> None:
    with torch.no_grad():
        model.alphas()[0].copy_(torch.full((9,), -100.0))
        model.alphas()[0][[0, 3]] = torch.tensor([0.75, 0.25]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = [model.sample(generator) for _ in range(400)]
    share = sum(a["conv"] == table.candidates[0] for a in drawn) / 400
    assert {a["conv"] for a in drawn} == {table.candidates[0], table.candidates[3]} and 0.68 < share < 0.82
    assert {a["fc"] for a in drawn} == set(table.candidates)
    model.fix("fc", "T4")
    assert model.sample(generator)["fc"] == "T4"
