"""Products of two activations: which are found, and what is computed in their place."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.utils.checkpoint import checkpoint

from dse.core.errors import InputError
from dse.hardware.candidates import load_candidates
from dse.workload.export import export_network
from dse.workload.networks import Network
from search.layers.mixed_layer import LayerOptions
from search.layers.mixed_product import MixedProduct, tail_of
from search.layers.products import insert_products
from search.layers.quantize import words_of

TYPICAL = [c for c in load_candidates() if c.operator == "typical"]


def mixed_product(options: LayerOptions | None = None) -> MixedProduct:
    """A product of three candidates with different shares, in float64."""
    product = MixedProduct(TYPICAL, options, torch.zeros((), dtype=torch.float64)).double()
    assert product.alpha is not None
    with torch.no_grad():
        product.alpha.copy_(torch.tensor([0.3, -0.4, 0.9]))
    return product


def naive(product: MixedProduct, compute: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1 as written, with operands in units of their values and statistics as they are."""
    total = torch.zeros((), dtype=a.dtype)
    for share, candidate in zip(product.probabilities(), product.candidates, strict=True):
        operands = []
        for operand, x, bits in ((product.first, a, candidate.act_bits), (product.second, b, candidate.weight_bits)):
            rms = operand.scale.rms * tail_of(x) if operand.heavy else operand.scale.rms
            step = operand.scale.step(rms, bits)
            operands.append(words_of(x, step, bits, bool(operand.scale.signed)) * step)
        total = total + share * compute(*operands)
    return total


@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
@pytest.mark.parametrize("positive", [False, True])
def test_the_output_is_the_sum_of_shares_times_quantised_products(quantiser: Any, positive: bool) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    a = (a.abs() if positive else a).requires_grad_()
    b.requires_grad_()
    product = mixed_product(LayerOptions(quantiser))
    y = product(torch.matmul, a, b)
    reference = naive(product, torch.matmul, a, b)
    torch.testing.assert_close(y, reference, rtol=1e-6, atol=1e-6)
    variables = [a, b, *product.parameters()]
    weight = torch.randn_like(y)
    for mine, expected in zip(
        torch.autograd.grad(y, variables, weight), torch.autograd.grad(reference, variables, weight), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)


def test_a_peaked_attention_is_not_cut_off() -> None:
    """Its probabilities are 0 and 1, far from what a Gaussian of their root mean square has."""
    shares, values = torch.eye(256), torch.randn(256, 8)
    product = MixedProduct(TYPICAL[:1])
    assert TYPICAL[0].name == "T8"
    error = (product(torch.matmul, shares, values) - values).norm() / values.norm()
    assert error < 0.03
    product.first.heavy = False
    assert (product(torch.matmul, shares, values) - values).norm() / values.norm() > 0.3


def test_evaluation_uses_what_training_has_seen() -> None:
    torch.manual_seed(0)
    product = MixedProduct(TYPICAL)
    a, b = torch.randn(4, 8, 8), torch.randn(4, 8, 8)
    for _ in range(3):
        product(torch.bmm, a, b)
    product.eval()
    state = copy.deepcopy(product.state_dict())
    whole = product(torch.bmm, a, b)
    torch.testing.assert_close(
        torch.cat([product(torch.bmm, x, y) for x, y in zip(a.split(1), b.split(1), strict=True)]), whole
    )
    assert all(torch.equal(v, product.state_dict()[k]) for k, v in state.items() if isinstance(v, Tensor))


@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
def test_a_single_candidate_is_the_fixed_one(quantiser: Any) -> None:
    torch.manual_seed(0)
    product = mixed_product(LayerOptions(quantiser, learned_scales=True))
    a, b = torch.rand(3, 5, 4, dtype=torch.float64), torch.randn(3, 4, 6, dtype=torch.float64)
    product(torch.bmm, a, b)
    with torch.no_grad():
        for parameter in product.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    product.eval()
    for i, candidate in enumerate(product.candidates):
        product.fix(i)
        single = product.single(candidate)
        assert single.alpha is None and single.candidates == (candidate,)
        torch.testing.assert_close(single(torch.bmm, a, b), product(torch.bmm, a, b), rtol=1e-5, atol=1e-5)


class Net(nn.Module):
    """Computes in `form`, behind a layer."""

    def __init__(self, form: Callable[..., Tensor]) -> None:
        super().__init__()
        self.form, self.linear = form, nn.Linear(4, 12)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("table", torch.randn(4, 4))
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.linear(x).chunk(3, -1)
        return self.form(self, q, k, v)


