"""Remainders: the walk that keeps what it has seen against one that does not, and Timeloop's syntax for them."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, LoopConstraint
from dse.hardware.spec_reader import SpecFile
from dse.model.child_accesses import child_accesses
from dse.model.evaluation import evaluate
from dse.model.mapping import Mapping, directives, loop_nest, parse_directives
from dse.model.remainders import Children, WalkLoop, walk_accesses
from dse.workload.problem import conv_problem
from tests.dse.model.test_evaluation import nests


def middle_move(old: Any, new: Any) -> Any:
    """From the middle of one box to that of another, each axis rounded to whole steps, halves away from zero."""
    out = []
    for (a, b), (c, d) in zip(old, new, strict=True):
        distance = Fraction(c + d - a - b, 2)
        out.append(int(abs(distance) + Fraction(1, 2)) * (1 if distance > 0 else -1))
    return tuple(out)


def points(box: Any) -> Any:
    return frozenset(itertools.product(*(range(a, b) for a, b in box)))


class LiteralWalk:
    """Every step that Timeloop evaluates, one after the other; tiles and what they lack are sets of points."""

    def __init__(
        self, outside: Any, children: Any, mesh: Any, tile: Any, own_loop: Any, is_compute: Any, links: Any
    ) -> None:
        self.outside, self.children, self.mesh, self.tile = outside, children, mesh, tile
        self.own_loop, self.is_compute, self.links = own_loop, is_compute, links
        self.stats: Counter = Counter()
        self.passed = 0
        self.held = self.move = None
        self.before: dict = {}
        axes = len(tile(frozenset())[0])
        self.run(0, (0,) * axes, 1, frozenset())

    def run(self, depth: Any, at: Any, weight: Any, unfinished: Any) -> Any:
        """Walks the loops from `depth` on; words that child 0 lacked in the last step."""
        if depth == len(self.outside):
            return self.step(at, weight, unfinished)
        loop = self.outside[depth]
        n = loop.factor if loop.dimension in unfinished else loop.last
        own_remainder = loop.last < loop.factor
        visits = [(0, 1), (1, n - 1)] if n > 1 else [(0, 1)]
        if loop.spatial:
            visits = [(0, 1)]
        elif loop.dimension not in unfinished and loop.remainder_inside and n > 2:
            middle = n - 3 if own_remainder else n - 2
            visits = [(0, 1), (1, middle), *([(n - 2, 1)] if own_remainder else []), (n - 1, 1)]
            visits = [v for v in visits if v[1]]
        words = []
        for index, times in visits:
            now = tuple(x + index * m for x, m in zip(at, loop.move, strict=True))
            more = unfinished | {loop.dimension} if index + 1 < loop.last else unfinished
            words.append(self.run(depth + 1, now, weight * times, more))
        if self.own_loop and depth == len(self.outside) - 1:
            if len(visits) == 4 or (len(visits) == 3 and not own_remainder):
                words[2] = words[1]
            self.stats[1, 1] += weight * sum(w * times for w, (_, times) in zip(words, visits, strict=True))
        return words[-1]

    def step(self, at: Any, weight: Any, unfinished: Any) -> Any:
        runs = [x.factor if x.dimension in unfinished else x.last for x in self.children]
        unfinished |= {x.dimension for x in self.children if x.last > 1}
        box = tuple((x + low, x + high) for x, low, high in zip(at, *self.tile(unfinished), strict=True))
        need = points(box)
        if self.held is not None and not self.is_compute:
            move = middle_move(self.held, box)
            if any(move) and self.move not in (None, move):
                self.move = None
            else:
                need -= points(self.held)
                self.move = move if any(move) else self.move
        self.held = box
        now = {}
        for i, index in enumerate(itertools.product(*map(range, reversed(runs)))):
            steps = list(zip(reversed(index), self.children, strict=True))
            by = [sum(k * x.move[axis] for k, x in steps) for axis in range(len(at))]
            now[i] = frozenset(tuple(p + b for p, b in zip(point, by, strict=True)) for point in need)
        self.count(now, weight, len(need))
        self.before = now
        return len(need)

    def count(self, now: Any, weight: Any, words: Any) -> None:
        if not words or self.own_loop:
            return
        groups = Counter(Counter(now.values()).values())
        served = [i for i in now if self.children and self.links and self.at_neighbour(i, now[i])]
        rest = Counter(Counter(need for i, need in now.items() if i not in served).values())
        if sum(rest.values()) < sum(groups.values()):
            groups = rest
            self.passed += weight * words * len(served)
        for multicast, boxes in groups.items():
            self.stats[multicast, boxes] += weight * boxes * words

    def at_neighbour(self, i: Any, need: Any) -> Any:
        width, height = self.mesh
        h, v = i % width, i // width
        near = [(h - 1, v), (h + 1, v), (h, v - 1), (h, v + 1)]
        near = [x + y * width for x, y in near if 0 <= x < width and 0 <= y < height]
        return any(self.before.get(j) == need for j in near)


@st.composite
def ragged_nests(draw: Any) -> Any:
    """Loops of two dimensions around a tile that itself is smaller in the last run of a dimension."""
    coefficient = {"A": (draw(st.sampled_from([1, 2, 3, -1])), 0), "B": draw(st.sampled_from([(0, 1), (1, 0), (0, 0)]))}
    covered = {}
    for d in "AB":
        whole = draw(st.integers(1, 3))
        covered[d] = (whole, draw(st.integers(1, whole)))
    tile = dict(covered)
    stride = {d: covered[d][0] for d in "AB"}
    ragged = {d: covered[d][1] < covered[d][0] for d in "AB"}

    def loop(d: Any, spatial: Any) -> Any:
        factor = draw(st.integers(2, 4))
        last = draw(st.one_of(st.just(factor), st.integers(1, factor)))
        made = WalkLoop(d, factor, last, tuple(c * stride[d] for c in coefficient[d]), spatial, ragged[d])
        stride[d] *= factor
        ragged[d] |= last < factor
        return made

    children = [loop(d, True) for d in draw(st.permutations("AB"))[: draw(st.integers(0, 2))]]
    outside = [loop(draw(st.sampled_from("AB")), draw(st.integers(0, 3)) == 0) for _ in range(draw(st.integers(0, 4)))]

    def box(unfinished: Any) -> Any:
        ends = {d: (whole if d in unfinished else last) - 1 for d, (whole, last) in tile.items()}
        reach = [[coefficient[d][axis] * ends[d] for d in "AB"] for axis in range(2)]
        return tuple(sum(min(0, r) for r in axis) for axis in reach), tuple(
            1 + sum(max(0, r) for r in axis) for axis in reach
        )

    own_loop = not children and bool(outside) and not outside[0].spatial
    return tuple(reversed(outside)), tuple(children), box, own_loop


@given(ragged_nests(), st.sampled_from([(4, 4), (16, 1), (5, 4)]))
@settings(max_examples=800, deadline=None)
def test_the_walk_equals_a_literal_one(nest: Any, mesh: Any) -> None:
    outside, children, tile, own_loop = nest
    for is_compute, links in itertools.product((False, True), repeat=2):
        expected = LiteralWalk(outside, children, mesh, tile, own_loop, is_compute, links)
        found = walk_accesses(
            outside,
            Children(children, Fanout("pe", *mesh, LoopConstraint()), links and bool(children)),  # type: ignore[call-arg]
            tile,
            own_loop=own_loop,
            is_compute=is_compute,
        )
        assert found == ({k: v for k, v in expected.stats.items() if v}, expected.passed)


@given(nests(), st.booleans(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_without_remainders_the_walk_equals_the_closed_form(nest: Any, is_compute: Any, links: Any) -> None:
    extents, outside, spatial, mesh = nest
    extents = tuple(1 for _ in extents) if is_compute else extents
    fanout = Fanout("pe", *mesh, LoopConstraint())  # type: ignore[call-arg]
    stats, passed = child_accesses(extents, outside, spatial, fanout, is_compute=is_compute, links=links)
    loops = tuple(WalkLoop("A", n, n, move, False, False) for n, move in reversed(outside))
    children = tuple(WalkLoop("A", n, n, move, True, False) for n, move in spatial)
    box = (tuple(0 for _ in extents), extents)
    loops_on_mesh = Children(children, fanout, links and bool(spatial))
    found, found_passed = walk_accesses(loops, loops_on_mesh, lambda _: box, own_loop=False, is_compute=is_compute)
    assert found == pytest.approx({k: v for k, v in stats.items() if v})
    assert found_passed == passed


ARCH = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 8, datawidth: 8}}
  - !Container {name: pe, spatial: {meshX: 4}}
  - !Component {name: regs, class: regfile, attributes: {width: 8, depth: 16, datawidth: 8, read_bandwidth: 1}}
  - !Component {name: mac, class: intmac}
"""
ERT = Ert({"dram": {"read": 10, "write": 8}, "regs": {"read": 1, "write": 2, "leak": 0.5}, "mac": {"compute": 3}})
COLUMNS = "inter_pe_spatial"


