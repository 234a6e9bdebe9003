"""Stages side by side in worker processes, with the results of doing them one after the other.

A worker writes what it finds itself and reports to its parent through a pipe of its own, so that no worker's end can
garble what another says. It ends with its parent, however that ends, and until then holds the lock of the run's folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection, reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from dse.core.errors import InputError

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


def do_side_by_side(
    run: Run, stages: Sequence[Stage], jobs: int, lock: Lock, on_entry: Callable[[Stage, Record], None]
) -> None:
    """Does `stages`, each as soon as a worker is free and what it needs is done.

    Args:
        stages: in the order of their preference.
        jobs: number of workers.
        on_entry: is called as by `do_stage`, in this process.

    Raises:
        InputError: what a stage refuses; a worker has ended. The other stages are stopped and keep their checkpoints.
    """
    workers: list[_Worker] = []
    try:
        for _ in range(jobs):
            workers.append(_Worker(lock))
        for worker in workers:
            worker.tell(run)
        _do_stages(run, stages, workers, on_entry)
    finally:  # also on Ctrl-C; nothing is lost, for all that counts is in files that are replaced as a whole
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _do_stages(
    run: Run, stages: Sequence[Stage], workers: Sequence[_Worker], on_entry: Callable[[Stage, Record], None]
) -> None:
    waiting, idle = list(stages), list(workers)
    busy: dict[Any, tuple[_Worker, Stage]] = {}
    while waiting or busy:
        while idle and (stage := _ready(run, waiting, [stage for _, stage in busy.values()])):
            waiting.remove(stage)
            worker = idle.pop()
            worker.tell(stage)
            busy[worker.pipe] = worker, stage
        for pipe in connection.wait(list(busy)):
            worker, stage = busy[pipe]
            entry = worker.hear()
            if entry is None:
                del busy[pipe]
                idle.append(worker)
            else:
                on_entry(stage, entry)


def _ready(run: Run, waiting: Sequence[Stage], busy: Sequence[Stage]) -> Stage | None:
    """The first stage whose needs are met, and which no worker trains already under another name."""
    unfinished = {*waiting, *busy}
    for stage in waiting:
        if run.before(stage) not in unfinished and not run.twins(stage, busy):
            return stage
    return None


class _Worker:
    """A process that is told a run, then stages; to each it answers with entries and, at its end, None."""

    def __init__(self, lock: Lock) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.pipe, its = context.Pipe()
        self.process = context.Process(target=_work, args=(its, lock), daemon=True)
        self.process.start()
        its.close()  # or its end could not be noticed here

    def tell(self, message: Run | Stage) -> None:
        try:
            self.pipe.send(message)
        except ConnectionError:
            raise self._ended() from None

    def hear(self) -> Record | None:
        try:
            message: Record | InputError | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if isinstance(message, InputError):
            raise message
        return message

    def _ended(self) -> InputError:
        self.process.join()
        return InputError("jobs", f"a worker has ended with code {self.process.exitcode}, as when memory runs out",
                          hint="the same command resumes from here; take fewer jobs")  # fmt: skip


def _work(pipe: Connection, lock: Lock) -> None:
    """What a worker does: the stages it is told, until it is ended. What it refuses is sent as the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all processes; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run = pipe.recv()
        from search.runs.stages import do_stage

        while True:
            stage = pipe.recv()
            try:
                do_stage(run, stage, pipe.send)
                pipe.send(None)
            except InputError as e:
                pipe.send(e)
    except (EOFError, ConnectionError):
        time.sleep(1)  # where the parent has gone, the watching thread ends this process meanwhile
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