FORMS: dict[str, Callable[..., Tensor]] = {
    "@": lambda net, q, k, v: (q @ k.mT) @ v,
    "method": lambda net, q, k, v: q.matmul(k.mT).matmul(v),
    "bmm": lambda net, q, k, v: torch.bmm(torch.bmm(q, k.mT), mat2=v),
    "baddbmm": lambda net, q, k, v: torch.baddbmm(net.table[:1, :3], q, k.mT, beta=0.5, alpha=2).bmm(v),
    "baddbmm_": lambda net, q, k, v: torch.zeros(len(q), 3, 3).baddbmm_(q, k.mT, beta=0).bmm(v),
    "addbmm": lambda net, q, k, v: torch.addbmm(torch.zeros(3, 3), q, k.mT) @ v,
    "mm": lambda net, q, k, v: torch.addmm(net.table[:3, :3], q[0].mm(k[0].T), (q[1] @ k[1].T)),
    "vectors": lambda net, q, k, v: torch.mv(q[0], k[0, 0]) * torch.dot(q[1, 0], k[1, 0]),
    "einsum": lambda net, q, k, v: torch.einsum("bij,bjd -> bid", torch.einsum("bid,bjd", [q, k]) if 0 else
                                                torch.einsum("bid,bjd->bij", [q, k]), v),
    "einsum of lists": lambda net, q, k, v: torch.einsum(q, [0, 1, 2], k, [0, 3, 2], [0, 1, 3]) @ v,
    "einsum without sum": lambda net, q, k, v: torch.einsum("bij,bij->bij", q, k) @ v.mT,
    "tensordot": lambda net, q, k, v: torch.tensordot(q, k, dims=([2], [2])),
    "functional linear": lambda net, q, k, v: F.linear(q[0], k[0], v[0, :, 0]),
    "attention": lambda net, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "weights": lambda net, q, k, v: ((q @ (net.weight.T * 2 + net.table)) @ net.table.mT) @ k.mT @ (v @ net.weight),
    "constants": lambda net, q, k, v: (q @ torch.ones(4, 4)) @ k.mT,
    "written": lambda net, q, k, v: _written(q) @ k.mT,
    "in a child": lambda net, q, k, v: net.drop(q @ k.mT) @ v,
}  # fmt: skip


def _written(x: Tensor) -> Tensor:
    memory = torch.zeros(x.shape)
    memory[:, 1:] = x[:, 1:]
    return memory


def rows_of(network: nn.Module, *shape: int) -> list[str]:
    def example(_module: Any) -> Any:
        return (torch.randn(*shape),), {}

    workload = export_network(Network("net", network, (), example))
    return [layer.name for layer in workload.layers if layer.kind == "matmul"]


@pytest.mark.parametrize("form", FORMS)
def test_products_are_those_of_the_export_and_close_to_floating_point(form: str) -> None:
    torch.manual_seed(0)
    network = Net(FORMS[form])
    names = rows_of(network, 2, 3, 4)
    assert names == [f"matmul_{i + 1}" for i in range(len(names))] and names
    x = torch.randn(2, 3, 4)
    expected = network(x)
    searched = copy.deepcopy(network)
    insert_products(searched, {name: MixedProduct(TYPICAL[:1]) for name in names})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of another number of products than the table has
        found = searched(x)
    assert found.shape == expected.shape and not torch.equal(found, expected)
    assert (found - expected).norm() / expected.norm() < 0.06
    for name in names:
        assert searched.get_submodule(name).first.scale.signed is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["plain", "causal", "boolean", "additive", "scale", "grouped", "nothing seen"])
def test_attention_is_torchs_in_every_form(variant: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 8, requires_grad=True) for _ in range(3))
    options: dict[str, Any] = {
        "plain": {}, "causal": {"is_causal": True}, "boolean": {"attn_mask": torch.rand(2, 1, 5, 5) > 0.3},
        "additive": {"attn_mask": torch.randn(5, 5)}, "scale": {"scale": 0.1}, "grouped": {"enable_gqa": True},
        "nothing seen": {"attn_mask": torch.tensor([[False], [True], [True], [True], [True]]).expand(5, 5)},
    }[variant]  # fmt: skip
    if variant == "grouped":
        k, v = k[:, :2], v[:, :2]

    class Core(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, **options)

    class Exact(MixedProduct):
        def forward(self, product: Any, first: Tensor, second: Tensor) -> Tensor:
            return product(first, second)  # type: ignore[no-any-return]

    core = Core()
    insert_products(core, {f"matmul_{i}": Exact(TYPICAL[:1]) for i in (1, 2)})
    found, expected = core(q, k, v), F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for mine, of_torch in zip(
        torch.autograd.grad(found, (q, k, v), weight), torch.autograd.grad(expected, (q, k, v), weight), strict=True
    ):
        torch.testing.assert_close(mine, of_torch)


