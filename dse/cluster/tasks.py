"""Tasks on a cluster whose workers may be killed, cut off or slow: each is done, however often it takes."""

from __future__ import annotations

import asyncio
import queue
import time
import uuid
from collections.abc import Callable, Hashable, Mapping
from concurrent import futures
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from dse.cluster.connection import Cluster
from dse.cluster.remote import Outcome, do_task, packed
from dse.cluster.versions import versions
from dse.core.errors import InputError
from dse.core.processes import log_level

MOST_LOSSES = 60
"""Workers that may end with a task before the task is taken for the reason."""

GONE_S = 60.0
"""How long a scheduler may be out of reach."""

_NOTICE_S = 5.0
_RESTORE_S = 2.0

N = TypeVar("N", bound=Hashable)


@dataclass
class _Task:
    """One that is under way: what is needed to send it again."""

    task: bytes
    shared: Any
    future: Any = None
    losses: int = 0


class Tasks(Generic[N]):
    """Tasks that are under way, by a name each; a context manager that cancels what is left.

    A task whose worker was killed or removed is sent again: tasks are pure, or guard what they write themselves.

    Args:
        resources: Dask's resources that each task takes of its worker.
    """

    def __init__(self, cluster: Cluster, resources: Mapping[str, float] | None = None) -> None:
        self._cluster, self._resources = cluster, dict(resources or {}) or None
        self._tasks: dict[N, _Task] = {}
        self._events: queue.SimpleQueue[tuple[N | None, Any, Any]] = queue.SimpleQueue()
        self._out_of_reach: float | None = None
        self._alone: float | None = None
        self._restored = time.monotonic()

    def __enter__(self) -> Tasks[N]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = [task.future for task in self._tasks.values()]
        self._tasks.clear()
        if left and self._cluster.client.status == "running":
            self._cluster.client.cancel(left)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: N) -> bool:
        return name in self._tasks

    def share(self, data: bytes) -> Any:
        """Data that many tasks take; Dask moves it to each worker once, and again where it was lost."""
        return self._cluster.client.submit(bytes, data, key=f"enos-shared-{uuid.uuid4().hex}", pure=False)

    def begin(self, name: N, work: Callable[..., Any], argument: Any, *shared: Any) -> None:
        """Sends a task: ``work(*shared, argument)``.

        Args:
            work: a function that a worker can import, or of a script.
            shared: what `share` gave.
        """
        self._tasks[name] = _Task(packed(work, argument), shared)
        self._send(name)

    def drop(self, name: N) -> None:
        """A task is not wanted any more."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.future.release()

    def progressed(self, name: N) -> None:
        """A task has saved progress since its last loss; its losses are counted from 0 again."""
        if name in self._tasks:
            self._tasks[name].losses = 0

    def tell(self, message: Any) -> None:
        """Hands a message to `wait`, from any thread."""
        self._events.put((None, None, message))

    def wait(self, seconds: float) -> tuple[N | None, Any] | None:
        """The next task that is done, with its value; (None, a message) for what was told; None if nothing came.

        Raises:
            InputError: what a task refuses; the cluster is gone; workers end whenever they do a task.
            RuntimeError: a defect in a task, with the worker's traceback.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._check_cluster()
            try:
                name, future, outcome = self._events.get(timeout=max(0.0, min(1.0, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    return None
                continue
            if name is None:
                return None, outcome
            task = self._tasks.get(name)
            if task is None or task.future is not future:
                continue  # of an earlier sending
            if isinstance(outcome, Outcome) and not outcome.lost:
                del self._tasks[name]
                if outcome.error is not None:
                    raise outcome.error
                if outcome.defect:
                    raise RuntimeError(f"a worker failed:\n{outcome.defect}")
                return name, outcome.value
            self._lost(name, task, outcome)

    def _send(self, name: N) -> None:
        task, client = self._tasks[name], self._cluster.client
        task.future = client.submit(
            do_task, task.task, versions(), log_level(), *task.shared,
            key=f"enos-{uuid.uuid4().hex}", pure=False, resources=self._resources,
        )  # fmt: skip
        client.loop.add_callback(self._follow, name, task.future)

    async def _follow(self, name: N, future: Any) -> None:
        """Reports what becomes of a sending; runs in the thread of Dask's connection."""
        outcome: Any
        try:
            outcome = await future
        except (Exception, asyncio.CancelledError) as e:
            outcome = e
        self._events.put((name, future, outcome))

    def _lost(self, name: N, task: _Task, outcome: Any) -> None:
        """Sends a task again whose worker has ended, or raises what it cannot be done for."""
        from distributed.scheduler import KilledWorker

        if isinstance(outcome, KilledWorker):
            task.losses += outcome.allowed_failures + 1
            if task.losses >= MOST_LOSSES:
                raise InputError("--cluster", f"{task.losses} workers have ended with the same task, as when memory "
                                 "runs out", hint="the same command resumes; give workers more memory")  # fmt: skip
        elif isinstance(outcome, ImportError | AttributeError):
            raise InputError(f"--cluster {self._cluster.name}", f"a worker has no ENOS of this version: {outcome}",
                             hint="install the same on all")  # fmt: skip
        elif not isinstance(outcome, Outcome) and not _is_cancelled(outcome):
            raise InputError(f"--cluster {self._cluster.name}", f"a task failed: {type(outcome).__name__}: {outcome}",
                             hint="the same command resumes")  # fmt: skip
        self._send(name)

    def _check_cluster(self) -> None:
        """Says once that there are no workers; InputError where the scheduler stays out of reach."""
        now, client = time.monotonic(), self._cluster.client
        if client.status == "running":
            self._out_of_reach = None
            if now > self._restored + _RESTORE_S:
                self._restored = now
                self._cluster.restore()
            if self._alone is None:
                self._alone = now + _NOTICE_S
            elif now > self._alone and self._tasks:
                self._alone = now + 60 * _NOTICE_S
                if self._cluster.processes is None and not self._cluster.workers:
                    self._cluster.notify(f"note: {self._cluster.name} has no workers; waiting for them")
            return
        self._out_of_reach = self._out_of_reach or now
        if client.status == "closed" or now > self._out_of_reach + GONE_S:
            raise InputError(f"--cluster {self._cluster.name}", "the scheduler cannot be reached any more",
                             hint="the same command resumes")  # fmt: skip


def _is_cancelled(error: object) -> bool:
    """Whether Dask has lost a task with its connection, which it calls cancelled."""
    return isinstance(error, asyncio.CancelledError | futures.CancelledError)
