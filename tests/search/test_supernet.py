from __future__ import annotations

import subprocess
import sys
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from dse.workload.networks import Network
from search import searchable
from search.costs import share
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.spaces import Space
from search.supernet import uniform
from tests.search.conftest import RELATIVE, synthetic_table
from tests.search.tiny import tiny


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.pointwise(functional.relu(self.depthwise(x)))


class Odd(nn.Module):
    """What users write: a list of blocks, one of which runs twice, functional calls, layers with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.branches = nn.ModuleDict({"wide": nn.Conv2d(4, 4, 5, padding=2), "narrow": nn.Conv2d(4, 4, 1)})
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 5)))
        self.entry = self.stem  # the same layer under another name
        self.body = self.blocks  # and modules as well

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.entry(x))
        for block in (*self.body, self.blocks[0]):
            x = functional.leaky_relu(block(x), 0.1)
        both = torch.cat([branch(x) for branch in self.branches.values()], 1)
        return self.head(functional.adaptive_avg_pool2d(both, 2))


class Small(nn.Module):
    """Two convolutions and a linear layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(a=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), b=nn.Conv2d(4, 6, 3)))
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(self.body(x).mean((2, 3))).relu())


@pytest.fixture
def table(make_table: Any) -> CostTable:  # type: ignore[no-untyped-def]
    return make_table(Network("small", Small(), (1, 1, 8, 8)))


def set_all(model: Any, candidate: str) -> None:  # type: ignore[no-untyped-def]
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


def test_frozen_weights_stay_frozen(table: CostTable) -> None:
    network = Small()
    network.body.a.requires_grad_(False)
    for latent in ("shared", "own"):
        model = searchable(network, table, options=LayerOptions(latent=latent))
        assert not [n for n, p in model.named_parameters() if "body.a.l" in n and p.requires_grad]
        assert model.thetas() and all(p.requires_grad for p in model.thetas())
        fixed = model.discretise(uniform(table, "BC8"))
        assert not fixed.body.a.layer.weight.requires_grad and fixed.body.b.layer.weight.requires_grad


def test_discretised_network_is_the_decided_mixture(table: CostTable) -> None:
    torch.manual_seed(0)
    model = searchable(Small(), table).eval()
    x = torch.randn(4, 1, 8, 8)
    model(x)
    set_all(model, "MF4")
    fixed = model.discretise(model.assignment())
    torch.testing.assert_close(fixed(x), model(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, MixedLayer) and m.alpha is not None for m in fixed.modules())


@pytest.mark.parametrize("latent", ["shared", "own"])
@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
def test_another_device_computes_all_of_it(table: CostTable, quantiser: str, latent: str) -> None:
    """On torch's device without values, which mixes with no other, as a GPU does not."""
    model = searchable(Small(), table, options=LayerOptions(quantiser, latent=latent))
    x = torch.randn(4, 1, 8, 8)
    model(x)  # the first batch decides signs, which takes values
    for network in (model, model.discretise()):
        network.to("meta")
        optimiser = torch.optim.Adam(network.parameters())
        loss = network(x.to("meta")).sum()
        if network is model:
            loss = loss + model.energy() + model.latency()
        loss.backward()
        optimiser.step()
        assert loss.device.type == "meta"
        assert all(p.grad is not None for p in network.parameters())


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


def test_every_layer_of_an_odd_module_is_mixed_wherever_it_is_used(make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = Odd()
    model = searchable(network, make_table(Network("odd", network, (1, 1, 8, 8))))
    assert set(model.assignment()) == {
        "stem", "branches.wide", "branches.narrow", "head.1", "head.3.0",
        *(f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("depthwise", "pointwise")),
        "blocks.0.depthwise#2", "blocks.0.pointwise#2",
    }  # fmt: skip
    calls: Counter[int] = Counter()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):  # nothing of the user's is computed past its mixed layer
            module.register_forward_hook(lambda module, *_: calls.update([id(module)]))
    mixed = [layer for layer, _ in model.choices()]
    for layer in mixed:
        layer.register_forward_hook(lambda layer, *_: calls.update([id(layer)]))
    model(torch.randn(2, 1, 8, 8))
    assert [calls[id(layer)] for layer in mixed].count(2) == 2 and len(calls) == len(mixed) == 9
    set_all(model, "MF4")
    x = torch.randn(4, 1, 8, 8)
    fixed = model.discretise().eval()
    torch.testing.assert_close(fixed(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, MixedLayer) and m.alpha is not None for m in fixed.modules())


