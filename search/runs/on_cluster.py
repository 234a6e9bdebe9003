"""Stages on the workers of a Dask cluster, which share the run's folder, with the results of one machine."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dse.cluster.connection import Cluster
from dse.cluster.remote import SupersededError, here
from dse.cluster.tasks import Tasks
from dse.core.errors import InputError
from dse.core.files import reason
from search.runs import attempts
from search.runs.stages import Run, Stage
from search.runs.work import do_stage
from search.runs.workers import do_with
from search.training.checkpoint import Record

_FILES_S = 60.0  # that a file of a finished stage may take to be seen
_COUNT_S = 2.0  # between two looks at how many workers there are


@dataclass(frozen=True)
class _Job:
    """What a worker gets: a stage of a run, and where it reports to."""

    run: Run
    stage: Stage
    session: str
    threads: int
    topic: str


def on_cpu(run: Run) -> Run:
    """The same run for a machine that leads it and need not have the device that stages are done on."""
    return replace(run, config=replace(run.config, device="cpu"))


def do_on_cluster(
    cluster: Cluster, run: Run, leading: Run, stages: Sequence[Stage], on_entry: Callable[[Stage, Record], None]
) -> None:
    """Does `stages`, each as soon as a worker is free and what it needs is done.

    Args:
        run: as workers do it.
        leading: as this process reads it (`on_cpu`).
        on_entry: is called as by `do_stage`, in this process.

    Raises:
        InputError: what a stage refuses; a worker that does not see the run's folder; no worker has a GPU, where one is
            needed; the cluster is gone.
        RuntimeError: a defect in a stage, with the worker's traceback.
    """
    session = attempts.open_session(leading)
    sent = _portable(run)
    sent.__dict__["passes_each"] = leading.passes_each
    try:
        _check_workers(cluster, sent, session)
        with _ClusterExecutor(cluster, sent, session).opened() as executor:
            do_with(executor, leading, stages, on_entry)
    finally:  # what is still at work ends at its next epoch, for it has no place to write to
        attempts.close_session(leading)


def _portable(run: Run) -> Run:
    """The same run for other machines: with whole paths, and what is read of its operators."""
    data = run.config.data
    config = replace(
        run.config, data=replace(data, dir=_whole(data.dir), path=_whole(data.path)), init=_whole(run.config.init)
    )
    config.__dict__["declared"] = run.config.declared
    return replace(run, folder=run.folder.absolute(), config=config)


def _whole(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _check_workers(cluster: Cluster, run: Run, session: str) -> None:
    for worker, seen in cluster.asked(attempts.sees, run.folder, session).items():
        if seen is False:
            raise attempts.not_seen(worker, run.folder)
    if run.config.device != "cpu":
        found = cluster.asked(_gpus)
        if found and not any(isinstance(number, float) and number > 0 for number in found.values()):
            raise InputError(f"--cluster {cluster.name}", "no worker has the resource GPU",
                             hint="start `dask worker --resources GPU=1` where there is one")  # fmt: skip


def _gpus(dask_worker: Any) -> float:
    """The resource GPU of a worker; Dask gives it where a function has an argument of that name."""
    return float(dask_worker.state.total_resources.get("GPU", 0))


class _ClusterExecutor:
    """The workers of a cluster, as an executor of stages."""

    def __init__(self, cluster: Cluster, run: Run, session: str) -> None:
        self._cluster, self._run, self._session = cluster, run, session
        self._topic = f"enos-{uuid.uuid4().hex}"
        self._heard: dict[Stage, int] = {}
        self._room, self._counted = 1, float("-inf")
        self._tasks: Tasks[Stage] = Tasks(cluster, None if run.config.device == "cpu" else {"GPU": 1})

    @contextmanager
    def opened(self) -> Iterator[_ClusterExecutor]:
        client = self._cluster.client
        client.subscribe_topic(self._topic, lambda event: self._tasks.tell(event[1]))
        try:
            with self._tasks:
                yield self
        finally:
            with suppress(Exception):  # where the connection is lost
                client.unsubscribe_topic(self._topic)

    def free(self) -> bool:
        if time.monotonic() > self._counted + _COUNT_S:
            self._counted, self._room = time.monotonic(), max(1, len(self._cluster.workers))
        return len(self._heard) < self._room

    def busy(self) -> Sequence[Stage]:
        return list(self._heard)

    def begin(self, stage: Stage) -> None:
        self._heard.setdefault(stage, 0)
        job = _Job(self._run, stage, self._session, self._run.config.threads or torch.get_num_threads(), self._topic)
        self._tasks.begin(stage, _attempt, job)

    def wait(self) -> Iterable[tuple[Stage, Record | None]]:
        found = self._tasks.wait(1.0)
        if found is None:
            return []
        stage, message = found
        return self._entry(message) if stage is None else self._end(stage, message)

    def _entry(self, message: str) -> list[tuple[Stage, Record | None]]:
        """An entry as it comes, but none twice: an attempt that resumes gives those of the epochs before again."""
        name, number, entry = json.loads(message)
        for stage, heard in self._heard.items():
            if stage.name == name and heard == number:
                self._heard[stage] += 1
                self._tasks.progressed(stage)
                return [(stage, entry)]
        return []

    def _end(self, stage: Stage, attempt: str) -> list[tuple[Stage, Record | None]]:
        """What was not heard of a finished stage; it is begun again where another attempt has begun since."""
        if not attempts.finish(self._run, stage, self._run.folder / "attempts" / attempt):
            self.begin(stage)
            return []
        record = self._run.record(stage)
        left = [*record["history"], record["result"]][self._heard.pop(stage) :]
        return [*((stage, entry) for entry in left), (stage, None)]


def _attempt(job: _Job) -> str:
    """What a worker does: an attempt at a stage; gives the name of its folder."""
    from distributed import get_worker

    run, stage = job.run, job.stage
    if not attempts.sees(run.folder, job.session):
        raise attempts.not_seen(here(), run.folder)
    torch.set_num_threads(job.threads)
    _wait_for_files(run, stage)
    worker, folder, numbers = get_worker(), attempts.begin(run, stage), itertools.count()

    def on_entry(entry: Record) -> None:
        if not folder.exists():
            raise SupersededError
        worker.log_event(job.topic, json.dumps([stage.name, next(numbers), entry]))

    try:
        do_stage(run.done_in(stage, folder), stage, on_entry)
    except (InputError, OSError) as e:
        if not folder.exists():
            raise SupersededError from None
        if isinstance(e, InputError):
            raise e.at(e.where.replace(str(folder), str(run.folder))) from None
        raise InputError(e.filename or run.folder, reason(e)) from None
    return folder.name


def _wait_for_files(run: Run, stage: Stage) -> None:
    """A shared file system may show other machines' files with a delay."""
    deadline = time.monotonic() + _FILES_S
    for needed in run.needs(stage):
        while not run.file(needed).exists() and time.monotonic() < deadline:
            time.sleep(0.2)
