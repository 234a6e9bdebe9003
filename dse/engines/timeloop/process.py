"""One run of a Timeloop program: a private folder, a time limit, and nothing left behind however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.core.files import reason
from dse.core.programs import signal_group, started

GRACE_SECONDS = 20.0
"""How long a program may take to write its results after it was asked to stop."""

_INPUT = "input.yaml"
_LOG = "log.txt"
_LOG_BYTES = 65536  # of the start and of the end of a log


@dataclass(frozen=True)
class Run:
    """How a program ended.

    `files` are the texts it wrote, by name; `code` is the exit code, negative for a signal. `stopped` says that it was
    interrupted at its time limit, `killed` that it did not react.
    """

    code: int
    log: str
    files: Mapping[str, str]
    stopped: bool
    killed: bool


def run(
    program: Path,
    document: Mapping[str, Any],
    outputs: tuple[str, ...],
    seconds: float,
    grace: float = GRACE_SECONDS,
) -> Run:
    """Runs a Timeloop program on one input document.

    After `seconds` it gets one SIGINT, upon which `timeloop-mapper` writes what it has found; after `grace` more, or
    if this process has to stop, the whole process group is killed.

    Args:
        outputs: names of the files that are wanted.

    Raises:
        InputError: the program cannot be started, or there is no room for its files.
    """
    folder = _folder(document)
    try:
        with _started(program, folder) as process:
            stopped = killed = False
            if not _finished(process, seconds):
                stopped = True
                signal_group(process, signal.SIGINT)
                if not _finished(process, grace):
                    killed = True
                    signal_group(process, signal.SIGKILL)
            code = process.wait()
            files = {output: _read(folder / output) for output in outputs if (folder / output).is_file()}
            return Run(code, _excerpt(folder / _LOG), files, stopped, killed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(document: Mapping[str, Any]) -> Path:
    """A new folder that holds the input."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="enos-timeloop-"))
        # JSON is YAML in which all text is quoted.
        (folder / _INPUT).write_text(json.dumps(document), encoding="utf-8")
    except OSError as e:
        raise InputError(tempfile.gettempdir(), f"cannot be written to: {reason(e)}") from None
    return folder


def environment() -> dict[str, str]:
    """The environment of the programs: without the TIMELOOP_ variables, which change what they compute."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIMELOOP_")}


@contextlib.contextmanager
def _started(program: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program in a session of its own, watched; when the context is left, its group and its folder are gone."""
    _check(program)
    command = [str(program), _INPUT]
    with started(command, folder, folder / _LOG, environment=environment(), temporary=True) as process:
        yield process


def _check(program: Path) -> None:
    """Refuses what cannot be run."""
    if not program.exists():
        raise InputError(program, "cannot be run: no such file or directory")
    if not (program.is_file() and os.access(program, os.X_OK)):
        raise InputError(program, "cannot be run: permission denied")


def _finished(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for the program; False if it still runs after `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _excerpt(path: Path) -> str:
    """The start and the end of a file of any length."""
    if not path.is_file():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LOG_BYTES)
        if size > len(start):
            file.seek(max(len(start), size - _LOG_BYTES))
            start += b"\n" + file.read()
    return start.decode(errors="replace")
