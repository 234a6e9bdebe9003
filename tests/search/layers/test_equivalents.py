"""Modules of torch and of transformers in a form that can be searched: the same function, the same weights."""

from __future__ import annotations

import copy
import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.networks import Network
from search.layers.equivalents import SearchableAttention, TransposedLinear, attention_refusal, is_conv1d, prepare

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 4, 6, 8, 2

FORMS: dict[str, dict[str, Any]] = {
    "usual": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "learned key and value": {"add_bias_kv": True},
    "zero key and value": {"add_zero_attn": True},
    "all": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
}


class Attends(nn.Module):
    """A module that calls an attention, with one, two or three different tensors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, **settings)

    def forward(self, *tensors: Tensor, **keywords: Any) -> Any:
        query, key, value = (*tensors, *tensors[-1:] * (3 - len(tensors)))
        return self.attn(query, key, value, **keywords)


def inputs(count: int, first: bool, batched: bool = True, widths: tuple[int, int] = (WIDTH, WIDTH)) -> list[Tensor]:
    lengths = [QUERIES, KEYS, KEYS][:count]
    sizes = [WIDTH, *widths][:count]
    tensors = [torch.randn(n, BATCH, c) for n, c in zip(lengths, sizes, strict=True)]
    if not batched:
        return [x[:, 0] for x in tensors]
    return [x.transpose(0, 1).contiguous() for x in tensors] if first else tensors


def filled(**settings: Any) -> Attends:
    """Torch begins biases at 0, where an error in them would not be seen."""
    network = Attends(**settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def prepared(network: nn.Module, *tensors: Tensor) -> nn.Module:
    """A copy, prepared with the rows of its own export."""
    found = export_network(Network("net", network, (), lambda _: (tensors, {})))
    result = copy.deepcopy(network)
    prepare(result, {layer.name: layer.instance for layer in found.layers}, [])
    return result


def masks(keys: int, batch: int | None) -> dict[str, dict[str, Any]]:
    """Every query sees something, and every sequence has a word: else torch gives NaN."""
    several = 1 if batch is None else batch
    attend = torch.rand(QUERIES, keys) < 0.4
    attend[:, 0] = False
    each = torch.rand(several * HEADS, QUERIES, keys) < 0.4
    each[:, :, 0] = False
    padding = torch.arange(keys) >= torch.tensor([[keys - 1], [keys], [keys - 2]])[:several]
    padding = padding if batch is not None else padding[0]
    floats = torch.randn(QUERIES, keys)
    return {
        "none": {}, "mask": {"attn_mask": attend}, "mask of each": {"attn_mask": each},
        "added mask": {"attn_mask": floats}, "padding": {"key_padding_mask": padding},
        "both": {"key_padding_mask": padding, "attn_mask": attend},
        "both added": {"key_padding_mask": torch.zeros(padding.shape).masked_fill(padding, -9.0), "attn_mask": floats},
    }  # fmt: skip


def agree(found: tuple[Tensor, Tensor | None], expected: tuple[Tensor, Tensor | None]) -> None:
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)
    if found[1] is not None:
        torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_it_computes_what_torch_computes(form: str, count: int, batched: bool) -> None:
    torch.manual_seed(0)
    network = filled(**FORMS[form])
    tensors = inputs(count, network.attn.batch_first, batched)
    other = prepared(network, *tensors)
    assert isinstance(other.get_submodule("attn"), SearchableAttention)
    keys = QUERIES if count == 1 else KEYS
    kinds = masks(keys, BATCH if batched else None).values()
    for keywords, need, average in itertools.product(kinds, (True, False), (True, False)):
        keywords = {**keywords, "need_weights": need, "average_attn_weights": average}
        for training in (True, False):
            network.train(training), other.train(training)
            agree(other(*tensors, **keywords), network(*tensors, **keywords))
            with torch.no_grad():  # where torch has a fused form
                agree(other(*tensors, **keywords), network(*tensors, **keywords))


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_the_hint_that_a_mask_is_causal_is_taken_as_torch_takes_it(need: bool, padded: bool) -> None:
    torch.manual_seed(0)
    network = filled(batch_first=True)
    (x,) = inputs(1, True)
    other = prepared(network, x)
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    padding = torch.arange(QUERIES) >= torch.tensor([[3], [4], [2]])
    keywords: dict[str, Any] = {}
    if padded:
        keywords = {"key_padding_mask": torch.zeros(padding.shape).masked_fill(padding, -torch.inf)}
    keywords |= {"attn_mask": causal, "is_causal": True, "need_weights": need}
    agree(other(x, **keywords), network(x, **keywords))
    agree(other(x, **keywords), network(x, **{**keywords, "is_causal": False}))
    with pytest.raises(RuntimeError, match="is_causal needs attn_mask"):
        other(x, is_causal=True)


def test_keys_and_values_of_other_widths() -> None:
    torch.manual_seed(0)
    network = filled(kdim=5, vdim=3)
    tensors = inputs(3, False, widths=(5, 3))
    other = prepared(network, *tensors)
    assert [n for n, _ in other.get_submodule("attn").named_children()] == ["q_proj", "k_proj", "v_proj", "out_proj"]
    agree(other(*tensors), network(*tensors))
    found, attention = copy.deepcopy(other.state_dict()), other.get_submodule("attn")
    attention.to_plain(found, "attn.")  # type: ignore[operator]
    assert_states_equal(found, network.state_dict())
    assert attention.in_proj_weight is None and torch.equal(attention.in_proj_bias, network.attn.in_proj_bias)


@pytest.mark.parametrize("need", [True, False])
def test_dropout_is_applied_in_training_only(need: bool) -> None:
    torch.manual_seed(0)
    network = filled(dropout=0.5)
    (x,) = inputs(1, False)
    other = prepared(network, x)
    agree(other.eval()(x, need_weights=need), network.eval()(x, need_weights=need))
    results = []
    for module in (network.train(), other.train()):
        torch.manual_seed(1)
        results.append(module(x, need_weights=need))
    agree(results[1], results[0])
    assert not torch.allclose(results[0][0], network.eval()(x)[0])


def assert_states_equal(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_of_the_network_is_read_and_given_back(count: int, bias: bool) -> None:
    torch.manual_seed(0)
    network, trained = filled(bias=bias), filled(bias=bias)
    tensors = inputs(count, False)
    other = prepared(network, *tensors)
    other.load_state_dict(trained.state_dict(), strict=True)
    agree(other(*tensors), trained(*tensors))
    attention = other.get_submodule("attn")
    torch.testing.assert_close(attention.in_proj_weight, trained.attn.in_proj_weight)
    assert (attention.in_proj_bias is None) == (not bias)
    state = dict(other.state_dict())
    attention.to_plain(state, "attn.")  # type: ignore[operator]
    assert_states_equal(state, trained.state_dict())
    again = copy.deepcopy(other)
    again.load_state_dict(other.state_dict())  # of its own form
    agree(again(*tensors), other(*tensors))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_are_those_of_torch(count: int) -> None:
    torch.manual_seed(0)
    network = filled(add_bias_kv=True)
    tensors = inputs(count, False)
    other = prepared(network, *tensors)
    for module in (network, other):
        module(*tensors)[0].square().sum().backward()
    gradients = {n: p.grad for n, p in other.named_parameters()}
    other.get_submodule("attn").to_plain(gradients, "attn.")  # type: ignore[operator]
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_the_form_follows_from_the_rows() -> None:
    def names(*sizes: int) -> tuple[tuple[str, ...], dict[str, str]]:
        network = Attends()
        rows = {f"attn.in_proj{'' if i == 0 else f'#{i + 1}'}": {"C": WIDTH, "M": m} for i, m in enumerate(sizes)}
        further = prepare(network, rows, [])
        return network.get_submodule("attn").projections, further  # type: ignore[return-value]

    one, two, three = WIDTH, 2 * WIDTH, 3 * WIDTH
    assert names(three, three) == (("in_proj",), {"attn.in_proj": "attn.in_proj", "attn.in_proj#2": "attn.in_proj"})
    assert names(one, two, one, two)[1] == {
        "attn.in_proj": "attn.in_proj", "attn.in_proj#2": "attn.in_proj#2",
        "attn.in_proj#3": "attn.in_proj", "attn.in_proj#4": "attn.in_proj#2",
    }  # fmt: skip
    assert names(one, one, one)[0] == ("in_proj", "in_proj#2", "in_proj#3")
    with pytest.raises(InputError, match=r"layer 'attn.in_proj': is called both as a self-attention and as a cross-"):
        names(three, one, two)


def test_other_weights_are_refused_and_shared_ones_stay_shared() -> None:
    pair = nn.ModuleList([nn.MultiheadAttention(WIDTH, HEADS) for _ in range(2)])
    pair[1].in_proj_weight = pair[0].in_proj_weight
    rows = {f"{i}.in_proj": {"C": WIDTH, "M": 3 * WIDTH} for i in range(2)}
    found = copy.deepcopy(pair)
    prepare(found, rows, [])
    assert found[0].in_proj.weight is found[1].in_proj.weight
    apart = {"0.in_proj": {"M": WIDTH}, "0.in_proj#2": {"M": 2 * WIDTH}}
    with pytest.raises(InputError, match=r"layer '0.in_proj': is a cross-attention of torch that shares its weights"):
        prepare(copy.deepcopy(pair), apart, [])
    prepare(pair, apart, ["0.in_proj"])  # left out: as it was
    assert type(pair[0]) is nn.MultiheadAttention

    class Own(nn.MultiheadAttention):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    class Sized(nn.MultiheadAttention):
        def __init__(self) -> None:
            super().__init__(WIDTH, HEADS)

    assert attention_refusal(Sized()) is None
    assert "a Own, which has methods of its own" in str(attention_refusal(Own(WIDTH, HEADS)))
    normed = nn.utils.parametrizations.weight_norm(nn.MultiheadAttention(WIDTH, HEADS), "in_proj_weight")
    assert "computed at each call" in str(attention_refusal(normed))
    with pytest.raises(InputError, match=r"layer 'out_proj': is read by torch.nn.MultiheadAttention without a call"):
        prepare(normed, {"in_proj": {"M": 3 * WIDTH}}, [])


@pytest.fixture
def conv1d(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of transformers, which need not be installed."""
    source = """
import torch
from torch import nn


class Conv1D(nn.Module):
    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        size_out = x.size()[:-1] + (self.nf,)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size_out)
"""
    module = ModuleType("transformers.pytorch_utils")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "<transformers>", "exec"), module.__dict__)
    return module.Conv1D


