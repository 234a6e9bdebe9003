"""How good samples are: effective sample size, agreement of chains, Wasserstein distance to the exact mixture."""

from __future__ import annotations

import numpy as np

from search.sampling.mixture import FloatArray, Mixture

DIRECTIONS = 64
"""Projections of the sliced distance."""

_BINS = 4096


def effective_samples(chains: FloatArray) -> FloatArray:
    """Number of independent samples whose mean is as accurate, for each dimension: shape (D,).

    The sum of autocorrelations ends where two successive ones have a negative sum (Geyer's initial positive sequence);
    variances within and between chains are both counted (Gelman et al., Bayesian Data Analysis, 3rd edition, 11.5).

    Args:
        chains: shape (iterations, chains, D).

    Example:
        >>> independent = np.random.default_rng(0).standard_normal((2000, 4, 1))
        >>> bool(abs(effective_samples(independent)[0] / 8000 - 1) < 0.1)
        True
    """
    iterations, number, dimensions = chains.shape
    if iterations < 4:
        return np.full(dimensions, float(number))
    return np.array([_effective(chains[:, :, d]) for d in range(dimensions)])


def _effective(chains: FloatArray) -> float:
    iterations, number = chains.shape
    apart = chains - chains.mean(0)
    covariances = np.zeros(iterations)
    length = 2 ** int(np.ceil(np.log2(2 * iterations)))
    for chain in apart.T:  # one by one: all spectra at once would need a multiple of the memory
        spectrum = np.abs(np.fft.rfft(chain, length)) ** 2
        covariances += np.fft.irfft(spectrum, length)[:iterations]
    covariances /= number * iterations
    within = covariances[0] * iterations / (iterations - 1)
    between = float(chains.mean(0).var(ddof=1)) if number > 1 else 0.0
    total = covariances[0] + between
    if total <= 0:  # the chains have not moved
        return float(number)
    correlations = 1 - (within - covariances) / total
    pairs = correlations[: iterations // 2 * 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs < 0)
    # The first pair holds the correlation 1 of a sample with itself.
    positive = np.minimum.accumulate(pairs[: ends[0] if len(ends) else len(pairs)])
    time = max(2 * float(positive.sum()) - 1, 1 / np.log10(max(10, iterations * number)))
    return float(iterations * number / time)


def split_r_hat(chains: FloatArray) -> FloatArray:
    """Gelman and Rubin's ratio for halves of chains, shape (D,); near 1 where all of them have seen the same.

    Args:
        chains: shape (iterations, chains, D).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> bool(split_r_hat(rng.standard_normal((1000, 2, 1)))[0] < 1.01)
        True
        >>> bool(split_r_hat(rng.standard_normal((1000, 2, 1)) + [[[0.0], [5.0]]])[0] > 2)
        True
    """
    half = len(chains) // 2
    if half < 2:
        return np.full(chains.shape[2], np.nan)
    halves = np.concatenate([chains[:half], chains[half : 2 * half]], axis=1)
    within = halves.var(0, ddof=1).mean(0)
    between = half * halves.mean(0).var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(((half - 1) / half * within + between / half) / within)
    result: FloatArray = np.where(between == 0, 1.0, ratio)
    return result


def wasserstein(samples: FloatArray, target: Mixture) -> float:
    """Wasserstein-1 distance of numbers, shape (N,), to an exact mixture of one dimension.

    It is the integral of the distance of both cumulative distributions; the mixture's is known in closed form.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> normal = mixture([1.0], [[0.0]], [[[1.0]]])
        >>> round(wasserstein(np.random.default_rng(0).standard_normal(100_000) + 0.5, normal), 2)
        0.5
    """
    deviations = np.sqrt(target.covariances[:, 0, 0])
    low = min(float(samples.min()), float((target.means[:, 0] - 8 * deviations).min()))
    high = max(float(samples.max()), float((target.means[:, 0] + 8 * deviations).max()))
    counts, edges = np.histogram(samples, bins=_BINS, range=(low, high))
    of_samples = np.concatenate([[0.0], np.cumsum(counts) / len(samples)])
    distances = np.abs(of_samples - target.distribution(edges))
    return float(((distances[1:] + distances[:-1]) / 2 * np.diff(edges)).sum())


def sliced_wasserstein(samples: FloatArray, target: Mixture, directions: int = DIRECTIONS) -> float:
    """Mean Wasserstein-1 distance over random directions, in standard deviations of the mixture along each.

    Directions are uniform after the mixture's covariance has been whitened, and always the same ones.

    Args:
        samples: shape (N, D).

    Example:
        >>> from search.sampling.mixture import mixture
        >>> wide = mixture([1.0], [[0.0, 0.0]], [[[4.0, 0.0], [0.0, 4.0]]])
        >>> shifted = wide.draw(100_000, np.random.default_rng(0)) + np.array([2.0, 0.0])  # a standard deviation
        >>> round(sliced_wasserstein(shifted, wide), 1)  # the mean of |cos| over directions
        0.6
    """
    number = directions if target.dimensions > 1 else 1
    uniform = np.random.default_rng(0).standard_normal((number, target.dimensions))
    whitened = np.linalg.solve(np.linalg.cholesky(target.covariance).T, uniform.T).T
    whitened /= np.sqrt(np.einsum("ni,ij,nj->n", whitened, target.covariance, whitened))[:, None]
    return float(np.mean([wasserstein(samples @ d, target.projected(d)) for d in whitened]))


def standardised_marginals(samples: FloatArray, target: Mixture) -> list[float]:
    """Wasserstein-1 distance of each coordinate, in standard deviations of the mixture.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> normal = mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 4.0]]])
        >>> samples = normal.draw(100_000, np.random.default_rng(0)) + np.array([0.0, 1.0])
        >>> [round(distance, 1) for distance in standardised_marginals(samples, normal)]
        [0.0, 0.5]
    """
    axes = np.diag(1 / np.sqrt(np.diagonal(target.covariance)))
    return [wasserstein(samples @ axis, target.projected(axis)) for axis in axes]
