"""Runs on a cluster: the results of one machine, whichever workers are lost meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dse.cluster.connection import Connection
from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.runs import attempts
from search.runs.config import RunConfig
from search.runs.on_cluster import _check_workers, _gpus
from search.runs.run import do_run, open_run
from search.runs.stages import Run
from tests.search.runs.test_run import Process, assert_same, config, start, table

__all__ = ["config", "table"]  # fixtures


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with Connection("local:2") as opened:
        yield opened


@pytest.fixture
def whole(config: RunConfig, table: CostTable, tmp_path: Path) -> Path:
    """The run's folder as one machine leaves it."""
    start(config, table, tmp_path / "whole")
    return tmp_path / "whole"


def pids(connection: Connection) -> list[int]:
    return list(connection.cluster.asked(os.getpid).values())


def test_a_run_whose_workers_are_killed(
    config: RunConfig, table: CostTable, tmp_path: Path, whole: Path, connection: Connection
) -> None:
    entries: list[str] = []
    kills = 0

    def on_progress(stage: Any, record: Any) -> None:
        nonlocal kills
        entries.append(stage.name)
        if len(entries) in (2, 6):
            os.kill(sorted(pids(connection))[0], signal.SIGKILL)
            kills += 1

    run = open_run(tmp_path / "run", config, table, elsewhere=True)
    do_run(run, on_progress, connection=connection)
    assert kills == 2
    assert_same(run.folder, whole)
    assert not (run.folder / "attempts").exists()
    assert sorted(entries) == sorted(start(config, table, whole)[1])  # each epoch is reported once


def test_a_worker_that_does_not_see_the_folder(
    config: RunConfig, table: CostTable, tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", config, table)
    monkeypatch.setattr(attempts, "open_session", lambda run: "of another folder")
    with pytest.raises(InputError, match=r"^--cluster: worker tcp://.* does not see .*run; give --out a folder"):
        do_run(run, lambda stage, record: None, connection=connection)


def test_a_gpu_is_asked_of_workers_that_have_one(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", replace(config, device="cuda"), table, elsewhere=True)
    answers: dict[str, object] = {"a": 0.0, "b": OSError()}
    cluster: Any = SimpleNamespace(name="tcp://x:1", asked=lambda what, *_: answers if what is _gpus else {})
    with pytest.raises(InputError, match=r"^--cluster tcp://x:1: no worker has the resource GPU; start `dask worker"):
        _check_workers(cluster, run, "")
    answers["c"] = 1.0
    _check_workers(cluster, run, "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_processes_of_this_machine_take_its_gpu(
    config: RunConfig, table: CostTable, tmp_path: Path, connection: Connection
) -> None:
    assert connection.cluster.workers  # is open before the device is known
    run = open_run(tmp_path / "run", replace(config, device="cuda"), table, elsewhere=True)
    with pytest.raises(InputError, match="cuda"):
        do_run(run, lambda stage, record: None, connection=connection)


def test_what_a_stage_refuses_names_the_runs_folder(
    config: RunConfig, table: CostTable, tmp_path: Path, connection: Connection
) -> None:
    run = open_run(tmp_path / "run", config, table)
    for stage in run.stages:
        run.checkpoint(stage).path.write_bytes(b"PK damaged")
    with pytest.raises(InputError) as refused:
        do_run(run, lambda stage, record: None, connection=connection)
    assert str(refused.value).startswith(str(run.folder / "checkpoints"))
    assert "cannot be restored" in str(refused.value)


def test_a_killed_client_resumes_with_the_same_results(
    config: RunConfig, table: CostTable, tmp_path: Path, whole: Path
) -> None:
    table.save(tmp_path / "table.csv")
    killed = Process(tmp_path, None, 6, "--cluster", "local:2")
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not (killed.run / "results.json").exists()
    start(config, table, killed.run)  # without a cluster, at once
    assert_same(killed.run, whole)


@pytest.fixture
def opened(config: RunConfig, table: CostTable, tmp_path: Path) -> Run:
    return open_run(tmp_path / "run", config, table)


def test_a_new_attempt_takes_the_right_to_write_from_an_earlier_one(opened: Run) -> None:
    attempts.open_session(opened)
    stage = opened.stages[0]
    first = attempts.begin(opened, stage)
    opened.done_in(stage, first).checkpoint(stage).save([{"epoch": 1}])
    second = attempts.begin(opened, stage)
    assert opened.done_in(stage, second).checkpoint(stage).restore() == [{"epoch": 1}]
    with pytest.raises(InputError, match=r"attempts.* cannot be written"):
        opened.done_in(stage, first).checkpoint(stage).save([{"epoch": 2}])
    assert not attempts.finish(opened, stage, first)
    opened.done_in(stage, second).file(stage).write_text("{}")
    assert attempts.finish(opened, stage, second)
    assert opened.checkpoint(stage).restore() == [{"epoch": 1}]
    assert opened.finished() == [stage]


def test_what_attempts_have_done_is_kept_when_a_session_ends(opened: Run) -> None:
    session = attempts.open_session(opened)
    assert attempts.sees(opened.folder, session) and not attempts.sees(opened.folder, "another")
    stage = opened.stages[0]
    folder = attempts.begin(opened, stage)
    opened.done_in(stage, folder).checkpoint(stage).save([{"epoch": 1}])
    (folder / "checkpoints" / ".half.pt").write_text("half")
    attempts.close_session(opened)
    assert opened.checkpoint(stage).restore() == [{"epoch": 1}]
    assert not attempts.sees(opened.folder, session)
    assert [file.name for file in (opened.folder / "checkpoints").iterdir()] == [f"{stage.name}.pt"]


def test_an_older_checkpoint_does_not_replace_a_newer_one(opened: Run) -> None:
    attempts.open_session(opened)
    stage = opened.stages[0]
    folder = attempts.begin(opened, stage)
    opened.done_in(stage, folder).checkpoint(stage).save([{"epoch": 1}])
    opened.checkpoint(stage).save([{"epoch": 1}, {"epoch": 2}])
    os.utime(folder / "checkpoints" / f"{stage.name}.pt", ns=(1, 1))
    attempts.adopt(opened)
    assert len(opened.checkpoint(stage).restore()) == 2
