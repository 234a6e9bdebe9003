"""Connects to a cluster, or starts one on this machine, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dse.cluster.address import Address, parse_address
from dse.cluster.versions import versions
from dse.core.errors import InputError
from dse.core.processes import starting_workers

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""

STOPPED_S = 60.0
"""After so long without a sign of life, the work of a process of this machine is done by another one."""

_CLOSE_S = 2.0
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application")


@dataclass(frozen=True)
class Cluster:
    """An open connection.

    Attributes:
        name: the cluster, as the user named it.
        client: Dask's.
        processes: number of its workers, if they are processes that were started for this connection; else None.
        notify: is called with a line for the user, such as that there are no workers yet.
    """

    name: str
    client: Any
    processes: int | None
    notify: Callable[[str], object]

    @property
    def workers(self) -> dict[str, int]:
        """Address -> threads of each worker that there is now; empty where the scheduler does not answer."""
        try:
            return dict(self.client.nthreads())
        except Exception:  # Dask's and the system's, while a connection is lost
            return {}

    def restore(self) -> None:
        """Replaces processes of this machine that ended while they were started, which Dask does not start again."""
        if self.processes is not None:
            self.client.loop.add_callback(_restore, self.client.cluster, self.processes)

    def asked(self, question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What each worker that there is now answers to a call, or its exception; a worker that is cut off is left out.

        Args:
            question: a function that workers can import; it is called at once, whatever a worker does.
        """
        answers: dict[str, Any] = {}

        def ask() -> None:
            with suppress(Exception):  # of a connection that is lost, which the next task finds
                answers.update(self.client.run(question, *arguments, on_error="return"))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(CONNECT_S)
        return dict(sorted(answers.items()))


class Connection:
    """A cluster that is connected to, or started, when it is first needed; a context manager that closes it again.

    Args:
        text: see `dse.cluster.address.FORMS`.
        notify: see `Cluster`.

    Raises:
        InputError: another text.
    """

    def __init__(self, text: str, notify: Callable[[str], object] = print) -> None:
        self._address, self._notify = parse_address(text), notify
        self._stack = ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster = None
        self._stack.close()

    @property
    def cluster(self) -> Cluster:
        """The open connection.

        Raises:
            InputError: Dask is not installed, the scheduler cannot be reached, or a worker has other versions than this
                process.
        """
        if self._cluster is None:
            _import_dask()
            address = self._address
            client = self._stack.enter_context(_started(address) if address.workers else _joined(address))
            cluster = Cluster(address.text, client, address.workers, self._notify)
            if cluster.processes is None:
                _check_workers(cluster)
            self._cluster = cluster
        return self._cluster


def _import_dask() -> None:
    """Imports Dask so that its log lines stay away: what matters, the client says."""
    try:
        import dask
    except ImportError:
        raise InputError("--cluster", "needs Dask", hint="pip install 'enos-dse[cluster]'") from None
    dask.config.set({"logging": dict.fromkeys(_LOGGERS, "critical")})
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError("--cluster", "needs Dask's distributed", hint="pip install 'enos-dse[cluster]'") from None


@contextmanager
def _joined(address: Address) -> Iterator[Any]:
    from distributed import Client

    target = {"address": address.scheduler} if address.file is None else {"scheduler_file": str(address.file)}
    try:
        client = Client(**target, timeout=CONNECT_S, set_as_default=False, name="enos")
    except Exception as e:  # of the system, of Dask, of its TLS settings
        reason = " ".join(str(e).split()) or type(e).__name__
        raise InputError("--cluster", f"{address.text} cannot be reached: {reason}", hint="start `dask scheduler`"
                         ) from None  # fmt: skip
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_CLOSE_S)


@contextmanager
def _started(address: Address) -> Iterator[Any]:
    """A client of new processes of this machine, which end with this one, however that ends."""
    import dask
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {
        "distributed.nanny.pre-spawn-environ": {
            "PYTHONSAFEPATH": "1",  # also of workers that replace others: no module of the working directory hides one
            "DASK_LOGGING__DISTRIBUTED": "critical",
        },
        "distributed.scheduler.worker-ttl": f"{STOPPED_S} s",
        "distributed.worker.profile.enabled": False,
    }
    changed = (*settings["distributed.nanny.pre-spawn-environ"], "PYTHONHASHSEED")  # by Dask, for good
    before = {name: os.environ.get(name) for name in changed}
    # Else a worker that takes long to start again, as on a busy machine, is given up.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"})
    with dask.config.set(settings), starting_workers():
        cluster = LocalCluster(
            n_workers=address.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the system decides, as for other processes
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a port that is free
            scheduler_kwargs={"dashboard": False},
            resources={"GPU": 1},  # a label: whether there is one, a stage that needs it finds
            env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    try:
        yield (client := Client(cluster, set_as_default=False, name="enos"))
    finally:
        nannies = list(cluster.workers.values())
        for nanny in nannies:
            nanny.auto_restart = False
        for nanny in nannies:  # at once: what they do is not wanted, and all that counts is in the client's files
            with suppress(ProcessLookupError, TypeError):
                os.kill(nanny.pid, signal.SIGKILL)
        with suppress(Exception):
            client.close(timeout=_CLOSE_S)
        with suppress(Exception):
            cluster.close(timeout=_CLOSE_S)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _restore(cluster: Any, processes: int) -> None:
    """Forgets the workers that have ended, and starts as many as are missing; runs in the thread of the cluster."""
    from distributed import Status

    for name, nanny in list(cluster.workers.items()):
        if nanny.status in (Status.closed, Status.failed):
            del cluster.workers[name]
    if len(cluster.workers) < processes:
        cluster.scale(processes)


def _check_workers(cluster: Cluster) -> None:
    """Refuses workers that would compute something else; those that come later are refused by their first task."""
    for worker, found in cluster.asked(versions).items():
        where = f"--cluster: worker {worker}"
        if isinstance(found, ImportError | AttributeError):
            raise InputError(where, f"has no ENOS of this version: {found}", hint="install the same on all")
        if not isinstance(found, Exception) and (different := found.differences(versions())):
            raise InputError(where, different, hint="install the same on all")
    if several := [worker for worker, threads in cluster.workers.items() if threads > 1]:
        cluster.notify(
            f"note: {len(several)} workers of {cluster.name} have several threads, of which one works; "
            "start `dask worker --nthreads 1 --nworkers N`"
        )
