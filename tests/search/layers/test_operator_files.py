"""Runs whose configuration names an operators file, from the mapping to the export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from search.runs.results import labels
from search.runs.run import read_run
from tests.cli.test_search import in_process
from tests.search.runs.test_run import ROOT, TINY
from tests.search.tiny import tiny


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three of the shipped operators at few precisions, with short names of one's own."""
    monkeypatch.chdir(ROOT)
    document: dict[str, Any] = yaml.safe_load((data_dir("arch_specs") / "operators_extended.yaml").read_text())
    operators = {name: document["operators"][name] for name in ("typical", "deep_shift", "xnor")}
    operators["typical"]["bits"], operators["deep_shift"]["bits"] = [8], [4]
    operators["deep_shift"]["short"] = "SHIFT"
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"bits": [8], "operators": operators}, sort_keys=False))
    return path


def arguments(folder: Path, operators: Path) -> list[object]:
    text = TINY.replace("baselines: [T8, BC8]", "baselines: [T8, SHIFT4]").replace("seeds: [0, 1]", "seeds: [0]")
    (folder / "tiny.yaml").write_text(f"{text}operators: {operators}\n")
    return ["run", folder / "tiny.yaml", "--out", folder / "runs", "--store", folder / "store.sqlite"]


def test_from_mapping_to_report_and_export(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, *arguments(tmp_path, own))
    assert code == 0, err
    assert "all SHIFT4" in out and "all T8" in out
    run = tmp_path / "runs" / "tiny"
    assert CostTable.load(run / "table.csv").candidates == ("T8", "SHIFT4", "XN1")
    results = json.loads((run / "results.json").read_text())
    assert results["candidates"][1:] == [
        {"name": "SHIFT4", "operator": "deep_shift", "bits": 4},
        {"name": "XN1", "operator": "xnor", "bits": 1},
    ]
    assert set(results["networks"][-1]["probabilities"]["conv"]) == {"T8", "SHIFT4", "XN1"}
    page = (run / "report.html").read_text()
    own.unlink()  # what a finished run needs lies in its folder
    assert in_process(capsys, "report", run)[0] == 0 and (run / "report.html").read_text() == page
    assert [c.name for c in read_run(run).config.declared] == ["T8", "SHIFT4", "XN1"]
    export = ("export-network", run, "--no-onnx", "--stage", "seed0-baseline-SHIFT4")
    code, _, err = in_process(capsys, *export)
    assert code == 0, err
    assert yaml.safe_load((run / "export" / "assignment.yaml").read_text()) == {"conv": "SHIFT4", "fc": "SHIFT4"}


def test_a_run_does_not_go_on_with_other_operators(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tmp_path, own)
    assert in_process(capsys, *command)[0] == 0
    text = own.read_text()
    own.write_text(f"# a remark\n{text}")
    assert in_process(capsys, *command)[0] == 0
    own.write_text(text.replace("log2(reduction + 1)", "log2(reduction + 2)"))
    table = tmp_path / "runs" / "tiny" / "table.csv"
    code, _, err = in_process(capsys, "search", tmp_path / "tiny.yaml", "--table", table, "--out", tmp_path / "runs")
    assert code == 2 and "table: was made with other operators" in err and err.count("\n") == 1


def test_a_table_may_have_more_candidates_than_the_run(
    tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    make_table(tiny(), "operators_extended").save(tmp_path / "table.csv")
    (tmp_path / "tiny.yaml").write_text(TINY)
    search = ("search", tmp_path / "tiny.yaml", "--table", tmp_path / "table.csv", "--out", tmp_path / "runs")
    code, out, _ = in_process(capsys, *search, "--set", "seeds=[0]")
    assert code == 0 and "searched, lambda 0.5" in out
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    assert "DS8" not in results["networks"][-1]["probabilities"]["conv"]
    extended = ("--set", "operators=operators_extended", "--set", "name=more", "--set", "seeds=[0]")
    code, _, _ = in_process(capsys, *search, *extended, "--set", "baselines=[T8, XN1]")
    assert code == 0
    results = json.loads((tmp_path / "runs" / "more" / "results.json").read_text())
    assert "DS8" in results["networks"][-1]["probabilities"]["conv"]


def test_results_without_candidates_are_of_the_shipped_ones() -> None:
    assert [label.name for label in labels({})] == [c.name for c in load_candidates()]
