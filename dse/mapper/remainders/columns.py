"""Factors of the words that a mapping moves: for each group of dimensions, a number for each way to cut it.

The words that cross a boundary are a product over groups of dimensions (docs/imperfect.md). A group is one
dimension, or two that share an axis of a tensor; its members are all pairs of their chains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dse.mapper.remainders.chains import Chains, Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """An axis of two dimensions: coefficients of the group's first and second dimension."""

    first: int
    second: int


@dataclass(frozen=True)
class Group:
    """One dimension, or two that share an axis; member i x columns + j is chain i of the first and j of the second."""

    chains: tuple[Chains, ...]
    cache: dict[object, Floats] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.chains)

    @property
    def size(self) -> int:
        size = 1
        for chains in self.chains:
            size *= len(chains.factors)
        return size

    def spread(self, columns: Sequence[Floats]) -> Floats:
        """The product of a column for each dimension as one column of the members."""
        if len(columns) == 1:
            return np.asarray(columns[0], np.float64)
        return np.multiply.outer(columns[0], columns[1]).ravel()

    def of_dimensions(self, key: object, values: Callable[[Chains], Ints | Floats | None]) -> Floats:
        """A column that multiplies a number for each dimension's chain; None stands for 1. It is kept under `key`."""
        if key not in self.cache:
            columns = []
            for c in self.chains:
                column = values(c)
                columns.append(np.ones(len(c.factors)) if column is None else np.asarray(column, np.float64))
            self.cache[key] = self.spread(columns)
        return self.cache[key]


def window_words(group: Group, window: Window, tile: int, slid: int | None, stage: int) -> Floats:
    """Words along a window's axis, summed over all tiles of the members.

    Args:
        tile: the tile is that inside this stage.
        slid: the dimension (0 or 1) along whose loop at `stage` the tile slides: a run of it needs only new words.
    """
    first, second = group.chains
    if slid == 1:
        return _slid(second, window.second, first, window.first, tile, stage).T.ravel()
    if slid == 0:
        return _slid(first, window.first, second, window.second, tile, stage).ravel()
    n, m = (-(-c.size // c.below[:, tile]) for c in (first, second))
    a, b = (
        coefficient * (c.size - tiles)
        for coefficient, c, tiles in ((window.first, first, n), (window.second, second, m))
    )
    return (np.multiply.outer(a, m) + np.multiply.outer(n, b) + np.multiply.outer(n, m)).ravel().astype(np.float64)


def _slid(p: Chains, c_p: int, r: Chains, c_r: int, tile: int, stage: int) -> Floats:
    """(chains of p, chains of r) words along the axis where the loop of p at `stage` slides the tile.

    Children of fan-outs between tile and loop each make runs of their own. All runs but those in the last iteration of
    the loops of p further out are whole.
    """
    t = p.below[:, tile, None]  # (chains of p, 1)
    move, block = p.below[:, stage, None], p.below[:, stage + 1, None]
    outside = -(-p.size // block) - 1  # runs of the loop in full, for each child
    children, iterations = -(-move // t), -(-block // move)
    rest = p.size - outside * block
    full = (rest - 1) // move  # iterations of all children; one more, of `part` indices, may be cut
    part = rest - full * move
    active = -(-part // t)  # children that have one iteration more, of which the last may be cut
    cut = part - (active - 1) * t
    tiles = -(-r.size // r.below[:, tile])
    last = r.size - (tiles - 1) * r.below[:, tile]

    def words(size: Ints) -> Ints:
        """Summed over all runs, where the tile of r has so many indices."""
        extent = c_p * (t - 1) + c_r * (size[None, :] - 1) + 1
        step = c_p * move
        new = np.minimum(step, extent)

        def run(n: Ints) -> Ints:
            return np.where(n > 0, extent + (n - 1) * new, 0)

        cut_extent = extent - c_p * (t - cut)
        added = np.where(
            full == 0, cut_extent, np.where(step >= extent, cut_extent, np.maximum(0, step + cut_extent - extent))
        )
        last_ones = (active - 1) * run(full + 1) + run(full) + added + (children - active) * run(full)
        return np.asarray(outside * children * run(iterations) + last_ones)

    whole = np.where(tiles > 1, r.below[:, tile], last)
    return np.asarray((tiles - 1) * words(whole) + words(last), np.float64)
