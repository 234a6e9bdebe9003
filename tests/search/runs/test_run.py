"""Runs from end to end on a tiny network: what they leave behind, and that a kill at any moment changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.data.datasets import DATASETS, Dataset, digits
from search.runs.config import RunConfig, load_config
from search.runs.inputs import network_of
from search.runs.run import do_run, open_run
from search.runs.stages import Run

SMALL = """
threads: 1
jobs: 1
name: tiny
network: {factory: "tests.search.tiny:tiny"}
data: {name: digits, subset: 400, augment: false}
lambdas: [0.5]
baselines: [T8, BC8]
"""
TINY = f"""{SMALL}
seeds: [0, 1]
search: {{epochs: 3, warmup_epochs: 1, batch_size: 40, lr: 0.01}}
relearn: {{epochs: 3, batch_size: 40, lr: 0.01}}
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(ROOT)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return load_config(tmp_path / "tiny.yaml")


@pytest.fixture
def table(config: RunConfig, make_table: Any) -> CostTable:
    found: CostTable = make_table(network_of(config))
    return found


def start(config: RunConfig, table: CostTable, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Does the run; returns its results and the stages and epochs that were worked on."""
    worked: list[str] = []
    results = do_run(open_run(folder, config, table), lambda stage, record: worked.append(stage.name))
    return results, worked


def test_a_run_leaves_everything_behind(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    results, worked = start(config, table, tmp_path / "run")
    assert len(worked) == 2 * (2 * 3 + 3 + 3)
    run = tmp_path / "run"
    assert json.loads((run / "results.json").read_text()) == results
    assert [(p["kind"], p["seed"]) for p in results["networks"]] == [
        ("baseline", 0), ("baseline", 0), ("baseline", 1), ("baseline", 1), ("searched", 0), ("searched", 1),
    ]  # fmt: skip
    for point in results["networks"]:
        assert 0 <= point["test_accuracy"] <= 1
    for point in results["networks"][-2:]:
        assignment = yaml.safe_load((run / "assignments" / f"seed{point['seed']}-lambda0.5.yaml").read_text())
        assert assignment == point["assignment"]
        assert point["energy"] == pytest.approx(table.total_pj(assignment) / results["unit_pj"])
        assert 0.25 < point["energy_expected"] < 1
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(worked) + len(list((run / "stages").iterdir()))
    assert load_config(run / "config.yaml") == config
    assert CostTable.load(run / "table.csv").layers == table.layers


def test_finished_stages_are_not_done_again(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    results, _ = start(config, table, tmp_path / "run")
    run = Run(tmp_path / "run", config, table)
    last = run.file(run.stages[-1])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").iterdir()}
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    last.unlink()
    again, _ = start(config, table, tmp_path / "run")
    assert again == results
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics


def test_a_process_reads_the_data_once_a_seed(
    config: RunConfig, table: CostTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def reader(directory: Path | None, subset: int | None, seed: int, validation: float | None) -> Dataset:
        read.append(seed)
        return digits(directory, subset, seed, validation)

    monkeypatch.setitem(DATASETS, "digits", reader)
    start(replace(config, data=replace(config.data, subset=410)), table, tmp_path / "run")
    assert read == [0, 1]


def test_other_configurations_and_tables_are_refused(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    open_run(tmp_path / "run", config, table)
    with pytest.raises(InputError, match=r"config.yaml: the run was begun with seeds = \(0, 1\), now it is \(0,\)"):
        open_run(tmp_path / "run", replace(config, seeds=(0,)), table)
    cheaper = CostTable(tuple({**row, "e_tx_pj": row["e_tx_pj"] / 2} for row in table.rows))
    with pytest.raises(InputError, match=r"table.csv: the run was begun with other energies"):
        open_run(tmp_path / "run", config, cheaper)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"full: is not empty and holds no run"):
        open_run(tmp_path / "full", config, table)


def test_what_cannot_fit_is_found_before_training(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    wrong = [
        (
            replace(config, network=replace(config.network, args={"image": 16})),
            r"network: takes images of \(1, 16, 16\)",
        ),
        (
            replace(config, network=replace(config.network, args={"classes": 5})),
            r"table: layer 'fc' has weights of C96 M10, in the network they are C96 M5",
        ),
        (
            replace(config, network=replace(config.network, args={"width": 5})),
            r"table: layer 'conv' has weights of M6 R3 S3, in the network they are M5 R3 S3",
        ),
        (
            replace(config, network=replace(config.network, args={"depth": 5})),
            r"factory 'tests.search.tiny:tiny': tiny\(\) fails",
        ),
        (
            replace(config, network=replace(config.network, factory="nothing")),
            r"unknown network 'nothing' \(allowed: .*squeezenet",
        ),
        (replace(config, network=replace(config.network, factory="tests.search.tiny:other")), r"has no .other."),
        (replace(config, network=replace(config.network, factory="pathlib:Path")), r"returned a PosixPath"),
        (replace(config, network=replace(config.network, factory="tests.search.tiny:frozen")), r"no weight that"),
        (replace(config, device="cuda:99"), r"cuda"),
    ]
    for i, (changed, problem) in enumerate(wrong):
        with pytest.raises(InputError, match=problem):
            start(changed, table, tmp_path / f"run{i}")


def test_two_processes_cannot_work_on_one_run(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", config, table)

    def second(stage: Any, record: Any) -> None:
        with pytest.raises(InputError, match=r"run: another process is working on this run"):
            do_run(run, lambda stage, record: None)

    do_run(replace(run, config=replace(config, seeds=(0,))), second)


def test_a_damaged_checkpoint_is_named(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", config, table)
    run.checkpoint(run.stages[0]).path.write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=r"seed0-search-0.5.pt: cannot be restored"):
        do_run(run, lambda stage, record: None)


def assert_same(run: Path, whole: Path) -> None:
    """The same as a run that was not stopped, with nothing half-written left."""
    assert (run / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert without_seconds(run) == without_seconds(whole)
    assert not list(run.rglob(".*"))


def without_seconds(run: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


class Process:
    """`enos search` on the tiny network, in a process that waits at a line of its metrics to be stopped."""

    def __init__(self, folder: Path, jobs: int | None, line: int, *options: str) -> None:
        self.run = folder / "runs" / "tiny"
        self.line = line
        code = f"from tests.search.held import main_until; main_until({line})"
        command = [sys.executable, "-c", code, "search", folder / "tiny.yaml", "--table", folder / "table.csv",
                   "--out", self.run.parent, *([] if jobs is None else ["--jobs", jobs]), *options]  # fmt: skip
        self.process = subprocess.Popen(
            [*map(str, command)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self, how: signal.Signals) -> int:
        """Waits for the line, then stops the process; returns its exit code."""
        self.reach()
        self.process.send_signal(how)
        return self.process.wait()

    def reach(self) -> None:
        """Waits for the line."""
        metrics = self.run / "metrics.jsonl"
        while self.process.poll() is None:
            if metrics.exists() and len(metrics.read_bytes().splitlines()) >= self.line:
                break
            time.sleep(0.02)

    def errors(self) -> str:
        """What it wrote to standard error; known when its workers have ended as well."""
        return self.process.communicate()[1]


def test_killed_at_any_moment_and_started_again_gives_the_same(
    config: RunConfig, table: CostTable, tmp_path: Path
) -> None:
    table.save(tmp_path / "table.csv")
    whole = tmp_path / "whole"
    start(config, table, whole)
    for line in (2, 10):  # within a search and within a baseline
        killed = Process(tmp_path, 1, line)
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert not (killed.run / "results.json").exists()
    start(config, table, killed.run)
    assert_same(killed.run, whole)
