"""A cost table through the command line: wall time, CPU time and memory of `enos map` as a user meets them.

    first run    nothing compiled and an empty store, as on a machine that has never run it
    cold store   compiled, and an empty store
    warm store   every row is there

Each run is a process of its own. What numba compiles goes to a new folder, so that a first run compiles and nothing
else is touched.

usage: python benchmarks/table.py [--repeat N] [--first N] [--workload NAME] [--jobs N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from measure import ENOS, GIB, Usage, against, print_head, print_row, run

TARGETS_S = {"first run": 12.0, "cold store": 8.0, "warm store": 0.25}
TARGET_RSS = GIB / 2


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as name:
        folder = Path(name)
        compiled = [folder / f"compiled{i}" for i in range(options.first)]
        first = [_map(options, folder / f"first{i}.sqlite", kernels) for i, kernels in enumerate(compiled)]
        cold, warm = [], []
        for i in range(options.repeat):
            cold.append(_map(options, folder / f"{i}.sqlite", compiled[0]))
            warm.append(_map(options, folder / f"{i}.sqlite", compiled[0]))
    print_head(["run", "times", "wall s, median", "best", "worst", "target", "CPU s, median", "peak GiB"])
    for what, usages in (("first run", first), ("cold store", cold), ("warm store", warm)):
        _report(what, usages)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=_count, default=5, help="runs with a cold and with a warm store")
    parser.add_argument("--first", type=_count, default=1, help="runs that compile")
    parser.add_argument("--workload", default="squeezenet")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 takes every core")
    return parser.parse_args()


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _map(options: argparse.Namespace, store: Path, compiled: Path) -> Usage:
    command = [*ENOS, "map", options.workload, "--store", str(store), "--jobs", str(options.jobs)]
    used = run(command, {"NUMBA_CACHE_DIR": str(compiled)})
    if used.exit_code:
        sys.exit(used.output)
    return used


def _report(what: str, usages: list[Usage]) -> None:
    walls, peak = [used.wall_s for used in usages], max(used.peak_rss for used in usages)
    median, target = statistics.median(walls), TARGETS_S[what]
    print_row(
        [
            what,
            str(len(usages)),
            against(median, target, f"{median:.2f}"),
            f"{min(walls):.2f}",
            f"{max(walls):.2f}",
            f"{target:g}",
            f"{statistics.median(used.cpu_s for used in usages):.2f}",
            against(peak, TARGET_RSS, f"{peak / GIB:.3f}"),
        ]
    )


if __name__ == "__main__":
    main()
