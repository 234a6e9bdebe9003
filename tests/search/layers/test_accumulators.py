"""Evaluation with accumulators that are too narrow: against nested loops and against the reference of the cores."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate, Overflow
from dse.hardware.candidates import load_candidates
from search.layers.accumulators import Accumulators, wrapped
from search.layers.mac_cores import core_sums, integer_layer
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.mixed_product import MixedProduct
from tests.search.layers.test_mac_cores import CANDIDATES, convolutions, layer_and_input

NARROW = {c.name: c for c in load_candidates("operators_published_widths")}


def overflowing(candidate: Candidate, overflow: Overflow, bits: int) -> Candidate:
    return replace(candidate, overflow=overflow, psum_bits=bits)


@settings(deadline=None, max_examples=120)
@given(
    st.one_of(convolutions(), st.builds(nn.Linear, st.integers(1, 8), st.integers(1, 5))),
    st.sampled_from(CANDIDATES),
    st.sampled_from(["wrap", "saturate"]),
    st.integers(2, 12),
    st.booleans(),
    st.integers(0, 9999),
)
def test_an_evaluated_layer_has_the_sums_of_the_core(
    module: Any, candidate: Candidate, overflow: Any, bits: int, signed: bool, seed: int
) -> None:
    narrow = overflowing(candidate, overflow, bits)
    layer, x = layer_and_input(module, narrow, "rms", signed, seed)
    integer = integer_layer(layer, x)
    shape = (-1, *[1] * (x.dim() - 2))
    with torch.no_grad():
        relative = (layer(x) - layer.layer.bias.reshape(shape)) / integer.scale.reshape(shape)
    torch.testing.assert_close(relative, relative.round(), rtol=0, atol=1e-6)
    assert (relative.round().long().numpy() == core_sums(integer, overflow)).all()


def accumulated(layer: MixedLayer, x: Tensor, bits: int, overflow: str) -> list[list[int]]:
    """The sums of a linear MF layer, one operation of Python integers after the other."""
    integer = integer_layer(layer, x)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = []
    for words in integer.inputs.tolist():
        row = []
        for weights in integer.weights.tolist():
            total = 0
            for a, w in zip(words, weights, strict=True):
                sign_a, sign_w = (a > 0) - (a < 0), 1 if w > 0 else -1
                total += sign_a * (abs(w) // 2) + sign_w * abs(a)
                while overflow == "wrap" and not low <= total <= high:
                    total += 2**bits if total < low else -(2**bits)
                total = max(low, min(high, total))
            row.append(total)
        rows.append(row)
    return rows


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_a_plain_loop_over_the_terms_gives_the_same(overflow: Overflow) -> None:
    torch.manual_seed(1)
    layer = MixedLayer(nn.Linear(60, 4, bias=False), [overflowing(NARROW["MF8"], overflow, 8)]).double()
    x = torch.randn(3, 60).relu().double()
    layer(x)
    layer.eval()
    expected = torch.tensor(accumulated(layer, x, 8, overflow), dtype=torch.float64)
    exact = torch.tensor(accumulated(layer, x, 40, overflow), dtype=torch.float64)
    assert (expected != exact).any()
    with torch.no_grad():
        torch.testing.assert_close(layer(x) / integer_layer(layer, x).scale, expected, rtol=0, atol=1e-6)


def test_sums_beyond_the_integers_of_float32_are_exact() -> None:
    weights = torch.full((1, 1, 4096), 127.0)
    weights[..., 0] = 1
    core = Accumulators(replace(NARROW["T8"], psum_bits=32), False, (weights,))
    words = torch.full((2, 1, 4096), 255.0)
    assert core.sums(words).tolist() == [[255 * (127 * 4095 + 1)]] * 2


def test_wrapping_is_modulo_two_to_the_width() -> None:
    x = torch.arange(-600, 600, dtype=torch.float32)
    expected = [(int(v) + 16) % 32 - 16 for v in x]
    assert wrapped(x, 5).tolist() == expected


def test_training_and_supernets_take_sums_to_be_exact() -> None:
    torch.manual_seed(0)
    exact = [replace(c, overflow=None) for c in NARROW.values()]
    x = torch.randn(8, 400).relu()
    for chosen, training in (([6], True), ([0, 6], False)):
        outputs = []
        for candidates in (list(NARROW.values()), exact):
            torch.manual_seed(3)
            layer = MixedLayer(nn.Linear(400, 3), [candidates[i] for i in chosen])
            layer(x)
            outputs.append(layer.train(training)(x))
        assert torch.equal(*outputs)


def test_the_gradient_of_an_evaluation_is_that_of_exact_sums() -> None:
    torch.manual_seed(0)
    layer, exact = (MixedLayer(nn.Linear(400, 3), [c]) for c in (NARROW["BC8"], replace(NARROW["BC8"], overflow=None)))
    x = torch.rand(8, 400)
    for each in (layer, exact):
        with torch.no_grad():
            each.layer.weight.fill_(0.1)
        each(x)
        each.eval()(x).sum().backward()
    assert not torch.equal(layer(x), exact(x))
    assert torch.equal(layer.layer.weight.grad, exact.layer.weight.grad)  # type: ignore[arg-type]


def test_a_product_of_two_activations_wraps() -> None:
    torch.manual_seed(0)
    narrow, wide = (MixedProduct([replace(NARROW["T8"], psum_bits=bits)]) for bits in (12, 40))
    q, k = torch.randn(2, 5, 64), torch.randn(2, 64, 5)
    for each in (narrow, wide):
        each(torch.matmul, q, k)
        each.eval()
    with torch.no_grad():
        found, exact = narrow(torch.matmul, q, k), wide(torch.matmul, q, k)
        left, right = narrow.first(q, [8])[8], narrow.second(k, [8])[8]
    expected = np.empty(exact.shape)
    for i, j, m in itertools.product(*map(range, exact.shape)):
        total = sum(int(a) * int(b) for a, b in zip(left[0][i, j], right[0][i, :, m], strict=True))
        expected[i, j, m] = (total + 2048) % 4096 - 2048
    torch.testing.assert_close(found / (left[1] * right[1]), torch.tensor(expected).float(), rtol=1e-5, atol=1e-3)
    assert not torch.equal(found, exact)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(InputError, match="the core of T8 cannot represent, whose overflow"):
        MixedLayer(nn.Linear(2, 2), [NARROW["T8"]], LayerOptions("dorefa"))
    with pytest.raises(InputError, match="saturates, which depends on the order"):
        MixedProduct([overflowing(NARROW["T8"], "saturate", 20)])
