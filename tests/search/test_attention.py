"""Transformers in the usual forms: searched with the products of their attention, discretised, trained."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.workload.networks import Network
from search import searchable
from search.costs import share
from search.layers.mixed_product import MixedProduct
from search.supernet import SearchableNetwork, plain_weights, uniform
from tests.search.conftest import RELATIVE


class VitAttention(nn.Module):
    """As timm writes it."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn_drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            q = q * self.scale
            attn = self.attn_drop((q @ k.transpose(-2, -1)).softmax(dim=-1))
            x = attn @ v
        result: Tensor = self.proj(x.transpose(1, 2).reshape(b, n, c))
        return result


class Layer(nn.Module):
    def __init__(self, attn: nn.Module, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), attn, nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Vit(nn.Module):
    """With a class token and positions."""

    def __init__(self, fused: bool, dim: int = 8) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, 2, stride=2)
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.randn(1, 17, dim))
        self.blocks = nn.Sequential(*(Layer(VitAttention(dim, 2, fused), dim) for _ in range(2)))
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.blocks(x)[:, 0])  # type: ignore[no-any-return]


class CausalAttention(nn.Module):
    """As nanoGPT writes it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in self.c_attn(x).split(c, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, n, c))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.h = nn.Linear(4, 8), nn.ModuleList(Layer(CausalAttention(8, 2), 8) for _ in range(2))
        self.lm_head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        for block in self.h:
            x = block(x)
        return self.lm_head(x)  # type: ignore[no-any-return]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit": (lambda: Vit(False), (1, 1, 8, 8)),
    "fused vit": (lambda: Vit(True), (1, 1, 8, 8)),
    "gpt": (Gpt, (1, 6, 4)),
}
Made = tuple[nn.Module, CostTable, Tensor]


@pytest.fixture(params=NETWORKS)
def made(request: Any, make_table: Any) -> Made:
    """A network, its table and a batch."""
    make, shape = NETWORKS[request.param]
    torch.manual_seed(0)
    network = make()
    return network, make_table(Network("net", network, shape)), torch.randn(16, *shape[1:])


def products_of(model: nn.Module) -> dict[str, MixedProduct]:
    return {name: m for name, m in model.named_modules() if isinstance(m, MixedProduct)}


def prefer(model: SearchableNetwork, bits: int) -> None:
    """Decides for the typical operator of so many bits."""
    for choice, _ in model.choices():
        if choice.alpha is not None:
            with torch.no_grad():
                choice.alpha.fill_(0)
                choice.alpha[[c.name for c in choice.candidates].index(f"T{bits}")] = 100


def test_products_choose_among_precisions_and_count_in_the_energy(made: Made) -> None:
    network, table, x = made
    model = searchable(network, table)
    probabilities = model.probabilities()
    rows = [row for row in table.layers if table.kind(row) == "matmul"]
    assert len(rows) == 4 and all(list(probabilities[row]) == ["T8", "T4", "T2"] for row in rows)
    assert all(len(probabilities[row]) == 9 for row in table.layers if row not in rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model(x).shape == network(x).shape
    energy = model.energy()
    energy.backward()
    macs = {row: table.row(row, "T8")["n_ops"] for row in table.layers}
    means = {
        row: (1 + RELATIVE["T4"] + RELATIVE["T2"]) / 3 if row in rows else sum(RELATIVE.values()) / 9 for row in macs
    }
    assert energy.item() == pytest.approx(sum(macs[r] * means[r] for r in macs) / sum(macs.values()), rel=1e-5)
    for product in products_of(model).values():
        assert product.alpha is not None and product.alpha.grad is not None and product.alpha.grad.argmin() == 2


def test_eight_bits_are_close_to_floating_point_and_two_are_not(made: Made) -> None:
    network, table, x = made
    errors = []
    for bits in (8, 2):
        model = searchable(network, table, ["T8", "T2"])
        prefer(model, 8)
        for row in (row for row in table.layers if table.kind(row) == "matmul"):
            model.fix(row, f"T{bits}")
        expected = network(x)
        errors.append(((model(x) - expected).norm() / expected.norm()).item())
    assert errors[0] < 0.06 and errors[1] > 2 * errors[0]


def test_the_output_is_that_of_products_by_hand(make_table: Any) -> None:
    """Attention with shares of candidates, written again as sums of quantised products; values and gradients."""
    from tests.search.layers.test_products import naive

    torch.manual_seed(0)
    network = Vit(True)
    model = searchable(network, make_table(Network("net", network, (1, 1, 8, 8)))).double()
    for alpha in model.alphas():
        torch.nn.init.normal_(alpha)
    x = torch.randn(8, 1, 8, 8, dtype=torch.float64)
    model(x)  # statistics
    by_hand = copy.deepcopy(model)
    for block in by_hand.network.blocks:  # type: ignore[union-attr]
        attention: Any = block.attn

        def core(x: Tensor, a: Any = attention) -> Tensor:
            b, n, c = x.shape
            q, k, v = a.qkv(x).reshape(b, n, 3, a.heads, c // a.heads).permute(2, 0, 3, 1, 4).unbind(0)
            for operand, value in ((a.matmul_1.first, q), (a.matmul_1.second, k)):
                operand.scale(value)
            scores = naive(a.matmul_1, lambda q, k: q @ k.mT, q, k) * a.scale
            shares = scores.softmax(-1)
            for operand, value in ((a.matmul_2.first, shares), (a.matmul_2.second, v)):
                operand.scale(value)
            y = naive(a.matmul_2, torch.matmul, shares, v)
            return a.proj(y.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]

        attention.forward = core
    y, expected = model(x), by_hand(x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-8)
    weight = torch.randn_like(y)
    found = torch.autograd.grad(y, model.alphas(), weight)
    for mine, hand in zip(found, torch.autograd.grad(expected, by_hand.alphas(), weight), strict=True):
        torch.testing.assert_close(mine, hand, rtol=1e-5, atol=1e-7)
        assert mine.abs().max() > 0


@pytest.mark.parametrize("bits", [8, 4])
def test_discretised_network_is_the_decided_mixture(made: Made, bits: int) -> None:
    network, table, x = made
    model = searchable(network, table)
    for _ in range(2):
        model(x)
    model.eval()
    prefer(model, bits)
    fixed = model.discretise()
    torch.testing.assert_close(fixed(x), model(x), rtol=1e-4, atol=1e-5)
    assert all(m.alpha is None and m.candidates[0].name == f"T{bits}" for m in products_of(fixed).values())
    assert len(products_of(fixed)) == 4 and type(fixed) is type(network)
    again = searchable(network, table).discretise(uniform(table, f"T{bits}"))
    again.load_state_dict(fixed.state_dict())
    assert torch.equal(again.eval()(x), fixed(x))
    assert set(plain_weights(fixed)) == set(network.state_dict())


def test_a_training_loop_learns_precisions_of_products(made: Made) -> None:
    network, table, x = made
    model = searchable(network, table)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    target = network(x).detach()
    first = None
    for _ in range(12):
        loss = F.mse_loss(model(x), target)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        (loss + 0.1 * model.energy()).backward()
        assert all(p.grad is not None for p in model.alphas())
        optimiser.step()
    assert F.mse_loss(model(x), target).item() < first
    assert all(p.alpha.abs().min() > 0 for p in products_of(model).values())  # type: ignore[union-attr]
    found = model.assignment(0.6)
    assert share(table, found) <= 0.6
    model.discretise(found)(x).sum().backward()


def test_excluded_and_pinned_products_are_as_layers(make_table: Any) -> None:
    torch.manual_seed(0)
    network = Vit(True)
    table = make_table(Network("net", network, (1, 1, 8, 8)))
    model = searchable(network, table, exclude=["*.matmul_*"])
    assert not products_of(model)
    assert not any("forward" in vars(m) for m in model.modules())  # they run as they did
    assert model.probabilities()["blocks.0.attn.matmul_1"] == {"T8": 1.0}
    model.discretise(uniform(table, "BC4", ["*.matmul_*"]))
    model = searchable(network, table, exclude=["blocks.0.attn.matmul_2"], pins={"blocks.1.attn.matmul_1": "T4"})
    assert list(products_of(model.network)) == [
        "blocks.0.attn.matmul_1", "blocks.1.attn.matmul_1", "blocks.1.attn.matmul_2",
    ]  # fmt: skip
    assert model.probabilities()["blocks.1.attn.matmul_1"] == {"T4": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(4, 1, 8, 8))
    with pytest.raises(InputError, match=r"^pins.blocks.1.attn.matmul_1: found 'BC8', but .* product of two activ"):
        searchable(network, table, pins={"blocks.1.attn.matmul_1": "BC8"})
    only = searchable(network, table, ["MF8", "BC8"])
    assert list(only.probabilities()["blocks.0.attn.matmul_1"]) == ["T8"]


def test_products_of_a_uniform_network_are_typical(make_table: Any) -> None:
    network = Vit(False)
    table = make_table(Network("net", network, (1, 1, 8, 8)))
    found = uniform(table, "BC4")
    assert found["blocks.0.attn.matmul_1"] == "T4" and found["blocks.0.attn.qkv"] == "BC4"
    assert set(uniform(table, "T2").values()) == {"T2"}
    searchable(network, table).discretise(found)


def test_attention_of_torch_that_is_left_out_runs_as_torch_has_it(make_table: Any) -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = searchable(network, make_table(Network("net", network, (1, 5, 8))), exclude=["self_attn.*"])
    assert not products_of(model)
    assert type(model.network.get_submodule("self_attn")) is nn.MultiheadAttention


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_networks_compute_the_same(backend: str, make_table: Any) -> None:
    torch.manual_seed(0)
    network = Vit(True)
    x = torch.randn(4, 1, 8, 8)
    model = searchable(network, make_table(Network("net", network, (1, 1, 8, 8))))
    model(x)
    model.eval()
    for module in (model, model.discretise()):
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(module, backend=backend)(x), module(x))


def test_a_discretised_network_is_exported_by_torch(make_table: Any) -> None:
    torch.manual_seed(0)
    network = Vit(True)
    x = torch.randn(4, 1, 8, 8)
    model = searchable(network, make_table(Network("net", network, (1, 1, 8, 8))))
    model(x)
    fixed = model.eval().discretise()
    program = torch.export.export(fixed, (x,), strict=False)
    torch.testing.assert_close(program.module()(x), fixed(x))
