"""What the order of a memory's loops does to each tensor that is kept further in, every way that can matter once.

Only what lies inside the first loop that moves a tensor matters to it: loops there repeat its tile, and the first loop
that moves it may slide a window. A behaviour says this of all tensors at once for the loops of one stage.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

from dse.hardware.spec import LoopConstraint


class Closed(NamedTuple):
    """Some loop here moves the tensor: `repeated` dimensions lie inside the first that does; it slides along `slid`."""

    repeated: frozenset[str]
    slid: str | None


PASSES = None  # no loop here moves the tensor

Behaviour = tuple[Closed | None, ...]  # of each tensor


class Option(NamedTuple):
    """A behaviour, the dimensions whose factor must be 1 here for it, and an order of the others that has it."""

    behaviour: Behaviour
    without: frozenset[str]
    order: tuple[str, ...] = ()  # innermost first


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
    return list(_all_options(dims, constraint.inner, constraint.outer, moves, slides, open_here))


@lru_cache(maxsize=256)
def _all_options(
    dims: tuple[str, ...],
    inner: tuple[str, ...],
    outer: tuple[str, ...],
    moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...],
    open_here: tuple[bool, ...],
) -> tuple[Option, ...]:
    """`options_of` for an order that is fixed in part; layers and their candidates ask for the same again and again."""
    constraint = LoopConstraint(inner=inner, outer=outer)
    fixed = dims if inner or outer else ()
    out: dict[tuple[Behaviour, frozenset[str]], Option] = {}
    for size in range(len(fixed) + 1):
        for absent in itertools.combinations(fixed, size):
            # Where places are fixed, others come first if some loops are absent.
            left = tuple(d for d in dims if d not in absent)
            for option in _options_with(left, constraint, moves, slides, open_here):
                without = option.without | frozenset(absent)
                out.setdefault((option.behaviour, without), option._replace(without=without))
    return tuple(_best(list(out.values())))


def _options_with(
    dims: tuple[str, ...],
    constraint: LoopConstraint,
    moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...],
    open_here: tuple[bool, ...],
) -> list[Option]:
    """The behaviours if all loops but those that must be absent have more than one iteration."""
    everything = frozenset(dims)
    relevant = [t for t, is_open in enumerate(open_here) if is_open and moves[t] & everything]
    out = []
    for size in range(len(relevant), -1, -1):
        for passing in itertools.combinations(relevant, size):
            without = frozenset().union(*(moves[t] for t in passing)) & everything
            loops = [d for d in dims if d not in without]
            rest = [t for t in relevant if t not in passing]
            if size < len(relevant) and not loops:
                continue
            if any(not moves[t] & set(loops) for t in rest):
                continue  # a tensor that no loop is left to move passes too
            for closed, order in _orders(loops, constraint, moves, slides, rest):
                out.append(Option(tuple(closed.get(t, PASSES) for t in range(len(moves))), without, order))
    return out


def _orders(
    loops: list[str],
    constraint: LoopConstraint,
    moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...],
    tensors: list[int],
) -> list[tuple[dict[int, Closed], tuple[str, ...]]]:
    """What the orders of the loops do to the tensors, and one order for each.

    All loops are taken to have more than one iteration. Where some have only one, a tensor sees no less reuse.
    """
    results: dict[tuple[tuple[int, Closed], ...], tuple[str, ...]] = {}

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

    def extend(left: list[str], before: tuple[str, ...], closed: dict[int, Closed]) -> None:
        waiting = [t for t in tensors if t not in closed]
        if not waiting or not left:
            first, last = (tuple(d for d in fixed if d in left) for fixed in (constraint.inner, constraint.outer))
            rest = tuple(d for d in left if d not in first and d not in last)
            results.setdefault(tuple(sorted(closed.items())), before + first + rest + last)
            return
        options = choices(left)
        harmless = [d for d in options if not any(d in moves[t] for t in waiting)]
        for d in harmless[:1] or options:
            after = dict(closed)
            for t in waiting:
                if d in moves[t]:
                    after[t] = Closed(frozenset(before) - moves[t], d if d in slides[t] else None)
            extend([e for e in left if e != d], (*before, d), after)

    extend(loops, (), {})
    return [(dict(result), order) for result, order in results.items()]


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
