"""One run: what it leaves, how long it takes, how it is stopped. The programs are stand-ins that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.engines.timeloop import process
from tests.dse.engines.timeloop.recordings import program
from tests.processes import alive, needs_proc, until

IGNORES = "trap '' INT; sleep 600 & echo $! > {pids}; echo $$ >> {pids}; pwd >> {pids}; wait; wait; wait"


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_output_comes_back_and_nothing_is_left(tmp_path: Path, own_temporary_folder: Any) -> None:
    stand_in = program(tmp_path, 'cat "$1"; echo oops >&2; echo half > wanted.txt; echo x > other.txt; exit 3')
    run = process.run(stand_in, {"a": ["1", 2]}, ("wanted.txt", "missing.txt"), 20)
    assert (run.code, run.log, run.files) == (3, '{"a": ["1", 2]}oops\n', {"wanted.txt": "half\n"})
    assert not run.stopped and not run.killed
    assert not list(own_temporary_folder.iterdir())


def test_variables_that_change_timeloop_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELOOP_DISABLE_LINK_TRANSFERS", "1")
    run = process.run(program(tmp_path, "env; exit 1"), {}, (), 20)
    assert "PATH=" in run.log and "TIMELOOP" not in run.log


def test_the_limit_comes_as_one_interrupt(tmp_path: Path) -> None:
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    run = process.run(program(tmp_path, script), {}, (), 4.0, grace=20)
    assert (run.code, run.log) == (4, "ready\ninterrupted\n")
    assert run.stopped and not run.killed


@needs_proc
class TestProcesses:
    def test_a_program_that_ignores_the_interrupt_is_killed_with_all_it_started(
        self, tmp_path: Path, own_temporary_folder: Any
    ) -> None:
        pids = tmp_path / "pids"
        run = process.run(program(tmp_path, IGNORES.format(pids=pids)), {}, (), 4.0, grace=0.3)
        assert run.stopped and run.killed and run.code == -signal.SIGKILL
        child, program_id, _ = pids.read_text().split()
        until(lambda: not alive(int(child)) and not alive(int(program_id)))
        assert not list(own_temporary_folder.iterdir())

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_nothing_outlives_us(self, tmp_path: Path, own_temporary_folder: Any, number: Any) -> None:
        pids = tmp_path / "pids"
        stand_in = program(tmp_path, IGNORES.format(pids=pids))
        code = "from dse.engines.timeloop.process import run; from pathlib import Path; "
        code += f"run(Path({str(stand_in)!r}), {{}}, (), 60)"
        ours = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[4], stderr=subprocess.DEVNULL)
        until(lambda: pids.exists() and len(pids.read_text().split()) == 3)
        *ids, folder = pids.read_text().split()
        assert all(alive(int(i)) for i in ids) and Path(folder).is_dir()
        os.kill(ours.pid, number)
        ours.wait()
        until(lambda: not any(alive(int(i)) for i in ids) and not list(own_temporary_folder.iterdir()))


def test_a_log_without_end_is_cut(tmp_path: Path) -> None:
    run = process.run(program(tmp_path, "echo start; yes | head -c 3000000; echo; echo end; exit 1"), {}, (), 20)
    assert run.log.startswith("start\n") and run.log.endswith("end\n")
    assert len(run.log) < 200_000


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be run: no such file"):
        process.run(tmp_path / "missing", {}, (), 1)
    (tmp_path / "text").write_text("no program")
    with pytest.raises(InputError, match="cannot be run: permission denied"):
        process.run(tmp_path / "text", {}, (), 1)
