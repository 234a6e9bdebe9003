"""What tensors see of a layer's dimensions, and which numbers of their chains a search needs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper.mapspace import placements
from dse.mapper.remainders.behaviours import Closed, Option, options_of
from dse.mapper.remainders.chains import NOWHERE, Flags, Wanted, can_loop_over
from dse.workload.problem import Problem


class UnsupportedError(Exception):
    """Why a layer or an accelerator has no search with remainders, for the user."""


class Slid(NamedTuple):
    """The loop that slides a tile."""

    dimension: str
    stage: int


@dataclass(frozen=True)
class Counted:
    """Loops whose iterations each bring a tile; those over `repeated` dimensions at `stage` do not."""

    loops: tuple[bool, ...]  # (K,)
    stage: int = -1
    repeated: frozenset[str] = frozenset()

    def over(self, dimension: str) -> Flags:
        """(K,)"""
        loops = np.array(self.loops)
        if dimension in self.repeated:
            loops[self.stage] = False
        return loops

    def without(self, stages: tuple[int, ...]) -> Counted:
        return replace(self, loops=tuple(n and k not in stages for k, n in enumerate(self.loops)))


Fate = tuple[Closed | None, ...]  # what the loops of each stage do to one tensor


@dataclass(frozen=True)
class Layer:
    """A layer on an accelerator whose levels keep certain tensors; stages are innermost first."""

    spec: Spec
    problem: Problem
    stages: tuple[Storage | Fanout, ...]
    dims: tuple[str, ...]  # above size 1
    members: tuple[tuple[str, ...], ...]  # groups of dimensions: pairs that share an axis of a tensor, and the others
    coefficient: MappingType[tuple[int, str], int]  # (tensor, dimension) of those that move it
    windows: frozenset[tuple[int, tuple[str, ...]]]  # (tensor, group)
    moves: tuple[frozenset[str], ...]
    slides: tuple[frozenset[str], ...]
    kept: tuple[tuple[int, ...], ...]  # for each tensor the stages that keep it
    options: tuple[tuple[Option, ...], ...]  # for each stage what its loops may do to all tensors

    @cached_property
    def temporal(self) -> tuple[bool, ...]:
        return tuple(isinstance(s, Storage) for s in self.stages)

    @property
    def limited(self) -> bool:
        """Some memory has a bandwidth."""
        return any(
            bandwidth is not None
            for s in self.stages if isinstance(s, Storage)
            for bandwidth in (s.read_bandwidth, s.write_bandwidth, s.shared_bandwidth)
        )  # fmt: skip

    def fanouts_between(self, child: int, parent: int) -> tuple[int, ...]:
        return tuple(k for k in range(child + 1, parent) if isinstance(self.stages[k], Fanout))

    def copies(self, child: int) -> Counted:
        """The fan-outs outside a level: their iterations are its instances."""
        return Counted(tuple(k > child and not temporal for k, temporal in enumerate(self.temporal)))

    def counted(self, t: int, child: int, fate: Fate) -> tuple[Counted, Slid | None]:
        """Which loops outside a child change what it needs of a tensor; the compute unit (-1) holds nothing."""
        loops = [k > child for k in range(len(self.stages))]
        if child < 0:
            return Counted(tuple(loops)), None
        for j in range(child + 1, len(self.stages)):
            if not self.temporal[j]:
                continue
            closed = fate[j]
            if closed is None:
                loops[j] = False
                continue
            return Counted(tuple(loops), j, closed.repeated), Slid(closed.slid, j) if closed.slid else None
        return Counted(tuple(loops)), None

    def fates(self, t: int) -> list[Fate]:
        """Everything that can happen to a tensor."""
        return list(itertools.product(*(dict.fromkeys(o.behaviour[t] for o in options) for options in self.options)))


def layer_of(spec: Spec, problem: Problem, keep: MappingType[str, frozenset[str]]) -> Layer:
    """Raises `UnsupportedError` where mappings with remainders are not searched."""
    stages = tuple(reversed(spec.levels))
    dims = tuple(d for d, n in problem.bound.items() if n > 1)
    coefficient, windows = _axes(problem, dims)
    paired = [d for pair in {pair for _, pair in windows} for d in pair]
    if len(paired) != len(set(paired)):
        raise UnsupportedError("a dimension shares axes with several others")
    for stage in stages:
        if isinstance(stage, Fanout):
            _check_sides(stage, dims, len(problem.dimensions))
    pairs = sorted({pair for _, pair in windows}, key=lambda pair: dims.index(pair[0]))
    tensors = range(len(problem.data_spaces))
    moves = tuple(frozenset(d for d in dims if (t, d) in coefficient) for t in tensors)
    slides = tuple(frozenset(d for u, pair in windows if u == t for d in pair) for t in tensors)
    kept = tuple(
        tuple(k for k, s in enumerate(stages) if isinstance(s, Storage) and tensor.name in keep[s.name])
        for tensor in problem.data_spaces
    )
    return Layer(
        spec, problem, stages, dims, (*pairs, *((d,) for d in dims if d not in paired)), coefficient,
        frozenset(windows), moves, slides, kept, _options(stages, dims, moves, slides, kept),
    )  # fmt: skip


def _axes(
    problem: Problem, dims: tuple[str, ...]
) -> tuple[dict[tuple[int, str], int], list[tuple[int, tuple[str, ...]]]]:
    coefficient: dict[tuple[int, str], int] = {}
    windows = []
    for t, tensor in enumerate(problem.data_spaces):
        for axis in tensor.axes:
            terms: dict[str, int] = {}
            for d, c in axis:
                if d in dims and c:
                    terms[d] = terms.get(d, 0) + abs(c)
            for d, c in terms.items():
                if (t, d) in coefficient:
                    raise UnsupportedError(f"{tensor.name} has dimension {d} on several axes")
                coefficient[t, d] = c
            if len(terms) > 2:
                raise UnsupportedError(f"{tensor.name} has an axis of {len(terms)} dimensions")
            if len(terms) == 2:
                windows.append((t, tuple(sorted(terms, key=dims.index))))
            if tensor.read_write and (len(terms) > 1 or any(c > 1 for c in terms.values())):
                raise UnsupportedError(f"tiles of {tensor.name} have gaps or overlap")
    return coefficient, windows


def _check_sides(fanout: Fanout, dims: tuple[str, ...], dimensions: int) -> None:
    """Refuses a fan-out whose constraints do not say for each dimension alone on which axis it may lie."""
    roomy = replace(fanout, mesh_x=2 ** len(dims), mesh_y=2 ** len(dims))
    able = {d: sides_of(roomy, d, dimensions) for d in dims}
    possible = {frozenset(x) for x, _ in placements(roomy, dimensions, dict.fromkeys(dims, 2))}
    for size in range(len(dims) + 1):
        for x in itertools.combinations(dims, size):
            expected = all(able[d][0] if d in x else able[d][1] for d in dims)
            if expected != (frozenset(x) in possible):
                raise UnsupportedError(
                    f"the permutation and split of {fanout.name} limit which dimensions lie on an axis"
                )


def sides_of(fanout: Fanout, name: str, dimensions: int) -> tuple[bool, bool]:
    """Whether a dimension may lie along X and along Y of a fan-out."""
    if fanout.mesh_x * fanout.mesh_y == 1:
        return NOWHERE
    roomy = replace(fanout, mesh_x=2, mesh_y=2)
    sides = [bool(x) for x, _ in placements(roomy, dimensions, {name: 2})]
    return True in sides and fanout.mesh_x > 1, False in sides and fanout.mesh_y > 1


def _options(
    stages: tuple[Storage | Fanout, ...], dims: tuple[str, ...], moves: tuple[frozenset[str], ...],
    slides: tuple[frozenset[str], ...], kept: tuple[tuple[int, ...], ...],
) -> tuple[tuple[Option, ...], ...]:  # fmt: skip
    nothing: tuple[Option, ...] = (Option(tuple(None for _ in moves), frozenset()),)
    looping = [tuple(d for d in dims if isinstance(s, Storage) and can_loop_over(s, d)) for s in stages]
    outermost = max((k for k, loops in enumerate(looping) if loops), default=-1)
    out: list[tuple[Option, ...]] = []
    for k, stage in enumerate(stages):
        open_here = tuple(any(j < k for j in levels) for levels in kept)
        if not looping[k] or not any(open_here):
            out.append(nothing)
            continue
        assert isinstance(stage, Storage)
        options = options_of(looping[k], stage.temporal, moves, slides, open_here)
        if k == outermost and not stage.temporal.inner and not stage.temporal.outer:
            # Nothing is left outside: what passes here is what everything repeats here.
            options = [o for o in options if not o.without] or options
        out.append(tuple(options))
    return tuple(out)


def wanted_of(layer: Layer, name: str) -> Wanted:
    """What a search needs of a dimension's chains."""
    stages, problem = layer.stages, layer.problem
    size = problem.bound[name]
    tiles, exact = set(), set()
    most = [size] * len(stages)
    masks: dict[bytes, Flags] = {}
    copies: dict[bytes, Flags] = {}

    def count(into: dict[bytes, Flags], counted: Counted) -> None:
        mask = counted.over(name)
        into.setdefault(mask.tobytes(), mask)

    count(masks, Counted(layer.temporal))  # cycles
    for k in range(len(stages)):
        count(masks, layer.copies(k))  # instances, which leak
        if layer.limited:
            count(copies, layer.copies(k))  # and share what a bandwidth limits
    for t, tensor in enumerate(problem.data_spaces):
        c = layer.coefficient.get((t, name))
        for k in layer.kept[t]:
            stage = stages[k]
            assert isinstance(stage, Storage)
            if c and stage.capacity is not None:
                tiles.add(k)
                most[k] = min(most[k], (stage.capacity - 1) // c + 1)
            if c and c > 1:
                tiles.add(k)  # larger tiles have more gaps
            if name in layer.slides[t]:
                exact.add(k)
            if c is None and tensor.read_write:
                count(copies, layer.copies(k))
        if c is None:
            for fate, (i, child) in itertools.product(layer.fates(t), enumerate((-1, *layer.kept[t]))):
                counted, _ = layer.counted(t, child, fate)
                if child >= 0:
                    count(masks, counted)
                if i < len(layer.kept[t]):
                    count(masks, counted.without(layer.fanouts_between(child, layer.kept[t][i])))
        for k, options in enumerate(layer.options):
            if any(o.behaviour[t] is not None and o.behaviour[t].slid == name for o in options):  # type: ignore[union-attr]
                exact |= {k - 1, k}
    for k, stage in enumerate(stages):
        if isinstance(stage, Fanout) and any(
            name in pair and all(can_loop_over(stage, d) for d in pair) for _, pair in layer.windows
        ):
            exact |= {k - 1, k}  # how far apart children are decides which of them need the same box
    for k in range(len(stages) - 2, -1, -1):
        most[k] = min(most[k], most[k + 1])
    for k, stage in enumerate(stages):  # what cannot be reached is no limit: candidates that differ in it want the same
        if not can_loop_over(stage, name):
            most[k] = min(most[k], most[k - 1] if k else 1)
    count_of = len(stages)
    alone = tuple(k for k, options in enumerate(layer.options) if any(name in o.without for o in options))
    axes = tuple(sides_of(s, name, len(problem.dimensions)) if isinstance(s, Fanout) else NOWHERE for s in stages)
    return Wanted(
        tuple(sorted(tiles)), np.array(list(masks.values()), bool).reshape(len(masks), count_of),
        np.array(list(copies.values()), bool).reshape(len(copies), count_of), alone,
        tuple(sorted(k for k in exact if k >= 0)), tuple(most), axes,
    )  # fmt: skip
