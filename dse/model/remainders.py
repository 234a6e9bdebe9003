"""What the children of a level access in it over a layer, for nests whose loops have remainders.

The last run of an imperfect loop is shorter: fewer children take part, or their tiles are smaller. Timeloop therefore
evaluates the last iteration of the loops around it on its own, besides iterations 0 and 1, and the closed form of
`dse.model.child_accesses` does not hold. This module makes the same walk. What a subnest does depends only on what was
held before it, relative to where it starts, and on which dimensions are in their last run; so every subnest is walked
once for each such state, and a walk takes a time about linear in the number of loops. docs/model.md states the rules.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from dse.hardware.spec import Fanout
from dse.model.child_accesses import Groups, Stats, Vector, child_offsets, multicast_groups, with_links

Box = tuple[Vector, Vector]  # low and high corner, high exclusive
Unfinished = frozenset[str]  # dimensions with a loop around that is not in its last iteration


class WalkLoop(NamedTuple):
    """A loop around a tile: `factor` iterations, `last` in its last run; each moves the tile by `move`.

    `remainder_inside`: a loop of the same dimension further in has a remainder.
    """

    dimension: str
    factor: int
    last: int
    move: Vector
    spatial: bool
    remainder_inside: bool


class _Held(NamedTuple):
    """What the steps so far left behind, relative to the position of the tile.

    box: the tile of the step before; move: its last move, None after a change of direction; needed: the boxes that
    child 0 lacked in that step; children: the runs of the spatial loops in it.
    """

    box: Box | None = None
    move: Vector | None = None
    needed: tuple[Box, ...] = ()
    children: tuple[int, ...] = ()


class _Walked(NamedTuple):
    """Accesses and words passed between neighbours in one run of a subnest; what it leaves; for one step, its words."""

    stats: dict[tuple[int, int], int]
    links: int
    held: _Held
    words: int


@dataclass(frozen=True)
class Children:
    """The spatial loops of a level, innermost first, on the mesh that decides who is whose neighbour."""

    loops: tuple[WalkLoop, ...] = ()
    fanout: Fanout | None = None
    links: bool = False  # neighbours may pass data on
    alone: bool = False  # each is served by an access of its own


def walk_accesses(
    outside: tuple[WalkLoop, ...],
    children: Children,
    tile: Callable[[Unfinished], Box],
    *,
    own_loop: bool,
    is_compute: bool,
) -> tuple[Stats, float]:
    """Accesses by multicast factor (words, over the layer) and words passed between neighbours.

    Args:
        outside: the loops around the children of the level, outermost first, without those in `children`.
        tile: what child 0 covers in the first iteration, by the dimensions that are not in their last run.
        own_loop: the innermost of `outside` belongs to a level without a fan-out, which is what counts the accesses.
        is_compute: the child holds nothing between two steps: it is the compute unit, or a level without reuse.
    """

    @cache
    def walk(depth: int, unfinished: Unfinished, held: _Held) -> _Walked:
        if depth == len(outside):
            return _step(children, tile, unfinished, held, is_compute)
        loop = outside[depth]
        if loop.spatial:  # child 0 stands for all
            return walk(depth + 1, _inside(unfinished, loop, 0), held)
        stats: Counter[tuple[int, int]] = Counter()
        links, position, steps = 0, 0, []
        visits = _visits(loop, last_run=loop.dimension not in unfinished)
        for index, times in visits:
            run = walk(depth + 1, _inside(unfinished, loop, index), _moved(held, loop.move, position - index))
            position, held = index, run.held
            for key, total in run.stats.items():
                stats[key] += total * times
            links += run.links * times
            steps.append(run.words)
        held = _moved(held, loop.move, position)
        if own_loop and depth == len(outside) - 1:
            stats = Counter({(1, 1): _charged(loop, steps, visits)})
        return _Walked(dict(stats), links, held, 0)

    run = walk(0, frozenset(), _Held())
    return {key: float(words) for key, words in run.stats.items() if words}, float(run.links)


def _inside(unfinished: Unfinished, loop: WalkLoop, index: int) -> Unfinished:
    """The same inside iteration `index` of a loop; dimensions that nothing further in asks for are left out."""
    return unfinished | {loop.dimension} if loop.remainder_inside and index + 1 < loop.last else unfinished


def _visits(loop: WalkLoop, *, last_run: bool) -> list[tuple[int, int]]:
    """(iteration, times it counts) of a temporal loop: 0, 1 for all others, but the last where it may differ."""
    n = loop.last if last_run else loop.factor
    if not (last_run and loop.remainder_inside):
        return [(0, 1), (1, n - 1)][:n]
    if n < 3:
        return [(0, 1), (1, 1)][:n]
    if loop.last == loop.factor:
        return [(0, 1), (1, n - 2), (n - 1, 1)]
    return [(0, 1), *([(1, n - 3)] if n > 3 else []), (n - 2, 1), (n - 1, 1)]


def _charged(loop: WalkLoop, steps: list[int], visits: list[tuple[int, int]]) -> int:
    """Words that the innermost loop of a level without a fan-out accesses in one run.

    Timeloop charges the words of iteration 1 again for the visit that comes after it.
    """
    if len(visits) > 2 and (loop.last == loop.factor or len(visits) > 3):
        steps = [*steps[:2], steps[1], *steps[3:]]
    return sum(words * times for words, (_, times) in zip(steps, visits, strict=True))


def _step(
    children: Children, tile: Callable[[Unfinished], Box], unfinished: Unfinished, held: _Held, is_compute: bool
) -> _Walked:
    """One step: what child 0 lacks, how many children lack the like, and which of them have it from a neighbour."""
    runs = tuple(loop.factor if loop.dimension in unfinished else loop.last for loop in children.loops)
    for loop in children.loops:
        unfinished = _inside(unfinished, loop, 0)
    box = tile(unfinished)
    needed, after = ((box,), held) if is_compute else _needed(box, held)
    if children.links:
        after = after._replace(needed=needed, children=runs)
    words = sum(map(_volume, needed))
    if not words:
        return _Walked({}, 0, after, 0)
    groups, served = _groups(children, runs, needed, held)
    return _Walked({(m, k): k * words for m, k in groups.items()}, served * words, after, words)


def _groups(children: Children, runs: tuple[int, ...], needed: tuple[Box, ...], held: _Held) -> tuple[Groups, int]:
    """Multicast groups of the children, and how many children a neighbour serves."""
    moves = [loop.move for loop in children.loops]
    offsets = child_offsets(list(zip(runs, moves, strict=True)))
    shift = _shift(needed, held.needed) if children.links else None
    if shift is None:
        return multicast_groups(offsets, children.alone), 0
    before = child_offsets(list(zip(held.children, moves, strict=True)))
    return with_links(offsets, before, shift, children.fanout, children.alone)


def _needed(box: Box, held: _Held) -> tuple[tuple[Box, ...], _Held]:
    """What of a tile was not held before, and what is held then.

    A move other than the one before it is a change of direction: then everything is fetched, and the next move counts
    as the first.
    """
    if held.box is None:
        return (box,), held._replace(box=box)
    move = tuple(map(_centre_distance, *held.box, *box))
    if any(move) and held.move is not None and move != held.move:
        return (box,), held._replace(box=box, move=None)
    return _minus(box, held.box), held._replace(box=box, move=move if any(move) else held.move)


def _centre_distance(low: int, high: int, new_low: int, new_high: int) -> int:
    """How far an interval's centre moved, halves rounded away from zero."""
    twice = new_low + new_high - low - high
    return (abs(twice) + 1) // 2 * (1 if twice > 0 else -1)


