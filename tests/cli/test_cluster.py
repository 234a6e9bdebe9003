"""`--cluster`: the results of one machine, however workers and the command itself end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_processes import ROOT, SAYS, Mapping
from tests.conftest import refused
from tests.processes import descendants, needs_proc, until

LOCAL = ("--cluster", "local:2")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_mapping_that_is_ended_leaves_no_process_and_resumes(
    workload: str, tmp_path: Path, number: signal.Signals
) -> None:
    mapping = Mapping(workload, tmp_path, workers=LOCAL, halts=9)
    until(lambda: mapping.rows() >= 4)
    assert len(descendants(mapping.process.pid)) >= 2
    code, out, err = mapping.stop(number)
    assert (code, out) == (-9 if number == signal.SIGKILL else 128 + number, "")
    if number != signal.SIGKILL:
        assert err == SAYS[number]
    done = mapping.rows()
    assert 4 <= done < 9
    out, err = Mapping(workload, tmp_path, workers=LOCAL).process.communicate()
    assert f"{done} of 18 rows from the store, {18 - done} computed" in out
    assert err == ""


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Path]:
    """The file of a scheduler with one worker, both as a user starts them; in the background of the test."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    common = ["--scheduler-file", str(file)]
    commands = [
        ["scheduler", *common, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        ["worker", *common, "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)],
    ]
    started = [
        subprocess.Popen([sys.executable, "-m", "dask", *command], env=environment, cwd=tmp_path,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        for command in commands
    ]  # fmt: skip
    until(file.exists)
    try:
        yield file
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_scheduler_that_runs_already(run: Any, workload: str, tmp_path: Path, scheduler: Path) -> None:
    options = ("--candidate", "T8", "--perfect")
    there = run(
        "map", workload, *options, "--store", tmp_path / "a", "--cluster", scheduler, "--output", tmp_path / "a.csv"
    )
    address = json.loads(scheduler.read_text())["address"].removeprefix("tcp://")
    again = run("sweep", workload, *options, "--set", "glb_ifmap.depth=4096,8192", "--store", tmp_path / "b",
                "--cluster", address, "--summary", tmp_path / "b.csv")  # fmt: skip
    assert (there[0], again[0]) == (0, 0), there[2] + again[2]
    run("map", workload, *options, "--store", tmp_path / "c", "--output", tmp_path / "c.csv", "--jobs", "1")
    run("sweep", workload, *options, "--set", "glb_ifmap.depth=4096,8192", "--store", tmp_path / "d",
        "--summary", tmp_path / "d.csv", "--jobs", "1")  # fmt: skip
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "d.csv").read_bytes()


@pytest.mark.parametrize("command", [("map",), ("sweep", "--set", "glb_ifmap.depth=4096")])
def test_what_does_not_name_a_cluster(run: Any, workload: str, command: tuple[str, ...]) -> None:
    name, *options = command
    assert "--cluster: found 'nowhere'" in refused(run(name, workload, *options, "--cluster", "nowhere"))
    both = run(name, workload, *options, "--cluster", "local:2", "--jobs", "2")
    assert "--jobs: does not go with --cluster" in refused(both)