def test_discretise_takes_the_models_own_assignment(table: CostTable) -> None:
    model = searchable(Small(), table)
    set_all(model, "BC4")
    fixed = model.discretise()
    assert {m.candidates[0].name for m in fixed.modules() if isinstance(m, MixedLayer)} == {"BC4"}


def test_a_budgets_assignment_keeps_the_calls_of_a_module_together(table: CostTable) -> None:
    model = searchable(Small(), table)
    with torch.no_grad():
        for i, alpha in enumerate(model.alphas()):
            alpha.copy_(torch.randn(len(alpha), generator=torch.Generator().manual_seed(i)))
    for budget in (0.3, 0.5):
        found = model.assignment(budget)
        assert found["fc"] == found["fc#2"]
        assert 0.98 * budget <= share(table, found) <= budget
        model.discretise(found)


def test_samples_follow_the_operator_weights_and_keep_to_a_budget(table: CostTable) -> None:
    model = searchable(Small(), table, ["T8", "T2"])
    with torch.no_grad():
        for alpha in model.alphas():
            alpha[0] = 1.0
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(model.sample(generator)["fc"] for _ in range(2000))
    assert drawn["T8"] / 2000 == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.03)
    everything = searchable(Small(), table)
    samples = [everything.sample(generator, 0.5) for _ in range(5)]
    assert all(0.49 <= share(table, found) <= 0.5 for found in samples)
    assert len({tuple(found.values()) for found in samples}) > 1


