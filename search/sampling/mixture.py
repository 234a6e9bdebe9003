"""Gaussian mixtures: densities, moments and exact samples, the reference for the macro's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dse.core.errors import InputError

FloatArray = NDArray[np.float64]

MOST_DIMENSIONS = 16
MOST_MIXTURES = 32

SINGULAR = 1e-9
"""Smallest eigenvalue of a correlation matrix that is taken as regular."""

_AT_ONCE = 2**16  # points

_WEIGHTS_WITHIN = 1e-3  # of a sum of 1: 0.333 three times is meant as a third


@dataclass(frozen=True, eq=False)
class Mixture:
    """A Gaussian mixture of K components in D dimensions; made by `mixture`, which checks it.

    Attributes:
        weights: shape (K,), above 0, with the sum 1.
        means: shape (K, D).
        covariances: shape (K, D, D), symmetric positive definite.
    """

    weights: FloatArray
    means: FloatArray
    covariances: FloatArray

    @property
    def size(self) -> int:
        """Number of components K."""
        return len(self.weights)

    @property
    def dimensions(self) -> int:
        return int(self.means.shape[1])

    @functools.cached_property
    def whitening(self) -> FloatArray:
        """Shape (K, D, D): inverses W of the Cholesky factors, so W (x - mean) has the identity as its covariance."""
        result: FloatArray = np.linalg.inv(np.linalg.cholesky(self.covariances))
        return result

    @functools.cached_property
    def log_factors(self) -> FloatArray:
        """Shape (K,): log of each component's weight over the square root of its covariance's determinant."""
        determinants = np.log(np.diagonal(self.whitening, axis1=1, axis2=2)).sum(1)
        result: FloatArray = np.log(self.weights) + determinants
        return result

    @functools.cached_property
    def mean(self) -> FloatArray:
        """Shape (D,): the mean of the whole mixture."""
        result: FloatArray = self.weights @ self.means
        return result

    @functools.cached_property
    def covariance(self) -> FloatArray:
        """Shape (D, D): the covariance of the whole mixture."""
        apart = self.means - self.mean
        result: FloatArray = np.einsum("k,kij->ij", self.weights, self.covariances + apart[:, :, None] * apart[:, None])
        return result

    def log_density(self, x: FloatArray) -> FloatArray:
        """Log density at points of shape (..., D); the constant of the normalisation is included."""
        z = np.einsum("kij,...kj->...ki", self.whitening, x[..., None, :] - self.means)
        exponents = self.log_factors - 0.5 * (z**2).sum(-1) - 0.5 * self.dimensions * np.log(2 * np.pi)
        result: FloatArray = np.logaddexp.reduce(exponents, axis=-1)
        return result

    def nearest(self, x: FloatArray) -> NDArray[np.intp]:
        """The component of shape (...) that most probably gave each point of shape (..., D)."""
        result = np.empty(x.shape[:-1], dtype=np.intp)
        points, found = x.reshape(-1, self.dimensions), result.reshape(-1)
        for i in range(0, len(points), _AT_ONCE):  # in parts: each has K x D numbers for a point
            part = points[i : i + _AT_ONCE]
            z = np.einsum("kij,nkj->nki", self.whitening, part[:, None, :] - self.means)
            found[i : i + _AT_ONCE] = (self.log_factors - 0.5 * (z**2).sum(-1)).argmax(-1)
        return result

    def draw(self, number: int, rng: np.random.Generator) -> FloatArray:
        """Exact, independent samples, shape (number, D)."""
        of = rng.choice(self.size, number, p=self.weights)
        samples = rng.standard_normal((number, self.dimensions))
        for k, factor in enumerate(np.linalg.cholesky(self.covariances)):
            samples[of == k] = self.means[k] + samples[of == k] @ factor.T
        return samples

    def projected(self, direction: FloatArray) -> Mixture:
        """The mixture of one dimension that the products of samples with `direction`, shape (D,), have."""
        variances = np.einsum("i,kij,j->k", direction, self.covariances, direction)
        return Mixture(self.weights, (self.means @ direction)[:, None], variances[:, None, None])

    def distribution(self, x: FloatArray) -> FloatArray:
        """Cumulative distribution at numbers of shape (...), of a mixture of one dimension."""
        z = (x[..., None] - self.means[:, 0]) / np.sqrt(self.covariances[:, 0, 0])
        result: FloatArray = torch.special.ndtr(torch.from_numpy(z)).numpy() @ self.weights
        return result


def mixture(weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> Mixture:
    """A checked mixture of K components in D dimensions.

    Args:
        weights: K numbers above 0 with the sum 1 (within 0.001, then scaled to 1).
        means: K lists of D numbers.
        covariances: K matrices of D x D, symmetric positive definite.

    Raises:
        InputError: naming the weight, mean or covariance that is wrong.

    Example:
        >>> two = mixture([0.75, 0.25], [[0.0], [4.0]], [[[1.0]], [[1.0]]])
        >>> two.mean.tolist(), two.covariance.tolist()
        ([1.0], [[4.0]])
        >>> mixture([1.0], [[0.0, 0.0]], [[[1.0, 1.0], [1.0, 1.0]]])
        Traceback (most recent call last):
        dse.core.errors.InputError: covariances[0]: is singular: ... (allowed: symmetric positive definite matrices)
    """
    w = _array(weights, "weights", 1)
    if not 1 <= len(w) <= MOST_MIXTURES:
        raise InputError("weights", f"found {len(w)} components", f"1 to {MOST_MIXTURES}")
    for k, weight in enumerate(w):
        if not 0 < weight <= 1 + _WEIGHTS_WITHIN:
            raise InputError(f"weights[{k}]", f"found {weight:g}", "a number above 0, up to 1")
    if abs(w.sum() - 1) > _WEIGHTS_WITHIN:
        raise InputError("weights", f"their sum is {w.sum():g}", "weights with the sum 1")
    m = _array(means, "means", 2)
    if len(m) != len(w):
        raise InputError("means", f"found {len(m)} means for {len(w)} weights", f"{len(w)} means")
    if not 1 <= m.shape[1] <= MOST_DIMENSIONS:
        raise InputError("means[0]", f"found {m.shape[1]} dimensions", f"1 to {MOST_DIMENSIONS}")
    c = _array(covariances, "covariances", 3)
    if c.shape != (len(w), m.shape[1], m.shape[1]):
        raise InputError("covariances", f"found {_times(c.shape)} numbers",
                         f"{_times((len(w), m.shape[1], m.shape[1]))}: a matrix for each mean")  # fmt: skip
    for k, matrix in enumerate(c):
        _check_covariance(matrix, f"covariances[{k}]")
    return Mixture(w / w.sum(), m, c)


def _array(values: ArrayLike, where: str, axes: int) -> FloatArray:
    """The numbers as an array; lists of unequal lengths are refused by the place of the first of another length."""
    found = _rows(values, where, axes)
    for index in np.argwhere(~np.isfinite(found)):
        raise InputError(where + "".join(f"[{i}]" for i in index), f"found {found[tuple(index)]}", "finite numbers")
    return found


def _rows(values: ArrayLike, where: str, axes: int) -> FloatArray:
    if isinstance(values, Sequence) and not isinstance(values, str) and axes > 1:
        rows = [_rows(value, f"{where}[{i}]", axes - 1) for i, value in enumerate(values)]
        for i, row in enumerate(rows):
            if row.shape != rows[0].shape:
                raise InputError(f"{where}[{i}]", f"has {_times(row.shape)} numbers, and {where}[0] has "
                                 f"{_times(rows[0].shape)}", "as many everywhere")  # fmt: skip
        return np.array(rows) if rows else np.empty((0,) * axes)
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(where, f"found {str(values)[:60]}", "numbers") from None
    if found.ndim != axes:
        raise InputError(where, f"found {str(values)[:60]}", ("a number", "a list", "a list of lists")[min(axes, 2)])
    return found


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _check_covariance(matrix: FloatArray, where: str) -> None:
    allowed = "symmetric positive definite matrices"
    variances = np.diagonal(matrix)
    for i, variance in enumerate(variances):
        if not variance > 0:
            raise InputError(f"{where}[{i}][{i}]", f"found the variance {variance:g}", "a number above 0")
    correlations = matrix / np.sqrt(variances)[:, None] / np.sqrt(variances)
    if np.abs(correlations - correlations.T).max() > SINGULAR:
        i, j = np.argwhere(np.abs(correlations - correlations.T) > SINGULAR)[0]
        raise InputError(where, f"is not symmetric: [{i}][{j}] is {matrix[i, j]:g}, [{j}][{i}] is {matrix[j, i]:g}",
                         allowed)  # fmt: skip
    least = float(np.linalg.eigvalsh(correlations)[0])
    if least < SINGULAR:
        what = "is singular" if least > -SINGULAR else "is not positive definite"
        raise InputError(where, f"{what}: the smallest eigenvalue of its correlation matrix is {least:.1g}", allowed)
