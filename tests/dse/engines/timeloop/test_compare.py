"""Recorded Timeloop runs agree with the native model, and a difference of any kind is found."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dse.core.documents import read_yaml
from dse.engines.timeloop.compare import Difference, compare
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.instance import read_arch, spec_for
from dse.model.evaluation import Accesses, Evaluation, evaluate
from dse.model.mapping import parse_directives
from dse.workload.problem import problem_from_document
from tests.dse.model.test_golden import CASES, COMPUTE_PJ, GOLDEN


def evaluations(path: Any) -> Any:
    """Specification, native evaluation, and what Timeloop printed of a recorded run."""
    case = json.loads(path.read_text())
    document = read_yaml(GOLDEN / "problem.yaml")["problem"]
    problem = problem_from_document({**document, "instance": case["instance"]}, path)
    variables = {name: case[name] for name in ("act_bits", "weight_bits", "psum_bits")}
    spec = spec_for(read_arch(GOLDEN / "arch.yaml"), problem, variables)
    energies = dict(read_ert(GOLDEN / "ert.yaml").tables)
    ert = Ert({**energies, "mac": {"compute": COMPUTE_PJ[case["operator"]][case["bits"]]}})
    native = evaluate(spec, problem, parse_directives(spec, problem, case["mapping"], path), ert)
    return spec, native, printed(case)


def printed(case: Any) -> Any:
    """A recorded run as an evaluation, its total the sum of the printed energies."""
    levels = {name: dict(tensors) for name, tensors in case["levels"].items() if name != "mac"}
    for tensors in levels.values():
        for name, recorded in tensors.items():
            tensors[name] = Accesses(**{k: v for k, v in recorded.items() if k != "temporal_reductions"})
    mac = case["levels"]["mac"]
    total = mac["energy_pj"] + sum(a.energy_pj for tensors in levels.values() for a in tensors.values())
    return Evaluation(total, case["cycles"], case["computes"], mac["instances"], mac["energy_pj"], 0.0, levels)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_recorded_runs_agree(path: Any) -> None:
    assert compare(*evaluations(path)) == []


SPEC, NATIVE, TIMELOOP = evaluations(next(p for p in CASES if p.stem == "batch4_BC2"))
READS = NATIVE.levels["glb_psum"]["Outputs"]


def with_level(level: Any, tensors: Any) -> Any:
    return replace(TIMELOOP, levels={**TIMELOOP.levels, level: tensors})


@pytest.mark.parametrize("quantity", ["tile", "instances", "reads", "fills", "updates"])
def test_a_count_that_is_one_off(quantity: Any) -> None:
    ours = getattr(READS, quantity)
    changed = replace(TIMELOOP.levels["glb_psum"]["Outputs"], **{quantity: ours + 1})
    found = compare(SPEC, NATIVE, with_level("glb_psum", {"Outputs": changed}))
    assert found == [Difference("glb_psum", "Outputs", quantity, ours, ours + 1)]


@pytest.mark.parametrize(("error", "differs"), [(0.0049, False), (-0.0049, False), (0.0052, True), (-0.0052, True)])
def test_an_energy_is_compared_to_the_printed_digits(error: Any, differs: Any) -> None:
    changed = replace(TIMELOOP.levels["glb_psum"]["Outputs"], energy_pj=READS.energy_pj + error)
    found = compare(SPEC, NATIVE, with_level("glb_psum", {"Outputs": changed}))
    assert [(d.level, d.tensor, d.quantity) for d in found] == (
        [("glb_psum", "Outputs", "energy_pj")] if differs else []
    )


@pytest.mark.parametrize(
    ("change", "level", "quantity"),
    [
        ({"compute_instances": 5}, "mac", "instances"),
        ({"compute_energy_pj": TIMELOOP.compute_energy_pj + 0.02}, "mac", "energy_pj"),
        ({"computes": 1}, "", "computes"),
        ({"cycles": 225793}, "", "cycles"),
        ({"leakage_pj": 1.0}, "", "leakage_pj"),
        ({"energy_pj": TIMELOOP.energy_pj + 0.2}, "", "energy_pj"),
        ({"energy_pj": float("nan")}, "", "energy_pj"),
    ],
)
def test_the_whole_layer_and_the_compute_unit(change: Any, level: Any, quantity: Any) -> None:
    found = compare(SPEC, NATIVE, replace(TIMELOOP, **change))
    assert [(d.level, d.tensor, d.quantity) for d in found] == [(level, "", quantity)]
    ((name, value),) = change.items()
    assert found[0].native == getattr(NATIVE, name) and str(found[0].timeloop) == str(value)


def test_a_tensor_or_level_that_one_engine_lacks() -> None:
    assert [(d.tensor, d.quantity, d.timeloop) for d in compare(SPEC, NATIVE, with_level("glb_psum", {}))] == [
        ("Outputs", quantity, None) for quantity in ("tile", "instances", "reads", "fills", "updates", "energy_pj")
    ]
    more = with_level("register", {"Inputs": Accesses(1, 1, 2, 3, 4, 5.0)})
    found = compare(SPEC, NATIVE, more)
    assert [(d.level, d.tensor, d.native) for d in found] == [("register", "Inputs", None)] * 6
    assert [d.timeloop for d in found] == [1, 1, 2, 3, 4, 5.0]
