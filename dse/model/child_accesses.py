"""What the children of a level access in it over a layer, in closed form for perfect nests.

Timeloop walks the loop nest from the outside in, evaluates iterations 0 and 1 of every temporal loop, weighs the
second by n - 1, and charges at each step the part of a tile that the previous step did not hold. Between two
consecutive steps exactly one loop advances and the loops inside it rewind, so a nest of k non-trivial loops has only
k kinds of step. Everything about a step follows from its kind (`dse.model.formulas.fill_steps`), which gives the
counts in closed form; the derivation is in docs/model.md. `tests/dse/model/test_evaluation.py` compares it with a
literal walk and with recorded Timeloop runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from dse.hardware.spec import Fanout
from dse.model.formulas import fill_moves, fill_steps, neighbours

Vector = tuple[int, ...]
Stats = dict[tuple[int, int], float]  # (multicast factor, number of distinct boxes) -> words
Steps = Callable[[tuple[int, ...], list[tuple[int, Vector]], bool], list[tuple[int, int, Vector | None]]]
Groups = Counter[int]  # multicast factor -> number of distinct boxes


def child_accesses(
    box: tuple[int, ...],
    outside: list[tuple[int, Vector]],
    spatial: list[tuple[int, Vector]],
    fanout: Fanout | None,
    *,
    is_compute: bool,
    links: bool,
    alone: bool = False,
    steps: Steps | None = None,
) -> tuple[Stats, float]:
    """What the children of one instance of a level access in it over the whole layer.

    Args:
        box: extents of a child's tile.
        outside: (iterations, translation of the box) of the temporal loops at and outside the level, innermost first.
        spatial: the same of the loops over the children.
        fanout: the physical mesh, which decides who is whose neighbour.
        is_compute: the child holds nothing between two steps: it is the compute unit, or a level without reuse.
        links: neighbours may pass data on.
        alone: each child is served by an access of its own, also where several need the same.
        steps: the rule by which a step needs words; None is `steps_of`.

    Returns:
        Accesses by multicast factor (words, over the layer), and words passed between neighbours.
    """
    children = child_offsets(spatial)
    groups = multicast_groups(children, alone)
    stats: Stats = {}
    link_transfers = 0.0
    for weight, size, moved in (steps or steps_of)(box, outside, is_compute):
        if size == 0:
            continue
        chosen, served = groups, 0
        if links and moved is not None and len(children) > 1:
            chosen, served = with_links(children, children, moved, fanout, alone)
        link_transfers += served * size * weight
        for key in chosen.items():
            stats[key] = stats.get(key, 0.0) + key[1] * size * weight
    return stats, link_transfers


def steps_of(
    box: tuple[int, ...], outside: list[tuple[int, Vector]], is_compute: bool
) -> list[tuple[int, int, Vector | None]]:
    """(times, words needed, translation if the previous step needed a box of the same form) of each kind of step."""
    loops = len(outside)
    moves = [[0] * len(box) for _ in range(loops + 1)]
    steps = [[0] * 4 for _ in range(2 * (loops + 1))]
    fill_moves([shift for _, shift in outside], loops, moves)
    count = fill_steps(box, [n for n, _ in outside], moves, loops, is_compute, steps)
    return [
        (times, needed, tuple(moves[kind]) if comparable else None) for times, needed, kind, comparable in steps[:count]
    ]


def steps_before_2025(
    box: tuple[int, ...], outside: list[tuple[int, Vector]], is_compute: bool
) -> list[tuple[int, int, Vector | None]]:
    """As `steps_of`, by the rule of Timeloop before its change #297, as a literal walk.

    There a step without a move counted as a change of direction, so that the window after it was fetched as a whole
    (`SaveAndSubtractIfSameStride` in ``src/workload/shape-models/operation-space.cpp`` of NVlabs/timeloop).
    """
    still = tuple(0 for _ in box)
    visits: list[tuple[int, Vector]] = [(1, still)]  # iterations 0 and 1 of every loop, the outermost first
    for n, shift in reversed(outside):
        visits = [
            (times * weight, tuple(o + k * s for o, s in zip(offset, shift, strict=True)))
            for times, offset in visits
            for k, weight in ((0, 1), (1, n - 1))
            if weight
        ]
    volume = math.prod(box)
    found: list[tuple[int, int, Vector | None]] = []
    before: Vector | None = None
    direction: Vector | None = None
    whole = True  # what the step before needed has the form of the whole box
    for times, offset in visits:
        move = None if before is None else tuple(o - b for o, b in zip(offset, before, strict=True))
        goes_on = move is not None and direction in (None, move)
        kept = math.prod(max(0, words - abs(m)) for words, m in zip(box, move or (), strict=True)) if goes_on else 0
        direction = move if goes_on or before is None else None
        needed = volume if is_compute else volume - kept
        comparable = move is not None and (is_compute or whole == (needed == volume))
        found.append((times, needed, move if comparable else None))
        whole, before = needed == volume, offset
    return found


def child_offsets(spatial: list[tuple[int, Vector]]) -> list[Vector]:
    """Offset of each child's box from the first child's; the innermost spatial loop runs fastest."""
    offsets: list[Vector] = []
    for n, t in spatial:
        if not offsets:
            offsets = [tuple(0 for _ in t)]
        offsets = [tuple(o + k * s for o, s in zip(offset, t, strict=True)) for k in range(n) for offset in offsets]
    return offsets or [()]


def multicast_groups(children: list[Vector], alone: bool = False) -> Groups:
    """How many boxes go to how many children each; children with equal offsets share one, unless each is `alone`."""
    if alone:
        return Counter({1: len(children)} if children else {})
    return Counter(Counter(children).values())


def with_links(
    children: list[Vector], before: list[Vector], moved: Vector, fanout: Fanout | None, alone: bool = False
) -> tuple[Groups, int]:
    """Multicast groups and how many children a neighbour serves, if that leaves fewer boxes; else no child is served.

    Args:
        children: offsets of the boxes that the children need, `before`: of those they received in the step before.
        moved: translation of the first child's box since then.
        alone: as of `child_accesses`.
    """
    linked = _linked(children, before, moved, fanout)
    every = multicast_groups(children, alone)
    rest = multicast_groups([v for v, hit in zip(children, linked, strict=True) if not hit], alone)
    return (rest, sum(linked)) if sum(rest.values()) < sum(every.values()) else (every, 0)


def _linked(children: list[Vector], before: list[Vector], moved: Vector, fanout: Fanout | None) -> list[bool]:
    """Which children find what they need at a neighbour: the neighbour's box before equals the child's box now."""
    assert fanout is not None
    hits = []
    for i, offset in enumerate(children):
        wanted = tuple(o + m for o, m in zip(offset, moved, strict=True))
        near = neighbours(i, len(before), fanout.mesh_x)
        hits.append(any(j >= 0 and before[j] == wanted for j in near))
    return hits