def _minus(box: Box, held: Box) -> tuple[Box, ...]:
    """A box without another one, as disjoint boxes: along each axis the slabs below and above the overlap."""
    if any(a >= d or c >= b for a, b, c, d in zip(*box, *held, strict=True)):
        return (box,)
    parts = []
    low, high = list(box[0]), list(box[1])
    for axis, (held_low, held_high) in enumerate(zip(*held, strict=True)):
        if low[axis] < held_low:
            parts.append((tuple(low), (*high[:axis], held_low, *high[axis + 1 :])))
            low[axis] = held_low
        if held_high < high[axis]:
            parts.append(((*low[:axis], held_high, *low[axis + 1 :]), tuple(high)))
            high[axis] = held_high
    return tuple(sorted(parts))


def _volume(box: Box) -> int:
    return math.prod(high - low for low, high in zip(*box, strict=True))


def _moved(held: _Held, move: Vector, times: int) -> _Held:
    """The same, seen from a position `-times` moves further."""
    if not times or not any(move):
        return held
    by = tuple(times * m for m in move)
    box = held.box and _translated(held.box, by)
    return held._replace(box=box, needed=tuple(_translated(b, by) for b in held.needed))


def _translated(box: Box, by: Vector) -> Box:
    return tuple(x + b for x, b in zip(box[0], by, strict=True)), tuple(x + b for x, b in zip(box[1], by, strict=True))


def _shift(needed: tuple[Box, ...], before: tuple[Box, ...]) -> Vector | None:
    """The translation that takes what was needed before to what is needed now; None if the forms differ."""
    if not before or len(needed) != len(before):
        return None
    by = tuple(x - y for x, y in zip(needed[0][0], before[0][0], strict=True))
    return by if tuple(_translated(b, by) for b in before) == needed else None
