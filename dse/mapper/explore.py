"""Best-first search through the mapspace, outermost level first, with the bounds of `dse.mapper.labels`.

A node fixes all loops outside some stage. Its bound never exceeds the energy of any mapping it leads to, so once the
cheapest open node is no cheaper than the best mapping found, that mapping is optimal.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dse.energy.ert import Ert
from dse.errors import InputError
from dse.mapper import Found
from dse.mapper.expand import boundary_cost, expand_fanout, expand_storage
from dse.mapper.infeasible import explain
from dse.mapper.leaves import Best, Evaluator
from dse.mapper.lift import lift_fanout, lift_storage, reach_fanout, reach_storage
from dse.mapper.reuse import enter
from dse.mapper.space import Flags, Floats, Ints, Space, Tensors, build_space, keep_choices
from dse.model import evaluate
from dse.problem import Problem
from dse.spec import Fanout, Spec

OBJECTIVES = ("energy",)
TOLERANCE = 1e-11  # relative: bounds and energies are sums of floats in different orders


@dataclass(frozen=True)
class _Labels:
    """Bounds of every tile after a stage: tile i owns `labels[offsets[i]:offsets[i + 1]]`."""

    have: Flags
    labels: Floats
    offsets: Ints


@dataclass(frozen=True)
class _Surrounding:
    """How the loops outside reuse each tensor: repetitions of a tile, then windows that may slide it."""

    run: Floats  # (T,)
    windows: Floats  # (T, D, 6), see reuse.window
    counts: Ints  # (T,)
    direct: Flags  # (T,) no repetition lies between tile and window


@dataclass(frozen=True)
class _Node:
    """All loops outside `stage` are placed; `tile` is what remains inside."""

    stage: int
    tile: int
    fixed: float
    around: _Surrounding
    share: Floats
    span: Floats  # (T, axes) spread of the fan-out directly outside, as in a label
    leak: float
    tiles: tuple[int, ...]  # tile above each stage placed so far, outermost first
    firsts: tuple[int, ...]  # innermost loop of each stage placed so far, -1 for none


@dataclass(frozen=True)
class _Children:
    """The nodes one stage further in, cheapest bound first; they are built when their turn comes."""

    costs: Floats
    node: Callable[[int], _Node]

    @staticmethod
    def ranked(costs: Floats, node: Callable[[int], _Node]) -> _Children:
        order = np.argsort(costs, kind="stable")
        return _Children(costs[order], lambda i: node(int(order[i])))


def search(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy") -> Found:
    """See `dse.mapper.search`."""
    if objective not in OBJECTIVES:
        raise InputError("objective", f"found {objective!r}", OBJECTIVES)
    best = Best()
    for keep in keep_choices(spec, problem):
        if all(any(t.name in kept for kept in keep.values()) for t in problem.data_spaces):
            _search(build_space(spec, problem, ert, keep), ert, keep, best)
    if best.mapping is None:
        return Found(None, None, False, explain(spec, problem))
    evaluation = evaluate(spec, problem, best.mapping, ert)
    assert math.isclose(evaluation.energy_pj, best.energy, rel_tol=1e-9), "the two access models disagree"
    return Found(best.mapping, evaluation, True)


def _search(space: Space, ert: Ert, keep: dict[str, frozenset[str]], best: Best) -> None:
    tables = _lift(space)
    whole = len(space.dims.value) - 1
    if not tables[-1].have[whole]:
        return
    evaluator = Evaluator(space, ert)
    slack = evaluator.rounding_slack()
    count = len(space.tensors.names)
    nothing = _Surrounding(
        np.ones(count), np.zeros((count, len(space.dims.names), 6)), np.zeros(count, np.int64), np.zeros(count, bool)
    )
    span = np.zeros(space.tensors.coefficient.shape[:2])
    root = _Node(len(space.levels) - 1, whole, space.compute_energy, nothing, np.ones(count), span, 0.0, (), ())
    queue: list[tuple[float, int, int, _Children]] = []
    ticket = itertools.count()

    def push(children: _Children, i: int) -> None:
        if i < len(children.costs):
            heapq.heappush(queue, (float(children.costs[i]), next(ticket), i, children))

    push(_Children(np.zeros(1), lambda _: root), 0)
    while queue:
        cost, _, i, children = heapq.heappop(queue)
        limit = best.energy * (1 - TOLERANCE) + slack
        if cost >= limit:
            return
        push(children, i + 1)
        node = children.node(i)
        if node.stage < 0:
            evaluator.try_orders((*node.tiles, node.tile), node.firsts, keep, best)
        else:
            push(_expand(space, tables, node, limit), 0)


def _lift(space: Space) -> list[_Labels]:
    """The bounds of all stages; entry 0 is the compute unit's, entry k + 1 that of tiles of stage k."""
    dims, tensors, stages = space.dims, space.tensors, space.stages
    count, tiles = len(tensors.names), len(dims.value)
    width = tensors.label_width
    start = np.zeros((1, width))
    start[0, 2 + 3 * count :: 2] = 1.0
    under_fanout = bool(stages.fanout[0])
    for t in range(count):
        start[0, 3 + 3 * t if under_fanout else 4 + 3 * t] = space.macs * stages.compute_price[t]
    have = np.zeros(tiles, bool)
    have[0] = True
    offsets = np.ones(tiles + 1, np.int64)
    offsets[0] = 0
    wanted, corners = _wanted(space), _corners(tensors)
    # Up to the outermost fan-out labels differ in how long they make the levels outside leak.
    last_fanout = max(np.flatnonzero(stages.fanout), default=-1)
    if last_fanout >= 0 and stages.leak.any():
        start[0, 1] = 1.0
    else:
        start[0, 0] = float(stages.leak.sum()) * space.macs
    tables = [_Labels(have, start, offsets)]
    ones = np.ones(count)
    for k, level in enumerate(space.levels):
        inside = tables[-1]
        outer_share = stages.least_share[k + 1] if k + 1 < len(space.levels) else ones
        if isinstance(level, Fanout):
            labels, offsets = lift_fanout(
                inside.labels, inside.offsets, dims.value, dims.position, dims.strides, dims.times, dims.divisors,
                stages.spatial[k], tensors.coefficient, tensors.relevant, tensors.axis_column, stages.linked[k],
                stages.inner_credit[k], tensors.full_size, outer_share, k == 0, k == last_fanout,
                float(stages.leak[k:].sum()), space.macs, wanted[k + 1], corners,
            )  # fmt: skip
        else:
            labels, offsets = lift_storage(
                inside.labels, inside.offsets, dims.value, dims.position, dims.strides, dims.counts, stages.allowed[k],
                dims.bounds, tensors.coefficient, tensors.relevant, tensors.axis_of, tensors.axis_column,
                tensors.full_size, stages.inner[k], stages.outer[k], stages.free[k], stages.keep[k],
                stages.capacity[k], stages.fill_price[k], stages.parent_price[k], stages.has_parent[k],
                stages.credit[k], stages.least_share[k], outer_share, stages.leak[k],
                k < last_fanout and bool(stages.leak.any()), space.macs, wanted[k + 1], corners,
            )  # fmt: skip
        tables.append(_Labels(np.diff(offsets) > 0, labels, offsets))
    return tables


