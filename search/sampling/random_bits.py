"""The random bits of the macro: a chain of two states for each sampling chain, with a bias and a correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

_AT_ONCE = 2**20  # bits that are drawn in one call


class RandomBits:
    """A source of words for several chains, each of successive bits of the chain's own generator.

    The stationary probability of a 1 is 0.5 + bias, and the correlation of a bit with its predecessor is as given:
    after a bit b the next one is 1 with the probability (0.5 + bias) * (1 - correlation) + correlation * b.

    Args:
        chains: number of generators, which are independent of one another.
        bits: of a word, the first one being its highest.

    Example:
        >>> source = RandomBits(chains=2, bits=3, seed=0)
        >>> words = source.words(iterations=4, words=5)
        >>> words.shape, bool((words < 8).all())
        ((4, 2, 5), True)
        >>> stuck = RandomBits(chains=1, bits=8, seed=0, bias=0.499)
        >>> float(stuck.words(1, 1000).mean() / 255) > 0.99
        True
    """

    def __init__(self, chains: int, bits: int, seed: int | np.random.SeedSequence, bias: float = 0.0,
                 correlation: float = 0.0) -> None:  # fmt: skip
        self.chains, self.bits = chains, bits
        self._p, self._correlation = 0.5 + bias, correlation
        self._rng = np.random.default_rng(seed)
        self._last = self._rng.random(chains) < self._p
        self._values = 2 ** np.arange(bits - 1, -1, -1, dtype=np.int64)

    def words(self, iterations: int, words: int) -> IntArray:
        """Successive words of every chain, shape (iterations, chains, words), from 0 to 2 ** bits - 1."""
        block = max(1, _AT_ONCE // (self.chains * words * self.bits))
        parts = [self._block(min(block, iterations - i), words) for i in range(0, iterations, block)]
        return np.concatenate(parts) if parts else np.empty((0, self.chains, words), np.int64)

    def _block(self, iterations: int, words: int) -> IntArray:
        uniform = self._rng.random((iterations, self.chains, words * self.bits), dtype=np.float32)
        if self._correlation:
            bits = np.empty(uniform.shape, dtype=bool)
            after = self._p * (1 - self._correlation) + self._correlation * np.array([0.0, 1.0])
            for i in range(iterations):
                for j in range(words * self.bits):
                    self._last = bits[i, :, j] = uniform[i, :, j] < after[self._last.astype(np.intp)]
        else:
            bits = uniform < self._p
        found: IntArray = bits.reshape(iterations, self.chains, words, self.bits) @ self._values
        return found
