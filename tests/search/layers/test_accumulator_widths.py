"""The shipped widths of accumulators against an adversary: extreme words, in the integer reference of the cores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.mac_cores import IntegerLayer, Integers, core_sums
from search.layers.operators.deep_shift import largest_shift
from search.layers.quantize import levels

CANDIDATES = load_candidates("operators_extended")
LENGTHS = (1, 2, 3, 27, 64, 576, 1152, 4608)


def largest_weight(candidate: Candidate) -> int:
    """The word of the largest weight, in the form of `IntegerLayer.weights`."""
    if candidate.operator == "deep_shift":
        return int(2 ** largest_shift(candidate.weight_bits))
    if candidate.weight_bits == 1:
        return 1
    largest = levels(candidate.weight_bits, signed=True)[1]
    return 2 * largest + 1 if candidate.operator == "multiplication_free" else largest


def extreme_sums(candidate: Candidate, terms: int, signed: bool, width: int | None = None) -> Integers:
    """The core's sums of the largest inputs with the largest weights of either sign, and of inputs of either sign."""
    low, high = levels(candidate.act_bits, signed)
    inputs = np.array([[high] * terms, [low] * terms], np.int64)
    words = (largest_weight(candidate), 1)  # the second is the sign alone under MF
    weights = np.array([[sign * word] * terms for word in words for sign in (1, -1)], np.int64)
    layer = IntegerLayer(candidate, nn.Linear(terms, 4), inputs, weights, signed, torch.ones(4))
    return core_sums(layer, "wrap", width)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: str(c.name))
@pytest.mark.parametrize("signed", [True, False])
def test_no_sum_overflows(candidate: Candidate, signed: bool) -> None:
    for terms in LENGTHS:
        exact = extreme_sums(candidate, terms, signed, 60)
        assert (extreme_sums(candidate, terms, signed) == exact).all()


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: str(c.name))
def test_with_a_bit_less_sums_of_inputs_without_sign_overflow(candidate: Candidate) -> None:
    for terms in LENGTHS:
        narrow = candidate.accumulator_bits(terms) - 1
        exact = extreme_sums(candidate, terms, False, 60)
        assert (extreme_sums(candidate, terms, False, narrow) != exact).any()


def test_inputs_with_a_sign_need_at_most_two_bits_less() -> None:
    spare = set()
    for candidate in CANDIDATES:
        for terms in LENGTHS:
            exact = int(np.abs(extreme_sums(candidate, terms, True, 60)).max())
            spare.add(candidate.accumulator_bits(terms) - (1 + exact.bit_length()))
    assert spare == {0, 1, 2}


def test_no_words_of_an_example_reach_beyond_the_extreme_ones() -> None:
    generator = np.random.default_rng(0)
    for candidate in CANDIDATES:
        for signed in (True, False):
            low, high = levels(candidate.act_bits, signed)
            top = largest_weight(candidate)
            inputs = generator.integers(low, high + 1, (50, 27))
            weights = generator.choice([-top, top], (20, 27))
            layer = IntegerLayer(candidate, nn.Linear(27, 20), inputs, weights, signed, torch.ones(20))
            assert np.abs(core_sums(layer, "wrap", 60)).max() <= extreme_sums(candidate, 27, False, 60).max()
