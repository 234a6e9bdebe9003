"""What a run found: its networks as points of accuracy and energy, and how they compare with uniform networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from search.costs import excluded_rows, expected_share, reference_pj, share
from search.runs.config import RunConfig
from search.runs.records import SCHEMA
from search.training.measures import ACCURACY, Measure, discretised_key

Point = dict[str, Any]
"""A network of the results; its keys are those of `search.runs.records.TrainedNetwork`."""

NO_UNIFORM = "no uniform network was trained"
NONE_AS_CHEAP = "no uniform network is as cheap"
SAME_ENERGY = 1e-9
"""By how much, relatively, energies differ that are the same but for the order of their sums."""


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
    config: RunConfig,
    table: CostTable,
    data: Mapping[str, Any],
    done: Mapping[Any, Mapping[str, Any]],
    measure: Measure = ACCURACY,
) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        table: energies and cycles of the run.
        data: what is said of the data set.
        done: finished stages and their records; a search counts with its relearning only.
        measure: what decides between networks; its values are under its keys in the records.

    Returns:
        ``candidates``: name, operator and bits of what the operators file declares; ``unit_pj``: energy in pJ of the
        network with the typical operator at 8 bits everywhere.
        ``networks``: the baselines, and of each search the network that did best on the validation set, with
        accuracies from 0 to 1, energies in units of ``unit_pj`` and latencies in cycles of the same network; searched
        networks carry ``gain`` over the uniform network of their seed that is best on the validation set at no more
        energy, and its candidate ``over``, or a ``gain_reason`` why there is none (see `with_gains`); ``above_line``,
        their distance from the uni-operator line of their seed, None outside its left end; and ``cycles`` if the mode
        assigns layer by layer.
        ``excluded``: layers that were left out of the search, and the candidate that their energy is counted as.
        ``chips``: the simulated chips that networks with layers in memory were tested on; theirs is ``chips``, too.
        ``metric``: name and direction of the measure, if it is not accuracy.
        ``computed``: device and precision of the training, where they are not CPU and float32.
        ``populations``: the distinct networks of each search that samples them, with how often each was drawn.
        ``sampling``: if the noise was drawn inside SRAM, how many numbers each search drew, with cycles and energy.
        ``pareto``: per seed, the searched networks that no other one of the seed beats in energy and in validation
        accuracy, cheapest first.
    """
    left_out = excluded_rows(table, config.exclude)
    declared = [Label(c.name, c.operator, c.bits) for c in config.declared]
    baselines = [
        _baseline(stage, record, table, left_out) for stage, record in done.items() if stage.kind == "baseline"
    ]
    searched, populations, relearned, sampling = [], [], [], []
    for search, record in done.items():
        if search.kind != "search":
            continue
        networks_of = {s: r for s, r in done.items() if s.kind == "relearn" and _search_of(s) == _search_of(search)}
        population = merged([_searched(s, record, r, table, measure) for s, r in networks_of.items()])
        for point in population:
            line = uni_operator_line([b for b in baselines if b["seed"] == point["seed"]], declared, measure)
            point["above_line"] = above_line(point, line, measure)
            point.update(gain_over_uniform(point, baselines, measure))
        relearned += population
        if "sampling" in record["result"]:
            sampling.append({**_search_of(search), **record["result"]["sampling"]})
        best = most_accurate(population, measure)
        searched.append({k: v for k, v in best.items() if k not in ("sample", "count")})
        if any(stage.sample is not None for stage in networks_of):
            drawn = [_without_shares(p) for p in population]
            populations.append({**_search_of(search), "selected": best["sample"], "networks": drawn})
    computed = {"device": config.device.partition(":")[0], "precision": "bfloat16" if config.reduced else "float32"}
    named = {} if measure == ACCURACY else {"metric": asdict(measure)}
    return {
        "schema_version": SCHEMA,
        "name": config.name,
        **named,
        **({} if config.chips is None else {"chips": asdict(config.chips)}),
        **({"excluded": left_out} if left_out else {}),
        "data": dict(data),
        "candidates": list(map(asdict, declared)),
        "unit_pj": reference_pj(table, config.transmission),
        "transmission": config.transmission,
        "mode": config.search.mode,
        **({"computed": computed} if computed != {"device": "cpu", "precision": "float32"} else {}),
        "networks": [*baselines, *searched],
        "populations": populations,
        **({"sampling": sampling} if sampling else {}),
        "pareto": pareto(relearned, measure),
    }


