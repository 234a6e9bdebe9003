"""What the children of a level access in it over a layer, in closed form for perfect nests.

Timeloop walks the loop nest from the outside in, evaluates iterations 0 and 1 of every temporal loop, weighs the
second by n - 1, and charges at each step the part of a tile that the previous step did not hold. Between two
consecutive steps exactly one loop advances and the loops inside it rewind, so a nest of k non-trivial loops has only
k kinds of step. Everything about a step follows from its kind, which gives the counts in closed form; the derivation
is in docs/model.md. `tests/dse/model/test_evaluation.py` compares it with a literal walk and with recorded Timeloop
runs.
"""

from __future__ import annotations

import math
from collections import Counter

from dse.hardware.spec import Fanout

Vector = tuple[int, ...]
Stats = dict[tuple[int, int], float]  # (multicast factor, number of distinct boxes) -> words
Groups = Counter[int]  # multicast factor -> number of distinct boxes


def child_accesses(
    box: tuple[int, ...],
    outside: list[tuple[int, Vector]],
    spatial: list[tuple[int, Vector]],
    fanout: Fanout | None,
    *,
    is_compute: bool,
    links: bool,
) -> tuple[Stats, float]:
    """What the children of one instance of a level access in it over the whole layer.

    Args:
        box: extents of a child's tile.
        outside: (iterations, translation of the box) of the temporal loops at and outside the level, innermost first.
        spatial: the same of the loops over the children.
        fanout: the physical mesh, which decides who is whose neighbour.
        is_compute: the child is the compute unit, which holds nothing between two steps.
        links: neighbours may pass data on.

    Returns:
        Accesses by multicast factor (words, over the layer), and words passed between neighbours.
    """
    steps = _steps(box, outside, is_compute)
    children = child_offsets(spatial)
    groups = multicast_groups(children)
    stats: Stats = {}
    link_transfers = 0.0
    for weight, size, moved in steps:
        if size == 0:
            continue
        chosen, served = groups, 0
        if links and moved is not None and len(children) > 1:
            chosen, served = with_links(children, children, moved, fanout)
        link_transfers += served * size * weight
        for key in chosen.items():
            stats[key] = stats.get(key, 0.0) + key[1] * size * weight
    return stats, link_transfers


def _steps(
    box: tuple[int, ...], outside: list[tuple[int, Vector]], is_compute: bool
) -> list[tuple[int, int, Vector | None]]:
    """(times, words needed, translation if the previous step needed a box of the same form) of each kind of step.

    Loop 1 is the innermost. A step of kind i advances loop i and rewinds loops 1..i-1; it moves the box by
    T_i = t_i - sum of t_j over j < i. Before a step of kind i > 1 always comes one of kind 1; before one of kind 1
    comes any other.
    """
    volume = math.prod(box)
    if not outside:
        return [(1, volume, None)]
    moves: list[Vector] = []
    rewound = tuple(0 for _ in box)
    for _, t in outside:
        moves.append(tuple(a - b for a, b in zip(t, rewound, strict=True)))
        rewound = tuple(a + b for a, b in zip(t, rewound, strict=True))
    times = []  # of kind i, i = 1..k
    outer = math.prod(n for n, _ in outside)
    for n, _ in outside:
        outer //= n
        times.append((n - 1) * outer)

    if is_compute:
        return [(1, volume, None), *((c, volume, m) for c, m in zip(times, moves, strict=True))]

    first = next((i for i, (_, t) in enumerate(outside) if any(t)), None)
    if first is None:
        return [(1, volume, None)]
    slab = _new_part(box, moves[first])
    need = [
        slab if i == first or (i > first and m == moves[first]) else (0 if not any(m) else volume)
        for i, m in enumerate(moves)
    ]
    if first > 0:  # a step of kind 1 needs nothing, and it comes before every other: no neighbour has what is needed
        return [(1, volume, None), *((c, s, None) for c, s in zip(times, need, strict=True))]
    n1 = outside[0][0]
    out: list[tuple[int, int, Vector | None]] = [(1, volume, None)]
    before_kind_1 = [(1, volume)]  # (settings, words needed) of the steps that open a run of loop 1
    for i in range(1, len(outside)):
        out.append((times[i], need[i], moves[i] if need[i] == slab else None))
        before_kind_1.append((times[i], need[i]))
    for settings, previous in before_kind_1:
        out.append((settings * (n1 - 1), slab, moves[0] if previous == slab else None))
    return out


def _new_part(box: Vector, move: Vector) -> int:
    """Words of a box that a translated copy of it did not hold: along one axis a slab, along several what is left."""
    return math.prod(box) - math.prod(max(0, extent - abs(m)) for extent, m in zip(box, move, strict=True))


def child_offsets(spatial: list[tuple[int, Vector]]) -> list[Vector]:
    """Offset of each child's box from the first child's; the innermost spatial loop runs fastest."""
    offsets: list[Vector] = []
    for n, t in spatial:
        if not offsets:
            offsets = [tuple(0 for _ in t)]
        offsets = [tuple(o + k * s for o, s in zip(offset, t, strict=True)) for k in range(n) for offset in offsets]
    return offsets or [()]


def multicast_groups(children: list[Vector]) -> Groups:
    """How many boxes go to how many children each; children with equal offsets share one."""
    return Counter(Counter(children).values())


def with_links(
    children: list[Vector], before: list[Vector], moved: Vector, fanout: Fanout | None
) -> tuple[Groups, int]:
    """Multicast groups and how many children a neighbour serves, if that leaves fewer boxes; else no child is served.

    Args:
        children: offsets of the boxes that the children need, `before`: of those they received in the step before.
        moved: translation of the first child's box since then.
    """
    linked = _linked(children, before, moved, fanout)
    every = multicast_groups(children)
    rest = multicast_groups([v for v, hit in zip(children, linked, strict=True) if not hit])
    return (rest, sum(linked)) if sum(rest.values()) < sum(every.values()) else (every, 0)


def _linked(children: list[Vector], before: list[Vector], moved: Vector, fanout: Fanout | None) -> list[bool]:
    """Which children find what they need at a neighbour: the neighbour's box before equals the child's box now.

    Children are numbered in the order of the spatial loops and laid out row by row on the physical mesh, also where
    the loops use only part of a row: that is how Timeloop numbers them.
    """
    assert fanout is not None
    width = fanout.mesh_x
    hits = [False] * len(children)
    for i, offset in enumerate(children):
        h = i % width
        neighbours = [i - width, i + width] + [i - 1] * (h > 0) + [i + 1] * (h < width - 1)
        wanted = tuple(o + m for o, m in zip(offset, moved, strict=True))
        hits[i] = any(0 <= j < len(before) and before[j] == wanted for j in neighbours)
    return hits
