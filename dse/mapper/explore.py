"""Best-first search through the mapspace, outermost level first, with the bounds of `dse.mapper.bounds`.

A node fixes all loops outside some stage. Its bound never exceeds the energy of any mapping it leads to, so once the
cheapest open node is no cheaper than the best mapping found, that mapping is optimal.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from dse.energy.ert import Ert
from dse.errors import InputError
from dse.mapper import bounds
from dse.mapper.exact import exact_energy
from dse.mapper.infeasible import explain
from dse.mapper.orders import loop_orders, mesh_arrangements
from dse.mapper.space import Floats, Ints, Space, Tensors, build_space, keep_choices
from dse.mapping import Loops, Mapping
from dse.model import Evaluation, evaluate
from dse.problem import Problem
from dse.spec import Fanout, Spec, Storage

OBJECTIVES = ("energy",)
TOLERANCE = 1e-11  # relative: bounds and energies are sums of floats in different orders


@dataclass(frozen=True)
class Found:
    """The result of a search: a mapping with its evaluation, or the reason why there is none.

    `optimal` says that no mapping of the mapspace has less energy.
    """

    mapping: Mapping | None
    evaluation: Evaluation | None
    optimal: bool
    reason: str = ""


@dataclass(frozen=True)
class _Labels:
    """Bounds of every tile after a stage: tile i owns `labels[offsets[i]:offsets[i + 1]]`."""

    have: np.ndarray
    labels: Floats
    offsets: Ints


@dataclass(frozen=True)
class _Surrounding:
    """How the loops outside reuse each tensor: repetitions of a tile, then windows that may slide it."""

    run: Floats  # (T,)
    windows: Floats  # (T, D, 6), see bounds.window
    counts: Ints  # (T,)
    direct: np.ndarray  # (T,) no repetition lies between tile and window


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


@dataclass
class _Best:
    energy: float = math.inf
    mapping: Mapping | None = None
    seen: set[object] = field(default_factory=set)


def search(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy") -> Found:
    """The mapping of least energy.

    Deterministic. `Found.mapping` is None, with a reason, where nothing fits the hardware and its constraints.

    Raises:
        InputError: an unknown objective, or an energy that the table lacks.
    """
    if objective not in OBJECTIVES:
        raise InputError("objective", f"found {objective!r}", OBJECTIVES)
    best = _Best()
    for keep in keep_choices(spec, problem):
        if all(any(t.name in kept for kept in keep.values()) for t in problem.data_spaces):
            _search(build_space(spec, problem, ert, keep), ert, keep, best)
    if best.mapping is None:
        return Found(None, None, False, explain(spec, problem))
    return Found(best.mapping, evaluate(spec, problem, best.mapping, ert), True)


def _search(space: Space, ert: Ert, keep: dict[str, frozenset[str]], best: _Best) -> None:
    tables = _lift(space)
    whole = len(space.dims.value) - 1
    if not tables[-1].have[whole]:
        return
    evaluator = _Evaluator(space, ert)
    slack = evaluator.rounding_slack()
    count = len(space.tensors.names)
    nothing = _Surrounding(
        np.ones(count), np.zeros((count, len(space.dims.names), 6)), np.zeros(count, np.int64), np.zeros(count, bool)
    )
    span = np.zeros(space.tensors.coefficient.shape[:2])
    root = _Node(
        len(space.levels) - 1, whole, space.compute_energy, nothing, np.ones(count), span, 0.0, (), ()
    )
    queue: list[tuple[float, int, int, list[_Node], Floats]] = []
    ticket = itertools.count()

    def push(nodes: list[_Node], costs: Floats) -> None:
        order = np.argsort(costs, kind="stable")
        if len(order):
            ranked = [nodes[i] for i in order]
            heapq.heappush(queue, (float(costs[order[0]]), next(ticket), 0, ranked, costs[order]))

    push([root], np.array([0.0]))
    while queue:
        cost, _, i, nodes, costs = heapq.heappop(queue)
        limit = best.energy * (1 - TOLERANCE) + slack
        if cost >= limit:
            return
        if i + 1 < len(nodes):
            heapq.heappush(queue, (float(costs[i + 1]), next(ticket), i + 1, nodes, costs))
        node = nodes[i]
        if node.stage < 0:
            evaluator.try_orders(node, keep, best)
        else:
            push(*_expand(space, tables, node, limit))


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
    wanted, corners, leaking = _wanted(space), _corners(tensors), bool(stages.leak.any())
    start[0, 1] = float(leaking)
    tables = [_Labels(have, start, offsets)]
    ones = np.ones(count)
    for k, level in enumerate(space.levels):
        inside = tables[-1]
        outer_share = stages.least_share[k + 1] if k + 1 < len(space.levels) else ones
        labels = np.zeros((tiles, bounds.CAP, width))
        counts = np.diff(inside.offsets)
        padded = np.zeros_like(labels)
        filled = np.arange(bounds.CAP)[None, :] < counts[:, None]
        padded[filled] = inside.labels
        out_counts = np.zeros(tiles, np.int64)
        if isinstance(level, Fanout):
            bounds.lift_fanout(
                inside.have, padded, counts, dims.value, dims.position, dims.strides, dims.times, dims.divisors,
                stages.spatial[k], tensors.coefficient, tensors.relevant, tensors.axis_column, stages.linked[k],
                stages.inner_credit[k], tensors.full_size, outer_share, k == 0, leaking, wanted[k + 1], corners, labels, out_counts,
            )  # fmt: skip
        else:
            bounds.lift_storage(
                inside.have, padded, counts, dims.value, dims.position, dims.strides, dims.counts, stages.allowed[k],
                dims.bounds, tensors.coefficient, tensors.relevant, tensors.axis_of, tensors.axis_column,
                tensors.full_size, stages.inner[k], stages.outer[k], stages.free[k], stages.keep[k],
                stages.capacity[k], stages.fill_price[k], stages.parent_price[k], stages.has_parent[k],
                stages.credit[k], stages.least_share[k], outer_share, stages.leak[k], leaking, space.macs,
                wanted[k + 1], corners, labels, out_counts,
            )  # fmt: skip
        offsets = np.concatenate([[0], np.cumsum(out_counts)])
        tables.append(_Labels(out_counts > 0, labels[np.arange(bounds.CAP)[None, :] < out_counts[:, None]], offsets))
    return tables


def _wanted(space: Space) -> list[np.ndarray]:
    """Tiles that the levels outside can leave, by their factor constraints; entry k + 1 is that of stage k."""
    dims, stages = space.dims, space.stages
    wanted = np.zeros(len(dims.value), bool)
    wanted[-1] = True
    found = [wanted]
    for k in range(len(space.levels) - 1, -1, -1):
        inside = np.zeros(len(dims.value), bool)
        if stages.fanout[k]:
            bounds.reach_fanout(found[0], dims.value, dims.divisors, dims.strides, stages.spatial[k], inside)
        else:
            bounds.reach_storage(found[0], dims.position, dims.strides, dims.counts, stages.allowed[k], inside)
        found.insert(0, inside)
    return found


def _corners(tensors: Tensors) -> np.ndarray:
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


def _expand(space: Space, tables: list[_Labels], node: _Node, limit: float) -> tuple[list[_Node], Floats]:
    """The nodes one stage further in that can still lead below `limit`, and their bounds."""
    dims, tensors, stages = space.dims, space.tensors, space.stages
    k, inside = node.stage, tables[node.stage]
    count, around = len(tensors.names), node.around
    if stages.fanout[k]:
        room = len(stages.spatial[k])
        tiles, costs = np.zeros(room, np.int64), np.zeros(room)
        fixed, shares, leaks = np.zeros(room), np.zeros((room, count)), np.zeros(room)
        found = bounds.expand_fanout(
            node.tile, limit, node.fixed, around.run, around.windows, around.counts, around.direct, node.share,
            node.leak, inside.have, inside.labels, inside.offsets, dims.value, dims.strides, dims.divisors,
            stages.spatial[k], tensors.coefficient, tensors.relevant, stages.inner_credit[k], tensors.full_size, tiles,
            costs, fixed, shares, leaks,
        )  # fmt: skip
        outside = dims.value[node.tile]
        nodes = [
            _Node(k - 1, int(tiles[i]), float(fixed[i]), around, shares[i],
                  _span(tensors, stages.linked[k], outside, dims.value[tiles[i]]), float(leaks[i]),
                  (*node.tiles, node.tile), (*node.firsts, -1))
            for i in range(found)
        ]  # fmt: skip
        return nodes, costs[:found]

    fixed_here, share = node.fixed, node.share.copy()
    for t in np.flatnonzero(stages.keep[k]):
        fixed_here -= stages.credit[k, t] * tensors.full_size[t]
        if stages.has_parent[k, t]:
            fixed_here += bounds.boundary_cost(
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
        found = bounds.expand_storage(
            node.tile, limit, fixed_here, around.run, around.windows, around.counts, around.direct, share, leak,
            inside.have, inside.labels, inside.offsets, dims.value, dims.position, dims.strides, dims.counts,
            stages.allowed[k], dims.bounds, tensors.coefficient, tensors.relevant, tensors.axis_of,
            tensors.axis_column, *order, tiles, firsts, costs,
        )  # fmt: skip
        if found >= 0:
            break
        room *= 4
    span = np.zeros_like(node.span)
    nodes = [
        _Node(k - 1, int(tiles[i]), fixed_here, _inside(space, node, int(tiles[i]), int(firsts[i]), order), share, span,
              leak, (*node.tiles, node.tile), (*node.firsts, int(firsts[i])))
        for i in range(found)
    ]  # fmt: skip
    return nodes, costs[:found]


def _span(tensors: Tensors, linked: np.ndarray, outside: Ints, inside: Ints) -> Floats:
    spread = (tensors.coefficient * (outside - inside)).sum(axis=2)
    return np.where(linked[:, None], spread, 0).astype(np.float64)


def _inside(space: Space, node: _Node, tile: int, first: int, order: tuple[Ints, Ints, np.ndarray]) -> _Surrounding:
    """The surrounding that the loops between a node's tile and `tile` make, `first` being the innermost of them."""
    if first < 0:
        return node.around
    dims, tensors, around = space.dims, space.tensors, node.around
    new = _Surrounding(around.run.copy(), around.windows.copy(), around.counts.copy(), around.direct.copy())
    bounds.enter(
        first, dims.value[tile], dims.value[node.tile] // dims.value[tile], dims.bounds, tensors.coefficient,
        tensors.relevant, tensors.axis_of, tensors.axis_column, *order, around.run, around.windows, around.counts,
        new.run, new.windows, new.counts, new.direct,
    )  # fmt: skip
    return new


