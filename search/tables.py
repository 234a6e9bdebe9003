"""What a run's results say of its searches, as text: cycles (Fig. 6a of the paper), populations (Fig. 6b), Pareto."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.cli.common import text_table
from search.results import Point, setting


def details(results: Mapping[str, Any]) -> list[str]:
    """A titled table for each sequential search and each population; the Pareto set of several searches a seed."""
    found = [
        f"\nCycles of seed {p['seed']}, {setting(p)}:\n{cycle_table(p)}" for p in results["networks"] if "cycles" in p
    ]
    for population in results["populations"]:
        title = f"Population of seed {population['seed']}, {setting(population)}"
        found.append(f"\n{title}; * is best on the validation images:\n{population_table(population)}")
    if len({setting(p) for p in results["networks"] if p["kind"] == "searched"}) > 1:
        found.append(f"\nPareto set (energy, validation accuracy) of each seed:\n{pareto_table(results)}")
    return found


def cycle_table(point: Point) -> str:
    """A row a cycle: which layer was assigned what, and the softmax weight that decided it."""
    rows = [[str(c["cycle"]), c["layer"], c["candidate"], f"{c['weight']:.3f}"] for c in point["cycles"]]
    return text_table(("cycle", "layer", "candidate", "weight"), rows)


def population_table(population: Mapping[str, Any]) -> str:
    """A row a distinct network: as which sample it was drawn first, how often, its figures, each layer's candidate."""
    networks: list[Point] = population["networks"]
    layers = list(networks[0]["assignment"])
    rows = [
        [
            f"{p['sample']}{'*' if p['sample'] == population['selected'] else ''}",
            str(p["count"]),
            f"{p['energy']:.3f}",
            f"{p['validation_accuracy']:.1%}",
            f"{p['test_accuracy']:.1%}",
            *p["assignment"].values(),
        ]
        for p in networks
    ]
    return text_table(("sample", "drawn", "energy", "validation", "test", *(_stacked(n) for n in layers)), rows)


def pareto_table(results: Mapping[str, Any]) -> str:
    """A row a network of the Pareto set."""
    rows = [
        [
            str(p["seed"]),
            setting(p),
            "" if p["sample"] is None else str(p["sample"]),
            f"{p['energy']:.3f}",
            f"{p['validation_accuracy']:.1%}",
            f"{p['test_accuracy']:.1%}",
        ]
        for p in results["pareto"]
    ]
    return text_table(("seed", "search", "sample", "energy", "validation", "test"), rows)


def _stacked(layer: str) -> str:
    """A layer's name with a line for each of its parts, so that columns are narrow."""
    return layer.replace(".", "\n")
