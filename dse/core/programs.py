"""Other programs, started in a group of their own of which nothing is left, however this process ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dse.core.files import system_errors

# Waits for a line. If its input ends without one, because we were killed, it ends the program's process group and
# removes the folder, if there is one. It outlives us: it has a session of its own and is not a child of ours.
_WATCH = 'exec 3<&0; { read _ || { kill -9 "-$1"; [ -z "$2" ] || rm -rf -- "$2"; }; } <&3 &'

# Becomes the program once it is told that the one above watches it; if we are killed before that, it ends.
_START = 'read _ || exit 1; exec "$@" </dev/null'


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], folder: Path, log: Path, *, environment: Mapping[str, str] | None = None,
    temporary: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """A program in a session of its own, watched; its group is gone when the context is left or this process ends.

    Args:
        folder: where it runs.
        log: file that gets what it prints.
        environment: its environment; None for ours.
        temporary: whether the folder is removed at the end, also where this process is killed.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _START, "sh", *command], cwd=folder, env=environment, stdin=subprocess.PIPE,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    watch = None
    try:
        watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(process.pid), str(folder) if temporary else ""],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.close()
        yield process
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)
        if watch is not None:
            watch.communicate(b"\n")


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to the program's whole group, which is known by the program's id until that is waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def run_program(command: Sequence[str | Path], folder: Path, log: Path) -> tuple[int, str]:
    """Runs a program to its end; returns its exit code and what it printed.

    Raises:
        InputError: the log cannot be written.

    Example:
        >>> run_program(["echo", "done"], Path("."), Path("echo.log"))
        (0, 'done\\n')
    """
    with system_errors(log):
        with started(command, folder, log) as process:
            code = process.wait()
        return code, log.read_text("utf-8", errors="replace")
