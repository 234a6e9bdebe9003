"""Layers that are more than their class: refused by name, or as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm

from dse.core.errors import InputError
from dse.workload.networks import Network
from search.supernet import SearchableNetwork, searchable, uniform
from tests.search.conftest import synthetic_table


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Same(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1)), weight, bias)


class LowRank(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Parameter(torch.ones(1, inputs)), nn.Parameter(torch.ones(outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.a.T @ self.b.T


def replaced() -> nn.Module:
    layer = nn.Linear(4, 2)
    layer.forward = lambda x: functional.linear(x * 2, layer.weight)  # type: ignore[method-assign]
    return layer


def pruned() -> nn.Module:
    result: nn.Module = prune.random_unstructured(nn.Linear(4, 2), "weight", 0.5)  # type: ignore[no-untyped-call]
    return result


OWN_FORWARD = "with a forward pass of its own; leave it out with exclude"
COMPUTED = "whose weight is computed at each call"
IMAGES, ROWS = (1, 3, 6, 6), (1, 4)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Standardised(3, 4, 3), IMAGES, f"layer '0': is a Standardised {OWN_FORWARD}"),
        (lambda: Same(3, 4, 3), IMAGES, f"layer '0': is a Same {OWN_FORWARD}"),
        (lambda: LowRank(4, 2), ROWS, f"layer '0': is a LowRank {OWN_FORWARD}"),
        (replaced, ROWS, f"layer '0': is a Linear {OWN_FORWARD}"),
        (lambda: parametrizations.spectral_norm(nn.Linear(4, 2)), ROWS, f"Linear {COMPUTED}"),
        (lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), IMAGES, COMPUTED),
        (lambda: spectral_norm(nn.Linear(4, 2)), ROWS, COMPUTED),
        (pruned, ROWS, COMPUTED),
    ],
)
def test_what_a_mixed_layer_would_compute_otherwise_is_refused_by_name(make: Any, shape: Any, message: str) -> None:
    network = nn.Sequential(make())
    with pytest.raises(InputError) as e:
        searchable(network, synthetic_table(Network("net", network, shape)))
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("make", [lambda: Standardised(3, 4, 3), lambda: Same(3, 4, 3)])
def test_what_is_excluded_computes_as_it_did(make: Any) -> None:
    network, x = nn.Sequential(make(), nn.Conv2d(4, 2, 1)), torch.randn(2, 3, 6, 6)
    model = searchable(network, synthetic_table(Network("net", network, IMAGES)), exclude=["0"])
    assert model.network.get_submodule("0")(x).equal(network[0](x))


def test_a_weight_that_cannot_be_copied_is_one_line() -> None:
    network = nn.Sequential(pruned(), nn.Linear(2, 2))
    table = synthetic_table(Network("net", network, ROWS))
    network(torch.ones(ROWS))  # the weight is then a result, which torch does not copy
    with pytest.raises(InputError, match=r"network: cannot be copied: RuntimeError.*; remove .*norms or pruning first"):
        searchable(network, table, exclude=["0"])


class Tied(nn.Module):
    """An embedding and a head with one matrix; the network reads attributes of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids).to(self.body.weight.dtype)
        result: Tensor = self.head(torch.relu_(self.body(x)))
        return result.view(*ids.shape, self.head.out_features)


def tied() -> tuple[Tied, SearchableNetwork]:
    from dse.workload.inputs import parse_input, tensors

    network = Tied()
    table = synthetic_table(Network("tied", network, (), tensors([parse_input("2,3:int64")])))
    return network, searchable(network, table)


IDS = torch.tensor([[0, 1, 2], [3, 4, 8]])


def test_shared_parameters_stay_shared_and_attributes_can_be_read() -> None:
    network, model = tied()
    fixed = model.discretise({"words": "T8", "body": "T4", "head": "BC8"})
    assert fixed.head.weight is fixed.words.weight is not model.network.head.weight
    count = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in fixed.parameters()) == count
    for found in (model.network.body, fixed.body):
        assert (found.in_features, found.out_features) == (4, 4) and found.bias.shape == (4,)
        with pytest.raises(AttributeError, match="stride"):
            found.stride  # noqa: B018
    # The result of a layer with rows in front can be written in place, as relu_ does.
    fixed.train()(IDS).square().sum().backward()
    assert fixed.words.weight.grad.any()


def test_hooks_are_called_as_before() -> None:
    network, _ = tied()
    seen: list[str] = []
    network.body.register_forward_hook(lambda m, a, y: seen.append("after"))
    network.body.register_forward_pre_hook(lambda m, a: seen.append("before"))
    from dse.workload.inputs import parse_input, tensors

    table = synthetic_table(Network("tied", network, (), tensors([parse_input("2,3:int64")])))
    seen.clear()
    model = searchable(network, table)
    model(IDS)
    assert seen == ["before", "after"]
    model.discretise(uniform(table, "T4"))(IDS)
    network(IDS)
    assert seen == ["before", "after"] * 3


class Scaled(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def test_attention_with_a_forward_pass_of_its_own_is_refused_by_name_and_works_where_it_is_excluded() -> None:
    network = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    network[0].self_attn = Scaled(8, 2, batch_first=True)
    table = synthetic_table(Network("net", network, (2, 5, 8)))
    with pytest.raises(
        InputError, match=r"layer '0.self_attn.out_proj': is read without a call by a Scaled, which has"
    ):
        searchable(network, table)
    model = searchable(network, table, exclude=["0.self_attn.*"])
    fixed, x = model.discretise(uniform(table, "BC2", ["0.self_attn.*"])), torch.randn(2, 5, 8)
    fixed(x)
    fixed.eval()
    with torch.no_grad():  # where torch would read the linear layers' weights instead of calling them
        apart = (fixed(x) - network.eval()(x)).norm() / network(x).norm()
    with torch.enable_grad():
        assert torch.allclose(fixed(x.requires_grad_()), fixed(x).detach())
    assert apart > 0.01


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1)


def test_weights_that_are_read_without_a_call_are_refused_in_the_first_step() -> None:
    network, x = nn.Sequential(Padded(), nn.Conv2d(4, 2, 1)), torch.randn(2, 3, 6, 6)
    table = synthetic_table(Network("net", network, IMAGES))
    model = searchable(network, table)
    for _ in range(2):
        with pytest.raises(InputError, match=r"layer '0.conv': its weights are read by conv2d without a call of the"):
            model(x)
    model = searchable(network, table, exclude=["0.conv"])
    model(x)
    assert model.network.get_submodule("0")(x).equal(network[0](x))
