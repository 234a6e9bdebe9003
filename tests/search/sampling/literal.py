"""The macro's sampling, one number at a time, from its description and with nothing of its code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Vector = Sequence[float]


def cholesky(matrix: Sequence[Vector]) -> list[list[float]]:
    """L with L L' = C, lower triangular, by textbook loops."""
    n = len(matrix)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
    return lower


def inverse_of_cholesky(matrix: Sequence[Vector]) -> list[list[float]]:
    """W with W C W' = 1, lower triangular."""
    n, lower = len(matrix), cholesky(matrix)
    inverse = [[0.0] * n for _ in range(n)]
    for column in range(n):
        for i in range(n):
            right = 1.0 if i == column else 0.0
            inverse[i][column] = (right - sum(lower[i][k] * inverse[k][column] for k in range(i))) / lower[i][i]
    return inverse


class LiteralMacro:
    """Grid, density, proposals and acceptance of a macro with the given attributes."""

    def __init__(self, weights: Vector, means: Sequence[Vector], covariances: Sequence[Sequence[Vector]], *,
                 dac_bits: int, adc_bits: int, weight_bits: int, random_bits: int, dac_range: float, adc_range: float,
                 width: float, jumps: float) -> None:  # fmt: skip
        self.means, self.weights = means, weights
        dimensions, size = len(means[0]), len(weights)
        self.points, self.jumps, self.scale = 2**dac_bits, jumps, 2**random_bits
        self.adc_range, self.adc_codes = adc_range, 2**adc_bits
        deviations = [[math.sqrt(c[j][j]) for j in range(dimensions)] for c in covariances]
        self.low = [min(means[k][j] - dac_range * deviations[k][j] for k in range(size)) for j in range(dimensions)]
        high = [max(means[k][j] + dac_range * deviations[k][j] for k in range(size)) for j in range(dimensions)]
        self.step = [(h - low) / (self.points - 1) for h, low in zip(high, self.low, strict=True)]
        self.cells: list[list[list[float]]] = []
        self.factors: list[float] = []
        self.factors_of_steps: list[list[list[float]]] = []
        for k in range(size):
            inverse = inverse_of_cholesky(covariances[k])
            self.factors.append(math.log(weights[k]) + sum(math.log(inverse[i][i]) for i in range(dimensions)))
            lower = cholesky(covariances[k])
            self.factors_of_steps.append([
                [max(width * x / step, 1.0) if i == j else width * x / step for j, x in enumerate(row)]
                for i, (row, step) in enumerate(zip(lower, self.step, strict=True))
            ])  # fmt: skip
            rows = [[w * s for w, s in zip(row, self.step, strict=True)] for row in inverse]
            units = [max(map(abs, row)) / (2 ** (weight_bits - 1) - 1) for row in rows]
            self.cells.append([[round(w / unit) * unit for w in row] for row, unit in zip(rows, units, strict=True)])

    def nearest(self, mean: Vector) -> list[int]:
        return [round((m - low) / step) for m, low, step in zip(mean, self.low, self.step, strict=True)]

    def log_density(self, state: Sequence[int]) -> float:
        lsb = 2 * self.adc_range / self.adc_codes
        terms = []
        for cells, mean, factor in zip(self.cells, self.means, self.factors, strict=True):
            squares = 0.0
            for row in cells:
                z = sum(
                    w * (x - (m - low) / step)
                    for w, x, m, low, step in zip(row, state, mean, self.low, self.step, strict=True)
                )
                code = min(max(math.floor(z / lsb) + self.adc_codes // 2, 0), self.adc_codes - 1)
                squares += ((code - self.adc_codes / 2 + 0.5) * lsb) ** 2 / 2
            terms.append(factor - squares)
        return math.log(sum(math.exp(t - max(terms)) for t in terms)) + max(terms)

    def move(self, words: Sequence[int]) -> list[int]:
        dimensions = len(self.step)
        size = len(self.weights)
        if size > 1 and self.jumps and words[dimensions + 1] < self.jumps * self.scale:
            pairs = [(i, j) for i in range(len(self.means)) for j in range(i + 1, len(self.means))]
            half = self.scale // 2
            first, second = pairs[words[dimensions + 2] % half * len(pairs) // half]
            sign = 1 if words[dimensions + 2] < half else -1
            there, here = self.nearest(self.means[second]), self.nearest(self.means[first])
            return [sign * (a - b) for a, b in zip(there, here, strict=True)]
        uniform = [2 * (word + 0.5) / self.scale - 1 for word in words[:dimensions]]
        rows = self.factors_of_steps[words[dimensions] * size // self.scale if size > 1 else 0]
        return [round(sum(w * u for w, u in zip(row, uniform, strict=True))) for row in rows]

    def run(self, state: Sequence[int], words: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """The states after each iteration, from the words of each."""
        here = list(state)
        for of_iteration in words:
            there = [x + m for x, m in zip(here, self.move(of_iteration), strict=True)]
            if all(0 <= x < self.points for x in there):
                uniform = (of_iteration[-1] + 0.5) / self.scale
                if math.log(uniform) < self.log_density(there) - self.log_density(here):
                    here = there
            yield list(here)
