"""Work side by side: in the processes of joblib, none of which outlives this one, or in another pool of workers."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from dse.core.errors import InputError
from dse.core.processes import log_level, start_worker, starting_workers

# joblib and what it needs are imported where they are used: a table that the store already has needs no workers.

T = TypeVar("T")
R = TypeVar("R")

_IDLE_SECONDS = 30  # that workers wait for more work before they end


class Pool(Protocol):
    """Workers for independent tasks: processes of this machine, or those of a cluster (`dse.cluster.pool`)."""

    def alone(self, tasks: int) -> bool:
        """Whether this process does so many tasks itself."""

    def described(self, tasks: int) -> str:
        """Who does so many tasks, such as "2 processes"."""

    def answers(self, work: Callable[[T], R], tasks: Sequence[T]) -> Generator[R, None, None]:
        """What `work` answers to each task, in the order in which they are finished; close it where it is left early.

        Raises:
            InputError: workers were killed.
        """


class Processes:
    """So many processes of this machine, at most one for each core; -1 for every core.

    Example:
        >>> Processes(1).alone(100), Processes(1).described(100)
        (True, '1 process')
    """

    def __init__(self, jobs: int = -1) -> None:
        self._jobs = jobs

    def alone(self, tasks: int) -> bool:
        return worker_count(self._jobs, tasks) == 1

    def described(self, tasks: int) -> str:
        workers = worker_count(self._jobs, tasks)
        return f"{workers} process{'es' * (workers > 1)}"

    def answers(self, work: Callable[[T], R], tasks: Sequence[T]) -> Generator[R, None, None]:
        return in_workers(work, tasks, max(2, worker_count(self._jobs, len(tasks))))


def pool_of(jobs: int | Pool) -> Pool:
    """A pool as it is, or so many processes."""
    return Processes(jobs) if isinstance(jobs, int) else jobs


def worker_count(jobs: int, tasks: int) -> int:
    """Processes for so many tasks: at most `jobs`, or one for each core if that is -1, and never more than cores.

    More would only take memory, for a search computes all the time.

    Example:
        >>> worker_count(1, 100), worker_count(8, 1)
        (1, 1)
    """
    if jobs == 1 or tasks < 2:
        return 1
    import joblib

    cores = int(joblib.cpu_count())  # knows of affinities and of a container's share
    return max(1, min(tasks, cores, jobs if jobs > 0 else cores))


def in_workers(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Generator[R, None, None]:
    """What `work` answers to each task, in the order in which they are finished.

    The workers are killed if the iteration does not reach its end: close the iterator then.

    Args:
        work: a function that a worker can import.
        workers: number of processes, at least 2.

    Raises:
        InputError: a worker was killed.
    """
    from concurrent.futures.process import BrokenProcessPool

    import joblib

    parallel = joblib.Parallel(
        workers,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        idle_worker_timeout=_IDLE_SECONDS,
        initializer=_start_worker,
        initargs=(os.getpid(), log_level()),
    )
    answers = None
    try:
        with starting_workers():
            answers = parallel(joblib.delayed(work)(task) for task in tasks)
        for answer in answers:  # noqa: UP028 - `yield from` would close it outside of what follows
            yield answer
    except BrokenProcessPool:
        raise InputError(
            "--jobs", "a worker was killed, as when memory runs out", hint="the same command resumes; take fewer jobs"
        ) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of work that is cancelled, which is what is wanted
            if answers is not None:
                answers.close()


def _start_worker(parent: int, level: int) -> None:
    """At the beginning of a worker of joblib.

    Where psutil is installed, joblib ends a worker whose memory has grown by 300 MB since its first task, and starts
    another. A worker that holds a network or compiled programs grows by more, and its successor had to load them
    again, often after each task.
    """
    start_worker(parent, level)
    executor: Any = importlib.import_module("joblib.externals.loky.process_executor")
    if hasattr(executor, "_MAX_MEMORY_LEAK_SIZE"):  # not a documented setting: there is none
        executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
