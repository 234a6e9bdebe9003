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
    """How random words become the next state that is proposed: steps in all coordinates, or a jump between means.

    Both are symmetric for ideal bits: a move and the move back have the same probability. A step is uniform, of a width
    in codes. A jump adds the difference of two means, of which one word chooses the pair and its highest bit the sign.
    """

    def __init__(self, array: Array) -> None:
        target, macro = array.target, array.macro
        dimensions = target.dimensions
        width = 2.38 * math.sqrt(3 / dimensions) if macro.proposal_width is None else macro.proposal_width
        # The standard deviation of a coordinate given the others: a step of this size is not far off in any direction.
        precisions = np.einsum("kij,kij->kj", target.whitening, target.whitening)
        self.width = np.maximum(width * (target.weights @ precisions**-0.5) / array.step, 1.0)
        """Shape (D,): the largest step, in codes; at least one code, or the chain would stand still."""
        first, second = np.triu_indices(target.size, 1)
        centres = array.codes(target.means)
        self.jumps: IntArray = centres[second] - centres[first]
        """Shape (K * (K - 1) / 2, D): differences of means, in codes."""
        self.scale = 2**macro.random_bits
        self.share = macro.jumps if len(self.jumps) else 0.0

    @property
    def words(self) -> int:
        """Random words of an iteration, the last one for the acceptance."""
        return int(self.jumps.shape[1]) + (2 if self.share else 0) + 1

    def moves(self, words: IntArray) -> IntArray:
        """The moves, in codes, that words of shape (..., at least `words`) propose: shape (..., D)."""
        dimensions = self.jumps.shape[1]
        uniform = (2 * words[..., :dimensions] + 1 - self.scale) / self.scale  # symmetric about 0
        moves: IntArray = np.rint(self.width * uniform).astype(np.int64)
        if self.share:
            jump = words[..., dimensions] < self.share * self.scale
            magnitude = words[..., dimensions + 1] % max(1, self.scale // 2)
            pair = (magnitude * len(self.jumps)) // max(1, self.scale // 2)
            sign = np.where(words[..., dimensions + 1] < self.scale // 2, 1, -1)
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
        start: codes of shape (chains, D); None for the mixture's means in turn, whatever their weights, so that shares
            of modes that agree with the weights do not come from the start.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> array = Array(mixture([1.0], [[2.0]], [[[1.0]]]), Macro())
        >>> found = run_chains(array, 500)
        >>> found.codes.shape, round(float(array.values(found.codes).mean()), 1)
        ((500, 256, 1), 2.0)
    """
    macro, proposals = array.macro, Proposals(array)
    source = RandomBits(macro.chains, macro.random_bits, seed, macro.random_bias, macro.random_correlation)
    if start is None:
        means = array.codes(array.target.means)
        start = means[np.arange(macro.chains) % len(means)]
    log_uniform = thresholds(macro)
    state, density = start, array.log_density(start)
    kept = np.empty((iterations, *start.shape), dtype=np.uint16)
    accepted, done, total = 0, 0, macro.burn_in + iterations
    block = max(1, _AT_ONCE // (macro.chains * proposals.words))
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
    return Chains(kept, accepted / max(1, iterations * macro.chains))


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
