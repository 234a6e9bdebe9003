"""A tensor that bypasses the memories outside must fit the outermost one that keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.hardware.constraints import for_layer
from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.model.evaluation import evaluate
from dse.model.mapping import Mapping
from dse.workload.problem import Problem, problem_from_document
from tests.dse.mapper.brute_force import cost, every_mapping, least, search_perfect
from tests.dse.mapper.small_cases import Pick, draw_case

PROBLEM = problem_from_document(
    {
        "shape": {
            "name": "conv1d",
            "dimensions": ["K", "R", "P"],
            "data_spaces": [
                {"name": "W", "projection": [[["K"]], [["R"]]]},
                {"name": "I", "projection": [[["R"], ["P"]]]},
                {"name": "O", "projection": [[["K"]], [["P"]]], "read_write": True},
            ],
        },
        "instance": {"K": 32, "R": 3, "P": 16},
    },
    "problem",
)
PRICES = {"read": 1.0, "write": 1.0, "update": 1.0, "leak": 0.0}
ERT = Ert({"big": {**PRICES, "read": 100.0}, "buf": PRICES, "mac": {"compute": 1.0}})


def chip(depth: int, mesh: int = 1, outside: tuple[str, ...] = ("W",)) -> Spec:
    """A large memory that keeps some tensors, and buffers of `depth` words that keep all."""
    rest = [t for t in "WIO" if t not in outside]
    nodes = [
        {"!": "Component", "name": "big", "class": "DRAM", "attributes": {"width": 8, "datawidth": 8},
         "constraints": {"dataspace": {"keep": list(outside), "bypass": rest}}},
        {"!": "Component", "name": "buf", "class": "SRAM", "spatial": {"meshX": mesh},
         "attributes": {"width": 8, "depth": depth, "datawidth": 8},
         "constraints": {"dataspace": {"keep": ["W", "I", "O"]}}},
        {"!": "Component", "name": "mac", "class": "intmac"},
    ]  # fmt: skip
    document = {"architecture": {"version": 0.4, "nodes": nodes}}
    return SpecFile(document, "chip").instance(problem=PROBLEM)


def all_loops_at(spec: Spec, storage: str) -> Mapping:
    loops = (("R", 3), ("P", 16), ("K", 32))
    temporal = {s.name: loops if s.name == storage else () for s in spec.storages}
    keep = {"big": frozenset("W"), "buf": frozenset("WIO")}
    return Mapping(temporal, {}, {}, keep)


def test_the_model_refuses_a_tensor_without_a_home() -> None:
    spec = chip(depth=3)
    with pytest.raises(InputError) as refused:
        evaluate(spec, PROBLEM, all_loops_at(spec, "big"), ERT)
    assert str(refused.value) == (
        "mapping: buf: needs 531 words (W 1, I 18, O 512), as no memory outside keeps I and O (allowed: at most 3)"
    )


def test_it_may_be_used_in_parts_where_all_of_it_fits() -> None:
    spec = chip(depth=531)
    assert evaluate(spec, PROBLEM, all_loops_at(spec, "big"), ERT).levels["buf"]["I"].tile == 1
    with pytest.raises(InputError, match=r"needs 531 words .* \(allowed: at most 530\)"):
        evaluate(chip(depth=530), PROBLEM, all_loops_at(spec, "big"), ERT)


def test_a_tile_that_a_memory_outside_fills_need_not_be_whole() -> None:
    spec = chip(depth=3, outside=("W", "I", "O"))
    mapping = replace(all_loops_at(spec, "big"), keep={"big": frozenset("WIO"), "buf": frozenset("WIO")})
    assert evaluate(spec, PROBLEM, mapping, ERT).levels["buf"]["O"].tile == 1


def test_all_instances_together_hold_a_tensor() -> None:
    keep = {"big": frozenset("W"), "buf": frozenset("WIO")}
    assert resident_words(chip(9, mesh=5), PROBLEM, keep) == {"big": {"W": 96}, "buf": {"I": 4, "O": 103}}


@pytest.mark.parametrize(("depth", "mapped"), [(3, False), (530, False), (531, True), (626, True)])
def test_the_mapper_says_why_there_is_no_mapping(depth: int, mapped: bool) -> None:
    found = search(chip(depth), PROBLEM, ERT, remainders=False)
    assert (found.mapping is not None) == mapped
    if not mapped:
        assert found.reason == (
            f"buf holds {depth} words (depth {depth}), W (1), I (18) and O (512) need at least 531 under the "
            "constraints, as no memory outside keeps I and O: depth 531 would fit"
        )


def test_the_reason_for_one_tensor() -> None:
    spec = chip(depth=40, outside=("W", "I"))
    levels = tuple(replace(s, keep={"W": False, "I": False, "O": True}) if s.name == "buf" else s for s in spec.levels)
    assert search(replace(spec, levels=levels), PROBLEM, ERT, remainders=False).reason == (
        "buf holds 40 words (depth 40), O needs 512, all of it, as no memory outside keeps it: depth 512 would fit"
    )


def bypassing(spec: Spec, problem: Problem, chosen: frozenset[str]) -> Spec:
    """The specification with an outermost memory that keeps only the others."""
    first = spec.storages[0]
    keep = {t.name: t.name not in chosen for t in problem.data_spaces}
    return replace(spec, levels=tuple(replace(s, keep=keep) if s is first else s for s in spec.levels))


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_mapper_equals_brute_force(data: st.DataObject) -> None:
    case = draw_case(Pick(lambda options: data.draw(st.sampled_from(options))))
    tensors = [t.name for t in case.problem.data_spaces]
    spec = bypassing(case.spec, case.problem, data.draw(st.frozensets(st.sampled_from(tensors), min_size=1)))
    if any(all(s.keep.get(t) is False for s in spec.storages) for t in tensors):
        return
    meant = for_layer(spec, case.problem)
    if sum(1 for _ in zip(every_mapping(meant, case.problem), range(1501), strict=False)) > 1500:
        return
    expected = least(meant, case.problem, case.ert, case.objective)
    found = search_perfect(spec, case.problem, case.ert, case.objective)
    if expected is None:
        assert found.mapping is None and found.reason
    else:
        assert found.optimal and found.evaluation is not None
        assert cost(found.evaluation, case.objective)[0] == pytest.approx(expected[0], rel=1e-9)
