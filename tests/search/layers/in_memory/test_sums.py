"""The sums of an array against a simulation in plain loops, written from the description of the arithmetic alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate, Macro
from dse.hardware.candidates import load_candidates
from search.layers.fused import outputs_first
from search.layers.in_memory.chips import Chip
from search.layers.in_memory.planes import conversions
from search.layers.in_memory.sums import Array, digital_sums, on_chip
from search.layers.in_memory.windows import in_shape, windows
from search.layers.quantize import levels

BY_NAME = {c.name: c for c in load_candidates(data_dir("arch_specs") / "operators_extended.yaml")}
NAMES = ("T8", "T4", "T2", "MF8", "MF4", "MF2", "BC8", "BC4", "BC2")


def bits_of(word: int, bits: int, signed: bool) -> list[tuple[int, int]]:
    """(coefficient, bit) of a two's complement or an unsigned word."""
    found = []
    for p in range(bits):
        bit = (word + (1 << bits)) // (1 << p) % 2
        found.append((-(1 << p) if signed and p == bits - 1 else 1 << p, bit))
    return found


def converted(total: int, macro: Macro) -> Fraction:
    codes = 2**macro.adc_bits - 1
    step = max(Fraction(1), Fraction(macro.full_scale, codes))
    return min(max(round(total / step), 0), codes) * step


def simulated(candidate: Candidate, x: Any, weights: tuple[Any, ...], signed: bool) -> Fraction:
    """One output of one column: inputs and weights (k,), group by group, plane by plane, product by product."""
    macro, bits = candidate.macro, candidate.bits
    assert macro is not None
    total = Fraction(0)
    for first in range(0, len(x), macro.rows):
        rows = range(first, min(first + macro.rows, len(x)))
        products: dict[tuple[int, str, int, int], int] = {}  # coefficient, which planes -> sum of one-bit products

        def add(coefficient: int, term: str, p: int, q: int, product: int, into: Any = products) -> None:
            key = (coefficient, term, p, q)
            into[key] = into.get(key, 0) + product

        for k in rows:
            value = int(x[k])
            if candidate.operator == "multiplication_free":
                magnitude, sign = int(weights[0][k]), int(weights[1][k])
                sides = [(1, int(value > 0)), (-1, int(value < 0))] if signed else [(1, int(value > 0))]
                for p, (cu, u) in enumerate(sides):
                    for q, (cv, v) in enumerate(bits_of(magnitude, max(bits - 1, 1), False)):
                        add(cu * cv, "magnitude of w", p, q, u * v)
                for p, (cu, u) in enumerate(bits_of(abs(value), bits - 1 if signed else bits, False)):
                    add(2 * cu, "sign of w", p, 0, u * int(sign > 0))
                total -= abs(value) if sign != 0 else 0
            elif candidate.operator == "binary_connect":
                for p, (cu, u) in enumerate(bits_of(value, bits, signed)):
                    add(2 * cu, "sign of w", p, 0, u * int(weights[0][k] > 0))
                total -= value
            else:
                for p, (cu, u) in enumerate(bits_of(value, bits, signed)):
                    for q, (cv, v) in enumerate(bits_of(int(weights[0][k]), bits, True)):
                        add(cu * cv, "word of w", p, q, u * v)
        total += sum(key[0] * converted(amount, macro) for key, amount in products.items())
    return total


def words(name: str, signed: bool, shape: Any, of: Any, random: np.random.Generator) -> tuple[Any, tuple[Any, ...]]:
    candidate = BY_NAME[name]
    low, high = levels(candidate.act_bits, signed)
    x = random.integers(low, high + 1, shape)
    low, high = levels(candidate.weight_bits, True)
    if candidate.operator == "multiplication_free":
        return x, (random.integers(0, high + 1, of), random.integers(-1, 2, of))
    if candidate.operator == "binary_connect":
        return x, (2 * random.integers(0, 2, of) - 1,)
    return x, (random.integers(low, high + 1, of),)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.integers(1, 8), st.sampled_from([1, 3, 30, 62, 70, 200]),
       st.integers(1, 200), st.sampled_from([1, 2]), st.integers(1, 140), st.sampled_from([2, 9]),
       st.sampled_from([torch.int64, torch.int16]), st.integers(0, 2**31))  # fmt: skip