def test_latency_of_a_decided_network_is_its_share_of_the_cycles(table: CostTable) -> None:
    rows = [{**r, "cycles": r["cycles"] // 4} if r["candidate"] == "T2" and r["layer"] != "fc" else r
            for r in table.rows]  # fmt: skip
    slow = {r["layer"]: r["cycles"] for r in table.rows}
    model = searchable(Small(), CostTable(tuple(rows)))
    set_all(model, "T2")
    expected = (sum(slow.values()) - slow["fc"]) / 4 + slow["fc"]
    assert model.latency().item() == pytest.approx(expected / sum(slow.values()), rel=1e-5)
    assert share(CostTable(tuple(rows)), model.assignment(), "latency") == pytest.approx(model.latency().item())


def test_spaces_and_pins(table: CostTable) -> None:
    model = searchable(Small(), table, space=Space("operators"), pins={"first": "T8", "last": "T4"})
    assert {layer: list(row) for layer, row in model.probabilities().items()} == {
        "body.a": ["T8"], "body.b": ["T8", "MF8", "BC8"], "fc": ["T4"], "fc#2": ["T4"],
    }  # fmt: skip
    assert len(model.alphas()) == 1
    with torch.no_grad():
        model.alphas()[0][0] = 100
    energies = {r["layer"]: r["n_ops"] * (0.53 if r["layer"].startswith("fc") else 1) for r in table.rows}
    macs = {r["layer"]: r["n_ops"] for r in table.rows}
    assert model.energy().item() == pytest.approx(sum(energies.values()) / sum(macs.values()), rel=1e-5)
    model.discretise()


def test_wrong_pins_are_named(table: CostTable) -> None:
    for pins, message in (
        ({"fc": "T8", "fc#2": "T4"}, r"^pins.fc#2: found 'T4', but module 'fc' computes several.*allowed: T8"),
        ({"fc": "T3"}, r"^pins.fc: unknown candidate 'T3'"),
        ({"fd": "T8"}, r"^pins: unknown layer 'fd' \(allowed: first, last, body.a"),
    ):
        with pytest.raises(InputError, match=message):
            searchable(Small(), table, pins=pins)


def renamed(table: CostTable, **names: str) -> CostTable:
    return CostTable(tuple({**r, "candidate": names.get(r["candidate"], r["candidate"])} for r in table.rows))


def test_tables_of_another_operators_file_are_searched_with_its_candidates(table: CostTable, tmp_path: Path) -> None:
    document = yaml.safe_load((data_dir("arch_specs") / "operators.yaml").read_text())
    document["operators"]["typical"]["short"] = "MAC"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    own = renamed(table, T8="MAC8", T4="MAC4", T2="MAC2")
    with pytest.raises(InputError, match=r"^candidates: 'MAC8' is not declared in arch_specs/operators.yaml"):
        searchable(Small(), own)
    for operators in (path, str(path), load_candidates(path)):
        model = searchable(Small(), own, ["MAC8", "BC8"], pins={"body.a": "MAC4"}, operators=operators)
        assert list(model.probabilities()["fc"]) == ["MAC8", "BC8"]
    model(torch.randn(2, 1, 8, 8))
    swapped = [replace(c, short={"T": "BC", "BC": "T"}.get(c.short, c.short)) for c in load_candidates()]
    with pytest.raises(InputError, match=r"'T8' is typical at 8 bits in the table, but not in the given operators"):
        searchable(Small(), table, operators=swapped)


def test_no_candidates_are_refused(table: CostTable) -> None:
    with pytest.raises(InputError, match="candidates: is empty"):
        searchable(Small(), table, candidates=[])


def test_a_bare_layer_is_no_network(table: CostTable) -> None:
    with pytest.raises(InputError, match=r"^network: is itself a Linear"):
        searchable(nn.Linear(6, 6), table)


def test_the_package_offers_the_function_without_importing_torch_for_commands() -> None:
    code = (
        "import sys, dse.cli.search, search.costs, search.knapsack, search.spaces\n"
        "assert 'torch' not in sys.modules\n"
        "import search.supernet\n"
        "from search import searchable\n"
        "assert searchable is search.supernet.searchable\n"
        "try:\n    search.nothing\nexcept AttributeError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'search' has no attribute 'nothing'\n"


def without(table: CostTable, **wanted: str) -> CostTable:
    return CostTable(tuple(r for r in table.rows if any(r[k] != v for k, v in wanted.items())))


def test_wrong_tables_are_named(table: CostTable) -> None:
    with pytest.warns(UserWarning, match=r"has no rows for body.b: left as they are, and their energy is not counted"):
        searchable(Small(), without(table, layer="body.b"))
    extra = CostTable((*table.rows, *({**r, "layer": "head"} for r in table.rows if r["layer"] == "fc")))
    with pytest.raises(InputError, match=r"layer 'head' is no module that can be searched"):
        searchable(Small(), extra)
    with pytest.raises(InputError, match=r"no rows for the typical operator at 8 bits"):
        searchable(Small(), without(table, candidate="T8"))
    with pytest.raises(InputError, match=r"unknown candidate 'T3'.*allowed: T8"):
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
    with pytest.raises(InputError, match=r"assignment.fc: unknown candidate 'T9'"):
        model.discretise({**good, "fc": "T9"})
    with pytest.raises(InputError, match=r"assignment.fc#2: found 'T4', but module 'fc'"):
        model.discretise({**good, "fc#2": "T4"})


def test_transmission_decides_which_levels_count(table: CostTable) -> None:
    rows = tuple({**r, "e_tx_on_chip_pj": 0.0} if r["operator"] == "binary_connect" else r for r in table.rows)
    everything, on_chip = (searchable(Small(), CostTable(rows), None, t) for t in ("all", "on_chip"))
    for model in (everything, on_chip):
        set_all(model, "BC8")
    assert on_chip.energy().item() < everything.energy().item()


def test_a_searchable_network_keeps_the_weights_and_statistics_that_the_network_had() -> None:
    module = tiny().module
    with torch.no_grad():
        for value in module.state_dict().values():
            value.copy_(torch.rand(value.shape) + 1)  # as of no fresh network
    for latent in ("shared", "own"):
        model = searchable(module, synthetic_table(tiny()), options=LayerOptions(latent=latent))
        for i in range(len(model.choices()[0][0].candidates)):
            assert torch.equal(model.choices()[0][0].latent(i), module.get_parameter("conv.weight"))
        single = model.discretise(uniform(synthetic_table(tiny()), "T8")).state_dict()
        for name, value in module.state_dict().items():
            inner = name.replace("conv.", "conv.layer.").replace("fc.", "fc.layer.")
            assert torch.equal(single[inner], value), name


def test_drawn_candidates_are_computed_alone_and_their_shares_are_scaled() -> None:
    torch.manual_seed(0)
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "T2", "BC8", "MF8"]).eval()
    x = torch.rand(4, 1, 8, 8)
    model(x)
    with torch.no_grad():
        for alpha in model.alphas():
            alpha.copy_(torch.tensor([0.5, -1.0, 2.0, 0.3]))
        before = model(x)
    (conv, _), _ = model.choices()
    with model.some_paths(2):
        drawn = conv.sampled
        assert drawn is not None and len(drawn) == 2 and conv.computed() == drawn
        shares = conv.shares()
        found = conv(x)
        (gradient,) = torch.autograd.grad(found.square().sum(), [conv.alpha], retain_graph=True)
    assert conv.sampled is None and len(conv.computed()) == 4
    full = conv.probabilities()[list(drawn)]
    assert torch.allclose(shares[list(drawn)], full / full.sum()) and shares.sum().item() == pytest.approx(1)
    expected = sum(shares[i] * conv.single(conv.candidates[i]).eval()(x) for i in drawn)
    assert torch.allclose(found, expected, atol=1e-5)
    absent = [i for i in range(4) if i not in drawn]
    assert (gradient[absent] == 0).all() and (gradient[list(drawn)] != 0).all()
    assert torch.equal(model(x), before)  # all candidates again