def test_a_conv1d_of_transformers_becomes_a_linear_layer(conv1d: Any) -> None:
    network = nn.Sequential(conv1d(6, 4), nn.ReLU(), conv1d(6, 6))
    x = torch.randn(2, 3, 4)
    seen: list[str] = []
    network[0].register_forward_hook(lambda *_: seen.append("called"))
    other = copy.deepcopy(network)
    prepare(other, {"0": {"C": 4, "M": 6}, "2": {"C": 6, "M": 6}}, ["2"])
    assert isinstance(other[0], TransposedLinear) and type(other[2]) is conv1d
    assert (other[0].in_features, other[0].out_features, other[0].nf) == (4, 6, 6)
    torch.testing.assert_close(other(x), network(x))
    assert len(seen) == 2
    state = dict(other.state_dict())
    other[0].to_plain(state, "0.")
    assert_states_equal(state, network.state_dict())


def test_what_only_looks_like_a_conv1d_is_none(conv1d: Any) -> None:
    class Conv1D(nn.Linear):
        nf = 4

    assert is_conv1d(conv1d(4, 4)) and not is_conv1d(Conv1D(4, 4)) and not is_conv1d(nn.Conv1d(4, 4, 1))
    own = conv1d(4, 4)
    own.forward = lambda x: x
    assert not is_conv1d(own)
    tied = nn.ModuleList([conv1d(4, 4), conv1d(4, 4)])
    tied[1].weight = tied[0].weight
    with pytest.raises(InputError, match="layer '0': is a Conv1D of transformers that shares its weights; leave it"):
        prepare(tied, {"0": {"C": 4, "M": 4}, "1": {"C": 4, "M": 4}}, [])
