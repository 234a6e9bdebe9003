"""Random bits: their bias and correlation are those that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dse.core.errors import InputError
from dse.core.schema import validated
from search.sampling.macro import Macro
from search.sampling.random_bits import RandomBits


@pytest.mark.parametrize(("bias", "correlation"), [(0, 0), (0.1, 0), (-0.2, 0.5), (0, -0.6), (0, 0.9)])
def test_bits_have_their_bias_and_correlation(bias: float, correlation: float) -> None:
    source = RandomBits(chains=50, bits=1, seed=0, bias=bias, correlation=correlation)
    bits = source.words(500, 8).transpose(1, 0, 2).reshape(50, -1)
    assert bits.mean() == pytest.approx(0.5 + bias, abs=0.01)
    before, after = bits[:, :-1].ravel(), bits[:, 1:].ravel()
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(correlation, abs=0.01)
    assert np.corrcoef(bits[0], bits[1])[0, 1] == pytest.approx(0, abs=0.1)


def test_words_are_successive_bits_with_the_highest_first() -> None:
    bits = RandomBits(3, 1, seed=4, correlation=0.3).words(1, 12)[0]
    words = RandomBits(3, 4, seed=4, correlation=0.3).words(1, 3)[0]
    assert (words == bits.reshape(3, 3, 4) @ [8, 4, 2, 1]).all()


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_words_do_not_depend_on_how_many_are_drawn_at_a_time(correlation: float) -> None:
    together = RandomBits(4, 9, seed=1, correlation=correlation).words(30, 5)
    source = RandomBits(4, 9, seed=1, correlation=correlation)
    assert (np.concatenate([source.words(n, 5) for n in (1, 2, 27)]) == together).all()


def test_bits_that_cannot_exist_are_refused() -> None:
    with pytest.raises(InputError, match=r"random_correlation: found -0.8 .*allowed: a number from -0.429"):
        validated(Macro, {"random_bias": 0.2, "random_correlation": -0.8}, "gmm.yaml")
