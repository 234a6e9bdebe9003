"""The mapper's answer is the best of every mapping there is, on random small problems and hardware."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import OBJECTIVES, PERFECT, REMAINDERS, search
from dse.mapper.front import front
from dse.mapper.mapspace import keep_choices
from dse.workload.problem import Problem, conv_problem, problem_from_document
from tests.dse.mapper.brute_force import cost, least_compiled, search_perfect
from tests.dse.mapper.small_cases import Case, Pick, draw_case, limited

LARGEST = 4000  # mappings that are tried one by one
ONCE_FALSE = Path(__file__).with_name("once_false")
TENSORS = ("Weights", "Inputs", "Outputs")


def chip(problem: Problem, mesh: int = 4, depth: int = 12) -> tuple[Spec, Ert]:
    """A memory, an array, and registers that keep everything."""
    memory = {"!": "Component", "class": "SRAM"}
    nodes = [
        {**memory, "name": "dram", "attributes": {"datawidth": 8, "width": 8}},
        {"!": "Container", "name": "pe", "spatial": {"meshX": mesh}},
        {**memory, "name": "regs", "attributes": {"datawidth": 8, "width": 8, "depth": depth},
         "constraints": {"dataspace": {"keep": list(TENSORS)}}},
        {"!": "Component", "name": "mac", "class": "intmac"},
    ]  # fmt: skip
    document = {"architecture": {"version": 0.4, "nodes": nodes}}
    spec = SpecFile(document, "hardware").instance(problem=problem)
    prices = {n: {"read": 1.0, "write": 1.0, "update": 1.0, "leak": 0.0} for n in ("dram", "regs")}
    return spec, Ert({**prices, "mac": {"compute": 0.5}})


def check(case: Case, always_proven: bool = True) -> None:
    """The mapper's answer is the best of all mappings, or no worse than those that were tried where there are too many.

    Energies and, where that decides between equals, cycles. Where there are too many, a search may be cut short, which
    it then says, unless it is `always_proven`.
    """
    number, expected = least_compiled(case.spec, case.problem, case.ert, case.objective, LARGEST)
    found = search_perfect(case.spec, case.problem, case.ert, case.objective)
    if number > LARGEST:
        if not always_proven and found.evaluation is not None and not found.optimal:
            return
        assert (expected is None) or (found.evaluation is not None and found.optimal)
        assert found.evaluation is not None or found.reason
        if expected is not None and found.evaluation is not None:
            assert cost(found.evaluation, case.objective)[0] <= expected[0] * (1 + 1e-9)
        return
    if expected is None:
        assert found.mapping is None and found.reason
        return
    assert found.optimal and found.evaluation is not None
    equal = (
        len(keep_choices(case.spec, case.problem)) == 1
    )  # between equal energies cycles decide under one choice only
    count = 2 if case.objective != "energy" or equal else 1
    assert cost(found.evaluation, case.objective)[:count] == pytest.approx(expected[:count], rel=1e-9)


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_equals_brute_force(data: st.DataObject) -> None:
    check(draw_case(Pick(lambda options: data.draw(st.sampled_from(options)))))


@given(st.integers(0, 2**40))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_outputs_with_gaps_or_overlap_equal_brute_force(seed: int) -> None:
    """Timeloop stops at some orders of their loops, so the one that accesses least is often none."""
    case = draw_case(Pick.seeded(seed))
    axes = [axis for space in case.problem.data_spaces if space.read_write for axis in space.axes]
    assume(any(len(axis) > 1 or any(coefficient > 1 for _, coefficient in axis) for axis in axes))
    check(case)


@given(st.integers(0, 2**40))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_levels_that_limit_reuse_equal_brute_force(seed: int) -> None:
    case = limited(draw_case(Pick.seeded(seed)), Pick.seeded(seed + 1))
    merged = [
        any(s.keep.get(t.name) is not False and t.name not in s.no_coalesce for s in case.spec.storages)
        for t in case.problem.data_spaces
    ]
    if not all(merged):
        with pytest.raises(InputError, match="no level merges accesses to"):
            search(case.spec, case.problem, case.ert)
        return
    check(case, always_proven=False)


def test_levels_that_limit_reuse_are_searched_without_remainders() -> None:
    problem = conv_problem({"C": 4, "M": 4, "P": 5, "R": 3})
    spec, ert = chip(problem)
    regs = replace(spec.storage("regs"), no_reuse=frozenset(["Weights"]))
    limits = replace(spec, levels=tuple(regs if v.name == "regs" else v for v in spec.levels))
    assert search(spec, problem, ert).mapspace == REMAINDERS
    found = search(limits, problem, ert)
    assert found.optimal and found.mapspace == PERFECT
    answers = front(limits, problem, ert, None)
    assert answers.complete and answers.mapspace == PERFECT
    assert answers.points[0].evaluation == found.evaluation


@pytest.mark.parametrize("path", sorted(ONCE_FALSE.glob("*.yaml")), ids=lambda path: path.stem)
def test_cases_that_once_had_a_better_mapping(path: Path) -> None:
    """Each file holds a question and the objective of a mapping that was once missed."""
    document = yaml.safe_load(path.read_text())
    problem = problem_from_document(document["problem"], path)
    spec = SpecFile({"architecture": document["architecture"]}, str(path)).instance(problem=problem)
    found = search(spec, problem, Ert(document["energies"]), document["objective"], remainders=False)
    assert found.optimal and found.evaluation is not None
    assert cost(found.evaluation, document["objective"])[0] <= document["best"] * (1 + 1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_a_search_cut_short_says_so_and_still_answers(
    monkeypatch: pytest.MonkeyPatch, objective: str, nodes: int
) -> None:
    explore = importlib.import_module("dse.mapper.branch_and_bound")
    monkeypatch.setattr(explore._Walk.explore, "__defaults__", (nodes,))
    problem = conv_problem({"C": 4, "M": 4, "P": 4, "R": 3})
    spec, ert = chip(problem)
    found = search(spec, problem, ert, objective, remainders=False)
    assert found.mapping is not None and not found.optimal
