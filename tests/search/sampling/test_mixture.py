"""Mixtures: moments and densities against integrals and samples, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from search.sampling.mixture import mixture
from tests.search.sampling.mixtures import TWO, random_mixture


def test_moments_are_those_of_the_density() -> None:
    x, y = np.meshgrid(np.linspace(-6, 8, 400), np.linspace(-6, 8, 400), indexing="ij")
    points = np.stack([x, y], -1).reshape(-1, 2)
    p = np.exp(TWO.log_density(points)) * (14 / 399) ** 2
    assert p.sum() == pytest.approx(1, abs=1e-4)
    assert p @ points == pytest.approx(TWO.mean, abs=1e-3)
    apart = points - TWO.mean
    assert (apart.T * p) @ apart == pytest.approx(TWO.covariance, abs=1e-2)


def test_exact_samples_have_the_moments_and_the_projected_distribution() -> None:
    target = random_mixture(3, 4, seed=1)
    samples = target.draw(200_000, np.random.default_rng(0))
    error = np.sqrt(np.diagonal(target.covariance) / 200_000)
    assert (np.abs(samples.mean(0) - target.mean) < 5 * error).all()
    assert np.abs(np.cov(samples.T) - target.covariance).max() < 0.03 * target.covariance.max()
    direction = np.array([0.5, -0.5, 0.5, 0.5])
    line = target.projected(direction)
    for quantile in (0.1, 0.5, 0.9):
        x = np.quantile(samples @ direction, quantile)
        assert float(line.distribution(np.array(x))) == pytest.approx(quantile, abs=0.006)


def test_points_near_a_mean_belong_to_its_component() -> None:
    assert TWO.nearest(TWO.means).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([0.5, 0.4], [[0], [1]], [[[1]], [[1]]], "weights: their sum is 0.9 (allowed: weights with the sum 1)"),
        ([1.0, 0.0], [[0], [1]], [[[1]], [[1]]], "weights[1]: found 0 (allowed: a number above 0, up to 1)"),
        ([1.0], [[0], [1]], [[[1]], [[1]]], "means: found 2 means for 1 weights (allowed: 1 means)"),
        ([0.5, 0.5], [[0, 1], [1]], [[[1]], [[1]]], "means[1]: has 1 numbers, and means[0] has 2 (allowed"),
        ([1.0], [[0, 0]], [[[1]]], "covariances: found 1 x 1 x 1 numbers (allowed: 1 x 2 x 2: a matrix for each mean)"),
        ([1.0], [[0, 0]], [[[1, 1], [1, 1]]], "covariances[0]: is singular"),
        ([1.0], [[0, 0]], [[[0, 0], [0, 1]]], "covariances[0][0][0]: found the variance 0"),
        ([1.0], [[0, 0]], [[[1, 2], [2, 1]]], "covariances[0]: is not positive definite"),
        ([1.0], [[0, 0]], [[[1, 0.5], [0.2, 1]]], "covariances[0]: is not symmetric: [0][1] is 0.5, [1][0] is 0.2"),
        ([1.0], [[float("nan")]], [[[1]]], "means[0][0]: found nan (allowed: finite numbers)"),
        ([1.0], [[0] * 17], [[[1]]], "means[0]: found 17 dimensions (allowed: 1 to 16)"),
        ([1.0], ["ab"], [[[1]]], "means[0]: found ab"),
        ([], [], [], "weights: found 0 components"),
    ],
)  # fmt: skip
def test_wrong_mixtures_are_refused_by_name(weights: Any, means: Any, covariances: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        mixture(weights, means, covariances)
    assert str(caught.value).startswith(message)