class _Evaluator:
    """Evaluates tilings exactly, in every order that can make a difference."""

    def __init__(self, space: Space, ert: Ert) -> None:
        self.space = space
        levels = space.levels
        self.energies = [
            ert.storage(level.name) if isinstance(level, Storage) else dict.fromkeys(("read", "write", "update"), 0.0)
            for level in levels
        ]
        self.read, self.fill, self.update = (
            np.array([e[action] for e in self.energies]) for action in ("read", "write", "update")
        )
        self.block = np.array([level.block_size if isinstance(level, Storage) else 1 for level in levels], np.float64)
        limits = [
            (level.read_bandwidth, level.write_bandwidth, level.shared_bandwidth)
            if isinstance(level, Storage) else (None, None, None)
            for level in levels
        ]  # fmt: skip
        self.bandwidth = np.array([[math.inf if b is None else b for b in row] for row in limits])
        self.mesh_x = np.array([level.mesh_x if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        self.mesh_y = np.array([level.mesh_y if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        names = space.tensors.names
        self.link_allowed = np.array(
            [[isinstance(v, Fanout) and t not in v.no_link_transfer for t in names] for v in levels]
        )
        self.shared_axis = (space.tensors.axis_of >= 0).any(axis=1)

    def rounding_slack(self) -> float:
        """pJ by which truncated averages of links and multicasts can undercut the bounds, which do not round."""
        slack, copies = 0.0, 1
        for k in range(len(self.space.levels) - 1, -1, -1):
            kept = int((self.space.stages.keep[k] & self.shared_axis).sum())
            slack += kept * copies * float(self.read[k] + self.fill[k])
            copies *= int(self.mesh_x[k] * self.mesh_y[k])
        return float(slack)

    def try_orders(self, node: _Node, keep: dict[str, frozenset[str]], best: _Best) -> None:
        """Evaluates a complete tiling in all orders that start with the loops the node chose."""
        space = self.space
        dims = space.dims
        tiles = [*node.tiles, 0]
        per_stage: list[list[tuple[Loops, Loops]]] = []  # choices of (spatial or temporal loops, on-Y loops)
        for depth, k in enumerate(range(len(space.levels) - 1, -1, -1)):
            factors = dims.value[tiles[depth]] // dims.value[tiles[depth + 1]]
            level = space.levels[k]
            if isinstance(level, Fanout):
                linkable = bool((self.link_allowed[k] & (self.shared_axis | (k == 0))).any()) and self._child_keeps(k)
                per_stage.append(list(mesh_arrangements(level, space.problem, dims.names, factors, linkable)))
            else:
                open_below = self._open_below(k)
                orders = loop_orders(
                    factors, node.firsts[depth], open_below, space.tensors, level.temporal, dims.names, k
                )
                per_stage.append([(order, ()) for order in orders])
        for choice in itertools.product(*per_stage):
            self._try(choice, keep, best)

    def _child_keeps(self, k: int) -> bool:
        return k == 0 or bool((self.space.stages.keep[k - 1] & self.shared_axis).any())

    def _open_below(self, k: int) -> np.ndarray:
        """Tensors whose accesses depend on the order of the loops at stage k."""
        below = self.space.stages.keep[:k].any(axis=0)
        return below | bool(self.space.stages.fanout[0] and k > 0)

    def _try(self, choice: tuple[tuple[Loops, Loops], ...], keep: dict[str, frozenset[str]], best: _Best) -> None:
        space = self.space
        rows: list[tuple[int, int, int, bool]] = []
        for depth in range(len(choice) - 1, -1, -1):
            k = len(choice) - 1 - depth
            is_fanout = isinstance(space.levels[k], Fanout)
            rows += [(k, space.dims.names.index(d), n, is_fanout) for part in choice[depth] for d, n in part]
        columns = np.array([row[:3] for row in rows], np.int64).reshape(len(rows), 3)
        energy, _ = exact_energy(
            columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), np.array([r[3] for r in rows], bool),
            len(rows), space.tensors.coefficient, space.tensors.read_write, space.stages.keep, self.read, self.fill,
            self.update, self.block, space.stages.leak, self.bandwidth, self.mesh_x, self.mesh_y, self.link_allowed,
            self.shared_axis,
        )  # fmt: skip
        energy += space.compute_energy
        if energy < best.energy * (1 - 1e-12):
            best.energy = energy
            best.mapping = self._mapping(choice, keep)

    def _mapping(self, choice: tuple[tuple[Loops, Loops], ...], keep: dict[str, frozenset[str]]) -> Mapping:
        temporal: dict[str, Loops] = {}
        x: dict[str, Loops] = {}
        y: dict[str, Loops] = {}
        for level, (first, second) in zip(reversed(self.space.levels), choice, strict=True):
            if isinstance(level, Fanout):
                x[level.name], y[level.name] = first, second
            else:
                temporal[level.name] = first
        return Mapping(temporal, x, y, keep)
