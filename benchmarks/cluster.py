"""A cluster of processes of this machine: what a task costs, and whether lost workers change a result.

    overhead   milliseconds for each task that does nothing
    scaling    tasks a second against the number of workers: tasks that wait, and searches of the mapper
    kills      a sweep and a run whose workers are killed at random, and the same with processes of this machine
    cut        the same, with workers that are stopped for longer than the scheduler waits, and go on then
    soak       sweeps and runs with kills and cuts, for so many minutes
    plan       what a sweep of many points needs: searches, time, store, transfer
    namespaces a sweep and a run on machines (network namespaces, needs root) that are cut off for short and
               long times, lose packets, or disappear; and a client that is cut off from its cluster

Exit code 1 where a result differs.

usage: python benchmarks/cluster.py WHAT [--workers N] [--number N] [--only sweep|run|client] [--minutes M]
       [--points N] [--pause SECONDS]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_damage import AXES, Rest, damaged, damaging, do_run, do_sweep, sweep_plan
from cluster_namespaces import measure_namespaces
from measure import print_table

from dse.cluster import connection as connections
from dse.cluster.connection import Connection
from dse.cluster.groups import GROUP_S, GroupSize
from dse.cluster.pool import AHEAD, ClusterPool
from dse.cluster.remote import packed
from dse.sweep.run import run_sweep
from dse.table.fill import Batch, _search_batch, missing_batches
from dse.table.store import Store


def main() -> None:
    options = _options()
    same = MEASURED[options.what](options)
    sys.exit(0 if same is not False else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=list(MEASURED))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--number", type=int, default=50, help="tasks of overhead / 20, kills, cuts; default: 50")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", choices=["sweep", "run", "client"], help="of kills, cut, namespaces")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument(
        "--pause",
        type=float,
        default=3.0,
        help="mean seconds between two kills of a sweep's workers; four times that for a run's, which import torch",
    )
    return parser.parse_args()


_SHORT_S = 0.02  # that a task waits where the cost of sending is measured


def nothing(number: int) -> int:
    return number


def wait_like(task: tuple[Batch, float, object]) -> object:
    """As large as a search, with an answer as large, and takes as long, but waits instead of searching."""
    _, seconds, answer = task
    time.sleep(seconds)
    return answer


def wait(seconds: float) -> None:
    time.sleep(seconds)


def _overhead(options: argparse.Namespace) -> None:
    with Connection(f"local:{options.workers}") as connection:
        pool, number = ClusterPool(connection, group_s=0), 20 * options.number
        list(pool.answers(nothing, range(50)))  # workers have imported what they need
        spent = time.process_time()
        seconds = _seconds(lambda: list(pool.answers(nothing, range(number))))
        spent = time.process_time() - spent
    cells = [str(options.workers), str(number), f"{1000 * seconds / number:.2f}", f"{1000 * spent / number:.2f}"]
    print_table(["workers", "tasks", "ms a task", "CPU ms a task in client and scheduler"], [cells])


def _scaling(options: argparse.Namespace) -> None:
    batches = missing_batches([site.plan for site in sweep_plan(AXES[:1]).sites if site.plan], {})
    rows = []
    for workers in (1, 2, 4, 8):
        with Connection(f"local:{workers}") as connection:
            pool = ClusterPool(connection, group_s=0)
            list(pool.answers(_search_batch, batches[:workers]))  # workers have loaded the mapper
            waiting = 50 * workers / _seconds(lambda p=pool, w=workers: list(p.answers(wait, [0.1] * 50 * w)))
            row = [str(workers), f"{waiting:.1f}", f"{100 * waiting / (10 * workers):.0f} %"]
            searching = "-"
            if workers <= (os.cpu_count() or 1):
                searching = f"{len(batches) / _seconds(lambda p=pool: list(p.answers(_search_batch, batches))):.1f}"
            rows.append([*row, searching])
    print_table(["workers", "tasks of 0.1 s, a second", "of what is possible", "searches a second"], rows)


def _kills(options: argparse.Namespace) -> bool:
    return damaged(options, _kill)


def _cut(options: argparse.Namespace) -> bool:
    connections.STOPPED_S = 5.0  # Dask's own limit, ten heartbeats, is about the same
    return damaged(options, _stop)


def _soak(options: argparse.Namespace) -> bool:
    connections.STOPPED_S = 5.0
    end = time.monotonic() + 60 * options.minutes
    rounds: dict[str, int] = {"sweep": 0, "run": 0}
    damaged = differ = 0

    def damage(chance: random.Random, connection: Connection, rest: Rest) -> None:
        (_kill if chance.random() < 0.7 else _stop)(chance, connection, rest)

    with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as folder:
        wanted = {"sweep": do_sweep(Path(folder) / "s", None), "run": do_run(Path(folder) / "r", None)}
        with Connection(f"local:{options.workers}") as connection:
            while time.monotonic() < end:
                for kind, work in (("sweep", do_sweep), ("run", do_run)):
                    with damaging(connection, damage, 1_000_000, 2 * options.pause) as count:
                        differ += work(Path(folder) / f"{kind}{rounds[kind]}", connection) != wanted[kind]
                    rounds[kind] += 1
                    damaged += count()
    print_table(["sweeps", "runs", "workers damaged", "results that differ"],
                [[str(rounds["sweep"]), str(rounds["run"]), str(damaged), str(differ)]])  # fmt: skip
    return not differ


def _sending(workers: int, tasks: list[tuple[Batch, float, object]], group_s: float) -> tuple[float, float]:
    """CPU seconds a task in client and scheduler, each task sent alone, and in groups; without those of waiting."""
    with Connection(f"local:{workers}") as connection:
        list(ClusterPool(connection).answers(nothing, range(50)))  # workers have imported what they need
        idle = _cpu_share(lambda: time.sleep(5))[0] / 5
        found = []
        for pool, times in ((ClusterPool(connection, 0), 5), (ClusterPool(connection, group_s), 25)):
            cpu, seconds = _cpu_share(lambda p=pool, n=times: list(p.answers(wait_like, tasks * n)))
            found.append((cpu - idle * seconds) / (len(tasks) * times))
    return found[0], found[1]


def _cpu_share(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds."""
    began = time.process_time()
    seconds = _seconds(work)
    return time.process_time() - began, seconds