@pytest.fixture
def layer(tmp_path: Path) -> Any:
    (tmp_path / "arch.yaml").write_text(ARCH)
    problem = conv_problem({"P": 13})
    return SpecFile.read(tmp_path / "arch.yaml").instance(problem=problem), problem


def mapping(dram: Any = (("P", 4),), on_x: Any = (("P", 4),), regs: Any = (), remainders: Any = None) -> Any:
    every = frozenset({"Weights", "Inputs", "Outputs"})
    last = {(COLUMNS, "P"): 1} if remainders is None else remainders
    return Mapping({"dram": dram, "regs": regs}, {COLUMNS: on_x}, {COLUMNS: ()}, {"dram": every, "regs": every}, last)


def test_thirteen_rows_on_four_columns(layer: Any) -> None:
    found = evaluate(*layer, mapping(), ERT)  # type: ignore[call-arg]
    # 3.25 columns work on average; Timeloop charges 3 of them, each for all 4 steps: 12 of the 13 operations.
    assert (found.cycles, found.computes, found.compute_instances) == (7, 12, 4)
    regs, dram = found.levels["regs"], found.levels["dram"]
    assert [regs[t].instances for t in regs] == [3, 3, 3]
    # 13 inputs are spread over 4 columns: 3.25 each, without the fraction.
    assert (regs["Inputs"].fills, regs["Weights"].fills, regs["Outputs"].updates) == (3, 1, 4)
    assert (dram["Inputs"].reads, dram["Weights"].reads, dram["Outputs"].updates) == (13, 1, 13)
    # Each charged column reads 4 weights, 4 inputs and 1 output; shared by all 4 columns those are 3, 3 and 1 words,
    # of which one a cycle may be read.
    assert [regs[t].reads for t in ("Weights", "Inputs", "Outputs")] == [4, 4, 1]
    assert found.leakage_pj == 3 * 0.5 * 7


