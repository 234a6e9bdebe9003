"""How commands end: by a signal, without a parent, on a full disk; and what keeps them from starting at all."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dse.cli import main
from dse.core.errors import InputError
from dse.core.processes import StoppedError, stopping_on_signals
from dse.table.store import Store
from tests.conftest import refused
from tests.processes import descendants, needs_proc, until, until_gone

ROOT = Path(__file__).parents[2]
SAYS = {signal.SIGINT: "interrupted; what is done is kept\n", signal.SIGTERM: "terminated; what is done is kept\n"}


class Mapping:
    """`enos map` on a small workload, 18 searches, in a session of its own."""

    def __init__(
        self, workload: str, folder: Path, *options: str, workers: tuple[str, str] = ("--jobs", "2"), **held: int
    ) -> None:
        self.store = folder / "store.sqlite"
        arguments = ", ".join(f"{name}={value}" for name, value in held.items())
        code = f"from tests.cli.held import enos; enos({str(folder / 'log')!r}, {arguments})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *options, "map", workload, "--store", str(self.store), *workers],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def rows(self) -> int:
        try:
            with Store(self.store, create=False) as opened:
                return len(opened)
        except InputError:  # the process is just making it
            return 0

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        """Ends the process as a user does: Ctrl-C reaches its whole group, `kill` only itself; nobody is left then."""
        pids = descendants(self.process.pid)
        send = os.killpg if number == signal.SIGINT else os.kill
        send(self.process.pid, number)
        out, err = self.process.communicate()  # returns when the last process that holds the pipes has ended
        until_gone(pids)
        return self.process.returncode, out, err


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_mapping_and_what_is_done_is_kept(
    workload: str, tmp_path: Path, number: signal.Signals
) -> None:
    mapping = Mapping(workload, tmp_path, halts=9)
    until(lambda: mapping.rows() >= 4)
    assert len(descendants(mapping.process.pid)) >= 2
    code, out, err = mapping.stop(number)
    assert (code, out, err) == ((-9, "", "") if number == signal.SIGKILL else (128 + number, "", SAYS[number]))
    done = mapping.rows()
    assert 4 <= done < 9
    out, err = Mapping(workload, tmp_path).process.communicate()
    assert f"{done} of 18 rows from the store, {18 - done} computed" in out
    assert err == ""


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_workers_start(workload: str, tmp_path: Path, number: signal.Signals) -> None:
    mapping = Mapping(workload, tmp_path, halts=1)
    until(lambda: descendants(mapping.process.pid))
    code, out, err = mapping.stop(number)
    if number == signal.SIGKILL:  # what a half started worker is left to say is joblib's
        assert code == -signal.SIGKILL
    else:
        assert (code, out, err) == (128 + number, "", SAYS[number])


def test_a_worker_that_is_killed_is_one_line(workload: str, tmp_path: Path) -> None:
    mapping = Mapping(workload, tmp_path, dies=True)
    out, err = mapping.process.communicate()
    assert (mapping.process.returncode, out) == (2, "")
    assert err.startswith("error: --jobs: a worker was killed") and err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_only_the_first_signal_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    cleaned = False
    try:
        with pytest.raises(StoppedError) as stopped, stopping_on_signals(pytest.fail):
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            finally:
                os.kill(os.getpid(), number)
                cleaned = True
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert cleaned and stopped.value.exit_code == 128 + number


def test_numba_finishes_before_a_signal_is_raised() -> None:
    steps: list[str] = []
    script = "def unpickle():\n os.kill(os.getpid(), signal.SIGTERM)\n steps.append('inside')"
    numba: dict[str, Any] = {"__name__": "numba.core.serialize", "os": os, "signal": signal, "steps": steps}
    exec(script, numba)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    tracer = sys.gettrace()
    try:
        with pytest.raises(StoppedError), stopping_on_signals(pytest.fail):
            numba["unpickle"]()
            steps.append("after")
    finally:
        sys.settrace(tracer)
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert steps == ["inside"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_on_signals(pytest.fail):
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "work",
    [
        pytest.param("raise SystemError", id="made into another exception"),
        pytest.param("while True: time.sleep(1)", id="lost, or still running"),
    ],
)
def test_a_signal_counts_whatever_becomes_of_its_exception(number: signal.Signals, work: str) -> None:
    code = f"""
import os, signal, time
import dse.cli, dse.core.processes
dse.core.processes.GRACE_SECONDS = 0.1
def work(*arguments, **options):
    try:
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    except BaseException:
        {work}
dse.cli.enos.main = work
dse.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", SAYS[number])


def test_verbose_shows_what_the_workers_log(workload: str, tmp_path: Path) -> None:
    mapping = Mapping(workload, tmp_path, "-v")
    out, err = mapping.process.communicate()
    assert mapping.process.returncode == 0 and "18 computed" in out, err
    assert err.startswith("enos.table: 0 of 18 rows are in the store\nenos.table: 18 searches with 2 processes\n")
    pids = re.findall(r"^enos\.mapper: a search in process (\d+)$", err, re.MULTILINE)
    assert len(pids) == 18 and str(mapping.process.pid) not in pids
    assert "-v, --verbose" in enos("map", "--help").stdout


def test_a_full_disk_is_one_line(run: Any, workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/metrics.jsonl")

    monkeypatch.setattr("dse.cli.map.map_plans", full)
    assert "runs/metrics.jsonl: no space left on device" in refused(run("map", workload))


def enos(*arguments: str, path: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """`enos` as its script starts it: without the working directory on Python's path."""
    command = [sys.executable, "-P", "-c", "from dse.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, [path]), str(ROOT)])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("name", ["search.py", "search/__init__.py"])
def test_a_file_of_the_users_that_has_a_name_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('not this')")
    assert "unknown field 'nonsense'" in enos("run", "--plan", "--set", "nonsense=1", cwd=tmp_path).stderr
    hidden = enos("doctor", cwd=tmp_path, path=str(tmp_path))
    assert (hidden.returncode, hidden.stdout) == (2, "")
    assert hidden.stderr.startswith(f"error: {tmp_path / name}: hides the package 'search' of ENOS; rename it")
    module = subprocess.run([sys.executable, "-m", "dse.cli", "doctor"], cwd=tmp_path, capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert (module.returncode, module.stderr) == (2, hidden.stderr)


def test_files_in_the_working_directory_do_not_reach_the_workers(workload: str, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('not this')")
    code = f"from tests.cli.held import enos; enos({str(tmp_path / 'log')!r})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "map", workload, "--store", str(tmp_path / "store.sqlite"), "--jobs", "2"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_other_systems_than_unix_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr("os.name", "nt")
        main(["doctor"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: ENOS runs on Linux and macOS; on Windows use it in WSL\n"


def test_the_command_line_starts_without_what_only_unix_has() -> None:
    code = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; import dse.cli"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