def best_uniform(point: Point, networks: Sequence[Point], measure: Measure = ACCURACY) -> Point | None:
    """The uniform network of the point's seed at no more energy that is best on validation images; None without one.

    Of equals it is the cheaper.

    Args:
        networks: any of the run; those that are not baselines are ignored.
    """
    limit = point["energy"] * (1 + SAME_ENERGY)
    fit = [b for b in _baselines_of(networks, point["seed"]) if b["energy"] <= limit]
    return min(fit, key=lambda b: (-measure.rank(measure.of(b, "validation")), b["energy"])) if fit else None


def gain_over_uniform(point: Point, networks: Sequence[Point], measure: Measure = ACCURACY) -> Point:
    """``gain`` on test images over `best_uniform`, its candidate ``over``; or both None, and the ``gain_reason``.

    Example:
        >>> uniform = [{"kind": "baseline", "seed": 0, "candidate": name, "energy": energy,
        ...             "validation_accuracy": validation, "test_accuracy": 0.5}
        ...            for name, energy, validation in [("T8", 1.0, 0.9), ("T4", 0.5, 0.8), ("BC4", 0.4, 0.7)]]
        >>> gain_over_uniform({"seed": 0, "energy": 0.6, "test_accuracy": 0.75}, uniform)
        {'gain': 0.25, 'over': 'T4'}
        >>> gain_over_uniform({"seed": 0, "energy": 0.3, "test_accuracy": 0.75}, uniform)
        {'gain': None, 'over': None, 'gain_reason': 'no uniform network is as cheap'}
    """
    uniform = best_uniform(point, networks, measure)
    if uniform is None:
        reason = NONE_AS_CHEAP if _baselines_of(networks, point["seed"]) else NO_UNIFORM
        return {"gain": None, "over": None, "gain_reason": reason}
    gain = measure.gain(measure.of(point, "test"), measure.of(uniform, "test"))
    return {"gain": gain, "over": uniform["candidate"]}


def with_gains(results: Mapping[str, Any], measure: Measure = ACCURACY) -> dict[str, Any]:
    """Results of any version with the gain of each searched network, and no ``above_line`` left of the line."""
    networks, declared = results["networks"], labels(results)

    def compared(point: Point, seed: int) -> Point:
        found = {**point, **({} if "gain" in point else gain_over_uniform({**point, "seed": seed}, networks, measure))}
        line = uni_operator_line(_baselines_of(networks, seed), declared, measure)
        if line and _left_of(line, point["energy"]) and "above_line" in point:
            found["above_line"] = None
        return found

    populations = [
        {**population, "networks": [compared(p, population["seed"]) for p in population["networks"]]}
        for population in results.get("populations", [])
    ]
    searched = [p if p["kind"] == "baseline" else compared(p, p["seed"]) for p in networks]
    return {**results, "networks": searched, "populations": populations}


def staircase(baselines: Sequence[Point], measure: Measure = ACCURACY) -> list[tuple[float, float]]:
    """What a uniform network reaches at no more than an energy: (energy, value on test images) of each step, cheapest
    first.

    A step is a network that is better on validation images than all cheaper ones, which is how `best_uniform` chooses;
    so on test images a step may go down.

    Args:
        baselines: the uniform networks of one seed, or the means of several.
    """
    steps: list[tuple[float, float]] = []
    best = -float("inf")
    for b in sorted(baselines, key=lambda b: (b["energy"], -measure.rank(measure.of(b, "validation")))):
        if (rank := measure.rank(measure.of(b, "validation"))) > best:
            best = rank
            steps.append((float(b["energy"]), measure.of(b, "test")))
    return steps


def means(networks: Sequence[Point], measure: Measure = ACCURACY) -> list[Point]:
    """One point for each candidate of the uniform networks: the means over their seeds."""
    baselines = [p for p in networks if p["kind"] == "baseline"]
    found = []
    for name in dict.fromkeys(p["candidate"] for p in baselines):
        own = [p for p in baselines if p["candidate"] == name]
        values = {measure.key(split): _mean(own, measure.key(split)) for split in ("validation", "test")}
        found.append({**own[0], **values})
    return found


ROUNDED = 0.05
"""Share by which image passes may differ because epochs are whole batches; results do not speak of it."""


def unequal_passes(points: Sequence[Point], networks: Sequence[Point]) -> str | None:
    """Says that searched networks and the uniform ones they are compared with have not had equal image passes.

    None where they have, and where results of earlier versions do not tell.
    """
    for point in points:
        uniform = next((b for b in _baselines_of(networks, point["seed"]) if b["candidate"] == point.get("over")), {})
        own, other = point.get("image_passes"), uniform.get("image_passes")
        if own is not None and other is not None and abs(own - other) > ROUNDED * max(own, other):
            return (
                f"Image passes are not equal: {own:,.0f} in all for the searched network of seed {point['seed']}, "
                f"{other:,.0f} for all {uniform['candidate']}."
            )
    return None