def test_rounding_that_timeloop_stops_at(layer: Any) -> None:
    spec, _ = layer
    last = {("regs", "P"): 1, ("regs", "Q"): 2}
    chosen = mapping(dram=(("P", 3), ("Q", 2)), on_x=(), regs=(("P", 5), ("Q", 3)), remainders=last)
    with pytest.raises(InputError, match="dram: Timeloop fails: fewer accesses to Outputs than the 55 first writes"):
        evaluate(spec, conv_problem({"P": 11, "Q": 5}), chosen, ERT)


def test_remainders_read_back(layer: Any) -> None:
    spec, problem = layer
    entries = directives(spec, problem, mapping())
    assert next(e for e in entries if e["type"] == "spatial")["factors"] == "N1 G1 C1 M1 P4,1 Q1 R1 S1"
    assert parse_directives(spec, problem, entries, "mapping") == mapping()
    assert parse_directives(spec, problem, entries, "mapping").remainders == {(COLUMNS, "P"): 1}
    assert loop_nest(spec, mapping()) == "dram[P4] | inter_pe_spatial[x: P4,1]"


@pytest.mark.parametrize("factors", ["P=4,1", ["P4,1", "Q1"], "Q1,P4,1,R1", "P4,1 Q=1,1"])
def test_forms_of_a_remainder(layer: Any, factors: Any) -> None:
    entries = [
        {"target": "dram", "type": "temporal", "factors": "P4"},
        {"target": COLUMNS, "type": "spatial", "factors": factors, "split": 8},
        {"target": COLUMNS, "type": "temporal", "factors": "P1"},
    ]
    assert parse_directives(*layer, entries, "mapping").remainders == {(COLUMNS, "P"): 1}  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("dram", "columns", "message"),
    [
        ("P4", "P4,2", r"the factors of P cover 14 \(allowed: 13, its size\)"),
        ("P4", "P4,5", r"factors: P4,5: a last run of 5 \(allowed: 1 to 4, the factor\)"),
        ("P4", "P4,0", r"factors: P4,0: a last run of 0 \(allowed: 1 to 4, the factor\)"),
        ("P16,13", "P1", r"P16,13 at dram: no loop of P further out has a last run \(allowed: P13, or"),
    ],
)
def test_wrong_remainders(layer: Any, dram: Any, columns: Any, message: Any) -> None:
    entries = [
        {"target": "dram", "type": "temporal", "factors": dram},
        {"target": COLUMNS, "type": "spatial", "factors": columns},
    ]
    with pytest.raises(InputError, match=message):
        parse_directives(*layer, entries, "mapping")  # type: ignore[call-arg]