def _wanted(space: Space) -> list[Flags]:
    """Tiles that the levels outside can leave, by their factor constraints; entry k + 1 is that of stage k."""
    dims, stages = space.dims, space.stages
    wanted = np.zeros(len(dims.value), bool)
    wanted[-1] = True
    found = [wanted]
    for k in range(len(space.levels) - 1, -1, -1):
        inside = np.zeros(len(dims.value), bool)
        if stages.fanout[k]:
            reach_fanout(found[0], dims.value, dims.divisors, dims.strides, stages.spatial[k], inside)
        else:
            reach_storage(found[0], dims.position, dims.strides, dims.counts, stages.allowed[k], inside)
        found.insert(0, inside)
    return found


def _corners(tensors: Tensors) -> Flags:
    """The corners of the reuse factors' range: rows of which tensors pay in full, the others being reused entirely.

    A level's innermost loop `d` decides which tensors can be reused at once: those it does not move and those it
    slides over. Every subset of such a set is a corner.
    """
    count = len(tensors.names)
    rows = {(True,) * count}
    for d in range(tensors.relevant.shape[1]):
        reusable = [t for t in range(count) if not tensors.relevant[t, d] or tensors.axis_of[t, d] >= 0]
        for size in range(1, len(reusable) + 1):
            for subset in itertools.combinations(reusable, size):
                rows.add(tuple(t not in subset for t in range(count)))
    return np.array(sorted(rows, reverse=True))


