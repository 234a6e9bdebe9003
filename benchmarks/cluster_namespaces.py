"""A cluster of machines that are cut off, lose packets or disappear, and a client that is cut off from its cluster."""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster_damage import AXES, Rest, damaged
from measure import ENOS, print_table
from namespaces import Machine, Network, end, loses_packets, start

from dse.cluster.connection import Connection

LIMIT_S = 12.0
"""After so long without a packet, Dask gives up a connection or a worker, here; else after 30 seconds and 5 minutes."""

SHORT_S, LONG_S, LOSS_S = 0.5 * LIMIT_S, 2.5 * LIMIT_S, 10.0
LOSS_PERCENT = 20
PORT = 8786

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{LIMIT_S:g}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{LIMIT_S:g}s",
}
_DASK = (sys.executable, "-m", "dask")


def measure_namespaces(options: argparse.Namespace) -> bool:
    """Whether all results are those of one machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.update(_ENVIRONMENT)  # of this process as a client, too
    same = True
    with _machines(options.workers) as machines:
        if options.only != "client":
            same = damaged(options, machines.damage, machines.address)
            print_table(["event", "times"], [[kind, str(times)] for kind, times in machines.events.items()])
        if options.only in (None, "client"):
            same = _cut_client(options, machines) and same
    return same


class _Machines:
    """A scheduler and workers on machines of their own; workers are started again when they end."""

    def __init__(self, network: Network, folder: Path, stack: ExitStack) -> None:
        self._network, self._folder, self._stack = network, folder, stack
        self._workers: list[Machine] = []
        scheduler = self.machine()
        self.address, self.events = f"tcp://{scheduler.address}:{PORT}", Counter[str]()
        self._keep(scheduler.start([*_DASK, "scheduler", "--host", scheduler.address, "--port", str(PORT),
                                    "--no-dashboard"], self._log("scheduler"), _ENVIRONMENT))  # fmt: skip

    def machine(self) -> Machine:
        return self._network.machine()

    def add_worker(self) -> None:
        machine = self.machine()
        command = [*_DASK, "worker", self.address, "--nthreads", "1", "--nworkers", "1", "--no-dashboard",
                   "--local-directory", str(self._folder)]  # fmt: skip
        loop = f"while true; do {shlex.join(command)}; echo ended; sleep 1; done"
        self._keep(machine.start(["sh", "-c", loop], self._log(machine.name), _ENVIRONMENT))
        self._workers.append(machine)

    def damage(self, chance: random.Random, connection: Connection, rest: Rest) -> None:
        """One of the events, in turn, to one machine; it is mended before this returns."""
        kinds = ["cut off for a short time", "cut off for a long time", "gone", *["packets lost"] * loses_packets()]
        kind = kinds[self.events.total() % len(kinds)]
        self.events[kind] += 1
        machine = chance.choice(self._workers)
        if kind == "gone":
            self._workers.remove(machine)
            machine.remove()
            self.add_worker()
        elif kind == "packets lost":
            machine.lose(LOSS_PERCENT)
            rest(LOSS_S)
            machine.lose(0)
        else:
            machine.plug(False)
            rest(SHORT_S if kind == "cut off for a short time" else LONG_S)
            machine.plug(True)

    def starts(self) -> int:
        """How often a worker's command has ended and was started again."""
        return sum(file.read_text().splitlines().count("ended") for file in self._folder.glob("*.log"))

    def _keep(self, process: subprocess.Popen[str]) -> None:
        self._stack.callback(end, process)

    def _log(self, name: str) -> int:
        return self._stack.enter_context((self._folder / f"{name}.log").open("w")).fileno()


@contextmanager
def _machines(workers: int) -> Iterator[_Machines]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enos-machines-")))
        machines = _Machines(stack.enter_context(Network()), folder, stack)
        for _ in range(workers):
            machines.add_worker()
        yield machines
        print(f"workers that ended and were started again: {machines.starts()}")


def _cut_client(options: argparse.Namespace, machines: _Machines) -> bool:
    """Cuts a sweep's client off, for a short and for a long time in turn; the same command has to finish its work."""
    rows, same = [], True
    machine = machines.machine()
    with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as text:
        folder = Path(text)
        _ended(_sweep(folder / "alone"))
        wanted = _summary(folder / "alone")
        for number in range(options.number):
            seconds, own = (SHORT_S, LONG_S)[number % 2], folder / str(number)
            client = _sweep(own, machine, machines.address)
            try:
                while client.poll() is None and _rows(own / "store.sqlite") < 5:
                    time.sleep(0.2)
                machine.plug(False)
                time.sleep(seconds)
                machine.plug(True)
                kept = _rows(own / "store.sqlite")
                code = client.wait()
            finally:
                end(client)
            said = (own / "log").read_text().strip().splitlines()[-1:]
            again = _ended(_sweep(own, machine, machines.address)) if code else 0
            equal = not again and _rows(own / "store.sqlite") >= kept and _summary(own) == wanted
            same = same and equal and (code == 0 or (code == 2 and said[0].startswith("error: --cluster")))
            rows.append([f"{seconds:g}", str(code), said[0] if code else "", str(again), "yes" if equal else "NO"])
    print_table(["client cut off for, s", "exit code", "last line", "of the same command again", "same summary"], rows)
    return same


def _sweep(folder: Path, machine: Machine | None = None, address: str | None = None) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [*ENOS, "sweep", "squeezenet", "--candidate", "T8", "--perfect", "--store", str(folder / "store.sqlite"),
               "--summary", str(folder / "summary.csv"), *(part for axis in AXES for part in ("--set", axis)),
               *(["--jobs", "1"] if address is None else ["--cluster", address])]  # fmt: skip
    with (folder / "log").open("a") as log:
        return start(command, log, _ENVIRONMENT) if machine is None else machine.start(command, log, _ENVIRONMENT)


def _ended(process: subprocess.Popen[str]) -> int:
    """The exit code of a command, which is killed when this process is interrupted meanwhile."""
    try:
        return process.wait()
    finally:
        end(process)


def _summary(folder: Path) -> str:
    file = folder / "summary.csv"
    return file.read_text() if file.exists() else ""


def _rows(store: Path) -> int:
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as opened:
            return int(opened.execute("select count(*) from results").fetchone()[0])
    except sqlite3.OperationalError:  # none yet
        return 0
