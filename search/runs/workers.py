"""Stages side by side in worker processes, with the results of doing them one after the other.

A worker writes its results itself and reports to its parent through its own pipe, so that no worker's end can garble
what another says. It ends with its parent, however that ends, and until then holds the lock of the run's folder.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection, reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol

from dse.core.errors import InputError
from dse.core.files import reason
from dse.core.processes import log_level, start_worker, starting_workers

# Nothing here imports torch: a worker has to watch its parent before it spends seconds on that.

if TYPE_CHECKING:
    from search.runs.stages import Run, Stage
    from search.training.checkpoint import Record


class Lock:
    """A locked file's descriptor; processes that are started with it hold the lock too, until the last of them ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __getstate__(self) -> Any:
        return reduction.DupFd(self._descriptor)  # inherited: there is no moment at which the process is without it

    def __setstate__(self, inherited: Any) -> None:
        self._descriptor = inherited.detach()


class Executor(Protocol):
    """What does stages: processes of this machine, or the workers of a cluster."""

    def free(self) -> bool:
        """Whether another stage can be begun."""

    def busy(self) -> Sequence[Stage]:
        """The stages that are being done."""

    def begin(self, stage: Stage) -> None:
        """Has a stage done; what it needs is finished."""

    def wait(self) -> Iterable[tuple[Stage, Record | None]]:
        """Waits for entries of stages, as `do_stage` gives them, and None at the end of a stage; perhaps for nothing.

        Raises:
            InputError: what a stage refuses, or what keeps workers from working.
            RuntimeError: a defect in a stage, with the worker's traceback.
        """


def do_side_by_side(
    run: Run, stages: Sequence[Stage], jobs: int, lock: Lock, on_entry: Callable[[Stage, Record], None]
) -> None:
    """Does `stages` in processes, each as soon as one is free and what it needs is done.

    Args:
        stages: in the order of their preference.
        jobs: number of workers.
        on_entry: is called as by `do_stage`, in this process.

    Raises:
        InputError: what a stage refuses; a full disk; a worker was killed. The other stages are stopped and keep their
            checkpoints.
        RuntimeError: a defect in a stage, with the worker's traceback.
    """
    workers: list[_Worker] = []
    try:
        with starting_workers():
            for _ in range(jobs):
                workers.append(_Worker(lock))
        for worker in workers:
            worker.tell(run)
        do_with(_Workers(workers), run, stages, on_entry)
    finally:  # also on a signal; nothing is lost, for all that counts is in files that are replaced as a whole
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def do_with(executor: Executor, run: Run, stages: Sequence[Stage], on_entry: Callable[[Stage, Record], None]) -> None:
    """Has `stages` done, each as soon as somebody is free and what it needs is done; arguments as above."""
    waiting = list(stages)
    while waiting or executor.busy():
        while executor.free() and (stage := _ready(run, waiting, executor.busy())):
            waiting.remove(stage)
            executor.begin(stage)
        for stage, entry in executor.wait():
            if entry is not None:
                on_entry(stage, entry)


class _Workers:
    """Processes of this machine, as an executor."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._idle = list(workers)
        self._busy: dict[Any, tuple[_Worker, Stage]] = {}

    def free(self) -> bool:
        return bool(self._idle)

    def busy(self) -> Sequence[Stage]:
        return [stage for _, stage in self._busy.values()]

    def begin(self, stage: Stage) -> None:
        worker = self._idle.pop()
        worker.tell(stage)
        self._busy[worker.pipe] = worker, stage

    def wait(self) -> Iterator[tuple[Stage, Record | None]]:
        for pipe in connection.wait(list(self._busy)):
            worker, stage = self._busy[pipe]
            entry = worker.hear()
            if entry is None:
                del self._busy[pipe]
                self._idle.append(worker)
            yield stage, entry


def _ready(run: Run, waiting: Sequence[Stage], busy: Sequence[Stage]) -> Stage | None:
    """The first stage whose needs are met, and which no worker trains already under another name."""
    unfinished = {*waiting, *busy}
    for stage in waiting:
        if unfinished.isdisjoint(run.needs(stage)) and not run.twins(stage, busy):
            return stage
    return None


class _Worker:
    """A process that is told a run, then stages; to each it answers with entries and, at its end, None."""

    def __init__(self, lock: Lock) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, lock, os.getpid(), log_level()), daemon=True)
        self.process.start()
        theirs.close()  # or its end could not be noticed here

    def tell(self, message: Run | Stage) -> None:
        try:
            self.pipe.send(message)
        except ConnectionError:
            raise self._ended() from None

    def hear(self) -> Record | None:
        try:
            message: Record | Exception | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if isinstance(message, Exception):
            raise message
        return message

    def _ended(self) -> InputError:
        self.process.join()
        return InputError("jobs", f"a worker has ended with code {self.process.exitcode}, as when memory runs out",
                          hint="the same command resumes from here; take fewer jobs")  # fmt: skip


def _work(pipe: Connection, lock: Lock, parent: int, level: int) -> None:
    """What a worker does: the stages it is told, until it is ended. What stops one is sent as the error."""
    start_worker(parent, level)
    try:
        run = pipe.recv()
        from search.runs.work import do_stage

        while True:
            stage = pipe.recv()
            try:
                do_stage(run, stage, pipe.send)
                pipe.send(None)
            except (EOFError, ConnectionError):
                raise
            except InputError as e:
                pipe.send(e)
            except OSError as e:
                pipe.send(InputError(e.filename or run.folder, reason(e)))
            except Exception:  # a defect: its traceback is shown once, by the parent
                pipe.send(RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))
    except (EOFError, ConnectionError):
        return  # the parent has gone
