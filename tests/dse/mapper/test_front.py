"""Fronts and slacks hold against every mapping of random small problems and hardware."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.candidates import load_candidates
from dse.hardware.constraints import searchable
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import instance_for, library_for, read_arch
from dse.hardware.spec import Fanout, Spec
from dse.mapper import PERFECT, REMAINDERS, branch_and_bound, search
from dse.mapper.front import Front, fastest_within, front
from dse.mapper.kernels.labels import DELAY, ENERGY, Aim
from dse.mapper.remainders.search import best_under
from dse.mapper.slack import check_slack, read_slack
from dse.model.physical import physical
from dse.workload.problem import conv_problem
from tests.dse.mapper.brute_force import CompiledModel, every_mapping
from tests.dse.mapper.brute_force_remainders import every_mapping_with_remainders
from tests.dse.mapper.small_cases import Case, Pick, draw_case
from tests.dse.mapper.test_optimal import chip

LARGEST = 3000  # mappings that are tried one by one
EQUAL = 1e-9  # relative

Cost = tuple[float, float]


def every_cost(case: Case) -> list[Cost]:
    """Energy (pJ) and cycles of every mapping that fits; skips the example if there are too many."""
    model = CompiledModel(case.spec, case.problem, case.ert)
    mappings = list(itertools.islice(every_mapping(case.spec, case.problem), LARGEST + 1))
    if len(mappings) > LARGEST:
        assume(False)
    costs = (model.cost(mapping, "energy") for mapping in mappings)
    return [cost for cost in costs if cost is not None]


def pareto(costs: list[Cost]) -> list[Cost]:
    """The front of falling cycles, by definition."""
    kept: list[Cost] = []
    for energy, cycles in sorted(costs, key=lambda cost: (cost[1], cost[0])):
        if not kept or energy < kept[-1][0] * (1 - EQUAL):
            kept.append((energy, cycles))
    return kept[::-1]


def costs_of(found: Front) -> list[Cost]:
    return [(p.evaluation.energy_pj, p.evaluation.cycles) for p in found.points if p.evaluation is not None]


def drawn(data: st.DataObject) -> Case:
    return draw_case(Pick(lambda options: data.draw(st.sampled_from(options))))


CASES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.data())
@CASES
def test_the_front_is_that_of_all_mappings(data: st.DataObject) -> None:
    case = drawn(data)
    expected = pareto(every_cost(case))
    found = front(case.spec, case.problem, case.ert, None, remainders=False)
    if not expected and found.points:  # exact factors do not divide the layer
        assert all(point.mapping is not None and point.mapping.remainders for point in found.points)
        return
    assert costs_of(found) == [pytest.approx(cost, rel=EQUAL) for cost in expected]
    assert found.complete == bool(expected) and all(point.optimal for point in found.points)
    assert bool(found.reason) == (not expected)


def test_a_layer_of_one_operation_is_answered_whether_it_fits_or_not() -> None:
    fits = []
    for seed in range(40):
        case = draw_case(Pick.seeded(seed))
        one = replace(case, problem=replace(case.problem, bounds=(1,) * len(case.problem.bounds)))
        expected = pareto(every_cost(one))
        found = front(one.spec, one.problem, one.ert, None)
        assert costs_of(found) == [pytest.approx(cost, rel=EQUAL) for cost in expected]
        fits.append(bool(expected))
    assert any(fits) and not all(fits)


@given(st.data(), st.integers(2, 5))
@CASES
def test_a_shortened_front_has_both_ends_and_points_of_the_whole_one(data: st.DataObject, most: int) -> None:
    case = drawn(data)
    expected = pareto(every_cost(case))
    assume(expected)
    found = front(case.spec, case.problem, case.ert, most, remainders=False)
    costs = costs_of(found)
    assert len(costs) == min(most, len(expected))
    assert costs[0] == pytest.approx(expected[0]) and costs[-1] == pytest.approx(expected[-1])
    assert all(any(cost == pytest.approx(one, rel=EQUAL) for one in expected) for cost in costs)
    assert found.complete == (len(expected) <= most)


@given(st.data(), st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]))
@CASES
def test_the_fastest_mapping_within_a_slack_is_that_of_all_mappings(data: st.DataObject, slack: float) -> None:
    case = drawn(data)
    costs = every_cost(case)
    found = fastest_within(case.spec, case.problem, case.ert, slack, remainders=False)
    if not costs:  # nothing fits, or exact factors do not divide the layer
        assert found.reason if found.mapping is None else found.mapping.remainders
        return
    limit = min(energy for energy, _ in costs) * (1 + slack)
    assume(not any(limit < energy <= limit * (1 + EQUAL) for energy, _ in costs if slack))
    fewest, energy = min((cycles, energy) for energy, cycles in costs if energy <= limit * (1 + EQUAL))
    assert found.optimal and found.evaluation is not None
    assert (found.evaluation.cycles, found.evaluation.energy_pj) == (fewest, pytest.approx(energy, rel=EQUAL))


@given(st.data())
@CASES
def test_limits_of_energy_and_cycles_are_kept_exactly(data: st.DataObject) -> None:
    """`best`, from which all points come: at every limit that some mapping reaches, and just below it."""
    case = drawn(data)
    costs = every_cost(case)
    assume(costs)
    energy, cycles = data.draw(st.sampled_from(costs))
    macs, latency = float(case.problem.macs), case.spec.network_latency
    spec = searchable(case.spec, case.problem)

    def least(kind: int, limit: float) -> Any:
        limits = {"most_cycles" if kind == ENERGY else "most_energy": limit}
        found = branch_and_bound.best(spec, case.problem, case.ert, Aim(kind, macs, **limits))
        assert found.optimal or found.mapping is None
        if found.evaluation is None:
            return math.inf
        return found.evaluation.energy_pj if kind == ENERGY else found.evaluation.cycles

    for limit in (cycles, cycles - 1):
        expected = min((e for e, c in costs if c <= limit), default=math.inf)
        assert least(ENERGY, limit - latency + 0.5) == pytest.approx(expected, rel=EQUAL)
    for limit in (energy * (1 + EQUAL), energy * (1 - EQUAL)):
        assert least(DELAY, limit) == min((c for e, c in costs if e <= limit), default=math.inf)
    assert least(DELAY, math.inf) == min(c for _, c in costs)


# Sizes with prime numbers on an array of 4, with and without energy for leakage and a bandwidth.
SMALL = [
    ({"P": 13}, 0.0, None),
    ({"P": 13, "M": 2}, 0.0, None),
    ({"C": 7, "M": 3}, 0.0, None),
    ({"P": 7, "C": 2}, 0.02, None),
    ({"C": 5, "M": 3}, 0.0, 2.0),
    ({"P": 5, "R": 2}, 0.0, None),
]
EXACT = range(len(SMALL) - 1)  # of the last one, whose window slides over PEs, energies are bounded in the search


def with_first(spec: Spec, **change: Any) -> Spec:
    """A specification whose outermost memory is changed."""
    return replace(spec, levels=(replace(spec.levels[0], **change), *spec.levels[1:]))


def small(sizes: dict[str, int], leak: float, bandwidth: float | None) -> Case:
    problem = conv_problem(sizes)
    spec, ert = chip(problem)
    ert = Ert({**ert.tables, "dram": {"read": 4.0, "write": 4.0, "update": 4.0, "leak": leak}})
    if bandwidth is not None:
        spec = with_first(spec, read_bandwidth=bandwidth)
    return Case(spec, problem, ert, "energy", ({}, {}))


@functools.cache
def every_cost_with_remainders(number: int) -> tuple[Cost, ...]:
    """Energy and cycles of every mapping of `SMALL[number]` that fits, perfect or with remainders, by the models."""
    case = small(*SMALL[number])
    mappings = itertools.chain(
        every_mapping(case.spec, case.problem), every_mapping_with_remainders(case.spec, case.problem)
    )
    costs = set()
    for mapping in mappings:
        with contextlib.suppress(InputError):  # a tile that does not fit
            evaluation = physical(case.spec, case.problem, mapping, case.ert)
            costs.add((evaluation.energy_pj, evaluation.cycles))
    return tuple(costs)


@pytest.mark.parametrize("number", EXACT)
def test_the_front_with_remainders_is_that_of_all_mappings(number: int) -> None:
    case = small(*SMALL[number])
    costs = list(every_cost_with_remainders(number))
    expected = pareto(costs)
    found = front(case.spec, case.problem, case.ert, None)
    assert costs_of(found) == [pytest.approx(cost, rel=EQUAL) for cost in expected]
    assert found.complete and found.mapspace == REMAINDERS and all(point.optimal for point in found.points)
    perfect = front(case.spec, case.problem, case.ert, None, remainders=False)
    assert perfect.complete and perfect.mapspace == PERFECT and costs_of(perfect) != costs_of(found)


@pytest.mark.parametrize("slack", [0.0, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("number", EXACT)
def test_the_fastest_mapping_within_a_slack_may_have_remainders(number: int, slack: float) -> None:
    case = small(*SMALL[number])
    costs = every_cost_with_remainders(number)
    limit = min(energy for energy, _ in costs) * (1 + slack)
    fewest, energy = min((cycles, energy) for energy, cycles in costs if energy <= limit * (1 + EQUAL))
    found = fastest_within(case.spec, case.problem, case.ert, slack)
    assert found.optimal and found.mapspace == REMAINDERS and found.evaluation is not None
    assert (found.evaluation.cycles, found.evaluation.energy_pj) == (fewest, pytest.approx(energy, rel=EQUAL))
    if slack:
        assert search(case.spec, case.problem, case.ert, slack=slack) == found


def test_what_the_search_with_remainders_does_not_prove_is_not_called_optimal() -> None:
    case = small(*SMALL[-1])
    costs = every_cost_with_remainders(len(SMALL) - 1)
    expected = pareto(list(costs))
    found = front(case.spec, case.problem, case.ert, None)
    assert found.points
    if found.complete and found.mapspace == REMAINDERS:
        assert costs_of(found) == expected
    for point, cost in zip(found.points, costs_of(found), strict=True):
        proven = point.optimal and point.mapspace == REMAINDERS
        assert any(cost == pytest.approx(one, rel=EQUAL) for one in (expected if proven else costs))


@pytest.mark.parametrize("latency", [0, 7])
def test_limits_of_cycles_are_without_those_of_networks_with_remainders_too(latency: int) -> None:
    case = small(*SMALL[0])
    spec = searchable(with_first(case.spec, network_latency=latency), case.problem)
    macs = float(case.problem.macs)
    for limit in (13, 12, 7, 4, 3):
        costs = [e for e, cycles in every_cost_with_remainders(0) if cycles <= limit]
        aim = Aim(ENERGY, macs, most_cycles=limit + 0.5)
        found = best_under(spec, case.problem, case.ert, aim, remainders=True)
        assert found.optimal
        if not costs:
            assert found.mapping is None
            continue
        assert found.evaluation is not None and found.evaluation.cycles <= limit + latency
        assert found.evaluation.energy_pj == pytest.approx(min(costs), rel=EQUAL)


def test_where_nothing_perfect_fits_a_front_has_remainders() -> None:
    problem = conv_problem({"P": 13})
    spec, ert = chip(problem)
    memory, array, *rest = spec.levels
    assert isinstance(array, Fanout)
    spec = replace(spec, levels=(memory, replace(array, spatial=replace(array.spatial, factors={"P": 4})), *rest))
    assert search(spec, problem, ert, remainders=False).mapspace == REMAINDERS
    found = front(spec, problem, ert, None, remainders=False)
    assert found == front(spec, problem, ert, None)
    assert found.points and found.mapspace == REMAINDERS
    assert fastest_within(spec, problem, ert, 0.5, remainders=False) == fastest_within(spec, problem, ert, 0.5)


def test_a_long_front_is_shortened_in_even_steps_of_log_cycles() -> None:
    arch, problem = read_arch(), conv_problem({"C": 96, "M": 16, "P": 32, "Q": 32})
    shipped = instance_for(arch, load_candidates()[0], problem, library_for(arch))
    whole, short = (costs_of(front(shipped.spec, problem, shipped.ert, most, remainders=False)) for most in (None, 3))
    assert len(whole) > len(short) == 3 and {short[0], short[-1]} == {whole[0], whole[-1]}
    # The least energy of all that are at least as fast as the middle of the ends.
    middle = math.sqrt(short[0][1] * short[-1][1])
    assert short[1] == next(cost for cost in whole if cost[1] <= middle)


@pytest.mark.parametrize(
    "sizes",
    [{"C": 16, "M": 64, "P": 55, "Q": 55, "R": 3, "S": 3}, {"C": 48, "M": 192, "P": 13, "Q": 13, "R": 3, "S": 3}],
)
def test_the_fewest_cycles_are_proven_where_many_bounds_are_equal(sizes: dict[str, int]) -> None:
    """A search for the fewest cycles itself gives these up after 50,000 nodes."""
    arch, problem = read_arch(), conv_problem(sizes)
    shipped = instance_for(arch, load_candidates()[0], problem, library_for(arch))
    spec = searchable(shipped.spec, problem)
    fastest = branch_and_bound.search(spec, problem, shipped.ert, "delay")
    assert fastest.optimal and fastest.evaluation is not None
    below = Aim(ENERGY, float(problem.macs), most_cycles=fastest.evaluation.cycles - spec.network_latency - 0.5)
    assert branch_and_bound.best(spec, problem, shipped.ert, below).mapping is None


def test_a_front_that_was_cut_short_is_not_called_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = conv_problem({"C": 4, "M": 4, "P": 4, "R": 3})
    spec, ert = chip(problem)
    module = importlib.import_module("dse.mapper.branch_and_bound")
    monkeypatch.setattr(module._Walk.explore, "__defaults__", (1,))
    for remainders in (False, True):
        found = front(spec, problem, ert, remainders=remainders)
        assert found.points and not found.complete and not all(point.optimal for point in found.points)
        assert not fastest_within(spec, problem, ert, 0.1, remainders=remainders).optimal


def test_a_front_of_what_does_not_fit_says_why() -> None:
    problem = conv_problem({"C": 4, "M": 4})
    spec, ert = chip(problem, depth=2)
    found = front(spec, problem, ert)
    assert not found.points and not found.complete
    assert found.reason == search(spec, problem, ert).reason != ""


@pytest.mark.parametrize("most", [1, 0, -3, True, 2.0, "4"])
def test_a_front_has_two_ends(most: Any) -> None:
    problem = conv_problem({"C": 4})
    spec, ert = chip(problem)
    with pytest.raises(InputError, match=r"front: found .* points \(allowed: a whole number, at least 2\)"):
        front(spec, problem, ert, most)


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), ("1 %", 0.01), (" 0.5% ", 0.005), ("0.01", 0.01), (".5", 0.5), ("1e-3", 0.001), ("100%", 1.0),
     ("0", 0.0), (0.25, 0.25), (0, 0.0), (1, 1.0)],
)  # fmt: skip
def test_a_slack_is_a_share(text: Any, share: float) -> None:
    assert read_slack(text) == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    ["-1%", "-0.01", "nan", "inf", "101%", "1.5", "", "%", "1 % %", "one", "1,5%", "１%", True, False, None, math.nan,
     -0.5, 1.01, 10**400, [0.1]],
)  # fmt: skip
def test_what_is_no_share_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match=r"^slack: found .* \(allowed: a share of the least energy, 0 to 1 or 0% to"):
        read_slack(text)


@pytest.mark.parametrize("objective", ["edp", "delay"])
def test_a_slack_is_one_of_energy(objective: str) -> None:
    check_slack(0.0, objective)
    check_slack(0.01, "energy")
    with pytest.raises(InputError, match=f"slack: does not go with objective '{objective}'"):
        check_slack(0.01, objective)
