"""Stages side by side: the same results, and no worker outlives its run."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.runs import run as runs
from search.runs.config import RunConfig
from search.runs.run import default_jobs, do_run, open_run
from tests.processes import descendants, needs_proc, until, until_gone
from tests.search.runs.test_run import Process, assert_same, config, start, table

__all__ = ["config", "table"]  # fixtures


def held(run: Path) -> bool:
    """Whether a worker lives."""
    with (run / "lock-workers").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_the_number_of_jobs_changes_no_result(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    _, in_turn = start(config, table, one)
    results, side_by_side = start(replace(config, jobs=2), table, several)
    assert sorted(side_by_side) == sorted(in_turn)
    assert_same(several, one)
    again, finished = start(config, table, several)
    assert again == results and sorted(finished) == sorted(in_turn)


def test_as_many_jobs_as_cores_can_feed(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    for threads, device, jobs in [(1, "cpu", 4), (3, "cpu", 1), (8, "cpu", 1), (None, "cpu", 1), (1, "cuda:0", 1)]:
        assert default_jobs(replace(config, jobs=None, threads=threads, device=device)) == jobs
    assert default_jobs(replace(config, jobs=2, device="cuda")) == 2


def test_what_a_worker_refuses_reads_as_usual(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", config, table)
    for stage in run.stages:
        run.checkpoint(stage).path.write_bytes(b"PK damaged")
    with pytest.raises(InputError) as in_turn:
        do_run(run, lambda stage, record: None)
    for stage in run.stages[1:]:
        run.checkpoint(stage).path.unlink()
    with pytest.raises(InputError) as side_by_side:
        do_run(run, lambda stage, record: None, jobs=2)
    assert str(side_by_side.value) == str(in_turn.value)
    assert not held(run.folder)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [("disk", InputError, r"^a\.pt: no space left on device$"), ("defect", RuntimeError, r"LookupError: a defect\n$")],
)
def test_what_stops_a_worker_is_told_as_it_is(
    config: RunConfig, table: CostTable, tmp_path: Path, kind: str, error: type[Exception], text: str
) -> None:
    network = replace(config.network, factory="tests.search.tiny:failing", args={"kind": kind})
    run = open_run(tmp_path / "run", replace(config, network=network), table)
    with pytest.raises(error, match=text):
        do_run(run, lambda stage, record: None, jobs=2)
    assert not held(run.folder)


def test_the_end_of_a_worker_is_one_line(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    dying = replace(config, network=replace(config.network, factory="tests.search.tiny:dying"))
    run = open_run(tmp_path / "run", dying, table)
    with pytest.raises(InputError, match="jobs: a worker has ended with code 3"):
        do_run(run, lambda stage, record: None, jobs=2)
    assert not held(run.folder)


def test_killed_and_started_again_gives_the_same(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.csv")
    whole = tmp_path / "whole"
    start(config, table, whole)
    killed = Process(tmp_path, 2, 6)
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not (killed.run / "results.json").exists()
    start(replace(config, jobs=2), table, killed.run)  # at once: workers may still live
    assert "Traceback" not in killed.errors()
    assert_same(killed.run, whole)


@needs_proc
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_the_workers_first(
    config: RunConfig, table: CostTable, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    table.save(tmp_path / "table.csv")
    process = Process(tmp_path, 2, 3, "--set", "relearn.epochs=2000")  # its workers are still at work then
    process.reach()
    workers = descendants(process.process.pid)
    assert process.stop(number) == 128 + number
    assert not held(process.run)
    assert process.errors() == f"{word}; what is done is kept\n"
    until_gone(workers)


@needs_proc
def test_an_interrupt_while_workers_start(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.csv")
    process = Process(tmp_path, 2, 10_000)
    until(lambda: descendants(process.process.pid))
    workers = descendants(process.process.pid)
    os.killpg(process.process.pid, signal.SIGINT)
    assert process.errors() == "interrupted; what is done is kept\n"
    assert process.process.returncode == 130
    until_gone(workers)


def test_a_run_waits_for_workers_that_are_about_to_end(
    config: RunConfig, table: CostTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", replace(config, seeds=(0,)), table)
    with (run.folder / "lock-workers").open("w") as worker:
        fcntl.flock(worker, fcntl.LOCK_EX)
        with monkeypatch.context() as patched, pytest.raises(InputError, match="workers of an earlier process"):
            patched.setattr(runs, "WORKERS_END_S", 0.1)
            do_run(run, lambda stage, record: None)
        threading.Timer(0.3, fcntl.flock, (worker, fcntl.LOCK_UN)).start()
        assert do_run(run, lambda stage, record: None)["networks"]
