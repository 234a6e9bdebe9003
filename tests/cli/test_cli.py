"""The command line as a user meets it: what it prints, what it writes, and one line with exit code 2 for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.cli import enos
from dse.core.shipped import data_dir
from dse.table.cost_table import CostTable
from tests.conftest import WORKLOAD, refused
from tests.dse.model.test_golden import GOLDEN, variables, write_inputs

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
FC = json.loads((GOLDEN / "cases" / "fc_BC8.json").read_text())


pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def fc(tmp_path: Path) -> Any:
    """Arguments of `enos model` for a recorded run, without the mapping."""
    write_inputs(tmp_path, FC["instance"], "BC", 8)
    return [str(GOLDEN / "arch.yaml"), str(tmp_path / "problem.yaml"), str(tmp_path / "ert.yaml")]


@pytest.mark.parametrize("command", enos.list_commands(None))
def test_every_command_has_help_with_an_example(run: Any, command: Any) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"enos {command}" in out.split("Example:")[1]


def test_the_help_lists_the_commands_of_both_halves(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("export", "map", "table", "sweep", "plot", "model", "mapper", "doctor", "search", "run", "report"):
        assert f"\n  {command} " in out


def test_version_and_usage_errors(run: Any) -> None:
    assert run("--version")[1].startswith("enos, version ")
    assert "ponder" in refused(run("ponder"))
    assert "--ponder" in refused(run("map", "net", "--ponder"))
    assert "enos model --help" in refused(run("model"))


def test_map_prints_totals_and_a_second_run_recomputes_nothing(
    run: Any, quick: Any, workload: Any, own_store: Any, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    code, out, _ = run("map", workload, "--output", table, "--output", tmp_path / "table.parquet", "--jobs", "1")
    assert code == 0
    assert "all T8" in out and "0.34" not in out  # the paper's ratios are SqueezeNet's
    typical, binary = (CostTable.load(table).mean_e_op_pj(name) for name in ("T8", "BC8"))
    assert f"E_OP(T,8) / E_OP(BC,8) = {typical / binary:.1f}; the paper reports about 11.5." in out
    assert "0 of 18 rows from the store, 18 computed" in out
    assert str(own_store) in out
    code, out, _ = run("map", workload)
    assert "18 of 18 rows from the store, nothing recomputed." in out
    assert CostTable.load(table).rows == CostTable.load(tmp_path / "table.parquet").rows
    assert len(CostTable.load(table).rows) == 18


def test_map_prints_cycles_time_and_memory(run: Any, quick: Any, workload: Any, tmp_path: Path) -> None:
    def row_of(*options: str) -> dict[str, str]:
        code, out, _ = run("map", workload, "--candidate", "T8", "--jobs", "1", *options)
        lines = out.split("One operator at one precision")[1].splitlines()
        assert code == 0 and "all T8" in lines[4]
        return {"caption": lines[0], "units": lines[2], "row": lines[4], "all": out}

    found = json.loads(run("map", workload, "--candidate", "T8", "--jobs", "1", "--json")[1])
    (total,) = found["totals"]
    cycles = total["performance"]["cycles"]
    assert found["cycle_seconds"] == 1e-9 and total["performance"]["weight_bytes"] > 0
    known = row_of()
    assert "time at 1 GHz (global_cycle_seconds)" in known["caption"] and f" {cycles:,} " in known["row"]
    slow = row_of("--clock", "1 kHz")
    assert "time at 1 kHz (given)" in slow["caption"] and " s " in slow["units"]
    assert f"{cycles / 1e3:,.{max(0, 3 - len(str(cycles // 1000)) + 1)}f}" in slow["row"]
    (tmp_path / "no_clock.yaml").write_text(ARCH.read_text().replace("  global_cycle_seconds: 1e-9\n", ""))
    silent = row_of("--arch", str(tmp_path / "no_clock.yaml"))
    assert "time at 1 GHz (for the specification names no clock)" in silent["caption"]
    assert silent["row"] == known["row"]
    for wrong in ("200", "0MHz", "-1GHz", "1e9Hz", "fast"):
        assert "--clock: found" in refused(run("map", workload, f"--clock={wrong}"))
    assert "--clock: does not go with --front" in refused(run("map", workload, "--clock", "1GHz", "--front"))


def test_map_names_layers_on_few_units(run: Any, quick: Any, workload: Any) -> None:
    options = ("map", workload, "--candidate", "T8", "--jobs", "1")
    lines = run(*options)[1].splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("Few of the 168 PEs work under T8 ("))
    (idle, *_) = json.loads(run(*options, "--json")[1])["few_pes"]["T8"]
    assert f": {idle['layer']} 1 ({idle['share']:.0%})" in lines[at] and "--objective edp" in lines[at + 1]
    faster = run(*options, "--objective", "delay")[1]
    assert "Few of the 168 PEs" in faster and "--objective" not in faster


def test_map_of_some_candidates(run: Any, quick: Any, workload: Any, tmp_path: Path) -> None:
    some = ("--candidate", "BC8", "--candidate", "T8", "--jobs", "1")
    code, out, _ = run("map", workload, *some, "--output", tmp_path / "t.csv")
    assert code == 0 and "0 of 4 rows from the store, 4 computed" in out and "MF8" not in out
    table = CostTable.load(tmp_path / "t.csv")
    assert table.candidates == ("T8", "BC8") and len(table.rows) == 4  # in the order of the operators file
    assert "lacks 14 of 18 rows of net" in refused(run("table", workload, "--breakdown", "T8"))
    assert run("table", workload, "--breakdown", "T8", *some[:4])[0] == 0
    assert "--candidate: unknown candidate 'T3'" in refused(
        run("table", workload, "--breakdown", "T8", "--candidate", "T3")
    )
    code, out, _ = run("map", workload, "--output", tmp_path / "all.csv", "--jobs", "1")
    assert "4 of 18 rows from the store, 14 computed" in out
    every = CostTable.load(tmp_path / "all.csv")
    assert [row for row in every.rows if row["candidate"] in table.candidates] == list(table.rows)
    line = refused(run("map", workload, "--candidate", "T8", "--candidate", "MF18"))
    assert "--candidate: unknown candidate 'MF18'; did you mean 'MF8'? (allowed: T8, T4, T2, MF8" in line


def test_map_as_json(run: Any, quick: Any, workload: Any) -> None:
    code, out, _ = run("map", workload, "--json", "--jobs", "1")
    found = json.loads(out)
    assert code == 0
    assert found["computed"] == len(found["rows"]) == 18
    assert {t["candidate"]: t["paper_ratio"] for t in found["totals"]}["MF8"] is None


def test_an_architecture_may_be_a_shipped_name(run: Any, quick: Any, workload: Any) -> None:
    run("map", workload, "--arch", ARCH, "--jobs", "1")
    for arch in ("eyeriss_168", ARCH):
        assert "18 of 18 rows from the store, nothing recomputed." in run("map", workload, "--arch", arch)[1]
    line = refused(run("map", workload, "--arch", "eyeris_168"))
    assert "unknown file or shipped architecture 'eyeris_168'; did you mean 'eyeriss_168'?" in line


def test_table_exports_from_the_store_only(run: Any, quick: Any, workload: Any, tmp_path: Path) -> None:
    assert "lacks 18 of 18 rows of net" in refused(run("table", workload, "--output", tmp_path / "t.csv"))
    run("map", workload, "--jobs", "1")
    code, out, _ = run("table", workload, "--output", tmp_path / "t.csv", "--breakdown", "T4")
    assert code == 0
    assert "weights_spad" in out and "sum" in out
    assert len(CostTable.load(tmp_path / "t.csv").rows) == 18
    assert "'T3'" in refused(run("table", workload, "--breakdown", "T3"))
    assert "nothing to do" in refused(run("table", workload))


def test_plot_writes_a_figure(run: Any, quick: Any, workload: Any, tmp_path: Path) -> None:
    run("map", workload, "--output", tmp_path / "t.csv", "--jobs", "1")
    code, _, _ = run("plot", tmp_path / "t.csv", "--output", tmp_path / "b.png", "--candidate", "BC8")
    assert code == 0
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert ".png" in refused(run("plot", tmp_path / "t.csv", "--output", tmp_path / "b.gif"))
    assert "T3" in refused(run("plot", tmp_path / "t.csv", "--output", tmp_path / "b.png", "--candidate", "T3"))


def test_export_takes_arguments_of_the_network(run: Any, tmp_path: Path) -> None:
    more = ("--arg", "width=0.25", "--arg", "stem_stride=2")
    code, out, _ = run("export", "squeezenet", *more, "--output", tmp_path / "quarter.yaml")
    assert code == 0 and "26 layers, 3,299,328 MACs" in out
    for wrong, problem in [
        (more, "--arg: needs --output"),
        (("--arg", "width", "--output", tmp_path / "x.yaml"), "--arg width: expected NAME=VALUE"),
        (("--arg", "a=1", "--arg", "a=2", "--output", tmp_path / "x.yaml"), "--arg a=2: a is given twice"),
        (("--arg", "depth=2", "--output", tmp_path / "x.yaml"), "depth"),
    ]:
        assert problem in refused(run("export", "squeezenet", *wrong))
    assert not (tmp_path / "x.yaml").exists()


def test_export_names_what_is_passed_over(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("export", "squeezenet")
    assert code == 0
    assert "workloads/squeezenet_cifar.yaml: 26 layers, 202,211,328 MACs" in out
    assert "passed over: BatchNorm2d: no multiply-accumulate over its parameters (18 times: norm1, fire2." in out
    shipped = data_dir("workloads") / "squeezenet_cifar.yaml"
    assert (tmp_path / "workloads" / "squeezenet_cifar.yaml").read_text() == shipped.read_text()
    assert "--input" in refused(run("export", "squeezenet", "--input", "1,3,x"))
    assert "unknown network" in refused(run("export", "squeezenot"))


TEXT_NETWORK = """
import torch
from torch import nn
class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)
    def forward(self, ids, mask=None):
        x = self.words(ids)
        return {"scores": self.head(x if mask is None else x * mask[..., None])}
