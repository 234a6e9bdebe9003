"""Attempts at a stage by workers that may be killed, cut off and come back: none can spoil what another one does.

Each attempt writes into a folder of its own, ``attempts/STAGE.NUMBER`` in the run's folder, which begins with the
newest checkpoint of the stage. It takes away the folders of earlier attempts, so that these end at their next epoch.
Only the process that leads the run moves the files of a finished attempt to their places.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dse.core.errors import InputError
from dse.core.files import system_errors, write_text
from search.runs.stages import Run, Stage

PARTS = ("stages", "checkpoints", "assignments", "weights")
"""Folders in that of a run, and of an attempt, which hold files of stages."""

_SESSION = "session"


def open_session(run: Run) -> str:
    """Begins to lead a run: attempts of an earlier session cannot begin any more. Gives what `check_session` takes."""
    session = uuid.uuid4().hex
    adopt(run)
    with system_errors(_attempts(run)):
        _attempts(run).mkdir(exist_ok=True)
    write_text(_attempts(run) / _SESSION, session)
    return session


def close_session(run: Run) -> None:
    """Keeps the newest checkpoints, and takes away everything else that attempts have written."""
    adopt(run)
    shutil.rmtree(_attempts(run), ignore_errors=True)


def sees(folder: Path, session: str) -> bool:
    """Whether this machine has the run's folder of a session."""
    try:
        return (folder / "attempts" / _SESSION).read_text(encoding="utf-8") == session
    except (OSError, UnicodeDecodeError):
        return False


def not_seen(worker: str, folder: Path) -> InputError:
    """The error for a worker whose machine does not have the run's folder."""
    return InputError(f"--cluster: worker {worker}", f"does not see {folder}",
                      hint="give --out a folder that all machines share")  # fmt: skip


def begin(run: Run, stage: Stage) -> Path:
    """The folder of a new attempt, with the newest checkpoint that there is; earlier attempts cannot write any more."""
    folder = _attempts(run) / f"{stage.name}.{uuid.uuid4().hex[:12]}"
    with system_errors(folder):
        for part in PARTS:
            (folder / part).mkdir(parents=True)
    earlier = [attempt for attempt in _of(run, stage) if attempt != folder]
    _keep_newest(run, stage, earlier, folder)
    for attempt in earlier:
        _remove(attempt)
    return folder


def finish(run: Run, stage: Stage, attempt: Path) -> bool:
    """Moves the files of a finished attempt to their places, its record last; False where another has begun since."""
    record = run.file(stage)
    files = [file for part in PARTS for file in _files(attempt / part)]
    try:
        for file in sorted(files, key=lambda file: file.name == record.name):
            file.replace(run.folder / file.relative_to(attempt))
    except FileNotFoundError:
        return False
    if not record.exists():
        return False
    for other in _of(run, stage):
        _remove(other)
    return True


def adopt(run: Run) -> None:
    """Takes the newest checkpoint of each unfinished stage to its place, and all attempts away."""
    for stage in run.stages:
        if attempts := _of(run, stage):
            if not run.file(stage).exists():
                _keep_newest(run, stage, attempts, run.folder)
            for attempt in attempts:
                _remove(attempt)


def _attempts(run: Run) -> Path:
    return run.folder / "attempts"


def _of(run: Run, stage: Stage) -> list[Path]:
    """The folders of a stage's attempts."""
    try:
        found = list(_attempts(run).iterdir())
    except FileNotFoundError:
        return []
    return [folder for folder in found if folder.name.rpartition(".")[0] == stage.name]


def _files(folder: Path) -> Iterator[Path]:
    """Files that are whole: those that are being written begin with a dot."""
    with suppress(FileNotFoundError):
        yield from [file for file in folder.iterdir() if not file.name.startswith(".")]


def _keep_newest(run: Run, stage: Stage, attempts: list[Path], folder: Path) -> None:
    """Copies the newest checkpoint of a stage into a folder, unless it is there. Any of them would lead to the same."""
    name = run.checkpoint(stage).path.name
    times = {}
    for place in (run.folder, *attempts):
        with suppress(FileNotFoundError):  # as when its attempt has just ended
            times[place / "checkpoints" / name] = (place / "checkpoints" / name).stat().st_mtime_ns
    target = folder / "checkpoints" / name
    for file in sorted(times, key=lambda file: times[file], reverse=True):
        if file == target:
            return
        with suppress(FileNotFoundError):
            copy = target.with_name(f".{name}")
            shutil.copyfile(file, copy)
            copy.replace(target)
            return


def _remove(attempt: Path) -> None:
    """Takes a folder away at once, whoever writes into it: its name is the right to write."""
    gone = attempt.with_name(f"ended.{uuid.uuid4().hex[:12]}")
    with suppress(OSError):
        attempt.rename(gone)
    for folder in (gone, *attempt.parent.glob("ended.*")):
        shutil.rmtree(folder, ignore_errors=True)