def test_candidates_are_drawn_with_the_chances_of_their_weights() -> None:
    torch.manual_seed(0)
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "T2", "BC8", "MF8"])
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    with torch.no_grad():
        for alpha in model.alphas():
            alpha.copy_(p.log())
    counts = torch.zeros(4, 4)
    for _ in range(4000):
        with model.some_paths(2):
            i, j = model.choices()[0][0].sampled or (0, 0)
            counts[i, j] += 1
    for i in range(4):
        for j in range(i + 1, 4):  # first one, then the other among those that are left
            expected = float(p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]))
            assert counts[i, j] / 4000 == pytest.approx(expected, abs=0.03)


def test_relaxed_samples_keep_their_largest_shares_and_decided_layers_their_candidate() -> None:
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "T2", "BC8"])
    share = torch.tensor([0.1, 0.6, 0.3])
    model.fix("fc", "T2")
    conv, fc = (layer for layer, _ in model.choices())
    with model.relaxed([share, share]), model.some_paths(2):
        assert conv.sampled == (1, 2)
        assert torch.allclose(conv.shares(), torch.tensor([0, 2 / 3, 1 / 3]))
        assert fc.sampled is None and list(fc.computed()) == [1]
    with model.some_paths(3):
        assert conv.sampled is None  # as many as there are


def test_negligible_candidates_are_left_out_as_long_as_they_are() -> None:
    torch.manual_seed(0)
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "T2", "BC8", "MF8"]).eval()
    x = torch.rand(4, 1, 8, 8)
    model(x)
    p = torch.tensor([0.6, 0.025, 0.37, 0.005])
    with torch.no_grad():
        for alpha in model.alphas():
            alpha.copy_(p.log())
    (conv, _), _ = model.choices()
    with model.without_negligible(0.1):  # an equal weight is 0.25
        assert conv.sampled == (0, 1, 2)
        found = conv(x)
        (gradient,) = torch.autograd.grad(found.square().sum(), [conv.alpha], retain_graph=True)
    assert gradient[3] == 0 and (gradient[:3] != 0).all()
    assert (found - conv(x)).norm() < 0.02 * conv(x).norm()  # next to nothing is missing
    with model.without_negligible(0.999):
        assert conv.sampled == (0, 2)
    with model.without_negligible(0):
        assert conv.sampled is None
    with torch.no_grad():
        conv.alpha[3] += 2.0  # p of 0.035: it is back
    with model.without_negligible(0.1):
        assert conv.sampled == (0, 2, 3)


def test_of_candidates_that_are_all_but_decided_two_are_computed() -> None:
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "T2", "BC8"])
    model.fix("fc", "T2")
    conv, fc = (layer for layer, _ in model.choices())
    with torch.no_grad():
        conv.alpha.copy_(torch.tensor([0.0, 90.0, 1.0]))
    with model.without_negligible(0.1):
        assert conv.sampled == (1, 2) and fc.sampled is None
    share = torch.tensor([0.5, 0.01, 0.49])
    with model.relaxed([share, share]), model.without_negligible(0.1):  # a sample decides for itself
        assert conv.sampled == (0, 2)
