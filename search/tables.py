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
    """A column a distinct network, under the sample it was drawn as first: how often, its figures, its candidates."""
    networks: list[Point] = population["networks"]
    head = [f"{p['sample']}{'*' if p['sample'] == population['selected'] else ''}" for p in networks]
    rows = [
        ["drawn", *(str(p["count"]) for p in networks)],
        ["energy", *(f"{p['energy']:.3f}" for p in networks)],
        ["validation", *(f"{p['validation_accuracy']:.1%}" for p in networks)],
        ["test", *(f"{p['test_accuracy']:.1%}" for p in networks)],
        *([layer, *(p["assignment"][layer] for p in networks)] for layer in networks[0]["assignment"]),
    ]
    return text_table(("sample", *head), rows)


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
