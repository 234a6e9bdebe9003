"""A sweep and a run whose workers are damaged at random while they work, and what one machine finds."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from measure import print_table

from dse.cluster.connection import Connection
from dse.cluster.pool import ClusterPool
from dse.sweep.axes import parse_set
from dse.sweep.run import SweepPlan, plan_sweep, run_sweep

AXES = ("glb_ifmap.depth=2048,8192", "weights_spad.depth=112,224")
RUN = ("name=cluster", "seeds=[0, 1]", "data.subset=300", "pretrain.epochs=3", "relearn.epochs=3",
       "energy_budgets=[0.6]", "candidates=[T8, T4, BC8]", "baselines=[T8]")  # fmt: skip
Rest = Callable[[float], object]
"""Waits so many seconds, or until the work that is damaged has ended."""

Damage = Callable[[random.Random, Connection, Rest], None]


def damaged(options: argparse.Namespace, damage: Damage, address: str | None = None) -> bool:
    """Sweeps and runs, one after the other, until workers have been damaged so often in each kind."""
    rows, same, number = [], True, options.number
    for kind, work, rest in (("sweep", do_sweep, options.pause), ("run", do_run, 4 * options.pause)):
        if options.only not in (None, kind):
            continue
        with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as folder:
            wanted = work(Path(folder) / "alone", None)
            done = differ = rounds = 0
            began = time.monotonic()
            with Connection(address or f"local:{options.workers}") as connection:
                while done < number:
                    with damaging(connection, damage, number - done, rest) as count:
                        differ += work(Path(folder) / f"round{rounds}", connection) != wanted
                    done, rounds = done + count(), rounds + 1
            rows.append([kind, str(done), str(rounds), str(differ), f"{time.monotonic() - began:.0f}"])
            same = same and not differ
    print_table(["", "workers damaged", "times done", "results that differ", "s"], rows)
    return same


def sweep_plan(axes: tuple[str, ...]) -> SweepPlan:
    return plan_sweep("squeezenet", [parse_set(text) for text in axes], only=["T8"], remainders=False)


def do_sweep(folder: Path, connection: Connection | None) -> object:
    folder.mkdir()
    jobs = -1 if connection is None else ClusterPool(connection)
    found = run_sweep(sweep_plan(AXES), store=folder / "store.sqlite", jobs=jobs)
    return found.rows, found.summary


def do_run(folder: Path, connection: Connection | None) -> object:
    from search.runs.config import EXAMPLE, load_config
    from search.runs.energies import energies
    from search.runs.run import do_run, open_run

    os.environ["ENOS_STORE"] = str(folder / "store.sqlite")  # of pretrained networks, too
    config = load_config(EXAMPLE, RUN)
    table = energies(config, folder.parent / "run.sqlite", jobs=-1)
    do_run(open_run(folder, config, table), lambda stage, record: None, 1, connection=connection)
    return (folder / "results.json").read_bytes()


@contextmanager
def damaging(connection: Connection, damage: Damage, most: int, pause: float) -> Iterator[Callable[[], int]]:
    """Damages a worker at random times, `pause` seconds apart on average, at most so often; tells how often."""
    chance, over, done = random.Random(), threading.Event(), 0
    _ = connection.cluster  # is open

    def work() -> None:
        nonlocal done
        while done < most and not over.wait(chance.uniform(0.2, 2 * pause)):
            damage(chance, connection, over.wait)
            done += 1

    with ThreadPoolExecutor(1) as executor:
        damages = executor.submit(work)
        try:
            yield lambda: done
        finally:
            over.set()
        damages.result()  # raises what it could not do
