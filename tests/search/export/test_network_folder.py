"""Files of a finished run: what is written builds the same network again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from dse.cli.export_network import export_network
from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.workload.layers import read_workload
from dse.workload.networks import Network
from search.data.datasets import digits
from search.export.network_folder import assigned_workload, export_run
from search.runs.config import load_config
from search.runs.inputs import network_of
from search.runs.run import do_run, open_run
from search.supernet import searchable, uniform
from search.training.train import accuracy
from tests.search.runs.test_run import ROOT, TINY
from tests.search.tiny import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny network: two seeds, each searched once, two baselines."""
    from tests.search.conftest import synthetic_table

    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config(folder / "tiny.yaml")
        do_run(open_run(folder / "tiny", config, synthetic_table(network_of(config))), lambda stage, record: None)
    return folder / "tiny"


def results(run: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = yaml.safe_load((run / "results.json").read_text())["networks"]
    return found


def test_the_files_build_the_relearned_network_again(run: Path, tmp_path: Path) -> None:
    name, files = export_run(run, tmp_path / "out", onnx=False)
    assert [f.name for f in files] == ["network.pt", "assignment.yaml", "workload.yaml"]
    assert name.startswith("seed") and "relearn" in name
    assignment = yaml.safe_load((tmp_path / "out" / "assignment.yaml").read_text())
    torch.manual_seed(99)  # other first weights
    fixed = searchable(tiny().module, CostTable.load(run / "table.csv")).discretise(assignment)
    fixed.load_state_dict(torch.load(tmp_path / "out" / "network.pt", weights_only=True))
    seed = int(name[4])
    point = next(p for p in results(run) if p["kind"] == "searched" and p["seed"] == seed)
    assert point["assignment"] == assignment
    assert accuracy(fixed, digits(None, 400, seed).test) == point["test_accuracy"]
    best = max(p["validation_accuracy"] for p in results(run) if p["kind"] == "searched")
    assert point["validation_accuracy"] == best


def test_the_workload_has_the_candidates_and_is_read_back(run: Path, tmp_path: Path) -> None:
    name, (_, _, path) = export_run(run, tmp_path, "seed1-baseline-BC8", onnx=False)
    assert name == "seed1-baseline-BC8"
    workload = read_workload(path)
    assert workload.name == "tiny"
    assert {layer.name: layer.candidate for layer in workload.layers} == {"conv": "BC8", "fc": "BC8"}


def test_the_command_writes_onnx_beside_them(run: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript (pip install 'enos-dse[onnx]')")
    done = CliRunner().invoke(export_network, [str(run)])
    assert done.exit_code == 0, done.output
    assert (run / "export" / "network.onnx").stat().st_size > 1000
    assert str(run / "export" / "network.onnx") in done.output


def images() -> dict[str, torch.Tensor]:
    return {"input": torch.rand(3, 1, 8, 8)}


def test_the_command_takes_the_inputs_of_the_onnx_file(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript (pip install 'enos-dse[onnx]')")
    onnx = pytest.importorskip("onnx")
    factory = ["--inputs", f"{__name__}:images"]
    for options, shape in ((factory, ["batch", 1, 8, 8]), (["--input", "2,1,8,8"], ["batch", 1, 8, 8])):
        done = CliRunner().invoke(export_network, [str(run), "--out", str(tmp_path), *options])
        assert done.exit_code == 0, done.output
        (taken,) = onnx.load(tmp_path / "network.onnx").graph.input
        assert taken.name == "input"
        assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "1,1,8,8", "--inputs", "a:b"], r"^--inputs: is given beside --input"),
        (["--input", "1,1,8,8", "--no-onnx"], r"^--no-onnx: does not go with --input"),
        (["--input", "1,1,x"], r"^--input: found '1,1,x'"),
        (["--inputs", f"{__name__}:nothing"], r"^inputs .*: module .* has no 'nothing'"),
        (["--input", "1,1,3,3"], r"^network: fails with these inputs: "),
    ],
)
def test_wrong_inputs_are_one_line(options: list[str], message: str, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx and onnxscript (pip install 'enos-dse[onnx]')")
    done = CliRunner().invoke(export_network, [str(run), "--out", str(tmp_path), *options])
    assert isinstance(done.exception, InputError)
    assert re.search(message, str(done.exception)), str(done.exception)
    assert not (tmp_path / "network.onnx").exists()


def test_what_is_no_finished_stage_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--stage: unknown stage 'seed7' \(allowed: seed0-baseline-T8"):
        export_run(run, tmp_path / "out", "seed7")
    with pytest.raises(InputError, match=r"config.yaml: cannot be read"):
        export_run(tmp_path, tmp_path / "out")
    record = run / "stages" / "seed0-baseline-T8.json"
    kept = record.read_text()
    record.unlink()
    try:
        with pytest.raises(InputError, match=r"stage seed0-baseline-T8 is not finished"):
            export_run(run, tmp_path / "out", "seed0-baseline-T8")
    finally:
        record.write_text(kept)
    assert not (tmp_path / "out").exists()


def test_an_assignment_of_another_network_is_refused(make_table: Any) -> None:  # type: ignore[no-untyped-def]
    network = Network("net", tiny().module, (1, 1, 8, 8))
    other = {**uniform(make_table(network), "T8"), "head": "T8"}
    with pytest.raises(InputError, match=r"assignment: does not fit the network in head"):
        assigned_workload(network, other)
