"""The parts of a study, one after the other in this process or side by side in several, with the same answers.

Layers of small images gain nothing from several threads each, which wait for each other. Processes with one thread each
use all cores.
"""

from __future__ import annotations

import importlib
import multiprocessing
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from dse.core.files import write_atomically
from dse.table.workers import in_workers, worker_count

MOST = 8
"""Processes, if their number is not given: each keeps what all layers give for a batch of images."""

T = TypeVar("T")
R = TypeVar("R")


class State(Protocol):
    """What parts of the work share; it can be pickled when it is closed."""

    def close(self) -> None: ...


S = TypeVar("S", bound=State)


class Crew:
    """Does work in so many processes of one thread each.

    Args:
        processes: 1 for this process alone, with all threads that torch has.
        folder: what the workers share is written there meanwhile.
    """

    def __init__(self, processes: int = 1, folder: Path | None = None) -> None:
        self.processes = 1 if folder is None else processes
        self._file = None if folder is None else folder / "workers.pkl"

    def do(self, work: Callable[[S, T], R], state: S, tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Each task with the answer of `work`, in the order in which they are finished.

        A state that cannot be pickled stays in this process. Workers are ended if the iteration does not reach its end.

        Args:
            work: a function that a worker can import.

        Raises:
            InputError: a worker was killed.
        """
        workers = worker_count(self.processes, len(tasks)) if self.processes > 1 else 1
        packed = self._packed(state) if workers > 1 else None
        if packed is None:
            for task in tasks:
                yield task, work(state, task)
            return
        assert self._file is not None
        write_atomically(self._file, lambda file: file.write_bytes(packed))
        stamp = uuid.uuid4().hex
        answers = in_workers(_do, [(self._file, stamp, work, task) for task in tasks], workers)
        try:
            yield from answers
        finally:
            answers.close()
            self._file.unlink(missing_ok=True)

    def _packed(self, state: State) -> bytes | None:
        state.close()
        try:
            packed: bytes = _cloudpickle().dumps(state)
        except Exception:  # what a user's module holds may refuse in any way
            self.processes = 1
            return None
        return packed


def default_processes(device: str = "cpu", most: int | None = None) -> int:
    """As many as there are cores, at most `most`; one on a GPU, and in a process that must not start others."""
    if torch.device(device).type != "cpu" or multiprocessing.current_process().daemon:
        return 1
    import joblib

    return max(1, min(MOST, int(joblib.cpu_count()), MOST if most is None else most))


def _cloudpickle() -> Any:
    """What joblib pickles with, functions and classes of scripts as well; older versions have it inside."""
    try:
        return importlib.import_module("joblib.externals.cloudpickle")
    except ImportError:
        return importlib.import_module("cloudpickle")


_loaded: tuple[str, Any] | None = None  # in a worker: the stamp and the state of its last task


def _do(job: tuple[Path, str, Callable[[Any, T], R], T]) -> tuple[T, R]:
    """A task in a worker."""
    global _loaded
    file, stamp, work, task = job
    torch.set_num_threads(1)
    if _loaded is None or _loaded[0] != stamp:
        _loaded = None  # its memory is free before the next one takes some
        _loaded = stamp, _cloudpickle().loads(file.read_bytes())
    return task, work(_loaded[1], task)