def test_dropout_of_attention_drops() -> None:
    class Core(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, q, torch.ones_like(q) * q.sum().sign(), dropout_p=0.5)

    core = Core()
    insert_products(core, {"matmul_1": MixedProduct(TYPICAL[:1])}, ["matmul_1", "matmul_2"])
    y = core(torch.randn(1, 1, 400, 4))
    assert y.std() > 0.02 and abs(float(y.mean().abs()) - 1) < 0.05


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Net(FORMS["attention"])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x) @ self.attn(x).mT @ x


def block() -> Block:
    torch.manual_seed(0)
    network = Block()
    names = ["attn.matmul_1", "attn.matmul_2", "matmul_1", "matmul_2"]
    assert set(rows_of(network, 2, 3, 4)) == {*names, "attn.matmul_1#2", "attn.matmul_2#2"}
    insert_products(network, {name: MixedProduct(TYPICAL) for name in names})
    return network


def test_copies_and_files_compute_the_same() -> None:
    network = block()
    x = torch.randn(2, 3, 4)
    network(x)
    network.eval()
    expected = network(x)
    copied = copy.deepcopy(network)
    assert torch.equal(copied(x), expected)
    assert copied.attn.forward.owner is copied.attn  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.equal(network(x), expected)
    other = block().eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), expected)
    assert list(inspect.signature(network.forward).parameters) == ["x"]


class Scores(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


def test_a_network_is_pickled_with_its_products() -> None:
    network = Scores()
    insert_products(network, {"matmul_1": MixedProduct(TYPICAL)})
    x = torch.randn(2, 3, 4)
    network(x)
    network.eval()
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), network(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_with_checkpoints_are_those_without(reentrant: bool) -> None:
    one = block()
    two = copy.deepcopy(one)
    x = torch.randn(2, 3, 4, requires_grad=True)
    for _ in range(2):
        plain, again = one(x), checkpoint(two, x, use_reentrant=reentrant)
        assert torch.equal(plain, again)
        (of_plain,) = torch.autograd.grad(plain.square().sum(), x)
        again.square().sum().backward()
        torch.testing.assert_close(x.grad, of_plain)
        x.grad = None
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert not isinstance(a, Tensor) or torch.equal(a, b), name


def test_another_number_of_products_is_said_once() -> None:
    network = Net(FORMS["@"])
    insert_products(network, {"matmul_1": MixedProduct(TYPICAL)})
    x = torch.randn(2, 3, 4)
    with pytest.warns(UserWarning, match="the network itself computes 2 products of activations, but the table has 1"):
        network(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(x)
    network = Net(FORMS["tensordot"])
    insert_products(network, {"matmul_1": MixedProduct(TYPICAL)}, ["matmul_1", "matmul_2"])
    with pytest.warns(UserWarning, match="computes 1 products .* has 2 for a call of it: the others do not run"):
        network(x)


def test_what_cannot_be_searched_is_refused_by_name() -> None:
    network = nn.ModuleDict({"mha": nn.MultiheadAttention(4, 2), "body": nn.Sequential(nn.Linear(2, 2))})
    for name, problem in (
        ("mha.matmul_1", "a torch.nn.MultiheadAttention"),
        ("body.matmul_1", "its module runs all of its children"),
        ("none.matmul_1", "no module 'none'"),
        ("body.scores", "its name is not one of a product"),
    ):
        with pytest.raises(InputError, match=rf"^layer '{name}': cannot be searched: .*{problem}"):
            insert_products(network, {name: MixedProduct(TYPICAL)})
    three = Net(lambda net, q, k, v: torch.einsum("bid,bjd,bjc->bic", q, k, v))
    insert_products(three, {"matmul_1": MixedProduct(TYPICAL)})
    with pytest.raises(InputError, match=r"^einsum: of 3 operands"):
        three(torch.randn(2, 3, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_no_overflow_and_the_type_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b = 4 * torch.randn(2, 8, 256), 4 * torch.randn(2, 256, 8)
    product = MixedProduct(TYPICAL[:1])
    expected = torch.bmm(a, b)
    found = product(torch.bmm, a.to(dtype), b.to(dtype))
    assert found.dtype == dtype and (found - expected).norm() / expected.norm() < 0.03
    with torch.autocast("cpu", dtype):
        found = product(torch.bmm, a, b)
    assert found.dtype == dtype and (found - expected).norm() / expected.norm() < 0.03
