"""What a finished run adds to the page of its table: networks, uni-operator lines, cycles, populations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dse.page import indices
from dse.table.cost_table import CostTable
from search.report.figures import corners
from search.runs.records import SEARCH_KEYS, search_of
from search.runs.results import Label, Point, means, setting, staircase, uni_operator_line
from search.training.measures import ACCURACY, Measure, measure_of

Json = dict[str, Any]


def run_data(results: Mapping[str, Any], table: CostTable, declared: Sequence[Label], shown: Point) -> Json:
    """The keys ``networks``, ``start`` and ``run`` of the page's data (`dse.page.page_data` has the others).

    ``networks`` are all that were trained: baselines, what each search found, then the rest of the populations. Their
    ``energy`` is a share of the all-typical 8-bit network's, accuracies are from 0 to 1. ``weights`` is an index of
    ``run["weights"]``, softmax(alpha) of a search for each layer and candidate.

    Args:
        declared: the run's candidates, `search.runs.results.labels`.
        shown: the network that the page shows first, one of `results`.
    """
    measure, left_out = measure_of(results), results.get("excluded", {})
    weights: list[list[list[float | None]]] = []
    networks: list[Json] = []
    found = {search_of(p): p for p in results["networks"] if p["kind"] == "searched"}
    start = 0
    for point in results["networks"]:
        if "probabilities" in point:
            weights.append(_weights(point, table))
        if point is shown:
            start = len(networks)
        networks.append(_network(point, table, results["transmission"], measure, left_out))
        networks[-1]["weights"] = len(weights) - 1 if "probabilities" in point else None
    of_search = {search: i for i, search in enumerate(found)}
    populations = []
    for population in results["populations"]:
        own = []
        for member in population["networks"]:
            selected = member["sample"] == population["selected"]
            if selected:  # the same network as the search's own, which does not know how often it was drawn
                searched = [id(p) for p in results["networks"]].index(id(found[search_of(population)]))
                networks[searched] |= {"count": member["count"], "sample": member["sample"], "selected": True}
                own.append(searched)
                continue
            point = {**member, "kind": "sampled", **{k: population.get(k) for k in SEARCH_KEYS}}
            own.append(len(networks))
            networks.append(_network(point, table, results["transmission"], measure, left_out))
            networks[-1] |= {"weights": of_search[search_of(population)], "selected": False}
        title = f"Population of {setting(population)}, seed {population['seed']}"
        populations.append({"title": title, "networks": own})
    return {
        "networks": networks,
        "start": start,
        "run": {
            "measure": {"name": measure.name, "percent": measure.percent},
            "lines": uni_operator_lines(results["networks"], declared, measure),
            "stairs": staircases(results["networks"], measure),
            "weights": weights,
            "cycles": [_cycles(p, table) for p in results["networks"] if "cycles" in p],
            "populations": populations,
        },
    }


def uni_operator_lines(networks: Sequence[Point], declared: Sequence[Label], measure: Measure = ACCURACY) -> list[Json]:
    """The line of each seed, if there are several, and that of their means; points are (energy, percent)."""
    lines = [(seed, uni_operator_line(group, declared, measure)) for seed, group in _uniform_groups(networks, measure)]
    return [_drawn(seed, line, measure) for seed, line in lines if len(line) > 1]


def staircases(networks: Sequence[Point], measure: Measure = ACCURACY) -> list[Json]:
    """What the best uniform network at no more energy reaches: corners, of each seed and of the means, as the lines."""
    end = max(p["energy"] for p in networks)
    stairs = [(seed, corners(staircase(group, measure), end)) for seed, group in _uniform_groups(networks, measure)]
    return [_drawn(seed, line, measure) for seed, line in stairs if line]


def _uniform_groups(networks: Sequence[Point], measure: Measure) -> list[tuple[int | None, list[Point]]]:
    baselines = [p for p in networks if p["kind"] == "baseline"]
    seeds = list(dict.fromkeys(p["seed"] for p in baselines))
    groups: list[tuple[int | None, list[Point]]] = [(None, means(networks, measure))]
    if len(seeds) > 1:
        groups = [*((seed, [p for p in baselines if p["seed"] == seed]) for seed in seeds), *groups]
    return groups


def _drawn(seed: int | None, line: Sequence[tuple[float, float]], measure: Measure) -> Json:
    return {"seed": seed, "points": [[e, 100 * a if measure.percent else a] for e, a in line]}


def group_of(point: Point) -> str:
    """What the searched networks that differ in their seed only have in common: a name of their own, or the setting."""
    return str(point["name"]) if "name" in point else setting(point)


def name_of(point: Point) -> str:
    """What a network is called on the page."""
    sample = f", sample {point['sample']}" if point["kind"] == "sampled" else ""
    seed = "" if point.get("alone") else f", seed {point['seed']}"  # alone: all networks of the page have one seed
    if point["kind"] == "baseline":
        return f"all {point['candidate']}{seed}"
    return f"{'' if 'name' in point else 'searched, '}{group_of(point)}{seed}{sample}"


def _network(point: Point, table: CostTable, transmission: Any, measure: Measure, left_out: Mapping[str, str]) -> Json:
    uniform = point["kind"] == "baseline"
    uniformly: dict[str, str] = {**dict.fromkeys(table.layers, str(point.get("candidate"))), **left_out}
    assignment: Mapping[str, str] = uniformly if uniform else point["assignment"]
    network = {
        "label": name_of(point),
        "kind": point["kind"],
        "candidate": point["candidate"] if uniform else None,
        "setting": None if uniform else group_of(point),
        "seed": point["seed"],
        "assignment": indices(table, assignment, transmission),
        "energy_pj": table.total_pj(assignment, transmission),
        "energy": float(point["energy"]),
        "validation": measure.of(point, "validation"),
        "test": measure.of(point, "test"),
    }
    more = {
        "expected": "energy_expected",
        "above_line": "above_line",
        "gain": "gain",
        "over": "over",
        "gain_reason": "gain_reason",
        "passes": "image_passes",
        "validation_before": f"{measure.key('validation')}_discretised",
        "latency": "latency",
        "count": "count",
        "sample": "sample",
    }
    return network | {name: point[key] for name, key in more.items() if point.get(key) is not None}


def _weights(point: Point, table: CostTable) -> list[list[float | None]]:
    shares = point["probabilities"]
    return [[shares[layer].get(c) for c in table.candidates] for layer in table.layers]


def _cycles(point: Point, table: CostTable) -> Json:
    rows = [
        {
            "cycle": int(cycle["cycle"]),
            "layer": table.layers.index(cycle["layer"]),
            "candidate": table.candidates.index(cycle["candidate"]),
            "weight": float(cycle["weight"]),
        }
        for cycle in point["cycles"]
    ]
    return {"title": f"Cycles of {setting(point)}, seed {point['seed']}", "rows": rows}
