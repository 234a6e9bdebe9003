"""Sets of tiles as the bits of one integer: what the loops of a level can make of a whole set in a few shifts.

A tile is a vector of divisors, one for each dimension. Written as exponents of primes, dividing two tiles subtracts
their digits, so with one digit for each prime of each dimension it subtracts their numbers, and dividing all tiles of a
set shifts the set. Needs no numba: a reason must not take longer than the search that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dse.workload.problem import Problem

Ints = npt.NDArray[np.int64]


class Tiles:
    """All tiles of a problem. `value[n, d]` is the size of tile n along the dimension `names[d]`.

    Tile 0 is one operation, the last tile the whole layer; `volume` is the product of a tile's sizes. `divisors[d]` are
    ascending. `one` and `whole` are the sets of the first and of the last tile.
    """

    def __init__(self, problem: Problem) -> None:
        active = {d: n for d, n in problem.bound.items() if n > 1}
        self.names = tuple(active)
        by_number = [_divisors(n) for n in active.values()]
        self.count = math.prod(map(len, by_number))
        self.divisors = [sorted(values) for values in by_number]
        self.value = np.ones((self.count, len(active)), np.int64)
        self._number: list[dict[int, int]] = []
        self._multiples: list[dict[int, int]] = []
        stride = 1
        for d, values in enumerate(by_number):
            self.value[:, d] = np.tile(np.repeat(values, stride), self.count // (stride * len(values)))
            self._number.append({v: i * stride for i, v in enumerate(values)})
            self._multiples.append({v: self.set_of(self.value[:, d] % v == 0) for v in values})
            stride *= len(values)
        self.volume: Ints = self.value.prod(axis=1)
        self.one, self.whole = 1, 1 << (self.count - 1)

    def set_of(self, flags: npt.NDArray[np.bool_]) -> int:
        return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")

    def members(self, tiles: int) -> Ints:
        """The numbers of a set's tiles, ascending."""
        data = np.frombuffer(tiles.to_bytes(-(-self.count // 8), "little"), np.uint8)
        return np.flatnonzero(np.unpackbits(data, count=self.count, bitorder="little"))

    def words(self, axes: Iterable[tuple[tuple[str, int], ...]]) -> Ints:
        """Words of a tensor's box in every tile."""
        total = np.ones(self.count, np.int64)
        for axis in axes:
            extent = np.ones(self.count, np.int64)
            for d, c in axis:
                if d in self.names:
                    extent += abs(c) * (self.value[:, self.names.index(d)] - 1)
            total *= extent
        return total

    def divided(self, tiles: int, d: int, n: int) -> int:
        """The quotients by n along a dimension of those tiles that it divides."""
        return (tiles & self._multiples[d][n]) >> self._number[d][n]

    def multiplied(self, tiles: int, d: int, n: int) -> int:
        # A product that is not a tile carries into the digits of other primes, so it is not among the multiples of n.
        return (tiles << self._number[d][n]) & self._multiples[d][n]

    def divided_by(self, tiles: int, factors: int) -> int:
        """The quotients of those tiles that the tile with number `factors` divides in every dimension."""
        return (tiles & self._multiples_of(factors)) >> factors

    def multiplied_by(self, tiles: int, factors: int) -> int:
        return (tiles << factors) & self._multiples_of(factors)

    def _multiples_of(self, factors: int) -> int:
        common = (1 << self.count) - 1
        for d, n in enumerate(self.value[factors].tolist()):
            if n > 1:
                common &= self._multiples[d][n]
        return common


def _divisors(n: int) -> list[int]:
    """The divisors of n; the position is a number whose digits are the exponents of its primes."""
    divisors, p = [1], 2
    while n > 1:
        p = n if p * p > n else p  # what is left is a prime
        exponent = 0
        while n % p == 0:
            n //= p
            exponent += 1
        divisors = [v * p**e for e in range(exponent + 1) for v in divisors]
        p += 1
    return divisors