def _baselines_of(networks: Sequence[Point], seed: int) -> list[Point]:
    return [p for p in networks if p.get("kind") == "baseline" and p["seed"] == seed]


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


def most_accurate(population: Sequence[Point], measure: Measure = ACCURACY) -> Point:
    """The optimal choice of Algorithm 3, step 3: the best on the validation set, of equals the cheaper."""
    return max(population, key=lambda p: (measure.rank(measure.of(p, "validation")), -p["energy"]))


def pareto(points: Sequence[Point], measure: Measure = ACCURACY) -> list[Point]:
    """The Pareto set of each seed over energy and validation accuracy, for seeds have different validation sets.

    Test accuracies are in it and decide nothing. Networks found several times are named once.
    """
    found: list[Point] = []
    for seed in dict.fromkeys(p["seed"] for p in points):
        best = -float("inf")
        own = [(p, measure.rank(measure.of(p, "validation"))) for p in points if p["seed"] == seed]
        for p, rank in sorted(own, key=lambda pair: (pair[0]["energy"], -pair[1])):
            if rank > best:
                best = rank
                names = (
                    "seed",
                    "lambda",
                    "budget",
                    "latency_budget",
                    "sample",
                    "energy",
                    measure.key("validation"),
                    measure.key("test"),
                    "assignment",
                )
                found.append({name: p[name] for name in names})
    return found


def better_throughout(points: Sequence[Point], networks: Sequence[Point], measure: Measure = ACCURACY) -> list[str]:
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
        energy, value = ((_mean(own, k), _mean(points, k)) for k in ("energy", measure.key("validation")))
        if own and energy[0] <= energy[1] and measure.gain(*value) > 0:
            found.append(str(name))
    return found


def _mean(points: Sequence[Point], key: str) -> float:
    return float(np.mean([p[key] for p in points])) if points else float("nan")


def uni_operator_line(
    baselines: Sequence[Point], declared: Sequence[Label] | None = None, measure: Measure = ACCURACY
) -> list[tuple[float, float]]:
    """(energy, test accuracy) of the uni-operator networks at the widest precision among them, cheapest first.

    They are those of the accelerator's first computing mode, as in the paper.

    Args:
        declared: the run's candidates, see `labels`; None for the shipped ones.
    """
    bits = {c.name: c.bits for c in (labels({}) if declared is None else declared)}
    first = [b for b in baselines if "@" not in b["candidate"]]
    widest = max((bits[b["candidate"]] for b in first), default=0)
    return sorted((b["energy"], measure.of(b, "test")) for b in first if bits[b["candidate"]] == widest)


def line_accuracy(line: Sequence[tuple[float, float]], energy: float) -> float:
    """Accuracy on the line at `energy`; outside its ends, that of the nearer end."""
    return float(np.interp(energy, [p[0] for p in line], [p[1] for p in line]))


def above_line(point: Point, line: Sequence[tuple[float, float]], measure: Measure = ACCURACY) -> float | None:
    """Distance from the line on test images; None without a line, and left of its cheapest network, where it says
    nothing."""
    if not line or _left_of(line, point["energy"]):
        return None
    return measure.gain(measure.of(point, "test"), line_accuracy(line, point["energy"]))


def _left_of(line: Sequence[tuple[float, float]], energy: float) -> bool:
    return energy * (1 + SAME_ENERGY) < line[0][0]


def _search_of(stage: StageLike) -> Point:
    """Which search a stage belongs to."""
    return {"seed": stage.seed, "lambda": stage.lam, "budget": stage.budget, "latency_budget": stage.latency_budget}


def _baseline(stage: StageLike, record: Mapping[str, Any], table: CostTable, left_out: Mapping[str, str]) -> Point:
    latency = share(table, {**dict.fromkeys(table.layers, str(stage.candidate)), **left_out}, "latency")
    return {"kind": "baseline", "seed": stage.seed, "candidate": stage.candidate, **record["result"],
            "latency": latency}  # fmt: skip


def _searched(stage: StageLike, search: Mapping[str, Any], relearned: Mapping[str, Any], table: CostTable,
              measure: Measure) -> Point:  # fmt: skip
    found = search["result"]
    assignment = found["assignments"][(stage.sample or 1) - 1]
    latency = share(table, assignment, "latency")
    point = {
        "kind": "searched",
        **_search_of(stage),
        "sample": stage.sample,
        "energy_expected": found["energy_expected"],
        "energy_discretised": found["energies_discretised"][(stage.sample or 1) - 1],
        f"{measure.key('validation')}_discretised": found[discretised_key(measure)][(stage.sample or 1) - 1],
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
