"""A sweep through the command line: 64 architectures, SqueezeNet under every candidate on each.

Eight sizes of the input buffer times eight of the weight scratchpad, with an empty store. A sweep of one point before
makes sure that the mapper is compiled.

usage: python benchmarks/sweep.py [--candidate NAME]... [--jobs N] [--workload NAME]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import ENOS, GIB, Usage, against, print_table, run

TARGET_S = 180.0
TARGET_RSS = GIB
POINTS = (
    "glb_ifmap.depth=1024,2048,4096,8192,16384,32768,49152,65536",
    "weights_spad.depth=64,96,112,160,224,320,448,896",
)
WARM_UP = ("glb_ifmap.depth=8192",)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="enos-benchmark-") as folder:
        _sweep(options, WARM_UP, Path(folder) / "warm_up.sqlite")
        used = _sweep(options, POINTS, Path(folder) / "store.sqlite")
    document = json.loads(used.output)
    rows = [
        ["searches", "", str(document["computed"])],
        ["wall s", f"{TARGET_S:g}", against(used.wall_s, TARGET_S, f"{used.wall_s:.1f}")],
        ["CPU s", "", f"{used.cpu_s:.1f}"],
        ["peak GiB", f"{TARGET_RSS / GIB:g}", against(used.peak_rss, TARGET_RSS, f"{used.peak_rss / GIB:.3f}")],
    ]
    print_table(["", "target", "measured"], rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--candidate", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--workload", default="squeezenet")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 takes every core")
    return parser.parse_args()


def _sweep(options: argparse.Namespace, settings: tuple[str, ...], store: Path) -> Usage:
    command = [*ENOS, "sweep", options.workload, "--store", str(store), "--jobs", str(options.jobs), "--json"]
    for setting in settings:
        command += ["--set", setting]
    for candidate in options.candidate:
        command += ["--candidate", candidate]
    used = run(command)
    if used.exit_code:
        sys.exit(used.output)
    return used


if __name__ == "__main__":
    main()