def test_every_sum_is_that_of_plain_loops(
    name: str, signed: bool, adc: int, rows: int, scale: int, groups: int, inputs: int, outputs: int,
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    candidate = replace(BY_NAME[name], macro=Macro(rows, adc, scale))
    x, w = words(name, signed, (2, groups, inputs), (groups, outputs, inputs), np.random.default_rng(seed))
    array = Array(candidate, signed, tuple(map(torch.from_numpy, w)))
    found = array.sums(torch.from_numpy(x).to(dtype)).reshape(2, groups, outputs).numpy()
    for n in range(2):
        for g in range(groups):
            for o in (0, outputs - 1):
                expected = simulated(candidate, x[n, g], tuple(t[g, o] for t in w), signed)
                assert found[n, g, o] == pytest.approx(float(expected), rel=1e-12, abs=1e-9)
                if candidate.macro is not None and candidate.macro.step == 1:
                    assert found[n, g, o] == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.sampled_from([1, 15, 31, 63, 127]), st.integers(0, 2**31))
def test_an_adc_with_a_code_for_each_sum_gives_the_digital_sums(name: str, signed: bool, rows: int, seed: int) -> None:
    macro = Macro(rows, adc_bits=(rows + 1).bit_length() - 1, full_scale=rows)
    x, w = words(name, signed, (3, 2, 100), (2, 4, 100), np.random.default_rng(seed))
    array = Array(replace(BY_NAME[name], macro=macro), signed, tuple(map(torch.from_numpy, w)))
    assert torch.equal(array.sums(torch.from_numpy(x)), digital_sums(array, torch.from_numpy(x)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.integers(1, 8), st.sampled_from([7, 30, 62, 130]), st.integers(0, 999))
def test_products_of_matrices_give_the_same_as_counts_of_ones(
    name: str, signed: bool, adc: int, rows: int, seed: int
) -> None:
    x, w = words(name, signed, (3, 2, 100), (2, 9, 100), np.random.default_rng(seed))
    array = Array(replace(BY_NAME[name], macro=Macro(rows, adc, rows)), signed, tuple(map(torch.from_numpy, w)))
    assert torch.equal(replace(array, portable=True).sums(torch.from_numpy(x)), array.sums(torch.from_numpy(x)))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.integers(1, 8), st.sampled_from([7, 30, 130]), st.integers(0, 999))
def test_a_chip_is_the_same_by_products_of_matrices_and_by_rows(
    name: str, signed: bool, adc: int, rows: int, seed: int
) -> None:
    x, w = words(name, signed, (30, 2, 100), (2, 4, 100), np.random.default_rng(seed))
    array = Array(replace(BY_NAME[name], macro=Macro(rows, adc, rows)), signed, tuple(map(torch.from_numpy, w)))
    array = on_chip(array, Chip(seed, 0.1, 0.3), layer=1)
    rowwise, by_products = (a.sums(torch.from_numpy(x)) for a in (array, replace(array, portable=True)))
    assert float((rowwise != by_products).double().mean()) < 0.02  # where a sum is as good as between two codes


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 4, bias=False), (3, 5, 6)),
    "conv": (nn.Conv2d(6, 4, 3, padding=1, bias=False), (2, 6, 5, 7)),
    "strided": (nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False), (2, 6, 9, 8)),
    "groups": (nn.Conv2d(6, 4, 3, groups=2, bias=False), (2, 6, 5, 7)),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6, padding="same", bias=False), (2, 6, 5, 7)),
    "circular": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular", bias=False), (2, 6, 5, 7)),
    "single": (nn.Conv2d(6, 4, 3, bias=False), (6, 5, 7)),
    "1d": (nn.Conv1d(6, 4, 3, stride=2, padding=1, bias=False), (2, 6, 9)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
                   (2, 6, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(6, 4, 4, stride=3, dilation=2, bias=False), (2, 6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_windows_lie_in_the_order_of_the_weights(name: str) -> None:
    layer, shape = LAYERS[name]
    layer, x = layer.double(), torch.randn(shape, dtype=torch.float64)
    of = windows(layer, x)
    weight = outputs_first(layer, layer.weight.detach())
    weight = weight.reshape(of.groups, len(weight) // of.groups, -1)
    seen = of.of(0, len(of.view))
    found = in_shape(torch.einsum("ngk,gok->ngo", seen, weight).flatten(1), of)
    torch.testing.assert_close(found, layer(x).detach())
    index = torch.tensor([0, of.positions - 1, of.positions // 2])
    assert torch.equal(of.at(index), seen[index])


def test_conversions_of_inputs_behind_a_relu() -> None:
    for name in NAMES:
        c, b = BY_NAME[name], BY_NAME[name].bits
        assert conversions(c) == {"typical": b * b, "multiplication_free": 2 * b - 1, "binary_connect": b}[c.operator]


def test_other_operators_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="XN1: xnor is not computed in memory"):
        conversions(BY_NAME["XN1"])
