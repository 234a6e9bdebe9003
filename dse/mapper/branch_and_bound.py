"""Best-first search through the mapspace, outermost level first, with the bounds of `dse.mapper.bounds`.

A node fixes all loops outside some stage. Its bound never exceeds the objective of any mapping it leads to, so once
the best open node is no better than the best mapping found, that mapping is optimal.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec
from dse.mapper import Found
from dse.mapper.bounds import lift
from dse.mapper.kernels.downward import boundary_cost, expand_fanout, expand_storage
from dse.mapper.kernels.geometry import Around, enter, nowhere, splits
from dse.mapper.kernels.labels import BOUND_DELAY, DELAY, ENERGY, ENERGY_DELAY, Aim, value_of
from dse.mapper.kernels.slots import IDLE, SETTLED, Floats
from dse.mapper.kernels.upward import Inside
from dse.mapper.mapspace import Mapspace, Tiling, keep_choices, mapspace, remember
from dse.mapper.prices import Stages, build_stages
from dse.mapper.tilings import Best, Evaluator
from dse.mapper.why_not.infeasible import explain
from dse.model.evaluation import evaluate
from dse.workload.problem import Problem

LOG = logging.getLogger("enos.mapper")
MOST_NODES = 50_000  # of a search; beyond it the best mapping so far is returned, not as optimal
TOLERANCE = 1e-11  # relative: bounds and energies are sums of floats in different orders
MOST_BYTES = 64 << 20  # of the labels of all choices of what levels keep that are held until their turn
BEAM = 64  # labels of a stage in the narrow search for a first good mapping
FIRST_LOOK = 100  # nodes of that search
ROOM = 1e-9  # relative: a first good mapping is a limit only, so that its history does not choose between equal ones
_AIMS = {ENERGY: "energy", ENERGY_DELAY: "edp", DELAY: "delay"}


@dataclass
class Effort:
    """What a search has done: nodes whose inside was looked at, of all nodes below the limit that were made."""

    expanded: int = 0
    made: int = 0
    start: float = field(default_factory=time.perf_counter)

    def report(self, problem: Problem, objective: str, best: Best, gap: float) -> None:
        """Writes one line about a finished search to the log `enos.mapper`."""
        if LOG.isEnabledFor(logging.DEBUG):
            shape = " ".join(f"{d}{n}" for d, n in problem.bound.items() if n > 1)
            gap_text = f"gap {gap:.6g}" if best.mapping is not None else "no mapping"
            seconds = time.perf_counter() - self.start
            LOG.debug(
                "%s, %s: %d nodes expanded, %d pruned, %s, %.3f s",
                shape, objective, self.expanded, self.made - self.expanded, gap_text, seconds,
            )  # fmt: skip


@dataclass(frozen=True)
class _Node:
    """All loops outside `stage` are placed; `tile` is what remains inside."""

    stage: int
    tile: int
    fixed: float
    around: Around
    share: Floats
    span: Floats  # (T, axes) spread of the fan-out directly outside, as in a label
    leak: float
    idle: float  # inverse of the fan-outs outside
    tiles: tuple[int, ...]  # tile above each stage placed so far, outermost first
    firsts: tuple[int, ...]  # innermost loop of each stage placed so far, -1 for none


@dataclass(frozen=True)
class _Children:
    """The nodes one stage further in, best bound first; they are built when their turn comes."""

    costs: Floats
    node: Callable[[int], _Node]

    @staticmethod
    def ranked(costs: Floats, node: Callable[[int], _Node]) -> _Children:
        order = np.argsort(costs, kind="stable")
        return _Children(costs[order], lambda i: node(int(order[i])))


def search(spec: Spec, problem: Problem, ert: Ert, objective: str) -> Found:
    """See `dse.mapper.search`."""
    macs, effort = float(problem.macs), Effort()
    if objective == "energy":
        first = _best(spec, problem, ert, Aim(ENERGY, macs), effort)
        best = _fastest(first)
    elif objective == "edp":
        _, least = _slowest(spec, problem, ert)
        aim = Aim(ENERGY_DELAY, macs, least_cycles=least * (1 - ROOM), latency=float(spec.network_latency))
        best = first = _best(spec, problem, ert, aim, effort)
    else:
        first = _fewest_cycles(spec, problem, ert, effort)
        best = _best(spec, problem, ert, Aim(ENERGY, macs, most_cycles=first.value * (1 + ROOM)), effort)
    effort.report(problem, objective, best, max(first.gap, best.gap))
    if best.mapping is None:
        return Found(None, None, False, explain(spec, problem, ert.lacks) or _stops(problem))
    return _found(spec, problem, ert, best, first.proven and best.proven)


def best(spec: Spec, problem: Problem, ert: Ert, aim: Aim) -> Found:
    """The best mapping under an aim of any kind but `BOUND_DELAY`, with all choices of which levels keep which tensors.

    Among equally good mappings nothing decides further: of least energy, there may be one of fewer cycles. Cycles are
    without those that networks add. Where no mapping is within the aim's limits, the reason says no more than that, and
    `optimal` whether it is proven.
    """
    effort = Effort()
    if aim.kind == DELAY and math.isinf(aim.most_energy):
        answer = _fewest_cycles(spec, problem, ert, effort)
    else:
        answer = _best(spec, problem, ert, aim, effort)
    effort.report(problem, _AIMS[aim.kind], answer, answer.gap)
    if answer.mapping is None:
        limited = math.isfinite(aim.most_cycles) or math.isfinite(aim.most_energy)
        reason = "" if limited else explain(spec, problem, ert.lacks) or _stops(problem)
        return Found(
            None, None, limited and answer.proven, reason or "no mapping is within the limits of energy and cycles"
        )
    if aim.kind == DELAY:
        return Found(answer.mapping, evaluate(spec, problem, answer.mapping, ert), answer.proven)
    return _found(spec, problem, ert, answer, answer.proven)


def _fewest_cycles(spec: Spec, problem: Problem, ert: Ert, effort: Effort) -> Best:
    """The fastest mapping, whatever its energy; of those that are equally fast, any.

    Where bandwidths stretch cycles, these are bounded as sums over accesses. Where none does, cycles are operations /
    units that work, of which there are few values: a search for the least energy under a limit of cycles is led by
    energies, where one for the fewest cycles would look at all nodes whose bound is the same.
    """
    macs = float(problem.macs)
    prices, stretched = _slowest(spec, problem, ert)
    if stretched:
        return _best(spec, problem, prices, Aim(BOUND_DELAY, macs), effort)
    fastest = _best(spec, problem, ert, Aim(ENERGY, macs), effort)
    if fastest.mapping is None:
        return fastest
    units = [n for n in range(1, spec.pe_count + 1) if problem.macs % n == 0]
    proven, low, high = True, units.index(_units(fastest)), len(units) - 1
    while low < high:
        tried = (low + high + 1) // 2
        limit = macs / units[tried] * (1 + ROOM)
        answer = _best(spec, problem, ert, Aim(ENERGY, macs, most_cycles=limit), effort)
        if answer.mapping is not None:
            fastest, low = answer, units.index(_units(answer))
        else:
            proven, high = proven and answer.proven, tried - 1
    return replace(fastest, value=macs / units[low], proven=proven, bound=math.inf)


def _units(best: Best) -> int:
    """The compute units that a mapping uses."""
    assert best.mapping is not None
    return math.prod(n for loops in (*best.mapping.x.values(), *best.mapping.y.values()) for _, n in loops)


def _found(spec: Spec, problem: Problem, ert: Ert, best: Best, proven: bool) -> Found:
    assert best.mapping is not None
    evaluation = evaluate(spec, problem, best.mapping, ert)
    assert math.isclose(evaluation.energy_pj, best.energy, rel_tol=1e-9), "the two access models disagree"
    return Found(best.mapping, evaluation, proven)


def _stops(problem: Problem) -> str:
    """The reason where something fits and Timeloop stops at all of it."""
    outputs = [s.name for s in problem.data_spaces if s.read_write]
    return (
        f"Timeloop stops at every mapping that fits: it counts fewer accesses to {' and '.join(outputs)} than words "
        "that are written first, because their tiles have gaps or overlap"
    )


def _best(spec: Spec, problem: Problem, ert: Ert, aim: Aim, effort: Effort) -> Best:
    """The best mapping of all choices of which levels keep which tensors.

    The choice of the least bound comes first, since its mapping leaves the least to do in the others. Of mappings that
    are equally good, that of the first choice in the order of `keep_choices` is the answer, as if they came in turn.
    """
    best, space, fallback = Best(), mapspace(spec, problem), Best()
    timed = _alone(spec, space)
    best_place, kept = math.inf, 0
    ranked: list[tuple[float, int, _Walk, list[Inside] | None]] = []
    for place, walk in enumerate(_walks(spec, space, ert, aim, effort)):
        if math.isinf(best.value):
            fallback = walk.good()
            best.value = min(best.value, fallback.value * (1 + ROOM))
        tables = lift(space, walk.stages, aim, best.value * (1 - TOLERANCE), timed=timed)
        kept += sum(table.labels.nbytes for table in tables)
        ranked.append((walk.least(tables), place, walk, tables if kept < MOST_BYTES else None))
    ranked.sort(key=lambda r: r[:2])
    for _, place, walk, lifted in ranked:
        if best.mapping is None and len(ranked) > 1 and place > 0:
            good = walk.good()
            fallback = good if good.value < fallback.value else fallback
            best.value = min(best.value, good.value * (1 + ROOM))
        earlier = best.mapping is not None and place < best_place
        here = Best(best.value * (1 + ROOM) if earlier else best.value)
        tables = lifted or lift(space, walk.stages, aim, here.value * (1 - TOLERANCE), timed=timed)
        walk.explore(tables, here)
        proven, bound = best.proven and here.proven, min(best.bound, here.bound)
        if here.mapping is not None and (not earlier or here.value <= best.value * (1 + TOLERANCE)):
            best, best_place = here, place
            best.within = (walk, tables)
        best.proven, best.bound = proven, bound
    if best.mapping is None and fallback.mapping is not None:
        assert not best.proven, "a mapping was found that the bounds exclude"
        best = replace(
            fallback, proven=False, bound=best.bound
        )  # the search was cut short before it came to a mapping of its own
    if best.tiling is not None:
        remember(space, best.tiling)
    return best


def _fastest(first: Best) -> Best:
    """Of the mappings with the energy of `first` that keep the same tensors, the one of fewest cycles."""
    if first.within is None:
        return first
    walk, tables = first.within
    aim = Aim(DELAY, walk.aim.macs, most_energy=first.value * (1 + TOLERANCE))
    again = replace(walk, aim=aim)
    best = Best(again.at([first.tiling] if first.tiling is not None else []).value * (1 + ROOM))
    if not _alone(walk.spec, walk.space):
        tables = lift(walk.space, walk.stages, aim, best.value, within=tables)
    again.explore(tables, best)
    return best if best.mapping is not None else first


def _alone(spec: Spec, space: Mapspace) -> bool:
    """Whether there is one choice of what levels keep: then labels say at once how long mappings take.

    Where there are several, most of them have few labels below the limit, and fewer still without cycles.
    """
    return len(keep_choices(spec, space.problem)) == 1


def _walks(spec: Spec, space: Mapspace, ert: Ert, aim: Aim, effort: Effort) -> Iterator[_Walk]:
    compute = space.problem.macs * ert.compute(spec.compute.name)
    for keep in keep_choices(spec, space.problem):
        if all(any(t in keep[s.name] and t not in s.no_coalesce for s in spec.storages) for t in space.tensors):
            evaluator = Evaluator(space, spec, ert, keep, compute, whole_accesses=aim.kind != BOUND_DELAY)
            base = compute - evaluator.slack()
            yield _Walk(spec, space, build_stages(space, spec, ert, keep, base), aim, evaluator, base, effort)


def _slowest(spec: Spec, problem: Problem, ert: Ert) -> tuple[Ert, float]:
    """The bandwidth that makes every mapping take longest: its cycles as prices, and how many it takes at least.

    Cycles are those of the slowest level, so those of any level, at its accesses over all instances and as many
    instances as there can be, are a lower bound of them that is made like an energy.
    """
    space, aim = mapspace(spec, problem), Aim(BOUND_DELAY, float(problem.macs))
    free = {s.name: dict.fromkeys(("read", "write", "update", "leak"), 0.0) for s in spec.storages}
    free[spec.compute.name] = {"compute": 0.0}
    slowest, most = Ert(free), 0.0
    instances = 1
    for level in spec.levels:
        if isinstance(level, Fanout):
            instances *= level.mesh_x * level.mesh_y
            continue
        for bandwidth, actions in (
            (level.read_bandwidth, ("read",)),
            (level.write_bandwidth, ("write", "update")),
            (level.shared_bandwidth, ("read", "write", "update")),
        ):
            if bandwidth is None:
                continue
            scale = min(level.bandwidth_scale.get(t, 1.0) for t in space.tensors)
            prices = Ert({**free, level.name: {**free[level.name], **dict.fromkeys(
                actions, scale * level.block_size / (instances * bandwidth))}})  # fmt: skip
            least = min((walk.root_value() for walk in _walks(spec, space, prices, aim, Effort())), default=0.0)
            if math.isfinite(least) and least > most:
                slowest, most = prices, least
    return slowest, most


@dataclass(frozen=True)
class _Walk:
    """The search through one choice of which levels keep which tensors."""

    spec: Spec
    space: Mapspace
    stages: Stages
    aim: Aim
    evaluator: Evaluator
    base: float  # pJ that every mapping costs at least
    effort: Effort

    def root_value(self) -> float:
        """The bound of all mappings."""
        return self.least(lift(self.space, self.stages, self.aim, math.inf))

    def least(self, tables: list[Inside]) -> float:
        """The bound that labels give of all mappings."""
        whole = tables[-1].offsets[-2:]
        label = tables[-1].labels[whole[0] : whole[1]]
        energy = self.base + np.min(label[:, SETTLED], initial=math.inf)
        return float(value_of(self.aim, energy, np.min(label[:, IDLE], initial=math.inf)))

    def good(self) -> Best:
        """A good mapping: an answer to a similar question, or what a narrow search finds."""
        keep = self.evaluator.keep
        known = [a for a in self.space.answers if a.keep == keep and self._fits(a)]
        if known:
            return self.at(known)
        best = Best()
        self.explore(lift(self.space, self.stages, self.aim, math.inf, BEAM), best, FIRST_LOOK)
        return best

    def at(self, tilings: list[Tiling]) -> Best:
        """The best of some tilings in their best orders."""
        best = Best()
        for tiling in tilings:
            self.evaluator.try_orders(tiling, self.aim, best)
        return best

    def _fits(self, tiling: Tiling) -> bool:
        outermost_first = reversed(self.stages.stages)
        return all(stage.wanted[tile] for stage, tile in zip(outermost_first, tiling.tiles, strict=False))

    def explore(self, tables: list[Inside], best: Best, most: int = MOST_NODES) -> None:
        """Looks at nodes, best first, until none can be better than `best`, or at `most` of them."""
        space, count = self.space, len(self.space.tensors)
        whole = len(space.boxes) - 1
        if tables[-1].offsets[whole] == tables[-1].offsets[whole + 1]:
            return
        nothing = nowhere(count, len(space.dims), space.grid.axis_column.shape[1])
        span = np.zeros(space.grid.axis_column.shape)
        outermost = len(self.stages.stages) - 1
        root = _Node(outermost, whole, self.base, nothing, np.ones(count), span, 0.0, 1.0, (), ())
        queue: list[tuple[float, int, int, _Children]] = []
        ticket = itertools.count()

        def push(children: _Children, i: int) -> None:
            if i == 0:
                self.effort.made += len(children.costs)
            if i < len(children.costs):
                heapq.heappush(queue, (float(children.costs[i]), next(ticket), i, children))

        if math.isinf(best.value):
            self._dive(tables, root, best)
        push(_Children(np.zeros(1), lambda _: root), 0)
        looked = 0
        while queue:
            if looked >= most:
                best.proven, best.bound = False, min(best.bound, queue[0][0])
                return
            cost, _, i, children = heapq.heappop(queue)
            limit = best.value * (1 - TOLERANCE)
            if cost >= limit:
                best.bound = min(best.bound, cost)
                return
            push(children, i + 1)
            node = children.node(i)
            looked += 1
            self.effort.expanded += 1
            if node.stage < 0:
                self.evaluator.try_orders(self._tiling(node), self.aim, best)
            else:
                push(self._expand(tables, node, limit), 0)

    def _dive(self, tables: list[Inside], root: _Node, best: Best) -> None:
        """Follows the best bounds straight down to a mapping, and back up where the narrow tables leave none."""
        path = [(_Children(np.zeros(1), lambda _: root), 0)]
        for _ in range(FIRST_LOOK):
            while path and path[-1][1] == len(path[-1][0].costs):
                path.pop()
            if not path:
                return
            children, i = path.pop()
            path.append((children, i + 1))
            node = children.node(i)
            if node.stage < 0:
                self.evaluator.try_orders(self._tiling(node), self.aim, best)
                return
            path.append((self._expand(tables, node, math.inf), 0))

    def _tiling(self, node: _Node) -> Tiling:
        return Tiling(self.evaluator.keep, (*node.tiles, node.tile), node.firsts)

    def _expand(self, tables: list[Inside], node: _Node, limit: float) -> _Children:
        """The nodes one stage further in that can still lead below the limit."""
        if self.stages.stages[node.stage].array is not None:
            return self._into_array(tables[node.stage], node, limit)
        return self._into_memory(tables[node.stage], node, limit)

    def _into_array(self, inside: Inside, node: _Node, limit: float) -> _Children:
        """The uses of a fan-out that can still lead below the limit."""
        grid, array = self.space.grid, self.stages.stages[node.stage].array
        assert array is not None
        tiles, costs, fixed, shares, products = expand_fanout(
            grid, node.tile, inside, array, node.around, node.share, node.leak, node.fixed, node.idle, self.aim, limit
        )

        def child(i: int) -> _Node:
            spread = (grid.coefficient * (grid.value[node.tile] - grid.value[tiles[i]])).sum(axis=2)
            span = np.where(array.linked[:, None], spread, 0).astype(np.float64)
            return _Node(
                node.stage - 1, int(tiles[i]), float(fixed[i]), node.around, shares[i], span,
                float(node.leak / products[i]), float(node.idle / products[i]), (*node.tiles, node.tile),
                (*node.firsts, -1),
            )  # fmt: skip

        return _Children.ranked(costs, child)

    def _into_memory(self, inside: Inside, node: _Node, limit: float) -> _Children:
        """The loops of a storage level that can still lead below the limit."""
        grid, k, around = self.space.grid, node.stage, node.around
        stage = self.stages.stages[k]
        boundary, order = stage.boundary, stage.order
        assert boundary is not None and order is not None
        fixed, share = node.fixed, node.share.copy()
        for t in np.flatnonzero(boundary.keep):
            fixed -= boundary.saved[t]
            if boundary.has_parent[t]:
                fixed += self._boundary(node, int(t), share[t])
            share[t] = 1.0
        leak = node.leak + self.stages.leak[k] * self.aim.macs
        tiles, firsts, goes_on, costs = expand_storage(
            grid, node.tile, inside, stage.allowed, order, around, share,
            leak if k <= self.stages.last_fanout else 0.0, fixed, node.idle, self.aim, limit,
        )  # fmt: skip

        def child(i: int) -> _Node:
            return _Node(
                k - 1, int(tiles[i]), fixed, self._inside(node, int(tiles[i]), int(firsts[i]), bool(goes_on[i])), share,
                np.zeros_like(node.span), leak, node.idle, (*node.tiles, node.tile), (*node.firsts, int(firsts[i])),
            )  # fmt: skip

        return _Children.ranked(costs, child)

    def _boundary(self, node: _Node, t: int, share: float) -> float:
        """The least pJ of moving a tensor into a node's level: a bound, or exact where windows or rounding act."""
        if node.around.counts[t] or self.evaluator.rounds(node.stage, t):
            exact = self.evaluator.least_boundary(node.stage, t, (*node.tiles, node.tile), node.firsts)
            if exact is not None:
                return exact
        boundary = self.stages.stages[node.stage].boundary
        assert boundary is not None
        return float(boundary_cost(
            self.space.grid, node.tile, t, node.span[t], node.around, boundary.fill_price[t], boundary.parent_price[t],
            share, int(boundary.forgets[t]), self.space.label_width,
        ))  # fmt: skip

    def _inside(self, node: _Node, tile: int, first: int, goes_on: bool) -> Around:
        """The surrounding that the loops between a node's tile and `tile` make, `first` being the innermost."""
        if first < 0:
            return node.around
        new: Around = nowhere(len(self.space.tensors), len(self.space.dims), node.around.slid.shape[1])
        order = self.stages.stages[node.stage].order
        value = self.space.grid.value
        factors = value[node.tile] // value[tile]
        slider = splits(self.space.grid, order, first, factors)
        enter(self.space.grid, order, first, tile, factors, slider, goes_on, node.around, new)
        return new
