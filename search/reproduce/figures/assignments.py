"""Figs. 5 and 6 of the paper: which candidate each layer got, as coloured tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from search.report.figures import colour
from search.reproduce.artefact import Artefact, Claim, markdown_table
from search.reproduce.panels import SUMMARY_HEAD, PanelData, panel_data, saving, summary_rows
from search.reproduce.protocol import Panel
from search.runs.results import Point, setting

Grid = list[tuple[str, Mapping[str, str]]]
"""Rows of a table of assignments: a label, and layer -> candidate, where a layer may be left out (undecided)."""


def draw_grids(grids: Mapping[str, Grid]) -> Figure:
    """A table for each title, one below the other: a row for each entry, a column for each layer."""
    sizes = [len(grid) for grid in grids.values()]
    figure = Figure(figsize=(12.5, 1.0 * len(grids) + 0.24 * sum(sizes) + 0.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(grids), 1, height_ratios=[n + 2 for n in sizes]))
    for ax, (title, grid) in zip(axes, grids.items(), strict=True):
        _draw_grid(ax, title, grid)
    return figure


def _draw_grid(ax: Axes, title: str, grid: Grid) -> None:
    layers = next(list(assignment) for _, assignment in grid[::-1])
    for y, (_, assignment) in enumerate(grid):
        for x, layer in enumerate(layers):
            if candidate := assignment.get(layer):
                ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour(candidate)))
                light = np.mean([int(colour(candidate)[i : i + 2], 16) for i in (1, 3, 5)]) > 140
                ax.text(x, y, candidate, ha="center", va="center", fontsize=6.5, color="black" if light else "white")
    ax.set(xlim=(-0.6, len(layers) - 0.4), ylim=(len(grid) - 0.4, -0.6))
    ax.set_xticks(range(len(layers)), layers, rotation=60, ha="left", fontsize=7, rotation_mode="anchor")
    ax.set_yticks(range(len(grid)), [label for label, _ in grid], fontsize=7)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=9, loc="left")


def fig5(panels: Sequence[Panel], results: Mapping[str, Mapping[str, Any]]) -> Artefact:
    """Assignments under growing lambda, with accuracy and energy, below the uni-operator networks."""
    data = [panel_data(panel, results) for panel in panels]
    layers = list(next(iter(data[0].series.values()))[0]["assignment"])
    grids = {d.title: _uni_rows(d) + _searched_rows(d) for d in data}
    first, last = layers[0], layers[-1]
    searched = [p for d in data for points in d.series.values() for p in points]
    ends = [sum(p["assignment"][name].startswith("T") for p in searched) for name in (first, last)]
    claims = [saving(d, "20 %", "about 1.5 points", limit=3.0) for d in data]
    claims.append(Claim("first and last layer stay typical", "always",
                        f"{first} in {ends[0]}, {last} in {ends[1]} of {len(searched)} networks",
                        min(ends) > len(searched) / 2))  # fmt: skip
    return Artefact(
        name="fig5",
        rows=[row for d in data for row in d.table()], figure=draw_grids(grids),
        ours=[part for d in data for part in (f"{d.title}:", markdown_table(SUMMARY_HEAD, summary_rows(d)))],
        claims=claims,
    )  # fmt: skip


def _uni_rows(data: PanelData) -> Grid:
    """The uni-operator networks, means over seeds, dearest first."""
    layers = list(next(iter(data.series.values()))[0]["assignment"])
    names = dict.fromkeys(p["candidate"] for p in data.baselines)
    rows = []
    for name in names:
        own = [p for p in data.baselines if p["candidate"] == name]
        accuracy = float(np.mean([p["test_accuracy"] for p in own]))
        rows.append((own[0]["energy"], (f"all {name}: {accuracy:.1%} at {own[0]['energy']:.2f}",
                                        dict.fromkeys(layers, str(name)))))  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda r: -r[0])]


def _searched_rows(data: PanelData) -> Grid:
    points = [p for points in data.series.values() for p in points]
    several = len({p["seed"] for p in points}) > 1
    rows: Grid = []
    for p in sorted(points, key=lambda p: -p["energy"]):
        seed = f", seed {p['seed']}" if several else ""
        rows.append((f"{setting(p)}{seed}: {p['test_accuracy']:.1%} at {p['energy']:.2f}", p["assignment"]))
    return rows


def fig6(panels: Sequence[Panel], results: Mapping[str, Mapping[str, Any]]) -> Artefact:
    """(a) which layer a sequential search assigns in which cycle; (b) the networks that a stochastic one samples."""
    panel = panels[0]
    sequential = next(p for p in results[panel.series["sequential"]]["networks"] if p["kind"] == "searched")
    population = results[panel.series["stochastic"]]["populations"][0]
    rows = [
        {"part": "sequential", "seed": sequential["seed"], **entry} for entry in sequential["cycles"]
    ]  # fmt: skip
    samples = [
        {"part": "stochastic", "seed": population["seed"], "sample": p["sample"], "drawn": p["count"],
         "energy": p["energy"], "test_accuracy": p["test_accuracy"], "selected": p["sample"] == population["selected"],
         "assignment": " ".join(f"{k}={v}" for k, v in p["assignment"].items())} for p in population["networks"]
    ]  # fmt: skip
    grids = {"(a) sequential: cycle by cycle": cycle_grid(sequential), "(b) stochastic: sampled networks":
             _population_grid(population)}  # fmt: skip
    order = [entry["layer"] for entry in sequential["cycles"]]
    distinct = {
        layer: len({p["assignment"][layer] for p in population["networks"]}) for layer in sequential["assignment"]
    }
    sure = [layer for layer, n in distinct.items() if n == 1]
    open_ = sorted(distinct, key=lambda layer: -distinct[layer])[:3]
    return Artefact(
        name="fig6",
        rows=[*rows, *samples], figure=draw_grids(grids),
        ours=[f"(a) Seed {sequential['seed']}: the first layers assigned are {', '.join(order[:3])}, the last "
              f"{', '.join(order[-3:])}.",
              f"(b) Seed {population['seed']}: {len(population['networks'])} distinct networks; "
              f"{len(sure)} of {len(distinct)} layers have the same candidate in all of them; "
              f"{', '.join(f'{layer} has {distinct[layer]}' for layer in open_)}."],
    )  # fmt: skip


def cycle_grid(point: Point) -> Grid:
    """A row a cycle: the layers decided so far."""
    decided: dict[str, str] = {}
    grid: Grid = []
    for entry in point["cycles"]:
        decided[entry["layer"]] = entry["candidate"]
        known = {layer: decided[layer] for layer in point["assignment"] if layer in decided}
        grid.append((f"cycle {entry['cycle']}", known))
    layers = {layer: point["assignment"][layer] for layer in point["assignment"]}
    return [*grid[:-1], (grid[-1][0], layers)]


def _population_grid(population: Mapping[str, Any]) -> Grid:
    return [
        (f"sample {p['sample']}{' (best)' if p['sample'] == population['selected'] else ''}: "
         f"{p['test_accuracy']:.1%} at {p['energy']:.2f}", p["assignment"]) for p in population["networks"]
    ]  # fmt: skip