def _plan(options: argparse.Namespace) -> None:
    """CPU seconds, which other work on the machine changes little."""
    points = options.points
    with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as folder:
        planning = time.process_time()
        plan = sweep_plan(AXES)
        planning = (time.process_time() - planning) / len(plan.sites)
        batches = missing_batches([site.plan for site in plan.sites if site.plan], {})
        store = Path(folder) / "store.sqlite"
        searching = time.process_time()
        run_sweep(plan, store=store, jobs=1)
        searching = (time.process_time() - searching) / len(batches)
        with Store(store) as opened:
            searches = len(opened)
        alone, grouped = _sending(options.workers, [(batch, _SHORT_S, _search_batch(batch)) for batch in batches],
                                  GROUP_S * _SHORT_S / searching)  # fmt: skip
        full = GroupSize()
        full.learn(1, searching)
        group = full.of(len(batches) * points, 100 * AHEAD)
        groups = [batches[first : first + group] for first in range(0, len(batches), group)]
        size = sum(len(packed(_search_batch, together)) for together in groups) / len(batches)
        kept = sum(file.stat().st_size for file in Path(folder).glob("store.sqlite*")) / searches
    tasks = points * len(batches) / len(plan.sites)
    rows = [
        ["tasks, none shared between points", f"{tasks:,.0f}", f"{len(batches)} of {len(plan.sites)} points"],
        ["planning, in the client", f"{points * planning / 60:.0f} CPU min", f"{1000 * planning:.0f} CPU ms a point"],
        ["work of all workers", f"{tasks * searching / 3600:.1f} CPU h", f"{1000 * searching:.0f} CPU ms a task"],
        ["sending and answers, in client and scheduler", f"{tasks * grouped / 60:.0f} CPU min",
         f"{1000 * grouped:.2f} CPU ms a task"],
        ["workers that this can feed", f"{searching / grouped:.0f}", "work / sending"],
        ["the same, if each task were sent alone", f"{searching / alone:.0f}", f"{1000 * alone:.2f} CPU ms a task"],
        ["transfer to workers", f"{tasks * size / 1e9:.1f} GB", f"{size / 1e3:.0f} kB a task"],
        ["under way at once, 100 workers", f"{100 * AHEAD * size * group / 1e6:.0f} MB",
         f"{AHEAD} groups of {group} tasks a worker"],
        ["store", f"{kept * points * searches / len(plan.sites) / 1e9:.2f} GB", f"{kept / 1e3:.1f} kB a row"],
    ]  # fmt: skip
    print_table([f"{points:,} points, SqueezeNet, T8", "", "measured"], rows)


def _kill(chance: random.Random, connection: Connection, rest: Rest) -> None:
    _signal(_any_worker(chance, connection), signal.SIGKILL)


def _stop(chance: random.Random, connection: Connection, rest: Rest) -> None:
    """Stops a worker for longer than the scheduler waits; it goes on then, whatever became of its task."""
    pid = _any_worker(chance, connection)
    _signal(pid, signal.SIGSTOP)
    rest(2.5 * connections.STOPPED_S)
    _signal(pid, signal.SIGCONT)


def _any_worker(chance: random.Random, connection: Connection) -> int | None:
    pids: list[Any] = [nanny.pid for nanny in connection.cluster.client.cluster.workers.values()]
    return chance.choice(pids) if pids else None  # None also while it is started again


def _signal(pid: int | None, number: signal.Signals) -> None:
    try:
        if pid is not None:
            os.kill(pid, number)
    except ProcessLookupError:
        return


MEASURED: dict[str, Callable[[argparse.Namespace], bool | None]] = {
    "overhead": _overhead, "scaling": _scaling, "kills": _kills, "cut": _cut, "soak": _soak, "plan": _plan,
    "namespaces": measure_namespaces,
}  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
