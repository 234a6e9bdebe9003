"""What a run found: its networks as points of accuracy and energy, and how they lie to the uni-operator line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from search.costs import expected_share, reference_pj, share
from search.runs.config import RunConfig
from search.runs.records import SCHEMA

Point = dict[str, Any]
"""A network of the results; its keys are those of `search.runs.records.TrainedNetwork`."""


@dataclass(frozen=True)
class Label:
    """A candidate as results name it."""

    name: str
    operator: str
    bits: int


def labels(results: Mapping[str, Any]) -> tuple[Label, ...]:
    """The candidates that the run's operators file declares, in its order.

    Results that were written before they had this list are of the shipped ones.
    """
    if "candidates" not in results:
        return tuple(Label(c.name, c.operator, c.bits) for c in load_candidates())
    return tuple(Label(**entry) for entry in results["candidates"])


class StageLike(Protocol):
    """What identifies a stage; see `search.runs.stages.Stage`."""

    @property
    def kind(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def lam(self) -> float | None: ...
    @property
    def candidate(self) -> str | None: ...
    @property
    def sample(self) -> int | None: ...
    @property
    def budget(self) -> float | None: ...
    @property
    def latency_budget(self) -> float | None: ...


def summarise(
    config: RunConfig, table: CostTable, data: Mapping[str, Any], done: Mapping[Any, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        table: energies and cycles of the run.
        data: what is said of the data set.
        done: finished stages and their records; a search counts with its relearning only.

    Returns:
        ``candidates``: name, operator and bits of what the operators file declares; ``unit_pj``: energy in pJ of the
        network with the typical operator at 8 bits everywhere.
        ``networks``: the baselines, and of each search the network that did best on the validation set, with
        accuracies from 0 to 1, energies in units of ``unit_pj`` and latencies in cycles of the same network; searched
        networks carry ``above_line`` too, their distance from the uni-operator line of their seed, and ``cycles`` if
        the mode assigns layer by layer.
        ``populations``: the distinct networks of each search that samples them, with how often each was drawn.
        ``pareto``: per seed, the searched networks that no other one of the seed beats in energy and in validation
        accuracy, cheapest first.
    """
    declared = [Label(c.name, c.operator, c.bits) for c in config.declared]
    baselines = [_baseline(stage, record, table) for stage, record in done.items() if stage.kind == "baseline"]
    searched, populations, relearned = [], [], []
    for search, record in done.items():
        if search.kind != "search":
            continue
        networks_of = {s: r for s, r in done.items() if s.kind == "relearn" and _search_of(s) == _search_of(search)}
        population = merged([_searched(s, record, r, table) for s, r in networks_of.items()])
        for point in population:
            line = uni_operator_line([b for b in baselines if b["seed"] == point["seed"]], declared)
            point["above_line"] = point["test_accuracy"] - line_accuracy(line, point["energy"]) if line else None
        relearned += population
        best = most_accurate(population)
        searched.append({k: v for k, v in best.items() if k not in ("sample", "count")})
        if any(stage.sample is not None for stage in networks_of):
            drawn = [_without_shares(p) for p in population]
            populations.append({**_search_of(search), "selected": best["sample"], "networks": drawn})
    return {
        "schema_version": SCHEMA,
        "name": config.name,
        "data": dict(data),
        "candidates": list(map(asdict, declared)),
        "unit_pj": reference_pj(table, config.transmission),
        "transmission": config.transmission,
        "mode": config.search.mode,
        "networks": [*baselines, *searched],
        "populations": populations,
        "pareto": pareto(relearned),
    }


def setting(point: Mapping[str, Any]) -> str:
    """What a searched network was searched with: ``lambda 0.3``, ``budget 0.4`` or ``latency budget 0.5``."""
    if point["lambda"] is not None:
        return f"lambda {point['lambda']:g}"
    if point["budget"] is not None:
        return f"budget {point['budget']:g}"
    return f"latency budget {point['latency_budget']:g}"


def merged(population: Sequence[Point]) -> list[Point]:
    """The distinct assignments of a population, in the order they were drawn, each with its `count`."""
    found: list[Point] = []
    for point in population:
        same = next((p for p in found if p["assignment"] == point["assignment"]), None)
        if same is None:
            found.append({**point, "count": 1})
        else:
            same["count"] += 1
    return found


def most_accurate(population: Sequence[Point]) -> Point:
    """The optimal choice of Algorithm 3, step 3: the most accurate on the validation set, of equals the cheaper."""
    return max(population, key=lambda p: (p["validation_accuracy"], -p["energy"]))


