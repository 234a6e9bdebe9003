"""The real Timeloop, where it is installed: it agrees with the native engine, and the engine drives it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.documents import read_yaml
from dse.core.errors import InputError
from dse.engines.native import NativeEngine
from dse.engines.timeloop import front_end, process
from dse.engines.timeloop.engine import TimeloopEngine
from dse.engines.timeloop.installation import find, require
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.instance import instance_for, library_for, read_arch, spec_for
from dse.hardware.spec import Fanout, LoopConstraint
from dse.model.evaluation import evaluate
from dse.model.mapping import parse_directives
from dse.table.fill import map_workload
from dse.table.store import Store
from dse.workload.layers import find_workload, read_workload
from dse.workload.problem import conv_problem, problem_from_document
from tests.dse.engines.timeloop.record_in_memory import CASES as CASES_IN_MEMORY
from tests.dse.engines.timeloop.record_in_memory import case
from tests.dse.engines.timeloop.recordings import small_case, small_inputs
from tests.dse.engines.timeloop.test_documents import constrained
from tests.dse.mapper.brute_force import search_perfect
from tests.dse.mapper.small_cases import Pick, draw_case, limited
from tests.dse.model.test_golden import CASES, GOLDEN, IMPERFECT, equals_recorded, variables, write_inputs
from tests.dse.model.test_reuse import RUNS, recorded


def missing() -> Any:
    try:
        require("this test")
    except InputError as e:
        return str(e)
    return ""


pytestmark = [pytest.mark.timeloop, pytest.mark.skipif(bool(missing()), reason=missing() or "Timeloop is installed")]
WORKLOAD = read_workload(find_workload("squeezenet_cifar"))
LAYERS = {layer.name: layer for layer in WORKLOAD.layers}
SOME = ("conv1", "fire2.expand3x3", "fire4.squeeze", "fire9.expand1x1")


def instance(layer: Any, candidate: Any) -> Any:
    arch = read_arch()
    chosen = next(c for c in load_candidates() if c.name == candidate)
    return instance_for(arch, chosen, layer.problem, library_for(arch))


def agree(timeloop: Any, native: Any) -> None:
    """Every count is equal, every energy to the printed digit."""
    assert (timeloop.cycles, timeloop.computes, timeloop.compute_instances) == (
        native.cycles, native.computes, native.compute_instances,
    )  # fmt: skip
    assert timeloop.compute_energy_pj == pytest.approx(native.compute_energy_pj, rel=0, abs=0.005001)
    assert {n: set(of) for n, of in timeloop.levels.items()} == {n: set(of) for n, of in native.levels.items()}
    for level, tensors in native.levels.items():
        for tensor, accesses in tensors.items():
            rounded = {"energy_pj": pytest.approx(accesses.energy_pj, rel=0, abs=0.005001)}
            assert vars(timeloop.levels[level][tensor]) == vars(accesses) | rounded, (level, tensor)


@pytest.mark.parametrize("path", [*CASES, *IMPERFECT], ids=lambda p: p.stem)
def test_the_recorded_runs_again(path: Any, tmp_path: Path, run: Any) -> None:
    case = json.loads(path.read_text())
    write_inputs(tmp_path, case["instance"], case.get("operator", "T"), case.get("bits", 8))
    small = "operator" not in case
    arch, ert = (path.parent / "arch.yaml", path.parent / "ert.yaml") if small else (GOLDEN / "arch.yaml", None)
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump({"mapping": case["mapping"]}))
    files = [tmp_path / "problem.yaml", tmp_path / "mapping.yaml", ert or tmp_path / "ert.yaml"]
    code, out, err = run("model", arch, *files, *([] if small else variables(case)), "--engine", "timeloop", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    total = case["fJ_per_compute"] * case["computes"] / 1000
    assert document["energy_pj"] == pytest.approx(total, rel=1e-5, abs=0.1)
    equals_recorded(document | {"energy_pj": total}, case)


@pytest.mark.parametrize("candidate", [c.name for c in load_candidates()])
@pytest.mark.parametrize("layer", SOME)
def test_optimal_mappings_cost_what_the_native_engine_says(layer: Any, candidate: Any) -> None:
    on = instance(LAYERS[layer], candidate)
    found = TimeloopEngine(mapping="native").search(on.spec, LAYERS[layer].problem, on.ert, "energy")
    assert found.optimal
    agree(found.evaluation, NativeEngine().evaluate(on.spec, LAYERS[layer].problem, found.mapping, on.ert))


@pytest.mark.parametrize("objective", ["energy", "edp", "delay"])
@pytest.mark.parametrize("name", SOME[:2])
def test_a_search_of_timeloop_mapper(name: Any, objective: Any) -> None:
    problem = LAYERS[name].problem
    on = instance(LAYERS[name], "T8")
    found = TimeloopEngine(seconds=2.0).search(on.spec, problem, on.ert, objective)
    assert found.mapping is not None and not found.optimal
    agree(found.evaluation, NativeEngine().evaluate(on.spec, problem, found.mapping, on.ert))
    best = NativeEngine().search(on.spec, problem, on.ert, objective)
    value = {"energy": lambda e: e.energy_pj, "edp": lambda e: e.energy_pj * e.cycles, "delay": lambda e: e.cycles}
    assert value[objective](found.evaluation) >= value[objective](best.evaluation) * (1 - 1e-6)


def test_constraints_of_every_kind_hold() -> None:
    spec, _ = constrained()
    dram, fanout, shared = spec.levels
    dram = dataclasses.replace(dram, temporal=LoopConstraint(at_least={"M": 2}, inner=("P",), outer=("C",)))
    quick = [dataclasses.replace(x, read_bandwidth=None, shared_bandwidth=None) for x in (dram, shared)]
    spec = dataclasses.replace(spec, levels=(quick[0], fanout, quick[1]))
    problem = conv_problem({"N": 2, "C": 8, "M": 16, "P": 6, "Q": 5, "R": 3, "S": 3, "Hstride": 2})
    ert = Ert({"dram": {"read": 50.0, "write": 60.0}, "shared": {"read": 1.0, "write": 2.0, "leak": 0.5},
               "mac": {"compute": 3.0}})  # fmt: skip
    found = TimeloopEngine(seconds=2.0).search(spec, problem, ert, "delay")
    shared = dict(found.mapping.temporal["shared"])
    assert shared["C"] == 2 and shared.get("M", 1) <= 4 and shared["P"] >= 2
    order = [d for d, _ in found.mapping.temporal["dram"]]
    assert {"M", "C"} <= set(order) and order[-1] == "C" and "P" not in order[1:]
    # The split allows one loop on X; whether the mapper finds a mapping with it depends on how busy the machine is.
    assert set(found.mapping.x["inter_shared_spatial"]) <= {("M", 2)}
    agree(found.evaluation, NativeEngine().evaluate(spec, problem, found.mapping, ert))


@pytest.mark.parametrize("without", [(), ("Inputs",), ("Inputs", "Weights", "Outputs")])
@pytest.mark.parametrize("path", [p for p in CASES if "random_link" in p.stem], ids=lambda p: p.stem)
def test_fan_outs_whose_links_are_turned_off(path: Any, without: Any) -> None:
    case = json.loads(path.read_text())
    shape = read_yaml(GOLDEN / "problem.yaml")["problem"]["shape"]
    problem = problem_from_document({"shape": shape, "instance": case["instance"]}, "problem")
    widths = {k: case[k] for k in ("act_bits", "weight_bits", "psum_bits")}
    spec = spec_for(read_arch(GOLDEN / "arch.yaml"), problem, widths)
    levels = [
        dataclasses.replace(x, no_link_transfer=frozenset(without)) if isinstance(x, Fanout) else x for x in spec.levels
    ]
    spec = dataclasses.replace(spec, levels=tuple(levels))
    mapping = parse_directives(spec, problem, case["mapping"], path)
    ert = read_ert(GOLDEN / "ert.yaml")
    native = NativeEngine().evaluate(spec, problem, mapping, ert)
    agree(TimeloopEngine().evaluate(spec, problem, mapping, ert), native)


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_the_recorded_runs_of_levels_that_limit_reuse_again(path: Any) -> None:
    spec, problem, mapping, ert, _ = recorded(path)
    agree(TimeloopEngine().evaluate(spec, problem, mapping, ert), evaluate(spec, problem, mapping, ert))


@pytest.mark.parametrize("seed", range(12))
def test_optimal_mappings_of_levels_that_limit_reuse(seed: Any) -> None:
    case = limited(draw_case(Pick.seeded(seed)), Pick.seeded(seed + 1))
    try:
        found = search_perfect(case.spec, case.problem, case.ert, case.objective)
    except InputError as e:
        assert "no level merges accesses to" in str(e)
        return
    if found.mapping is not None:
        agree(TimeloopEngine().evaluate(case.spec, case.problem, found.mapping, case.ert), found.evaluation)


@pytest.mark.parametrize("seed", [0, 13, 19, 29])
def test_a_search_of_timeloop_mapper_on_levels_that_limit_reuse(seed: Any) -> None:
    case = limited(draw_case(Pick.seeded(seed)), Pick.seeded(seed + 1))
    found = TimeloopEngine(seconds=2.0).search(case.spec, case.problem, case.ert, case.objective)
    assert case.spec.special and found.mapping is not None
    agree(found.evaluation, evaluate(case.spec, case.problem, found.mapping, case.ert))
    best = search_perfect(case.spec, case.problem, case.ert, case.objective)
    value = {"energy": lambda e: e.energy_pj, "edp": lambda e: e.energy_pj * e.cycles, "delay": lambda e: e.cycles}
    assert best.optimal
    assert value[case.objective](found.evaluation) >= value[case.objective](best.evaluation) * (1 - 1e-4)


def test_a_layer_that_fits_nowhere_gets_timeloops_reason() -> None:
    spec, problem, ert = small_inputs()
    tight = [dataclasses.replace(x, capacity=1) if x.name == "register" else x for x in spec.levels]
    found = TimeloopEngine(seconds=5.0).search(dataclasses.replace(spec, levels=tuple(tight)), problem, ert, "energy")
    assert found.mapping is None
    assert "register: mapped tile size" in found.reason and "exceeds buffer capacity 1" in found.reason


def test_what_timeloop_refuses_is_one_line() -> None:
    spec, problem, ert = small_inputs()
    document = front_end.model_input(find().front_end, spec, problem, ert, small_case()["mapping"])
    document["mapping"][-1]["factors"] = "N1 G1 C1 M3 P4 Q1 R1 S1"
    result = process.run(find().model, document, ("timeloop-model.stats.txt",), 60)
    assert result.code == 1 and not result.files and "product of all factors of dimension P" in result.log


@pytest.mark.parametrize("module", ["pytimeloop.timeloopfe.v4", "timeloopfe.v4"])
def test_either_front_end_gives_the_same_machine(module: Any) -> None:
    pytest.importorskip(module)
    spec, problem, ert = small_inputs()
    ours = front_end.mapper_input(module, spec, problem, ert, {})
    theirs = front_end.mapper_input(find().front_end, spec, problem, ert, {})
    levels = [x["architecture"]["subtree"][0]["local"] for x in (ours, theirs)]
    assert [x["name"] for x in levels[0]] == [x["name"] for x in levels[1]]
    assert ours["ERT"] == theirs["ERT"]
    assert ours["architecture_constraints"] == theirs["architecture_constraints"]


def test_what_the_front_end_refuses_is_one_line() -> None:
    with pytest.raises(InputError) as caught:
        front_end.transpile(find().front_end, 'architecture: {version: 0.4, nodes: [{name: "a"}, {name: "a"}]}')
    assert "the front end fails" in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_is_made_stored_and_found_again(tmp_path: Path) -> None:
    workload = dataclasses.replace(WORKLOAD, layers=tuple(LAYERS[name] for name in SOME[1:3]))
    chosen = [c for c in load_candidates() if c.name in ("T8", "BC4")]
    settings = {"candidates": chosen, "store": tmp_path / "store.sqlite", "remainders": False}
    reports: list[Any] = []
    engine = TimeloopEngine(mapping="native")
    table = map_workload(workload, engine=engine, jobs=2, **settings)
    again = map_workload(workload, engine=engine, progress=reports.append, **settings)
    assert again.rows == table.rows and reports[-1].to_compute == 0
    native = map_workload(workload, engine="native", jobs=1, **settings)
    for ours, theirs in zip(native.rows, table.rows, strict=True):
        assert set(ours) == set(theirs)
        assert {k: v for k, v in ours.items() if k != "engine"} == {
            k: pytest.approx(v, rel=1e-5) if k.endswith("_pj") else v for k, v in theirs.items() if k != "engine"
        }


def test_a_killed_map_goes_on_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = read_yaml(GOLDEN.parents[1] / "arch_specs" / "operators.yaml")
    operators = {"bits": [8], "operators": {"typical": operators["operators"]["typical"]}}
    (tmp_path / "operators.yaml").write_text(yaml.safe_dump(operators))
    layers = [
        {"name": f"layer{i}", "kind": "conv", "instance": {**LAYERS["fire2.squeeze"].instance, "C": 8 * (i + 1)}}
        for i in range(4)
    ]
    (tmp_path / "net.yaml").write_text(yaml.safe_dump({"version": 1, "name": "net", "input": [], "layers": layers}))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    store = tmp_path / "store.sqlite"
    arguments = ["map", tmp_path / "net.yaml", "--operators", tmp_path / "operators.yaml", "--engine", "timeloop",
                 "--seconds", "2", "--store", store, "--jobs", "1"]  # fmt: skip
    command = [sys.executable, "-c", "from dse.cli import main; main()", *map(str, arguments)]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[4], stdout=subprocess.DEVNULL)

    def stored() -> Any:
        with Store(store, create=False) as opened:
            return len(opened)

    wait_for(lambda: stored() >= 1 and any((tmp_path / "tmp").glob("enos-timeloop-*/log.txt")))
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = stored()
    wait_for(lambda: not any((tmp_path / "tmp").glob("enos-timeloop-*")))
    assert 1 <= before < 4
    finished = subprocess.run(command, cwd=Path(__file__).parents[4], capture_output=True, text=True, check=True)
    assert f"{before} of 4 rows from the store, {4 - before} computed" in finished.stdout
    assert stored() == 4


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("name", CASES_IN_MEMORY)
def test_macros_in_memory_are_counted_as_by_timeloop(name: str) -> None:
    made, problem, mapping = case(name)
    ours = evaluate(made.spec, problem, mapping, made.ert)
    theirs = TimeloopEngine().evaluate(made.spec, problem, mapping, made.ert)
    assert (ours.cycles, ours.computes) == (theirs.cycles, theirs.computes)
    for level, tensors in theirs.levels.items():
        for tensor, accesses in tensors.items():
            assert dataclasses.replace(ours.levels[level][tensor], energy_pj=accesses.energy_pj) == accesses
    assert ours.energy_pj == pytest.approx(theirs.energy_pj, rel=0, abs=0.2)
