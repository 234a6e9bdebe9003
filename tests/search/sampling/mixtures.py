"""Mixtures of the tests."""

from __future__ import annotations

import numpy as np

from search.sampling.mixture import Mixture, mixture

TWO = mixture([0.6, 0.4], [[0.0, 0.0], [3.0, 2.0]], [[[1.0, 0.3], [0.3, 0.5]], [[0.5, -0.2], [-0.2, 0.8]]])
"""Two components in two dimensions, which overlap a little."""


def random_mixture(size: int, dimensions: int, seed: int, spread: float = 3.0) -> Mixture:
    """Weights, means and full covariances from a seed."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(size, dimensions, dimensions)) * 0.4 + np.eye(dimensions)
    weights = rng.uniform(0.3, 1.0, size)
    return mixture(weights / weights.sum(), rng.normal(size=(size, dimensions)) * spread,
                   factors @ factors.transpose(0, 2, 1))  # fmt: skip
