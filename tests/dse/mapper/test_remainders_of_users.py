"""Mappings with remainders where a user meets them: on Eyeriss, on the command line, in tables and their keys."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.shipped import data_dir
from dse.hardware.candidates import find_operators, load_candidates
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import DEFAULT_ARCH, instance_for, library_for, read_arch
from dse.hardware.spec import Compute, Fanout, LoopConstraint, Spec, Storage
from dse.mapper import OBJECTIVES, PERFECT, REMAINDERS, search
from dse.model.physical import physical
from dse.table.cost_table import CostTable
from dse.table.plan import make_plan
from dse.workload.layers import Layer, Workload
from dse.workload.problem import CONV_DIMENSIONS, conv_problem, problem_document
from tests.conftest import WORKLOAD
from tests.dse.fakes import FakeEngine
from tests.dse.mapper.brute_force import search_perfect
from tests.dse.mapper.brute_force_remainders import least_with_remainders
from tests.dse.mapper.test_optimal import chip

TENSORS = ("Weights", "Inputs", "Outputs")
COLUMNS = "inter_pe_spatial"
KEPT = dict.fromkeys(TENSORS, True)
ERT = Ert({"dram": {"read": 10, "write": 8}, "regs": {"read": 1, "write": 2, "leak": 0.5}, "mac": {"compute": 3}})


def machine(mesh_x: int, mesh_y: int = 1, depth: int = 16, spatial: LoopConstraint | None = None) -> Spec:
    dram = Storage("dram", "DRAM", {}, 8, 1, None, KEPT, LoopConstraint())
    regs = Storage("regs", "regfile", {}, 8, 1, depth, KEPT, LoopConstraint())
    return Spec(
        (dram, Fanout(COLUMNS, mesh_x, mesh_y, spatial or LoopConstraint()), regs), Compute("mac", "intmac", {})
    )


def eyeriss(problem: Any) -> Any:
    arch = read_arch()
    (t8,) = [c for c in load_candidates() if c.name == "T8"]
    return instance_for(arch, t8, problem, library_for(arch))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("layer", [{"C": 96, "M": 16, "P": 55, "Q": 55}, {"C": 116, "M": 116, "P": 14, "Q": 14}])
def test_on_eyeriss_never_worse_and_often_better(layer: Any, objective: Any) -> None:
    problem = conv_problem(layer)
    instance = eyeriss(problem)
    perfect, found = (search(instance.spec, problem, instance.ert, objective, remainders=i) for i in (False, True))
    energies = [f.evaluation.energy_pj for f in (perfect, found)]
    cycles = [f.evaluation.cycles for f in (perfect, found)]
    before, after = {"energy": energies, "delay": cycles}.get(
        objective, [e * c for e, c in zip(energies, cycles, strict=True)]
    )
    assert after <= before
    assert (found.optimal, found.mapspace, perfect.optimal, perfect.mapspace) == (True, REMAINDERS, True, PERFECT)
    if objective != "energy":
        assert problem.macs / cycles[1] / 168 > 0.94 > problem.macs / cycles[0] / 168
    for d, n in problem.bound.items():
        assert found.mapping.covered(instance.spec, d) == n


def test_a_layer_that_only_remainders_make_possible() -> None:
    four = LoopConstraint(factors={"P": 4})
    problem = conv_problem({"P": 13})
    assert search_perfect(machine(4, spatial=four), problem, ERT).mapping is None
    for remainders in (False, True):
        found = search(machine(4, spatial=four), problem, ERT, remainders=remainders)
        assert found.optimal and found.mapspace == REMAINDERS
        _, best = least_with_remainders(machine(4, spatial=four), problem, ERT)
        assert (found.evaluation.energy_pj, found.evaluation.cycles) == pytest.approx(best)
    impossible = search(machine(2, spatial=LoopConstraint(at_least={"P": 4})), problem, ERT)
    assert impossible.mapping is None and impossible.reason


def test_the_option_on_the_command_line(run: Any, tmp_path: Path) -> None:
    instance = dict.fromkeys(CONV_DIMENSIONS, 1) | {"C": 12, "Q": 55}
    (tmp_path / "problem.yaml").write_text(yaml.safe_dump(problem_document(instance)))
    (tmp_path / "arch.yaml").write_text((data_dir("arch_specs") / DEFAULT_ARCH).read_text())
    files = [tmp_path / "arch.yaml", tmp_path / "problem.yaml"]
    code, out, _ = run("mapper", *files, "--objective", "delay", "--output", tmp_path / "map.yaml")
    assert code == 0
    assert "x: Q14,13" in out and "Proven optimal among mappings with remainders." in out
    assert "Q14,13" in (tmp_path / "map.yaml").read_text()
    assert "Cycles: 4\n" in out
    code, out, _ = run("model", *files, tmp_path / "map.yaml")
    assert code == 0 and "Cycles: 4\n" in out
    code, out, _ = run("mapper", *files, "--objective", "delay", "--perfect")
    assert code == 0 and "x: Q11" in out and "Proven optimal among perfect factors." in out and "Timeloop" not in out


def test_both_counts_on_the_command_line(run: Any, tmp_path: Path) -> None:
    instance = dict.fromkeys(CONV_DIMENSIONS, 1) | {"C": 12, "Q": 55}
    (tmp_path / "problem.yaml").write_text(yaml.safe_dump(problem_document(instance)))
    (tmp_path / "arch.yaml").write_text((data_dir("arch_specs") / DEFAULT_ARCH).read_text())
    files = [tmp_path / "arch.yaml", tmp_path / "problem.yaml"]
    found = json.loads(run("mapper", *files, "--objective", "delay", "--output", tmp_path / "map.yaml", "--json")[1])
    assert (found["optimal"], found["mapspace"]) == (True, "remainders")
    files.append(tmp_path / "map.yaml")
    physical, same, timeloop = (
        json.loads(run("model", *files, *count, "--json")[1])
        for count in ((), ("--count", "physical"), ("--count", "timeloop"))
    )
    assert physical == same == {key: found[key] for key in physical}
    assert physical["computes"] == 12 * 55
    assert physical["timeloop_energy_pj"] == timeloop["energy_pj"] != physical["energy_pj"]
    assert physical["timeloop_cycles"] == timeloop["cycles"] == 4
    assert "timeloop_energy_pj" not in timeloop
    text = run("model", *files)[1]
    assert "Timeloop, which approximates remainders, counts " in text and " uJ, 4 cycles." in text
    assert "approximates" not in run("model", *files, "--count", "timeloop")[1]
    code, _, err = run("model", *files, "--engine", "timeloop", "--count", "physical")
    assert code == 2 and "--count: physical does not go with --engine timeloop (allowed: timeloop)" in err


def test_the_option_in_a_table(run: Any, own_store: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(WORKLOAD.replace("Q: 6", "Q: 29"))
    arguments = (path, "--objective", "delay")
    code, out, _ = run("map", *arguments, "--jobs", "1", "--json")
    assert code == 0
    (row,) = [r for r in json.loads(out)["rows"] if (r["layer"], r["candidate"]) == ("first", "T8")]
    assert row["mapping"].count(",") and row["optimal"]
    assert row["utilisation"] == pytest.approx(row["n_ops"] / row["cycles"] / 168)
    assert run("table", *arguments, "--breakdown", "T8")[0] == 0
    code, _, err = run("table", *arguments, "--perfect", "--breakdown", "T8")
    assert code == 2 and "lacks 18 of 18" in err


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_table_with_remainders_is_read_back(run: Any, own_store: Any, tmp_path: Path, objective: Any) -> None:
    path, table = tmp_path / "net.yaml", tmp_path / "table.csv"
    path.write_text(WORKLOAD.replace("Q: 6", "Q: 29").replace("P: 6", "P: 13"))
    declared = yaml.safe_load(find_operators("operators").read_text())
    few = {"bits": [8], "operators": {name: declared["operators"][name] for name in ("typical", "binary_connect")}}
    (tmp_path / "operators.yaml").write_text(yaml.safe_dump(few))
    arguments = ("--objective", objective, "--operators", tmp_path / "operators.yaml")
    assert run("map", path, *arguments, "--jobs", "1", "--output", table)[0] == 0
    rows = CostTable.load(table).rows
    assert len(rows) == 4 and all(row["status"] == "ok" for row in rows)
    assert objective == "energy" or any("," in row["mapping"] for row in rows)
    assert all(row["e_compute_pj"] == pytest.approx(row["e_op_pj"] * row["n_ops"]) for row in rows)


def test_keys_of_perfect_rows_stay() -> None:
    network = Workload("net", (Layer("first", "conv", dict.fromkeys(CONV_DIMENSIONS, 1) | {"P": 13}),))
    keys = [
        make_plan(network, candidates="operators_published_energies", engine=FakeEngine(), **option).jobs[0].key
        for option in ({}, {"remainders": True}, {"remainders": False})
    ]
    assert keys[0] == keys[1] != keys[2]
    assert keys[2] == "faae4c3a4c57d9bafc42f65ce89f630d9b24d2c4ebecdfacc0bad6c93ebc8bd9"


@pytest.mark.parametrize(("level", "factor"), [(2, 4), (0, 4)])
def test_exact_factors_that_do_not_divide_leave_a_remainder(level: int, factor: int) -> None:
    """No worse than timeloop-mapper, which finds 164 pJ in the second case."""
    problem = conv_problem({"C": 6, "M": 4})
    spec, ert = chip(problem)
    levels = list(spec.levels)
    levels[level] = replace(levels[level], temporal=LoopConstraint(factors={"C": factor}))
    spec = replace(spec, levels=tuple(levels))
    found = search(spec, problem, ert, remainders=False)
    assert found.mapping is not None and found.evaluation is not None and found.optimal
    _, best = least_with_remainders(spec, problem, ert)
    assert (found.evaluation.energy_pj, found.evaluation.cycles) == pytest.approx(best)
    assert found.evaluation.energy_pj == physical(spec, problem, found.mapping, ert).energy_pj
    assert found.evaluation.energy_pj <= 164.0
