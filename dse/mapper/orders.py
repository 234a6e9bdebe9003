"""Orders of a tiling's loops, reduced to those that the access model can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from dse.hardware.spec import Fanout, LoopConstraint
from dse.mapper.kernels.geometry import Grid
from dse.mapper.kernels.slots import Flags, Ints
from dse.mapper.mapspace import placements
from dse.model.mapping import Loops
from dse.workload.problem import Problem

OPEN, SLID, CLOSED = 0, 1, 2  # no loop has moved a tensor yet; only along axes it slides on; order no longer matters


def loop_orders(
    factors: Ints,
    first: int,
    status: Sequence[int],
    grid: Grid,
    constraint: LoopConstraint,
    names: tuple[str, ...],
    uneven: Flags,
) -> Iterator[Loops]:
    """Orders (innermost first) of a level's loops that begin with loop `first`, or with one that bounds take for it.

    A tensor's accesses are settled by the loops up to the first that moves it along an axis of its own: further out
    the order makes no difference to it. Before any loop moves it, one that leaves it in place can only lengthen a run
    of reuse, so one that no tensor objects to is placed at once. Longer runs are no gain where an output has gaps or
    overlap: with too few accesses to it Timeloop stops.

    Args:
        status: OPEN, SLID or CLOSED for each tensor.
        uneven: (T,) outputs with gaps or overlap.
    """
    loops = [d for d in range(len(names)) if factors[d] > 1]
    if not loops:
        yield ()
        return
    inner = [names.index(n) for n in constraint.inner if n in names]
    outer = [names.index(n) for n in constraint.outer if n in names]

    def after(state: list[int], d: int) -> list[int]:
        new = list(state)
        for t, s in enumerate(state):
            if s != CLOSED and grid.relevant[t, d]:
                new[t] = SLID if grid.axis_of[t, d] >= 0 else CLOSED
        return new

    def same_kind(d: int, e: int) -> bool:
        moved = grid.relevant[:, d] | grid.relevant[:, e]
        axes = (grid.axis_of[:, d] >= 0) | (grid.axis_of[:, e] >= 0)
        return bool((grid.relevant[:, d] == grid.relevant[:, e]).all() and not (moved & axes).any())

    def candidates(left: list[int]) -> list[int]:
        for group in (inner, [d for d in left if d not in inner and d not in outer], outer):
            here = [d for d in group if d in left]
            if here:
                return here[:1] if group is not None and (group is inner or group is outer) else here
        return []

    def extend(prefix: list[int], left: list[int], state: list[int]) -> Iterator[list[int]]:
        if not left:
            yield prefix
            return
        choices = candidates(left)
        stops = any(s != CLOSED and uneven[t] for t, s in enumerate(state))
        if not prefix and first in choices:
            # Bounds cannot tell loops of a kind apart; once a window has slid, what lies between two slides matters,
            # and where Timeloop may stop, how much of the reuse is left out.
            choices = [d for d in choices if d == first or ((SLID in state or stops) and same_kind(d, first))]
        elif all(s == CLOSED for s in state):
            choices = choices[:1]
        elif not stops:
            for d in choices:
                if all(s == CLOSED or (s == OPEN and not grid.relevant[t, d]) for t, s in enumerate(state)):
                    choices = [d]
                    break
        for d in choices:
            yield from extend([*prefix, d], [e for e in left if e != d], after(state, d))

    for order in extend([], loops, list(status)):
        yield tuple((names[d], int(factors[d])) for d in order)


def mesh_arrangements(
    fanout: Fanout, problem: Problem, names: tuple[str, ...], factors: Ints, linkable: bool
) -> Iterator[tuple[Loops, Loops]]:
    """(loops on X, loops on Y) of a fan-out. Where data cannot pass between neighbours one arrangement is enough."""
    sizes = {names[d]: int(factors[d]) for d in range(len(names)) if factors[d] > 1}
    fixed = [*fanout.spatial.inner, *fanout.spatial.outer]

    def orders(dims: list[str]) -> Iterator[tuple[str, ...]]:
        inner = tuple(d for d in fanout.spatial.inner if d in dims)
        outer = tuple(d for d in fanout.spatial.outer if d in dims)
        for middle in itertools.permutations([d for d in dims if d not in fixed]):
            yield (*inner, *middle, *outer)

    for x, y in placements(fanout, len(problem.dimensions), sizes):
        for on_x, on_y in itertools.product(orders(x), orders(y)):
            yield tuple((d, sizes[d]) for d in on_x), tuple((d, sizes[d]) for d in on_y)
            if not linkable:
                return
