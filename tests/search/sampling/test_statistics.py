"""Effective sample size, R-hat and Wasserstein distance against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.sampling.mixture import mixture
from search.sampling.statistics import effective_samples, sliced_wasserstein, split_r_hat, wasserstein
from tests.search.sampling.mixtures import TWO

NORMAL = mixture([1.0], [[0.0]], [[[1.0]]])


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_effective_samples_of_an_autoregression(correlation: float) -> None:
    rng = np.random.default_rng(1)
    chains = np.zeros((20_000, 8, 1))
    for t in range(1, len(chains)):
        chains[t] = correlation * chains[t - 1] + math.sqrt(1 - correlation**2) * rng.standard_normal((8, 1))
    expected = 160_000 * (1 - correlation) / (1 + correlation)
    assert effective_samples(chains)[0] == pytest.approx(expected, rel=0.1)


def test_chains_that_stay_apart_count_little_and_are_told_by_r_hat() -> None:
    chains = np.random.default_rng(0).standard_normal((1000, 4, 1)) * 0.1 + np.arange(4)[None, :, None]
    assert effective_samples(chains)[0] < 12
    assert split_r_hat(chains)[0] > 5
    assert effective_samples(np.ones((100, 4, 1)))[0] == 4
    assert effective_samples(np.ones((1, 4, 1)))[0] == 4 and np.isnan(split_r_hat(np.ones((1, 4, 1)))[0])


def test_wasserstein_distance_of_a_shift_and_of_a_scale() -> None:
    exact = np.random.default_rng(0).standard_normal(400_000)
    assert wasserstein(exact + 0.25, NORMAL) == pytest.approx(0.25, abs=0.01)
    assert wasserstein(exact * 1.5, NORMAL) == pytest.approx(0.5 * math.sqrt(2 / math.pi), abs=0.01)
    assert wasserstein(np.zeros(10), NORMAL) == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)


def test_the_sliced_distance_does_not_depend_on_units() -> None:
    samples = TWO.draw(20_000, np.random.default_rng(0)) + np.array([0.5, 0.0])
    units = np.array([1000.0, 0.01])
    scaled = mixture(TWO.weights, TWO.means * units, TWO.covariances * np.outer(units, units))
    one, other = sliced_wasserstein(samples, TWO), sliced_wasserstein(samples * units, scaled)
    assert one == pytest.approx(other, rel=1e-6) and one > 0.1
