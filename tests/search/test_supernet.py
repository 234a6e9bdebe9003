from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from dse.errors import InputError
from dse.export import Network
from dse.table import CostTable
from search.mixed import MixedLayer
from search.supernet import searchable, uniform
from tests.search.conftest import RELATIVE


class Small(nn.Module):
    """Two convolutions and a linear layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(a=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), b=nn.Conv2d(4, 6, 3)))
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(self.body(x).mean((2, 3))).relu())


@pytest.fixture
def table(make_table) -> CostTable:  # type: ignore[no-untyped-def]
    return make_table(Network("small", Small(), (1, 1, 8, 8)))


def set_all(model, candidate: str) -> None:  # type: ignore[no-untyped-def]
    for module in model.modules():
        if isinstance(module, MixedLayer):
            with torch.no_grad():
                module.alpha.fill_(0)
                module.alpha[[c.name for c in module.candidates].index(candidate)] = 100


def test_every_layer_of_the_table_is_mixed_and_the_users_module_is_left_alone(table: CostTable) -> None:
    network = Small()
    model = searchable(network, table)
    assert set(model.assignment()) == {"body.a", "body.b", "fc", "fc#2"}
    assert len(model.alphas()) == 3
    assert not any(isinstance(m, MixedLayer) for m in network.modules())
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 6)


@pytest.mark.parametrize("name", ["T8", "T4", "MF2", "BC8"])
def test_energy_of_a_decided_network_is_its_share_of_all_typical(table: CostTable, name: str) -> None:
    model = searchable(Small(), table)
    set_all(model, name)
    assert model.energy().item() == pytest.approx(RELATIVE[name], rel=1e-5)
    assert model.assignment() == uniform(table, name)


def test_energy_at_the_start_is_the_mean_and_its_gradient_favours_the_cheap(table: CostTable) -> None:
    model = searchable(Small(), table)
    energy = model.energy()
    assert energy.item() == pytest.approx(sum(RELATIVE.values()) / len(RELATIVE), rel=1e-5)
    energy.backward()
    for alpha in model.alphas():
        assert alpha.grad.argmax() == list(RELATIVE).index("T8")
        assert alpha.grad.argmin() == list(RELATIVE).index("BC2")


def test_a_user_loop_needs_one_more_term(table: CostTable) -> None:
    torch.manual_seed(0)
    model = searchable(Small(), table)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 6, (8,))
    before = model.energy().item()
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y) + 10 * model.energy()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert model.energy().item() < 0.8 * before


def test_thetas_and_alphas_are_all_parameters(table: CostTable) -> None:
    model = searchable(Small(), table)
    both = {id(p) for p in model.thetas()} | {id(p) for p in model.alphas()}
    assert both == {id(p) for p in model.parameters()}
    assert len(both) == len(model.thetas()) + len(model.alphas())


def test_discretised_network_is_the_decided_mixture(table: CostTable) -> None:
    torch.manual_seed(0)
    model = searchable(Small(), table).eval()
    x = torch.randn(4, 1, 8, 8)
    model(x)
    set_all(model, "MF4")
    fixed = model.discretise(model.assignment())
    torch.testing.assert_close(fixed(x), model(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, MixedLayer) and m.alpha is not None for m in fixed.modules())


def test_a_candidate_without_mapping_is_no_choice(table: CostTable) -> None:
    rows = [{**r, "status": "no_mapping", "e_tx_pj": None} if (r["layer"], r["candidate"]) == ("body.a", "MF8") else r
            for r in table.rows]  # fmt: skip
    model = searchable(Small(), CostTable(tuple(rows)))
    assert "MF8" not in model.probabilities()["body.a"]
    assert "MF8" in model.probabilities()["body.b"]
    assert torch.isfinite(model.energy())


def test_candidates_can_be_restricted(table: CostTable) -> None:
    model = searchable(Small(), table, ["T8", "BC8"])
    assert list(model.probabilities()["fc"]) == ["T8", "BC8"]


def without(table: CostTable, **wanted: str) -> CostTable:
    return CostTable(tuple(r for r in table.rows if any(r[k] != v for k, v in wanted.items())))


def test_wrong_tables_are_named(table: CostTable) -> None:
    with pytest.raises(InputError, match=r"has no rows for layer 'body.b'"):
        searchable(Small(), without(table, layer="body.b"))
    extra = CostTable((*table.rows, *({**r, "layer": "head"} for r in table.rows if r["layer"] == "fc")))
    with pytest.raises(InputError, match=r"layer 'head' is no Conv2d or Linear"):
        searchable(Small(), extra)
    with pytest.raises(InputError, match=r"no rows for the typical operator at 8 bits"):
        searchable(Small(), without(table, candidate="T8"))
    with pytest.raises(InputError, match=r"'T3' is not in the table.*allowed: T8"):
        searchable(Small(), table, ["T3"])
    unmapped = CostTable(tuple({**r, "status": "no_mapping"} if r["layer"] == "fc" else r for r in table.rows))
    with pytest.raises(InputError, match=r"layer 'fc'"):
        searchable(Small(), unmapped)


def test_wrong_assignments_are_named(table: CostTable) -> None:
    model = searchable(Small(), table)
    good = uniform(table, "T8")
    with pytest.raises(InputError, match=r"layer 'fc' is missing"):
        model.discretise({k: v for k, v in good.items() if k != "fc"})
    with pytest.raises(InputError, match=r"no layer 'fd'"):
        model.discretise({**good, "fd": "T8"})
    with pytest.raises(InputError, match=r"assignment.fc: found 'T9'"):
        model.discretise({**good, "fc": "T9"})
    with pytest.raises(InputError, match=r"assignment.fc#2: found 'T4', but module 'fc'"):
        model.discretise({**good, "fc#2": "T4"})


def test_transmission_decides_which_levels_count(table: CostTable) -> None:
    rows = tuple({**r, "e_tx_on_chip_pj": 0.0} if r["operator"] == "binary_connect" else r for r in table.rows)
    everything, on_chip = (searchable(Small(), CostTable(rows), None, t) for t in ("all", "on_chip"))
    for model in (everything, on_chip):
        set_all(model, "BC8")
    assert on_chip.energy().item() < everything.energy().item()
