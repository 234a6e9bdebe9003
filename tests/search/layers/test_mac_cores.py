"""Found layers against the integer arithmetic of the cores: the same sums, word for word, overflow included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from search.layers.mac_cores import accumulate, baugh_wooley, core_sums, integer_layer, subword_multiply, wrapped
from search.layers.mixed_layer import LayerOptions, MixedLayer

CANDIDATES = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
BY_NAME = {c.name: c for c in CANDIDATES}
PUBLISHED = {c.name: c for c in load_candidates("operators_published_energies")}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_baugh_wooley_multiplies_every_pair_of_words(bits: int, signed: bool) -> None:
    b = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    a = b if signed else np.arange(2**bits)
    assert (baugh_wooley(a[:, None], b, bits, signed) == a[:, None] * b).all()


@given(st.sampled_from([8, 4, 2]), st.booleans(), st.integers(0, 10_000))
def test_one_multiplier_makes_the_products_of_all_its_words_at_once(bits: int, signed: bool, seed: int) -> None:
    g, low, high = np.random.default_rng(seed), -(2 ** (bits - 1)), 2 ** (bits - 1)
    b = g.integers(low, high, (8 // bits, 20))
    a = g.integers(low, high, b.shape) if signed else g.integers(0, 2**bits, b.shape)
    assert (subword_multiply(a, b, bits, signed) == a * b).all()


def test_a_multiplier_takes_as_many_words_as_fit() -> None:
    words = np.zeros((3, 1), np.int64)
    with pytest.raises(InputError, match=r"found 3 words of 4 bits"):
        subword_multiply(words, words, 4)


@given(st.lists(st.integers(-40, 40), max_size=30), st.integers(4, 8))
def test_accumulators_wrap_or_saturate(terms: list[int], width: int) -> None:
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    around = within = 0
    for term in terms:
        around = (around + term - low) % 2**width + low
        within = max(low, min(high, within + term))
    column = np.array(terms, np.int64)[:, None]
    assert accumulate(column, width, "wrap") == around
    assert accumulate(column, width, "saturate") == within


def convolutions() -> st.SearchStrategy[nn.Module]:
    return st.builds(
        lambda groups, c, m, kernel, stride, padding, dilation, mode: nn.Conv2d(
            groups * c, groups * m, kernel, stride, padding, dilation, groups, True, mode
        ),
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 2),
        st.integers(0, 2), st.integers(1, 2), st.sampled_from(["zeros", "circular"]),
    )  # fmt: skip


def layer_and_input(module: nn.Module, candidate: Any, quantiser: str, signed: bool, seed: int) -> Any:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    options = LayerOptions(quantiser, learned_scales=True)  # type: ignore[arg-type]
    layer = MixedLayer(module, [candidate], options).double()
    with torch.no_grad():
        layer.layer.weight.normal_()
        layer.log_scale.normal_()
    x = torch.randn((2, module.in_features) if isinstance(module, nn.Linear) else (2, module.in_channels, 5, 6))
    x = (x if signed else x.relu()).double()
    layer(x)
    return layer.eval(), x


def sums_of(layer: MixedLayer, x: torch.Tensor, scale: torch.Tensor) -> np.ndarray:
    """The fake-quantised layer's output without bias and scale."""
    shape = (-1, *[1] * (x.dim() - 2))
    relative = (layer(x) - layer.layer.bias.reshape(shape)) / scale.reshape(shape)
    torch.testing.assert_close(relative, relative.round(), rtol=0, atol=1e-6)
    return relative.detach().round().long().numpy()


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(convolutions(), st.builds(nn.Linear, st.integers(1, 8), st.integers(1, 5))),
    st.sampled_from(CANDIDATES),
    st.sampled_from(["rms", "lsq"]),
    st.booleans(),
    st.integers(0, 9999),
)
def test_a_layer_is_the_cores_sums_times_its_scale(
    module: Any, candidate: Any, quantiser: Any, signed: Any, seed: Any
) -> None:  # type: ignore[no-untyped-def]
    layer, x = layer_and_input(module, candidate, quantiser, signed, seed)
    integer = integer_layer(layer, x)
    low, high = -(2 ** (candidate.act_bits - 1)), 2 ** (candidate.act_bits - 1)
    if candidate.act_bits > 1:
        assert low <= integer.inputs.min() and integer.inputs.max() < (high if integer.signed else 2 * high)
    exact = sums_of(layer, x, integer.scale)
    assert (core_sums(integer, width=40) == exact).all()
    assert (core_sums(integer) == exact).all()  # the shipped accumulators hold every sum
    for bits in (5, 12):
        assert (core_sums(integer, width=bits) == wrapped(exact, bits)).all()


@pytest.mark.parametrize("name", ["MF8", "BC8"])
def test_where_twelve_bits_overflow_the_sum_wraps_or_saturates(name: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(400, 2)
    layer = MixedLayer(module, [PUBLISHED[name]]).double()
    with torch.no_grad():
        layer.layer.weight.fill_(1.0)
        layer.layer.weight[1, ::2] = -1.0
    x = torch.rand(2, 400, dtype=torch.float64)
    layer(x)
    integer = integer_layer(layer.eval(), x)
    exact = sums_of(layer, x, integer.scale)
    assert exact[:, 0].min() > 2047
    assert (core_sums(integer) == wrapped(exact, 12)).all() and (core_sums(integer)[:, 0] != exact[:, 0]).all()
    assert core_sums(integer, "saturate")[:, 0].tolist() == [2047] * 2
    assert (core_sums(integer, "saturate", 20) == exact).all()


def test_layers_that_no_core_computes_are_refused() -> None:
    with pytest.raises(InputError, match="has 2 candidates"):
        integer_layer(MixedLayer(nn.Linear(2, 2), CANDIDATES[:2]), torch.ones(1, 2))
    with pytest.raises(InputError, match="'dorefa': has weights that the core cannot represent"):
        integer_layer(MixedLayer(nn.Linear(2, 2), CANDIDATES[:1], LayerOptions("dorefa")), torch.ones(1, 2))