def _expand(space: Space, tables: list[_Labels], node: _Node, limit: float) -> _Children:
    """The nodes one stage further in that can still lead below `limit`."""
    dims, tensors, stages = space.dims, space.tensors, space.stages
    k, inside = node.stage, tables[node.stage]
    count, around = len(tensors.names), node.around
    if stages.fanout[k]:
        room = len(stages.spatial[k])
        tiles, costs = np.zeros(room, np.int64), np.zeros(room)
        fixed, shares, leaks = np.zeros(room), np.zeros((room, count)), np.zeros(room)
        found = expand_fanout(
            node.tile, limit, node.fixed, around.run, around.windows, around.counts, around.direct, node.share,
            node.leak, inside.have, inside.labels, inside.offsets, dims.value, dims.strides, dims.divisors,
            stages.spatial[k], tensors.coefficient, tensors.relevant, stages.inner_credit[k], tensors.full_size, tiles,
            costs, fixed, shares, leaks,
        )  # fmt: skip

        def in_array(i: int) -> _Node:
            span = _span(tensors, stages.linked[k], dims.value[node.tile], dims.value[tiles[i]])
            return _Node(k - 1, int(tiles[i]), float(fixed[i]), around, shares[i], span, float(leaks[i]),
                         (*node.tiles, node.tile), (*node.firsts, -1))  # fmt: skip

        return _Children.ranked(costs[:found], in_array)

    fixed_here, share = node.fixed, node.share.copy()
    for t in np.flatnonzero(stages.keep[k]):
        fixed_here -= stages.credit[k, t] * tensors.full_size[t]
        if stages.has_parent[k, t]:
            fixed_here += boundary_cost(
                dims.value[node.tile], dims.bounds, tensors.coefficient, tensors.axis_column, t, node.span[t],
                around.run[t], around.windows[t], around.counts[t], around.direct[t], stages.fill_price[k, t],
                stages.parent_price[k, t], share[t], tensors.label_width,
            )  # fmt: skip
        share[t] = 1.0
    leak = node.leak + stages.leak[k] * space.macs
    order = (stages.inner[k], stages.outer[k], stages.free[k])
    room = 4096
    while True:
        tiles, firsts, costs = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room)
        found = expand_storage(
            node.tile, limit, fixed_here, around.run, around.windows, around.counts, around.direct, share, leak,
            inside.have, inside.labels, inside.offsets, dims.value, dims.position, dims.strides, dims.counts,
            stages.allowed[k], dims.bounds, tensors.coefficient, tensors.relevant, tensors.axis_of,
            tensors.axis_column, *order, tiles, firsts, costs,
        )  # fmt: skip
        if found >= 0:
            break
        room *= 4

    def in_memory(i: int) -> _Node:
        inner = _inside(space, node, int(tiles[i]), int(firsts[i]), order)
        return _Node(k - 1, int(tiles[i]), fixed_here, inner, share, np.zeros_like(node.span), leak,
                     (*node.tiles, node.tile), (*node.firsts, int(firsts[i])))  # fmt: skip

    return _Children.ranked(costs[:found], in_memory)


def _span(tensors: Tensors, linked: Flags, outside: Ints, inside: Ints) -> Floats:
    spread = (tensors.coefficient * (outside - inside)).sum(axis=2)
    return np.where(linked[:, None], spread, 0).astype(np.float64)


def _inside(space: Space, node: _Node, tile: int, first: int, order: tuple[Ints, Ints, Flags]) -> _Surrounding:
    """The surrounding that the loops between a node's tile and `tile` make, `first` being the innermost of them."""
    if first < 0:
        return node.around
    dims, tensors, around = space.dims, space.tensors, node.around
    new = _Surrounding(around.run.copy(), around.windows.copy(), around.counts.copy(), around.direct.copy())
    enter(
        first, dims.value[tile], dims.value[node.tile] // dims.value[tile], dims.bounds, tensors.coefficient,
        tensors.relevant, tensors.axis_of, tensors.axis_column, *order, around.run, around.windows, around.counts,
        new.run, new.windows, new.counts, new.direct,
    )  # fmt: skip
    return new
