"""The closed form of the access model against a literal walk of the loop nest, step by step."""

from __future__ import annotations

import itertools
from collections import Counter
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
from dse.model.mapping import Mapping, directives, parse_directives
from dse.workload.problem import conv_problem

Points = frozenset[tuple[int, ...]]


def box_at(corner: tuple[int, ...], extents: tuple[int, ...]) -> Points:
    return frozenset(itertools.product(*(range(c, c + e) for c, e in zip(corner, extents, strict=True))))


def moved(points: Points, by: tuple[int, ...]) -> Points:
    return frozenset(tuple(x + b for x, b in zip(point, by, strict=True)) for point in points)


def walk(extents: Any, outside: Any, offsets: Any, mesh: Any, is_compute: Any, links: Any) -> Any:
    """Accesses by (multicast, boxes) and words passed between neighbours, iteration by iteration."""
    stats: Counter = Counter()
    passed = 0.0
    held: tuple[int, ...] | None = None
    direction = None
    before: list[Points | None] = [None] * len(offsets)
    for steps in itertools.product((0, 1), repeat=len(outside)):
        weight, at = 1, [0] * len(extents)
        for step, (n, shift) in zip(steps, reversed(outside), strict=True):
            weight *= n - 1 if step else 1
            at = [x + step * s for x, s in zip(at, shift, strict=True)]
        need = box_at(tuple(at), extents)
        if not is_compute and held is not None:
            move = tuple(x - y for x, y in zip(at, held, strict=True))
            if not any(move):
                need = frozenset()
            elif direction is None or direction == move:
                need, direction = need - box_at(held, extents), move
            else:
                direction = None
        held = tuple(at)
        now = [moved(need, o) if need else None for o in offsets]
        served = set()
        if links and need:
            width, height = mesh[0], max(mesh[1], -(-len(now) // mesh[0]))
            for i in range(len(now)):
                h, v = i % width, i // width
                near = [(h - 1, v), (h + 1, v), (h, v - 1), (h, v + 1)]
                near = [x + y * width for x, y in near if 0 <= x < width and 0 <= y < height]
                if any(j < len(now) and before[j] == now[i] for j in near):  # type: ignore[call-overload]
                    served.add(i)
        before = now
        if not need:
            continue
        every = Counter(Counter(now).values())
        rest = Counter(Counter(b for i, b in enumerate(now) if i not in served).values())
        if sum(rest.values()) < sum(every.values()):
            every = rest
            passed += weight * len(need) * len(served)
        for multicast, boxes in every.items():
            stats[multicast, boxes] += weight * boxes * len(need)
    return {k: v for k, v in stats.items() if v}, passed


@st.composite
def nests(draw: Any) -> Any:
    """Loops around a box, each of which moves it along some of its axes."""
    axes = draw(st.integers(1, 3))
    extents = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    shift = st.tuples(*[st.sampled_from([0, 0, 0, 1, 1, 2, 4, 6]) for _ in range(axes)])
    outside = [(draw(st.integers(2, 4)), draw(shift)) for _ in range(draw(st.integers(0, 4)))]
    spatial = [(draw(st.integers(2, 3)), draw(shift)) for _ in range(draw(st.integers(0, 2)))]
    return extents, outside, spatial, draw(st.sampled_from([(3, 3), (9, 1), (4, 3), (1, 9)]))


@given(nests(), st.booleans(), st.booleans())
@settings(max_examples=1500, deadline=None)
def test_the_closed_form_equals_the_walk(nest: Any, is_compute: Any, links: Any) -> None:
    extents, outside, spatial, mesh = nest
    offsets = [tuple(0 for _ in extents)]
    for n, shift in spatial:
        offsets = [tuple(o + k * s for o, s in zip(off, shift, strict=True)) for k in range(n) for off in offsets]
    if is_compute:
        extents = tuple(1 for _ in extents)
    fanout = Fanout("pe", *mesh, LoopConstraint())  # type: ignore[call-arg]
    stats, passed = child_accesses(extents, outside, spatial, fanout, is_compute=is_compute, links=links)
    expected, expected_passed = walk(extents, outside, offsets, mesh, is_compute, links)
    assert {k: v for k, v in stats.items() if v} == pytest.approx(expected)
    assert passed == expected_passed


ARCH = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 16, datawidth: 8}}
  - !Container {name: pe, spatial: {meshX: 2}}
  - !Component {name: regs, class: regfile, attributes: {width: 8, depth: 6, datawidth: 8, read_bandwidth: 2}}
  - !Component {name: mac, class: intmac}
"""
ERT = Ert({"dram": {"read": 10, "write": 8}, "regs": {"read": 1, "write": 2, "leak": 0.5}, "mac": {"compute": 3}})


@pytest.fixture
def layer(tmp_path: Path) -> Any:
    (tmp_path / "arch.yaml").write_text(ARCH)
    problem = conv_problem({"C": 2, "M": 2, "P": 2})
    return SpecFile.read(tmp_path / "arch.yaml").instance(problem=problem), problem


def mapping(dram: Any = (), on_x: Any = (), regs: Any = ()) -> Any:
    every = frozenset({"Weights", "Inputs", "Outputs"})
    return Mapping(
        {"dram": dram, "regs": regs},
        {"inter_pe_spatial": on_x},
        {"inter_pe_spatial": ()},
        {"dram": every, "regs": every},
    )


def test_a_layer_worked_by_hand(layer: Any) -> None:
    spec, problem = layer
    found = evaluate(spec, problem, mapping(dram=(("P", 2),), on_x=(("M", 2),), regs=(("C", 2),)), ERT)
    regs, dram = found.levels["regs"], found.levels["dram"]
    # Each of two PEs holds two weights all the time, two inputs and one output at a time.
    assert [(regs[t].tile, regs[t].fills) for t in ("Weights", "Inputs", "Outputs")] == [(2, 2), (2, 4), (1, 0)]
    assert [(regs[t].reads, regs[t].updates) for t in ("Weights", "Inputs", "Outputs")] == [(4, 0), (4, 0), (2, 4)]
    # Inputs are the same for both PEs: one read serves two.
    assert [(dram[t].reads, dram[t].updates) for t in ("Weights", "Inputs", "Outputs")] == [(4, 0), (4, 0), (0, 4)]
    # 10 words are read and 6 written or updated in a PE each 4 cycles; two words a cycle may be read.
    assert found.cycles == 5
    assert found.leakage_pj == 2 * 0.5 * 5
    assert dram["Inputs"].energy_pj == 2 * 10  # four words in two accesses
    assert regs["Outputs"].energy_pj == 2 * (2 * 1 + 4 * 2)
    assert found.energy_pj == found.compute_energy_pj + found.leakage_pj + sum(
        a.energy_pj for level in found.levels.values() for a in level.values()
    )


def test_a_tile_that_does_not_fit(layer: Any) -> None:
    with pytest.raises(InputError, match=r"regs: needs 8 words \(.*\) \(allowed: at most 6\)"):
        evaluate(*layer, mapping(dram=(("P", 2),), regs=(("C", 2), ("M", 2))), ERT)  # type: ignore[call-arg]


def test_directives_read_back(layer: Any) -> None:
    spec, problem = layer
    chosen = mapping(dram=(("P", 2), ("C", 2)), on_x=(("M", 2),))
    assert parse_directives(spec, problem, directives(spec, problem, chosen), "mapping") == chosen