def inputs(): return {"ids": torch.zeros(2, 5, dtype=torch.long)}
def nothing(): return ()
"""


def test_export_takes_several_inputs_of_any_type(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "text_network.py").write_text(TEXT_NETWORK)
    net = ("export", "text_network:Text", "--output", "text.yaml")
    for inputs, macs in [
        (("--input", "1,16:int64"), 384),
        (("--input", "ids=1,16:int64", "--input", "mask=1,16:bool"), 384),
        (("--inputs", "text_network:inputs"), 240),
    ]:
        code, out, _ = run(*net, *inputs)
        assert code == 0 and f"text.yaml: 2 layers, {macs} MACs" in out
    for wrong, problem in [
        (("--input", "1,16"), "does not run on an input of shape (1, 16): RuntimeError: Expected tensor for argument"),
        (("--input", "1,16:int65"), "found the type 'int65' (allowed: one of torch's"),
        (("--input", "a b=1,16"), "found the name 'a b'"),
        (("--input", "ids=1,2:int64", "--input", "1,2"), "a tensor without a name after one with a name"),
        (("--input", "ids=1,2:int64", "--input", "ids=1,2"), "'ids' is given twice"),
        (("--input", "1,2:int64", "--inputs", "text_network:inputs"), "--inputs: is given beside --input"),
        (("--inputs", "text_network"), "found 'text_network' (allowed: package.module:factory"),
        (("--inputs", "text_network:output"), "has no 'output'"),
        (("--inputs", "text_network:nothing"), "returned no arguments"),
        ((), "no input shape is given"),
    ]:
        assert problem in refused(run(*net, *wrong))


def test_mapper_writes_a_mapping_that_model_reads(run: Any, fc: Any, tmp_path: Path) -> None:
    arch, problem, ert = fc
    code, out, _ = run("mapper", *fc, *variables(FC), "--perfect", "--output", tmp_path / "best.yaml", "--json")
    assert code == 0
    best = json.loads(out)
    assert best["optimal"] is True and best["mapspace"] == "perfect factors"
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {"mapping": best["mapping"]}
    code, out, _ = run("model", arch, problem, tmp_path / "best.yaml", ert, *variables(FC), "--json")
    evaluated = json.loads(out)
    assert evaluated == {k: v for k, v in best.items() if k not in ("mapping", "optimal", "mapspace")}
    assert 1000 * best["energy_pj"] / best["computes"] <= FC["fJ_per_compute"]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(best["mapping"]))
    assert (
        json.loads(run("model", arch, problem, tmp_path / "bare.yaml", ert, *variables(FC), "--json")[1]) == evaluated
    )


def test_model_and_mapper_for_people_and_with_embedded_energies(run: Any, fc: Any, tmp_path: Path) -> None:
    _, problem, _ = fc
    code, out, _ = run(
        "mapper", ARCH, problem, "--var", "weight_bits=1", "--perfect", "--output", tmp_path / "best.yaml"
    )
    assert code == 0
    assert "Proven optimal among perfect factors." in out and "weights_spad Weights" in out and "Cycles:" in out
    code, out, _ = run("model", ARCH, problem, tmp_path / "best.yaml", "--var", "weight_bits=1")
    assert code == 0 and "pJ for each of 48,128 operations" in out
    assert "unknown component class 'regfile'" in refused(run("model", fc[0], problem, tmp_path / "best.yaml"))


def test_architecture_and_problem_in_one_file(run: Any, fc: Any, tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text((GOLDEN / "arch.yaml").read_text() + "\n" + Path(fc[1]).read_text())
    alone = run("mapper", *fc, *variables(FC), "--json")
    assert run("mapper", both, both, fc[2], *variables(FC), "--json") == alone


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_buffer_too_small_for_any_mapping(run: Any, fc: Any, tmp_path: Path, options: Any) -> None:
    arch = tmp_path / "arch.yaml"
    text = Path(fc[0]).read_text()
    assert "depth: 224, width: 16, datawidth: weight_bits" in text
    small = "depth: 1, width: 8, datawidth: weight_bits, multiple_buffering: 2"
    arch.write_text(text.replace("depth: 224, width: 16, datawidth: weight_bits", small))
    line = refused(run("mapper", arch, *fc[1:], *options))
    assert "no mapping" in line and "weights_spad" in line


def test_wrong_specifications_problems_and_tables(run: Any, fc: Any, tmp_path: Path) -> None:
    arch, problem, ert = fc
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(yaml.safe_dump({"mapping": FC["mapping"]}))

    def edited(path: Any, old: Any, new: Any) -> Any:
        text = Path(path).read_text()
        assert old in text
        (tmp_path / "edited.yaml").write_text(text.replace(old, new, 1))
        return tmp_path / "edited.yaml"

    def model(
        arch: Any = arch, problem: Any = problem, mapping: Any = mapping, ert: Any = ert, *, options: Any = ()
    ) -> Any:
        return refused(run("model", arch, problem, mapping, ert, *(options or variables(FC))))

    assert "'HStrides'" in model(problem=edited(problem, "Hstride: 1", "HStrides: 1"))
    assert "'sizes'" in model(arch=edited(arch, "spatial: {meshX: 14}", "sizes: 3"))
    assert "'keeps'" in model(arch=edited(arch, "keep: [Weights]", "keeps: [Weights]"))
    assert "'mac'" in model(ert=edited(ert, "system.mac", "system.max"))
    assert "no action for an operation" in model(ert=edited(ert, "name: compute", "name: ponder"))
    assert "glb_ipmap" in model(mapping=edited(mapping, "target: glb_ifmap", "target: glb_ipmap"))
    assert "factors of M" in model(mapping=edited(mapping, "M47", "M46"))
    assert "NAME=VALUE" in model(options=["--var", "act_bits"])
    assert "'bits' is not declared" in model(options=["--var", "bits=3"])
    assert "needs 16 words" in model(arch=edited(arch, "depth: 224, width: 16", "depth: 4, width: 2"))
    assert "cannot be read" in model(arch=tmp_path / "none.yaml")
    assert "line 1" in model(problem=edited(problem, "problem:", "problem: ]"))
    assert "`problem` key" in model(problem=arch)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a UTF-8 text file" in model(mapping=tmp_path / "binary.yaml")


def test_wrong_arguments_of_map(run: Any, quick: Any, workload: Any, own_store: Any, tmp_path: Path) -> None:
    assert "unknown engine 'guess' (allowed: native, timeloop)" in refused(run("map", workload, "--engine", "guess"))
    assert "--jobs" in refused(run("map", workload, "--jobs", "0"))
    assert ".csv, .parquet, .json" in refused(run("map", workload, "--output", tmp_path / "t.txt"))
    assert "no such folder" in refused(run("map", workload, "--output", tmp_path / "none" / "t.csv"))
    assert "unknown file or shipped workload" in refused(run("map", "squeezenot"))
    assert "'HStride'" in refused(run("map", _with(tmp_path, WORKLOAD.replace("Hstride", "HStride"))))
    assert "unknown field 'strides'" in refused(run("map", _with(tmp_path, WORKLOAD.replace("kind", "strides", 1))))
    assert not own_store.exists()
    own_store.write_bytes(b"half a store")
    assert "not a store of enos" in refused(run("map", workload))
    assert own_store.read_bytes() == b"half a store"


def _with(folder: Any, text: Any) -> Any:
    path = folder / "edited.yaml"
    path.write_text(text)
    return path


def test_a_layer_without_a_mapping_is_said_and_has_no_number(
    run: Any, quick: Any, workload: Any, tmp_path: Path
) -> None:
    arch = tmp_path / "arch.yaml"
    old, new = "keep: [Inputs], bypass: [Outputs, Weights]}", "keep: [Inputs, Weights], bypass: [Outputs]}"
    head, spad, tail = ARCH.read_text().partition("name: ifmap_spad")
    text = head + spad + tail.replace(old, new, 1)
    arch.write_text(text.replace("depth: 12, width: 16,", "depth: 1, width: act_bits,"))
    code, out, _ = run("map", workload, "--arch", arch, "--jobs", "1", "--output", tmp_path / "t.json")
    assert code == 0
    assert "no mapping: first, T8: " in out
    assert {r["e_tx_pj"] for r in json.loads((tmp_path / "t.json").read_text())["rows"]} == {None}
    code, _, _ = run("plot", tmp_path / "t.json", "--output", tmp_path / "b.png")
    assert code == 2  # there is nothing to draw


def test_doctor(run: Any, own_store: Any, tmp_path: Path) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    assert "not there yet" in out and "timeloop-mapper" in out and "numba" in out
    own_store.write_bytes(b"x")
    code, out, _ = run("doctor", "--json")
    assert "not a store of enos" in json.loads(out)["store"]


def test_a_closed_pipe_is_no_traceback(workload: Any) -> None:
    process = subprocess.run(
        [f"{sys.executable} -c 'from dse.cli import main; main()' map --help | head -1"],
        shell=True,
        capture_output=True,
        env=os.environ,
        check=False,
    )
    assert process.stderr == b""


def test_starting_imports_nothing_heavy() -> None:
    heavy = ["numba", "torch", "matplotlib", "rich", "joblib", "pyarrow", "networkx"]
    commands = "dse.cli.map, dse.cli.table, dse.cli.sweep, dse.cli.engine"
    script = f"import sys, {commands}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script]).strip() == b"[]"
