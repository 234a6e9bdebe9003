"""The loop nest of a mapping: what every level covers, and how many instances of it take part."""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import NamedTuple

from dse.hardware.spec import Fanout, Spec, Storage
from dse.model.mapping import Loops, Mapping
from dse.workload.problem import Problem


class Loop(NamedTuple):
    """`factor` iterations, each over `stride` indices of a dimension; `last` of them in the last run of the loop.

    `remainder_inside`: a loop of the same dimension further in has a remainder.
    """

    dimension: str
    factor: int
    last: int
    stride: int
    remainder_inside: bool


class Extent(NamedTuple):
    """Indices of a dimension that all loops up to some point cover: in a whole run and in the last one."""

    whole: int
    last: int


@dataclass(frozen=True)
class Level:
    """A level of the nest: its spatial loops lie inside its temporal loops; both are innermost first.

    `child` is what a child covers; `union` and `own` are the most that all children and the level itself cover.
    `most_instances` of the level are used at a time, `average_instances` on average over the layer.
    """

    storage: Storage | None
    fanout: Fanout | None
    spatial: tuple[Loop, ...]
    temporal: tuple[Loop, ...]
    child: MappingType[str, Extent]
    union: MappingType[str, int]
    own: MappingType[str, int]
    most_instances: int
    average_instances: float

    @property
    def name(self) -> str:
        level = self.storage or self.fanout
        assert level is not None
        return level.name

    @property
    def instances(self) -> int:
        """Instances that Timeloop charges: the average without its fraction."""
        return int(self.average_instances)

    @property
    def fanout_size(self) -> int:
        return math.prod(loop.factor for loop in self.spatial)


@dataclass(frozen=True)
class Nest:
    """All levels, innermost first; `perfect` if no loop has a remainder.

    `before_2025`: accesses are counted by the rule of Timeloop before January 2025.
    """

    levels: tuple[Level, ...]
    perfect: bool
    before_2025: bool = False

    @property
    def computes(self) -> int:
        """Compute units that are used at most."""
        return self.levels[0].most_instances * self.levels[0].fanout_size

    @property
    def compute_cycles(self) -> int:
        """Cycles without stalls; every run of a loop takes its full factor."""
        return math.prod(loop.factor for level in self.levels for loop in level.temporal)


def nest_of(spec: Spec, problem: Problem, mapping: Mapping, *, before_2025: bool = False) -> Nest:
    """The nest of a complete mapping."""
    covered = dict.fromkeys(problem.dimensions, Extent(1, 1))
    parts = []
    for level in reversed(spec.levels):
        child = dict(covered)
        fanout, storage = (level, None) if isinstance(level, Fanout) else (None, level)
        spatial = _loops(mapping, level.name, mapping.x[level.name] + mapping.y[level.name], covered) if fanout else ()
        union = dict(covered)
        temporal = _loops(mapping, level.name, mapping.temporal[level.name], covered) if storage else ()
        parts.append((storage, fanout, spatial, temporal, child, union, dict(covered)))

    levels = []
    unfinished: set[str] = set()  # dimensions with a loop further out that has more than its first iteration to run
    runs = dict.fromkeys(problem.dimensions, 1)  # iterations of all loops of a dimension further out, over the layer
    most_instances, average = 1, 1.0
    for storage, fanout, spatial, temporal, child, union, own in reversed(parts):
        most = _first_visit(own, unfinished)
        unfinished |= {loop.dimension for loop in temporal if loop.last > 1}
        union_most = _first_visit(union, unfinished)
        unfinished |= {loop.dimension for loop in spatial if loop.last > 1}
        levels.append(Level(storage, fanout, spatial, temporal, child, union_most, most, most_instances, average))
        for loop in (*reversed(temporal), *reversed(spatial)):
            outside = runs[loop.dimension]
            runs[loop.dimension] = (outside - 1) * loop.factor + loop.last
            if fanout is not None:
                most_instances *= loop.factor
                full = loop.last == loop.factor
                average = average * loop.factor if full else average * runs[loop.dimension] / outside
    return Nest(tuple(reversed(levels)), not mapping.remainders, before_2025)


def _loops(mapping: Mapping, level: str, loops: Loops, covered: dict[str, Extent]) -> tuple[Loop, ...]:
    """A level's loops; `covered` grows by them."""
    out = []
    for d, factor in loops:
        inner, last = covered[d], mapping.remainders.get((level, d), factor)
        out.append(Loop(d, factor, last, inner.whole, inner.last < inner.whole))
        covered[d] = Extent(inner.whole * factor, inner.last + inner.whole * (last - 1))
    return tuple(out)


def _first_visit(extents: MappingType[str, Extent], unfinished: set[str]) -> dict[str, int]:
    """What is covered at the first visit; no later visit covers more."""
    return {d: extent.whole if d in unfinished else extent.last for d, extent in extents.items()}