def pareto(points: Sequence[Point]) -> list[Point]:
    """The Pareto set of each seed over energy and validation accuracy, for seeds have different validation sets.

    Test accuracies are in it and decide nothing. Networks found several times are named once.
    """
    found: list[Point] = []
    for seed in dict.fromkeys(p["seed"] for p in points):
        best = -1.0
        for p in sorted(
            (p for p in points if p["seed"] == seed), key=lambda p: (p["energy"], -p["validation_accuracy"])
        ):
            if p["validation_accuracy"] > best:
                best = p["validation_accuracy"]
                names = (
                    "seed",
                    "lambda",
                    "budget",
                    "latency_budget",
                    "sample",
                    "energy",
                    "validation_accuracy",
                    "test_accuracy",
                    "assignment",
                )
                found.append({name: p[name] for name in names})
    return found


def better_throughout(points: Sequence[Point], networks: Sequence[Point]) -> list[str]:
    """Candidates that beat searched networks when every layer has them: not more expensive, more accurate on validation
    images.

    Args:
        points: the networks of one search, a seed each; means over the seeds are compared, with baselines of the same.
        networks: all of the run.
    """
    seeds = {p["seed"] for p in points}
    found = []
    for name in dict.fromkeys(p["candidate"] for p in networks if p["kind"] == "baseline"):
        own = [p for p in networks if p.get("candidate") == name and p["seed"] in seeds]
        energy, accuracy = ((_mean(own, k), _mean(points, k)) for k in ("energy", "validation_accuracy"))
        if own and energy[0] <= energy[1] and accuracy[0] > accuracy[1]:
            found.append(str(name))
    return found


def _mean(points: Sequence[Point], key: str) -> float:
    return float(np.mean([p[key] for p in points])) if points else float("nan")


def uni_operator_line(baselines: Sequence[Point], declared: Sequence[Label] | None = None) -> list[tuple[float, float]]:
    """(energy, test accuracy) of the uni-operator networks at the widest precision among them, cheapest first.

    Args:
        declared: the run's candidates, see `labels`; None for the shipped ones.
    """
    bits = {c.name: c.bits for c in (labels({}) if declared is None else declared)}
    widest = max((bits[b["candidate"]] for b in baselines), default=0)
    return sorted((b["energy"], b["test_accuracy"]) for b in baselines if bits[b["candidate"]] == widest)


def line_accuracy(line: Sequence[tuple[float, float]], energy: float) -> float:
    """Accuracy on the line at `energy`; outside its ends, that of the nearer end."""
    return float(np.interp(energy, [p[0] for p in line], [p[1] for p in line]))


def _search_of(stage: StageLike) -> Point:
    """Which search a stage belongs to."""
    return {"seed": stage.seed, "lambda": stage.lam, "budget": stage.budget, "latency_budget": stage.latency_budget}


def _baseline(stage: StageLike, record: Mapping[str, Any], table: CostTable) -> Point:
    latency = share(table, dict.fromkeys(table.layers, str(stage.candidate)), "latency")
    return {"kind": "baseline", "seed": stage.seed, "candidate": stage.candidate, **record["result"],
            "latency": latency}  # fmt: skip


def _searched(stage: StageLike, search: Mapping[str, Any], relearned: Mapping[str, Any], table: CostTable) -> Point:
    found = search["result"]
    assignment = found["assignments"][(stage.sample or 1) - 1]
    latency = share(table, assignment, "latency")
    point = {
        "kind": "searched",
        **_search_of(stage),
        "sample": stage.sample,
        "energy_expected": found["energy_expected"],
        "energy_discretised": found["energies_discretised"][(stage.sample or 1) - 1],
        "validation_accuracy_discretised": found["validation_accuracies_discretised"][(stage.sample or 1) - 1],
        "latency_expected": expected_share(table, found["probabilities"], "latency"),
        "latency_discretised": latency,
        **relearned["result"],
        "latency": latency,
        "assignment": assignment,
        "probabilities": found["probabilities"],
    }
    cycles = [entry["assigned"] for entry in search["history"] if "assigned" in entry]
    return {**point, "cycles": cycles} if cycles else point


def _without_shares(point: Point) -> Point:
    """A point without what all of its population share."""
    shared = ("kind", "seed", "lambda", "budget", "latency_budget", "energy_expected", "latency_expected",
              "probabilities")  # fmt: skip
    return {k: v for k, v in point.items() if k not in shared}
