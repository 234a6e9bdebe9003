"""Chains: all ways to cut one dimension of a layer into the loops of all levels, remainders included.

A chain gives each stage (a memory's loops or a fan-out, innermost first) a factor n >= 1. The tile inside a loop is the
product of the factors further in, and what a loop covers ends where the dimension ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dse.hardware.spec import Fanout, Storage
from dse.mapper.divisors import divisors_of
from dse.mapper.kernels.products import undominated

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


MOST_COMPARED = 12_000  # beginnings that cover the same indices
MOST_CHAINS = 200_000  # of a dimension, before those that others are as good as are left out


class TooManyChainsError(Exception):
    """A dimension that cannot be searched: it is large, and many levels may loop over it."""


@dataclass(frozen=True)
class Chains:
    """All chains of a dimension over K stages."""

    name: str
    size: int
    factors: Ints  # (chains, K)
    on_y: Flags  # (chains, K) a fan-out's factor lies along Y
    below: Ints  # (chains, K + 1) indices that all loops inside a stage cover; the whole dimension at the end
    compared: bool = True  # no chain is there that another one is as good as: there were not too many to compare them

    def within(self, most: tuple[int, ...]) -> Flags:
        """(chains,) those that cover at most so many indices up to and with each stage."""
        return np.asarray((self.below[:, 1:] <= np.array(most)).all(axis=1))

    def distinct(self, counted: Flags, within: Ints | None = None) -> Ints:
        """(chains,) tuples of iterations of the `counted` loops that occur; the other loops are merged.

        Args:
            counted: (K,)
            within: (chains,) so many indices instead of the whole dimension.

        From the outermost loop with the rest R of the dimension: a counted loop of n runs, each over t indices, has
        n - 1 whole runs and one over what is left; a merged loop of two runs or more visits what its first run visits.
        """
        count, stages = self.factors.shape
        whole = np.cumprod(np.where(counted, self.factors, 1), axis=1)
        total, rest = np.zeros(count, np.int64), (np.full(count, self.size, np.int64) if within is None else within)
        going = np.ones(count, bool)
        for k in range(stages - 1, -1, -1):
            runs = -(-rest // self.below[:, k])
            inside = whole[:, k - 1] if k else np.ones(count, np.int64)
            if counted[k]:
                total += np.where(going, (runs - 1) * inside, 0)
                rest = rest - (runs - 1) * self.below[:, k]
            else:
                several = going & (runs > 1)
                total += np.where(several, inside, 0)
                going &= ~several
        return np.asarray(total + going)


def runs_of(blocks: int, most: int) -> list[int]:
    """The factors of a loop over so many blocks, up to `most`: the least for each number of runs outside.

    >>> runs_of(13, 13)
    [1, 2, 3, 4, 5, 7, 13]
    """
    out: list[int] = []
    outside = blocks
    while outside >= 1:
        n = -(-blocks // outside)
        if n > most:
            break
        out.append(n)
        outside = (blocks - 1) // n  # the most runs outside that ask for more than n
    return out


@dataclass(frozen=True)
class Wanted:
    """What the words, tiles and cycles of a mapping depend on in a dimension's chain: less of each is better.

    Attributes:
        tiles: stages whose tile takes room in a memory.
        masks: (masks, K) loops whose iterations count, of all products that a search needs.
        copies: (masks, K) the same where more is better.
        alone: stages whose factor a search may want to be 1.
        exact: stages up to which the tile must not change: windows slide over it, or children share parts of them.
        most: indices that may be covered up to and with each stage.
        axes: for each stage whether the dimension may lie along X and along Y of a fan-out.
    """

    tiles: tuple[int, ...]
    masks: Flags
    copies: Flags
    alone: tuple[int, ...]
    exact: tuple[int, ...]
    most: tuple[int, ...]
    axes: tuple[tuple[bool, bool], ...]

    def key(self) -> tuple[object, ...]:
        """Equal for wants that are equal but for `most`."""
        masks = tuple((flags.shape, flags.tobytes()) for flags in (self.masks, self.copies))
        return (self.tiles, masks, self.alone, self.exact, self.axes)

    def roomier(self, most: tuple[int, ...]) -> Wanted:
        """The same where as many indices may be covered as here, or so many."""
        return replace(self, most=tuple(map(max, self.most, most)))


def chains_of(name: str, size: int, stages: tuple[Storage | Fanout, ...], wanted: Wanted) -> Chains:
    """The chains of a dimension that no other is as good as in everything that is wanted.

    They are built from the inside out. Two beginnings that cover the same number of indices have the same
    continuations. Only the last run of a loop further out can be cut, so a beginning counts either in whole or up to
    the rest that the dimension leaves; the one that is no worse in both, and in everything else, is enough.

    Of larger `most`, the chains that keep within smaller ones are those that are found for these, in the same order, if
    they were `compared`: `most` comes from tiles that take room, and what covers less there is as good only as what
    covers more.
    """
    count = len(stages)
    can_loop = [can_loop_over(stage, name) for stage in stages]
    factors, on_y = np.ones((1, count), np.int64), np.zeros((1, count), bool)
    below, covered, compared = np.ones((1, count + 1), np.int64), np.ones(1, np.int64), True
    for k, stage in enumerate(stages):
        parts, of_blocks = [], dict[int, Ints]()
        values, begins = np.unique(np.sort(covered), return_index=True)
        for value, rows in zip(values.tolist(), np.split(np.argsort(covered, kind="stable"), begins[1:]), strict=True):
            blocks = -(-size // value)
            if blocks not in of_blocks:
                of_blocks[blocks] = _factors(stages, k, name, blocks, can_loop)
            n = of_blocks[blocks]
            n, sides = _sides(stage, wanted.axes[k], n[np.minimum(size, n * value) <= wanted.most[k]])
            parts.append((rows, n, sides))
        if sum(len(rows) * len(n) for rows, n, _ in parts) > MOST_CHAINS:
            raise TooManyChainsError(f"more than {MOST_CHAINS} ways to cut {name}")
        chosen = np.concatenate([np.tile(rows, len(n)) for rows, n, _ in parts])
        n = np.concatenate([np.repeat(n, len(rows)) for rows, n, _ in parts])
        factors, on_y, below = factors[chosen], on_y[chosen], below[chosen]
        factors[:, k] = n
        on_y[:, k] = np.concatenate([np.repeat(sides, len(rows)) for rows, _, sides in parts])
        covered = np.minimum(size, covered[chosen] * n)
        below[:, k + 1 :] = covered[:, None]
        if not len(covered):
            break
        # Where nothing loops, nothing has changed; and leaving some out is no longer worth the comparisons of so many.
        if not (factors[:, k] > 1).any():
            continue
        if np.unique(covered, return_counts=True)[1].max() > MOST_COMPARED:
            compared = False
        else:
            keep = _undominated(Chains(name, size, factors, on_y, below), wanted, k, covered)
            factors, on_y, below, covered = factors[keep], on_y[keep], below[keep], covered[keep]
    whole = covered == size if len(factors) else np.zeros(0, bool)
    return Chains(name, size, factors[whole], on_y[whole], below[whole], compared)


def _undominated(begun: Chains, wanted: Wanted, k: int, covered: Ints) -> Ints:
    """Rows of the beginnings up to stage k that no other one is as good as."""
    factors = begun.factors
    columns: list[Ints] = []
    columns += [begun.below[:, j + 1] for j in wanted.tiles if j <= k]
    for j in wanted.exact:
        if j <= k:
            columns += [begun.below[:, j + 1], -begun.below[:, j + 1]]
    columns += [(factors[:, j] > 1).astype(np.int64) for j in wanted.alone if j <= k]
    for j in range(k + 1):
        if wanted.axes[j] != NOWHERE:
            columns += [np.where(begun.on_y[:, j] == y, factors[:, j], 1) for y in (False, True)]
    rest = begun.size - (-(-begun.size // covered) - 1) * covered
    for masks, sign in ((wanted.masks, 1), (wanted.copies, -1)):
        for mask in np.unique(masks[:, : k + 1], axis=0):
            if mask.any():
                counted = np.zeros(factors.shape[1], bool)
                counted[: k + 1] = mask
                columns += [sign * begun.distinct(counted, covered), sign * begun.distinct(counted, rest)]
    table = np.stack(columns, axis=1) if columns else np.zeros((len(factors), 1), np.int64)
    table = table[:, [i for i in range(table.shape[1]) if (table[:, i] != table[0, i]).any()]]
    order = np.lexsort((table.sum(axis=1), covered))
    return np.sort(order[undominated(np.ascontiguousarray(table[order]), covered[order])])


NOWHERE = (False, False)
"""The axes of a memory, which has none."""


def can_loop_over(stage: Storage | Fanout, name: str) -> bool:
    loops = stage.loops
    if isinstance(stage, Fanout) and stage.mesh_x * stage.mesh_y == 1:
        return False
    return loops.factors.get(name, 2) != 1 and loops.at_most.get(name, 2) > 1


def _factors(stages: tuple[Storage | Fanout, ...], k: int, name: str, blocks: int, can_loop: list[bool]) -> Ints:
    """Factors of stage k in ascending order.

    Only where fan-outs hold part of the dimension can it pay to let a loop run longer than the number of its runs
    asks for: the last run of a loop inside a fan-out, or of the fan-out, may then keep fewer children busy; and outside
    of all fan-outs, if the last run is a single one (docs/imperfect.md).
    """
    stage = stages[k]
    most = max(stage.mesh_x, stage.mesh_y) if isinstance(stage, Fanout) else blocks
    exact = stage.loops.factors.get(name)

    def holds(part: range) -> bool:
        return any(can_loop[j] and isinstance(stages[j], Fanout) for j in part)

    if exact is not None:
        # An exact factor above what is left becomes as short as that, as in Timeloop, but needs something to loop over.
        n = min(exact, blocks)
        return np.array([n] if n <= most and (blocks > 1 or exact == 1) else [], np.int64)
    if not any(can_loop[k + 1 :]):
        options = np.array([blocks])
    elif isinstance(stage, Fanout) or holds(range(k + 1, len(stages))):
        options = np.arange(1, min(most, blocks) + 1)
    else:
        options = np.array(runs_of(blocks, min(most, blocks)))
        if blocks > 1 and holds(range(k)):
            options = np.union1d(options, divisors_of(blocks - 1))
    least, most = stage.loops.at_least.get(name, 1), min(most, stage.loops.at_most.get(name, most))
    return np.asarray(options[(least <= options) & (options <= most)], np.int64)


def _sides(stage: Storage | Fanout, axes: tuple[bool, bool], n: Ints) -> tuple[Ints, Flags]:
    """The factors with the axes that each may lie on: whether it is Y. A factor may be there twice."""
    if not isinstance(stage, Fanout):
        return n, np.zeros(len(n), bool)
    on_x, on_y = axes
    fits = np.stack([(n == 1) | (on_x & (n <= stage.mesh_x)), (n > 1) & on_y & (n <= stage.mesh_y)], axis=1)
    return np.repeat(n, fits.sum(axis=1)), np.nonzero(fits)[1] > 0
