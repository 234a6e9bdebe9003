"""Every layer shape of published networks at 224 x 224 under every candidate: CPU seconds a layer.

Maps the shapes of layers.yaml in one process and in the pipeline's order, without a store. A shape that several
networks have is mapped once. The target is under five CPU seconds for a layer with all its candidates, below 1 GiB.

`--every 4` takes every fourth shape, `--candidate T8` that candidate alone. `--file llm.yaml` takes other layers.

usage: python benchmarks/layers.py [--file FILE] [--network NAME]... [--every N] [--candidate NAME]... [--arch FILE]
       [--objective energy|edp|delay] [--top N]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import GIB, against, own_peak_rss, print_table

from dse.core.documents import read_yaml
from dse.hardware.candidates import load_candidates
from dse.mapper import OBJECTIVES
from dse.table.fill import Batch, missing_batches, search_all
from dse.table.plan import make_plan
from dse.table.result import Result
from dse.workload.layers import Layer, Workload
from dse.workload.problem import Problem

TARGET_CPU_S = 5.0
TARGET_RSS = GIB
WARM_UP = {"N": 1, "G": 2, "C": 8, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2}


@dataclass(frozen=True)
class Use:
    """A layer shape in a network."""

    network: str
    name: str
    times: int


@dataclass(frozen=True)
class Timed:
    """A shape with what its candidates took together, and the slowest of them."""

    problem: Problem
    cpu_s: float
    slowest: str
    slowest_s: float
    results: dict[str, Result]


def main() -> None:
    options = _options()
    document = _networks(options.file)
    networks = options.network or list(document)
    if unknown := set(networks) - set(document):
        sys.exit(f"{options.file} has no {', '.join(sorted(unknown))} (allowed: {', '.join(document)})")
    uses: dict[Problem, list[Use]] = defaultdict(list)
    layers = []
    for network in networks:
        for entry in document[network]["layers"]:
            layer = Layer(f"{network} {entry['name']}", entry["kind"], entry["instance"])
            if layer.problem not in uses:
                layers.append(layer)
            uses[layer.problem].append(Use(network, entry["name"], entry.get("times", 1)))
    _print_macs(networks, {n: f"{document[n]['gmacs']:g}" if "gmacs" in document[n] else "" for n in networks}, uses)
    layers = layers[options.every - 1 :: options.every]
    uses = {layer.problem: uses[layer.problem] for layer in layers}

    _timed(_batches([Layer("warm-up", "conv", WARM_UP)], options)[0])  # loads or compiles the mapper
    timed = []
    for batch in _batches(layers, options):
        timed.append(_timed(batch))
        print(f"{len(timed)}/{len(layers)} {batch.jobs[0].layer}: {timed[-1].cpu_s:.3f} s", file=sys.stderr)
    _print_networks(networks, uses, timed)
    print(f"\nThe {min(options.top, len(timed))} slowest shapes:\n")
    _print_slowest(uses, timed, options.top)
    _print_failures(uses, timed)
    print(f"\nPeak memory: {against(own_peak_rss(), TARGET_RSS, f'{own_peak_rss() / GIB:.3f} GiB')}")


def _networks(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = read_yaml(file)["networks"]
    return document


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("layers.yaml"), help="the layers")
    parser.add_argument("--network", action="append", help="only this one; repeatable")
    parser.add_argument("--every", type=int, default=1, help="only every N-th shape")
    parser.add_argument("--candidate", action="append", help="only this one; repeatable")
    parser.add_argument("--arch", type=Path, help="Timeloop v4 specification; default: the shipped one")
    parser.add_argument("--objective", choices=OBJECTIVES, default="energy")
    parser.add_argument("--top", type=int, default=10, help="how many of the slowest are printed")
    return parser.parse_args()


def _batches(layers: list[Layer], options: argparse.Namespace) -> list[Batch]:
    """What the pipeline would give its workers, with an empty store."""
    workload = Workload("layers", tuple(layers))
    candidates = [
        c
        for c in load_candidates("operators_published_widths")
        if options.candidate is None or c.name in options.candidate
    ]
    plan = make_plan(workload, arch=options.arch, candidates=candidates, objective=options.objective)
    return missing_batches([plan], {})


def _timed(batch: Batch) -> Timed:
    """Maps a layer under its candidates as a worker does."""
    names = {job.key: job.instance.candidate.name for job in batch.jobs}
    seconds, results = {}, {}
    start = time.process_time()
    for key, result in search_all([batch], jobs=1):
        now = time.process_time()
        seconds[names[key]], results[names[key]], start = now - start, result, now
    slowest = max(seconds, key=lambda name: seconds[name])
    return Timed(batch.jobs[0].problem, sum(seconds.values()), slowest, seconds[slowest], results)


def _print_macs(networks: list[str], published: dict[str, str], uses: dict[Problem, list[Use]]) -> None:
    rows = []
    for network in networks:
        own = [(problem, use) for problem, found in uses.items() for use in found if use.network == network]
        gmacs = sum(use.times * problem.macs for problem, use in own) / 1e9
        layers = sum(use.times for _, use in own)
        rows.append([network, str(layers), str(len(own)), f"{gmacs:.3f}", published[network]])
    print_table(["network", "layers", "shapes", "G MACs", "published"], rows)
    print()


def _print_networks(networks: list[str], uses: dict[Problem, list[Use]], timed: list[Timed]) -> None:
    rows = []
    for network in networks:
        own = [t for t in timed if any(use.network == network for use in uses[t.problem])]
        if not own:  # of a sample
            continue
        total, most = sum(t.cpu_s for t in own), max(own, key=lambda t: t.cpu_s)
        name = next(use.name for use in uses[most.problem] if use.network == network)
        worst = against(most.cpu_s, TARGET_CPU_S, f"{most.cpu_s:.2f}")
        rows.append([network, str(len(own)), f"{total:.2f}", worst, name, *_quality(own)])
    total, most = sum(t.cpu_s for t in timed), max(timed, key=lambda t: t.cpu_s)
    worst = against(most.cpu_s, TARGET_CPU_S, f"{most.cpu_s:.2f}")
    rows.append(["each shape once", str(len(timed)), f"{total:.2f}", worst, "", *_quality(timed)])
    print_table(["network", "shapes", "CPU s", "slowest", "which", "no mapping", "not optimal"], rows)


def _quality(timed: list[Timed]) -> tuple[str, str]:
    """How many searches ended without a mapping, and with one that is not proven optimal."""
    results = [result for t in timed for result in t.results.values()]
    none = sum(result.status != "ok" for result in results)
    return str(none), str(sum(result.status == "ok" and not result.optimal for result in results))


def _print_slowest(uses: dict[Problem, list[Use]], timed: list[Timed], top: int) -> None:
    rows = []
    for t in sorted(timed, key=lambda t: -t.cpu_s)[:top]:
        use = uses[t.problem][0]
        total = against(t.cpu_s, TARGET_CPU_S, f"{t.cpu_s:.2f}")
        rows.append([f"{use.network} {use.name}", _shape(t.problem), total, f"{t.slowest} {t.slowest_s:.2f}"])
    print_table(["layer", "shape", "CPU s", "slowest candidate"], rows)


def _print_failures(uses: dict[Problem, list[Use]], timed: list[Timed]) -> None:
    for t in timed:
        use = uses[t.problem][0]
        for candidate, result in t.results.items():
            if result.status != "ok":
                print(f"no mapping: {use.network} {use.name}, {candidate}: {result.reason}")


def _shape(problem: Problem) -> str:
    """Dimensions that are not 1, and the strides."""
    sizes = [f"{d}{n}" for d, n in problem.bound.items() if n > 1]
    strides = math.prod(c for axis in problem.data_space("Inputs").axes for d, c in axis if d == "P")
    return " ".join(sizes) + (f" stride {strides}" if strides > 1 else "")


if __name__ == "__main__":
    main()
