"""What the order of a memory's loops does to each tensor that is kept further in, every way that can matter once.

Only what lies inside the first loop that moves a tensor matters to it: loops there repeat its tile, and the first loop
that moves it may slide a window. A behaviour says this of all tensors at once for the loops of one stage.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from dse.hardware.spec import LoopConstraint


class Closed(NamedTuple):
    """Some loop here moves the tensor: `repeated` dimensions lie inside the first that does; it slides along `slid`."""

    repeated: frozenset[str]
    slid: str | None


PASSES = None  # no loop here moves the tensor

Behaviour = tuple[Closed | None, ...]  # of each tensor


class Option(NamedTuple):
    """A behaviour, and the dimensions whose factor must be 1 here for it."""

    behaviour: Behaviour
    without: frozenset[str]


def options_of(
    dims: tuple[str, ...],
    constraint: LoopConstraint,
    moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...],
    open_here: tuple[bool, ...],
) -> list[Option]:
    """All behaviours of a stage that are not worse than another for every tensor.

    Args:
        dims: that the stage may loop over.
        moves: for each tensor the dimensions that move it.
        slides: for each tensor those of them that share an axis with another dimension.
        open_here: whether the tensor is kept further in, so that it matters what happens to it here.
    """
    everything = frozenset(dims)
    relevant = [t for t, is_open in enumerate(open_here) if is_open and moves[t] & everything]
    out: dict[Option, None] = {}
    for size in range(len(relevant), -1, -1):
        for passing in itertools.combinations(relevant, size):
            without = frozenset().union(*(moves[t] for t in passing)) & everything
            loops = [d for d in dims if d not in without]
            rest = [t for t in relevant if t not in passing]
            if size < len(relevant) and not loops:
                continue
            if any(not moves[t] & set(loops) for t in rest):
                continue  # a tensor that no loop is left to move passes too
            for closed in _orders(loops, constraint, moves, slides, rest):
                behaviour = tuple(closed.get(t, PASSES) for t in range(len(moves)))
                out.setdefault(Option(behaviour, without))
    return _best(list(out))


def _orders(
    loops: list[str],
    constraint: LoopConstraint,
    moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...],
    tensors: list[int],
) -> list[dict[int, Closed]]:
    """What each order of the loops does to the tensors; all loops are taken to have more than one iteration."""
    results: dict[tuple[tuple[int, Closed], ...], None] = {}

    def choices(left: list[str]) -> list[str]:
        for group in (constraint.inner, None, constraint.outer):
            if group is None:
                here = [d for d in left if d not in constraint.inner and d not in constraint.outer]
                if here:
                    return here
            else:
                here = [d for d in group if d in left]
                if here:
                    return here[:1]
        return []

    def extend(left: list[str], before: frozenset[str], closed: dict[int, Closed]) -> None:
        waiting = [t for t in tensors if t not in closed]
        if not waiting or not left:
            results.setdefault(tuple(sorted(closed.items())))
            return
        options = choices(left)
        harmless = [d for d in options if not any(d in moves[t] for t in waiting)]
        for d in harmless[:1] or options:
            after = dict(closed)
            for t in waiting:
                if d in moves[t]:
                    after[t] = Closed(before - moves[t], d if d in slides[t] else None)
            extend([e for e in left if e != d], before | {d}, after)

    extend(loops, frozenset(), {})
    return [dict(result) for result in results]


def _best(options: list[Option]) -> list[Option]:
    """Without options that another one with no more conditions is at least as good as."""
    kept: list[Option] = []
    for i, option in enumerate(options):
        if not any(
            _as_good(other, option) and (not _as_good(option, other) or j < i)
            for j, other in enumerate(options) if j != i
        ):  # fmt: skip
            kept.append(option)
    return kept


def _as_good(a: Option, b: Option) -> bool:
    """Whether `a` leaves every tensor at least as much reuse as `b`, under no more conditions."""
    if not a.without <= b.without:
        return False
    for x, y in zip(a.behaviour, b.behaviour, strict=True):
        if x is y:
            continue
        if x is PASSES or y is PASSES:
            return False
        if not x.repeated >= y.repeated or (y.slid is not None and x.slid != y.slid):
            return False
    return True
