"""The parts of a study, one after the other in this process or side by side in others, with the same answers.

Layers of small images gain nothing from several threads each, which wait for each other. Processes with one thread each
use all cores.
"""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from dse.cluster.remote import cloudpickle
from dse.core.files import write_atomically
from dse.table.workers import in_workers, worker_count
from search.training.allocator import keep_freed_memory

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool

MOST = 8
"""Processes, if their number is not given: each keeps what all layers give for a batch of images."""

T = TypeVar("T")
R = TypeVar("R")


class State(Protocol):
    """What parts of the work share; it can be pickled when it is closed."""

    def close(self) -> None: ...


S = TypeVar("S", bound=State)


class Crew:
    """Does work in so many processes of one thread each, or on a cluster.

    Args:
        processes: 1 for this process alone, with all threads that torch has; or the workers of a cluster.
        folder: what processes of this machine share is written there meanwhile.
    """

    def __init__(self, processes: int | ClusterPool = 1, folder: Path | None = None) -> None:
        self._cluster = None if isinstance(processes, int) else processes
        self.processes = processes if isinstance(processes, int) and folder is not None else 1
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
        packed = self._packed(state) if workers > 1 or (self._cluster is not None and tasks) else None
        if packed is None:
            for task in tasks:
                yield task, work(state, task)
            return
        stamp = uuid.uuid4().hex
        if self._cluster is not None:
            with closing(self._cluster.answers(partial(_do_there, stamp, work), tasks, packed)) as found:
                yield from found
            return
        assert self._file is not None
        write_atomically(self._file, lambda file: file.write_bytes(packed))
        answers = in_workers(_do, [(self._file, stamp, work, task) for task in tasks], workers)
        try:
            yield from answers
        finally:
            answers.close()
            self._file.unlink(missing_ok=True)

    def _packed(self, state: State) -> bytes | None:
        state.close()
        try:
            packed: bytes = cloudpickle().dumps(state)
        except Exception:  # what a user's module holds may refuse in any way
            self.processes, self._cluster = 1, None
            return None
        return packed


def default_processes(device: str = "cpu", most: int | None = None) -> int:
    """As many as there are cores, at most `most`; one on a GPU, and in a process that must not start others."""
    if torch.device(device).type != "cpu" or multiprocessing.current_process().daemon:
        return 1
    import joblib

    return max(1, min(MOST, int(joblib.cpu_count()), MOST if most is None else most))


_loaded: tuple[str, Any] | None = None  # in a worker: the stamp and the state of its last task


def _do(job: tuple[Path, str, Callable[[Any, T], R], T]) -> tuple[T, R]:
    """A task in a process of this machine."""
    file, stamp, work, task = job
    return task, work(_state(stamp, file.read_bytes), task)


def _do_there(stamp: str, work: Callable[[Any, T], R], packed: bytes, task: T) -> tuple[T, R]:
    """A task on a cluster."""
    return task, work(_state(stamp, lambda: packed), task)


def _state(stamp: str, read: Callable[[], bytes]) -> Any:
    """What the tasks of a stamp share; it is unpacked once."""
    global _loaded
    torch.set_num_threads(1)
    keep_freed_memory()
    if _loaded is None or _loaded[0] != stamp:
        _loaded = None  # its memory is free before the next one takes some
        _loaded = stamp, cloudpickle().loads(read())
    return _loaded[1]
