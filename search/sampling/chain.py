"""Metropolis-Hastings on the grid of a macro, many chains at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.sampling.array import Array, IntArray
from search.sampling.macro import Macro
from search.sampling.mixture import FloatArray, Mixture
from search.sampling.random_bits import RandomBits

_AT_ONCE = 2**20  # words that are drawn in one call


class Proposals:
    """How random words become the next state that is proposed: steps of all coordinates, or a jump between means.

    A step is the product of a component's Cholesky factor and one uniform number for each coordinate; a word chooses
    the component. A jump adds the difference of two means, of which one word chooses the pair and its highest bit the
    sign. Neither depends on the state, and both signs are as probable for ideal bits, so a move and the move back have
    the same probability.
    """

    def __init__(self, array: Array) -> None:
        target, macro = array.target, array.macro
        self.dimensions, self.size, self.scale = target.dimensions, target.size, 2**macro.random_bits
        width = macro.proposal_width or 2.38 * math.sqrt(3 / target.dimensions)
        self.factors = width * np.linalg.cholesky(target.covariances) / array.step[:, None]
        """Shape (K, D, D): codes that each number, from -1 to 1, moves each coordinate by."""
        own = np.arange(target.dimensions)
        # At least one code, or a chain on a coarse grid would stand still.
        self.factors[:, own, own] = np.maximum(self.factors[:, own, own], 1.0)
        first, second = np.triu_indices(target.size, 1)
        centres = array.codes(target.means)
        self.jumps: IntArray = centres[second] - centres[first]
        """Shape (K * (K - 1) / 2, D): differences of means, in codes."""
        self.share = macro.jumps if len(self.jumps) else 0.0

    @property
    def words(self) -> int:
        """Random words of an iteration: coordinates; a component, if there are several; whether and where to jump, if
        there are jumps; the acceptance."""
        return self.dimensions + (self.size > 1) + (2 if self.share else 0) + 1

    def moves(self, words: IntArray) -> IntArray:
        """The moves, in codes, that words of shape (..., at least `words` - 1) propose: shape (..., D)."""
        uniform = (2 * words[..., : self.dimensions] + 1 - self.scale) / self.scale  # symmetric about 0
        component = words[..., self.dimensions] * self.size // self.scale if self.size > 1 else np.intp(0)
        moves: IntArray = np.rint((self.factors[component] * uniform[..., None, :]).sum(-1)).astype(np.int64)
        if self.share:
            jump, chosen = words[..., self.dimensions + 1] < self.share * self.scale, words[..., self.dimensions + 2]
            half = max(1, self.scale // 2)
            pair, sign = chosen % half * len(self.jumps) // half, np.where(chosen < half, 1, -1)
            moves = np.where(jump[..., None], sign[..., None] * self.jumps[pair], moves)
        return moves


def thresholds(macro: Macro) -> FloatArray:
    """Shape (2 ** random_bits,): the log of the number in (0, 1) that each acceptance word stands for.

    Example:
        >>> np.exp(thresholds(Macro(random_bits=2))).round(3).tolist()
        [0.125, 0.375, 0.625, 0.875]
    """
    scale = 2**macro.random_bits
    result: FloatArray = np.log((np.arange(scale) + 0.5) / scale)
    return result


@dataclass(frozen=True, eq=False)
class Chains:
    """What a run gave: `codes` of shape (iterations, chains, D) after burn-in, and the share of accepted proposals."""

    codes: NDArray[np.uint16]
    acceptance: float


def run_chains(array: Array, iterations: int, seed: int | np.random.SeedSequence = 0,
               start: IntArray | None = None) -> Chains:  # fmt: skip
    """Runs the macro's chains through burn-in and `iterations` more.

    Args:
        seed: decides all random bits.
        start: codes of shape (chains, D), of as many chains as are to run; None for `macro.chains` at the mixture's
            means in turn, whatever their weights, so that right shares of modes do not come from the start.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> array = Array(mixture([1.0], [[2.0]], [[[1.0]]]), Macro())
        >>> found = run_chains(array, 500)
        >>> found.codes.shape, round(float(array.values(found.codes).mean()), 1)
        ((500, 64, 1), 2.0)
    """
    macro, proposals = array.macro, Proposals(array)
    if start is None:
        means = array.codes(array.target.means)
        start = means[np.arange(macro.chains) % len(means)]
    source = RandomBits(len(start), macro.random_bits, seed, macro.random_bias, macro.random_correlation)
    log_uniform = thresholds(macro)
    state, density = start, array.log_density(start)
    kept = np.empty((iterations, *start.shape), dtype=np.uint16)
    accepted, done, total = 0, 0, macro.burn_in + iterations
    block = max(1, _AT_ONCE // (len(start) * proposals.words))
    while done < total:
        words = source.words(min(block, total - done), proposals.words)
        moves, limits = proposals.moves(words), log_uniform[words[..., -1]]
        for move, limit in zip(moves, limits, strict=True):
            proposed = state + move
            inside = ((proposed >= 0) & (proposed < array.points)).all(1)
            new = array.log_density(proposed)
            taken = inside & (limit < new - density)
            state = np.where(taken[:, None], proposed, state)
            density = np.where(taken, new, density)
            if done >= macro.burn_in:
                kept[done - macro.burn_in] = state
                accepted += int(taken.sum())
            done += 1
    return Chains(kept, accepted / max(1, iterations * len(start)))


def sample_codes(target: Mixture, macro: Macro, number: int, seed: int = 0) -> tuple[Array, Chains]:
    """The array of a macro for a mixture, and chains with at least `number` samples in all.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> array, found = sample_codes(mixture([1.0], [[0.0]], [[[1.0]]]), Macro(chains=4), 10)
        >>> found.codes.shape
        (3, 4, 1)
    """
    array = Array(target, macro)
    return array, run_chains(array, -(-number // macro.chains), seed)
