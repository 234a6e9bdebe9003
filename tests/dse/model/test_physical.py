"""The physical count against a walk over every iteration of every loop, instance by instance, with boxes as points."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Compute, Fanout, LoopConstraint, Spec, Storage
from dse.model.access_counts import tensor_counts
from dse.model.evaluation import evaluate
from dse.model.loop_nest import nest_of
from dse.model.mapping import Mapping
from dse.model.physical import physical
from dse.model.real_iterations import COMPUTE, RealLoop, count, real_nest, received
from dse.workload.problem import DataSpace, Problem, conv_problem

Points = frozenset[tuple[int, ...]]
Coordinates = tuple[tuple[int, ...], ...]  # of an instance: a part for each fan-out


@dataclass
class Walked:
    """Words that all instances of a child receive, those that its parents read or get, and what of these is new."""

    fills: int = 0
    first_fills: int = 0
    content: int = 0
    first_writes: int = 0
    shared: list[tuple[int, Points]] = field(default_factory=list)  # how often the parent reads what words
    seen: dict[Any, set[Any]] = field(default_factory=dict)


@dataclass
class LiteralWalk:
    """Walks a nest as it would run; knows nothing of tiles that are multiples or counts that multiply."""

    problem: Problem
    loops: list[RealLoop]  # innermost first

    def blocks(self, time: dict[int, int], space: dict[int, int]) -> dict[str, tuple[int, int]] | None:
        """What the loops with an index leave of each dimension; None where nothing is left."""
        found = {}
        for d, size in self.problem.bound.items():
            low, high = 0, size
            for at in range(len(self.loops) - 1, -1, -1):
                index = space.get(at, time.get(at))
                if self.loops[at].dimension != d or index is None:
                    continue
                inner = math.prod(x.factor for x in self.loops[:at] if x.dimension == d)
                low += index * inner
                high = min(high, low + inner)
                if low >= high:
                    return None
            found[d] = (low, high)
        return found

    def steps(self, level: int) -> Iterator[tuple[tuple[int, ...], list[tuple[tuple[int, ...], Any]]]]:
        """Iterations of the temporal loops outside a level, and of the spatial ones with the block of each instance."""
        outside = [at for at in range(len(self.loops) - 1, -1, -1) if self.loops[at].level > level]
        temporal = [at for at in outside if not self.loops[at].spatial]
        spatial = [at for at in outside if self.loops[at].spatial]
        for time in itertools.product(*(range(self.loops[at].factor) for at in temporal)):
            working = []
            for space in itertools.product(*(range(self.loops[at].factor) for at in spatial)):
                block = self.blocks(dict(zip(temporal, time, strict=True)), dict(zip(spatial, space, strict=True)))
                if block is not None:
                    working.append((space, block))
            yield time, working

    def cycles(self) -> int:
        return sum(bool(working) for _, working in self.steps(COMPUTE))

    def most_instances(self, level: int) -> int:
        return max(len(working) for _, working in self.steps(level))

    def boundary(self, tensor: DataSpace, child: int, parent: int) -> Walked:
        outside = [x for x in reversed(self.loops) if x.level > child]
        temporal = [x for x in outside if not x.spatial]
        spatial = [x for x in outside if x.spatial]
        moving = {d for axis in tensor.axes for d, c in axis if c}
        first = next((x for x in reversed(temporal) if x.dimension in moving), None)
        last: dict[tuple[int, ...], tuple[tuple[int, ...], Points]] = {}
        found = Walked()
        for time, working in self.steps(child):
            wants: dict[tuple[tuple[int, ...], Points], list[Coordinates]] = {}
            for instance, block in working:
                box = points(tensor, block)
                need = box
                if instance in last and child != COMPUTE:
                    before, held = last[instance]
                    advanced = next(x for x, i, j in zip(temporal, before, time, strict=True) if i != j)
                    if first is None or advanced.order < first.order:
                        assert box == held
                        need = frozenset()
                    elif advanced == first:
                        need = box - held
                last[instance] = time, box
                if not need:
                    continue
                found.fills += len(need)
                seen = found.seen.setdefault(("child", instance), set())
                found.first_fills += len(need - seen)
                seen |= need
                at = tuple(i for i, x in zip(instance, spatial, strict=True) if x.level > parent)
                place = tuple(
                    tuple(i for i, x in zip(instance, spatial, strict=True) if x.level == fanout)
                    for fanout in range(child + 1, parent)
                )
                wants.setdefault((at, need), []).append(place)
            for (at, need), places in wants.items():
                shares = served_by_one(places)
                found.content += shares * len(need)
                found.shared.append((shares, need))
                seen = found.seen.setdefault(("parent", at), set())
                found.first_writes += len(need - seen)
                seen |= need
        return found


def served_by_one(places: list[Coordinates]) -> int:
    """Groups of instances that need the same words: two that differ in one fan-out only are in the same group."""
    groups = [{place} for place in places]
    merged = True
    while merged:
        merged = False
        for one, other in itertools.combinations(groups, 2):
            if any(sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a in one for b in other):
                one |= other
                groups.remove(other)
                merged = True
                break
    return len(groups)


def points(tensor: DataSpace, block: dict[str, tuple[int, int]]) -> Points:
    ranges = []
    for axis in tensor.axes:
        ends = [sorted((c * block[d][0], c * (block[d][1] - 1))) for d, c in axis]
        ranges.append(range(sum(low for low, _ in ends), sum(high for _, high in ends) + 1))
    return frozenset(itertools.product(*ranges))


def level(name: str, fanout: bool) -> Storage | Fanout:
    if fanout:
        return Fanout(name, 64, 64, LoopConstraint())
    return Storage(name, "regfile", {}, 8, 1, None, {}, LoopConstraint())


ARRANGEMENTS = ("sfs", "sfss", "ssfs", "sfsfs", "sffs", "sfsf", "ssfsf", "sff")
"""Levels from the outermost in: s is a storage, f a fan-out."""


def random_case(rng: random.Random, *, perfect: bool = False, windows: bool = True) -> tuple[Spec, Problem, Mapping]:
    """A small layer on a small chain of levels with a mapping in which any loop may have a remainder."""
    dimensions = "ABCD"[: rng.randint(2, 4)]
    kinds = rng.choice(ARRANGEMENTS)
    levels = tuple(level(f"{kind}{i}", kind == "f") for i, kind in enumerate(kinds))
    temporal: dict[str, list[tuple[str, int]]] = {x.name: [] for x in levels if isinstance(x, Storage)}
    spatial: dict[str, list[tuple[str, int]]] = {x.name: [] for x in levels if isinstance(x, Fanout)}
    bounds = []
    for d in dimensions:
        size, covered = rng.choice((1, 2, 3, 4, 5, 5, 6, 7, 7, 8)), 1
        for place in reversed(levels):
            if rng.random() < 0.6 and covered < size:
                factor = rng.randint(2, 4)
                if perfect:
                    left = size // covered
                    factor = rng.choice([n for n in range(1, left + 1) if left % n == 0])
                factor = min(factor, -(-size // covered))
                if factor > 1:
                    (spatial if isinstance(place, Fanout) else temporal)[place.name].append((d, factor))
                    covered *= factor
        if covered < size:
            mine = [d for d, _ in temporal[levels[0].name]]
            size = covered if d in mine else size
            if d not in mine:
                temporal[levels[0].name].append((d, -(-size // covered)))
        bounds.append(size)
    for loops in (*temporal.values(), *spatial.values()):
        rng.shuffle(loops)
    x = {name: tuple(loops) for name, loops in spatial.items()}
    tensors = random_tensors(rng, dimensions, windows=windows)
    keep: dict[str, set[str]] = {name: set() for name in temporal}
    for tensor in tensors:
        kept = [name for name in temporal if rng.random() < 0.7] or [levels[0].name]
        for name in kept:
            keep[name].add(tensor.name)
    mapping = Mapping(
        {name: tuple(loops) for name, loops in temporal.items()}, x, dict.fromkeys(x, ()),
        {name: frozenset(kept) for name, kept in keep.items()},
    )  # fmt: skip
    problem = Problem(tuple(dimensions), tuple(bounds), tensors)
    spec = Spec(levels, Compute("mac", "intmac", {}))
    return spec, problem, with_last_runs(spec, problem, mapping)


def random_tensors(rng: random.Random, dimensions: str, *, windows: bool) -> tuple[DataSpace, ...]:
    """A tensor of own axes, one with a window, and an output."""
    a, b, *rest = rng.sample(dimensions, len(dimensions))
    own = tuple(((d, 1),) for d in dimensions if rng.random() < 0.6) or (((a, 1),),)
    output = tuple(((d, 1),) for d in dimensions if rng.random() < 0.5) or (((b, 1),),)
    if not windows:
        return DataSpace("own", own), DataSpace("output", output, True)
    coefficients = (1, 1, 1, 2, 3, -1)
    terms = [(a, rng.choice(coefficients)), (b, rng.choice(coefficients))]
    if rest and rng.random() < 0.2:
        terms.append((rest.pop(), rng.choice(coefficients)))
    window = (tuple(terms), *(((d, rng.choice((1, 1, 2))),) for d in rest if rng.random() < 0.5))
    return DataSpace("own", own), DataSpace("window", window), DataSpace("output", output, True)


def with_last_runs(spec: Spec, problem: Problem, mapping: Mapping) -> Mapping:
    """The remainders that the sizes leave: digits of size - 1 in the mixed radix of the factors."""
    last = {}
    for d, size in problem.bound.items():
        rest = size - 1
        for place in reversed(spec.levels):
            for factor in (n for x, n in mapping.loops(place) if x == d):
                rest, digit = divmod(rest, factor)
                if digit + 1 < factor:
                    last[place.name, d] = digit + 1
        assert rest == 0
    found = Mapping(mapping.temporal, mapping.x, mapping.y, mapping.keep, last)
    assert all(found.covered(spec, d) == size for d, size in problem.bound.items())
    return found


def walk_of(spec: Spec, problem: Problem, mapping: Mapping) -> LiteralWalk:
    loops = [x for of in real_nest(spec, problem, mapping).loops.values() for x in of]
    return LiteralWalk(problem, sorted(loops, key=lambda x: x.order))


def check(spec: Spec, problem: Problem, mapping: Mapping) -> None:
    walk = walk_of(spec, problem, mapping)
    counted = count(spec, problem, mapping)
    assert counted.cycles == walk.cycles()
    levels = tuple(reversed(spec.levels))
    assert counted.compute_instances == walk.most_instances(COMPUTE)
    for i, place in enumerate(levels):
        assert counted.instances[place.name] == walk.most_instances(i)
    for tensor in problem.data_spaces:
        kept = [i for i, place in enumerate(levels) if tensor.name in mapping.keep.get(place.name, ())]
        seen = [walk.boundary(tensor, child, at) for child, at in zip([COMPUTE, *kept], kept, strict=False)]
        for i, at in enumerate(kept):
            words = counted.words[levels[at].name][tensor.name]
            inside, outside = seen[i], seen[i + 1] if i + 1 < len(kept) else Walked()
            if tensor.read_write:
                expected = (
                    inside.content - inside.first_writes,
                    outside.fills - outside.first_fills,
                    inside.content,
                )
            else:
                expected = (inside.content, outside.fills, 0)
            assert (words.reads, words.fills, words.updates) == expected, (tensor, levels[at].name)


@pytest.mark.parametrize("seed", range(8))
def test_the_count_equals_a_literal_walk(seed: int) -> None:
    rng = random.Random(seed)
    checked = 0
    while checked < 60:
        spec, problem, mapping = random_case(rng)
        if math.prod(n for place in spec.levels for _, n in mapping.loops(place)) <= 600:
            check(spec, problem, mapping)
            checked += 1


@pytest.mark.parametrize("seed", range(4))
def test_without_remainders_and_windows_the_count_is_timeloops(seed: int) -> None:
    rng = random.Random(seed)
    checked = 0
    while checked < 100:
        spec, problem, mapping = random_case(rng, perfect=True, windows=False)
        if mapping.remainders:
            continue
        checked += 1
        unlinked = tuple(
            Fanout(x.name, x.mesh_x, x.mesh_y, x.spatial, frozenset(t.name for t in problem.data_spaces))
            if isinstance(x, Fanout)
            else x
            for x in spec.levels
        )
        spec = Spec(unlinked, spec.compute)
        counted, nest = count(spec, problem, mapping), nest_of(spec, problem, mapping)
        assert (counted.cycles, counted.compute_instances) == (nest.compute_cycles, nest.computes)
        for tensor in problem.data_spaces:
            for place, tile, *each in tensor_counts(nest, tensor, mapping):
                words = counted.words[place.name][tensor.name]
                assert words.tile == tile
                assert [words.reads, words.fills, words.updates] == [place.instances * n for n in each]


KEPT = dict.fromkeys(("Weights", "Inputs", "Outputs"), True)
ERT = Ert({"dram": {"read": 10, "write": 8}, "regs": {"read": 1, "write": 2, "leak": 0.5}, "mac": {"compute": 3}})
COLUMNS = "inter_pe_spatial"


def four_columns(depth: int = 16, block: int = 1, read_bandwidth: float | None = 1) -> Spec:
    dram = Storage("dram", "DRAM", {}, 8, 1, None, KEPT, LoopConstraint())
    regs = Storage("regs", "regfile", {}, 8, block, depth, KEPT, LoopConstraint(), read_bandwidth=read_bandwidth)
    return Spec((dram, Fanout(COLUMNS, 4, 1, LoopConstraint()), regs), Compute("mac", "intmac", {}))


def thirteen_rows(last: int = 1) -> tuple[Problem, Mapping]:
    every = frozenset(KEPT)
    loops = {"dram": (("P", 4),), "regs": ()}
    remainders = {(COLUMNS, "P"): last} if last < 4 else {}
    mapping = Mapping(loops, {COLUMNS: (("P", 4),)}, {COLUMNS: ()}, {"dram": every, "regs": every}, remainders)
    return conv_problem({"P": 12 + last}), mapping


def test_thirteen_rows_on_four_columns() -> None:
    found = physical(four_columns(), *thirteen_rows(), ERT)
    assert (found.computes, found.compute_instances, found.compute_energy_pj) == (13, 4, 39)
    regs, dram = found.levels["regs"], found.levels["dram"]
    # Every column reads a weight and an input for each operation: 13 and 13 of the 4 columns, 6.5 of the mean one in
    # 4 steps, of which one word a cycle may be read.
    assert found.cycles == 7
    assert found.leakage_pj == 4 * 0.5 * 7
    # Of the mean column, 3.25 inputs and 3.25 outputs: they are not rounded up.
    assert regs["Inputs"].energy_pj == 13 * 1 + 13 * 2
    assert regs["Weights"].energy_pj == 13 * 1 + 4 * 2
    # All 13 outputs are written for the first time and brought once: nothing is read, nothing filled.
    assert regs["Outputs"].energy_pj == 13 * 2
    assert (dram["Inputs"].reads, dram["Weights"].reads, dram["Outputs"].updates, dram["Outputs"].reads) == (
        13,
        1,
        13,
        0,
    )
    assert found.energy_pj == 39 + 14 + 39 + 21 + 26 + 130 + 10 + 13 * 8


def test_blocks_are_filled_by_the_exact_mean() -> None:
    found = physical(four_columns(block=13, read_bandwidth=None), *thirteen_rows(), ERT)
    # 13 words in blocks of 13, all columns together.
    assert found.levels["regs"]["Inputs"].energy_pj == 1 + 2
    assert found.cycles == 4


def test_without_remainders_it_is_timeloops() -> None:
    problem, mapping = thirteen_rows(last=4)
    assert physical(four_columns(), problem, mapping, ERT) == evaluate(four_columns(), problem, mapping, ERT)


def test_a_tile_must_fit() -> None:
    with pytest.raises(InputError, match=r"mapping: regs: needs 3 words \(Weights 1, Inputs 1, Outputs 1\)"):
        physical(four_columns(depth=2), *thirteen_rows(), ERT)


@pytest.mark.parametrize(
    ("axes", "output", "message"),
    [
        (((("P", 1),), (("P", 1),)), False, r"remainders: X has P on several axes \(allowed: a dimension on one axis"),
        (((("P", 1), ("Q", 1)),), True, "remainders: outputs with windows or strides: X"),
        (((("P", 2),),), True, "remainders: outputs with windows or strides: X"),
    ],
)
def test_tensors_that_cannot_be_counted(axes: Any, output: bool, message: str) -> None:
    _, mapping = thirteen_rows()
    problem = Problem(("P", "Q"), (13, 2), (DataSpace("X", axes, output),))
    mapping = Mapping({"dram": (("P", 4), ("Q", 2)), "regs": ()}, mapping.x, mapping.y, dict.fromkeys(
        ("dram", "regs"), frozenset("X")), mapping.remainders)  # fmt: skip
    with pytest.raises(InputError, match=message):
        physical(four_columns(), problem, mapping, ERT)


def test_a_dimension_of_one_index_moves_nothing() -> None:
    _, mapping = thirteen_rows()
    problem = Problem(("P", "Q"), (13, 1), (DataSpace("X", ((("P", 1), ("Q", 2)), (("Q", 1),)), True),))
    mapping = Mapping(mapping.temporal, mapping.x, mapping.y, {"dram": frozenset("X"), "regs": frozenset()},
                      mapping.remainders)  # fmt: skip
    assert physical(four_columns(), problem, mapping, ERT).levels["dram"]["X"].updates == 13


def test_neighbours_take_what_both_need_once() -> None:
    # 3 rows of outputs and 2 of a filter on 6 units: 4 rows of inputs are read for 6.
    problem = conv_problem({"P": 5, "R": 2})
    spec = Spec((four_columns().levels[0], Fanout(COLUMNS, 3, 2, LoopConstraint())), Compute("mac", "intmac", {}))
    mapping = Mapping(
        {"dram": (("P", 2),)}, {COLUMNS: (("P", 3),)}, {COLUMNS: (("R", 2),)}, {"dram": frozenset(KEPT)},
        {(COLUMNS, "P"): 2},
    )  # fmt: skip
    nest = real_nest(spec, problem, mapping)
    assert received(nest, problem.data_space("Inputs"), COMPUTE) == 10
    assert received(nest, problem.data_space("Inputs"), COMPUTE, 1) == 4 + 3
