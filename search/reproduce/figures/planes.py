"""Figs. 7 to 10 of the paper: accuracy against energy, for spaces, modes, populations and further data sets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.report.figures import colour, corners
from search.reproduce.artefact import Artefact, Claim, markdown_table
from search.reproduce.panels import (
    SUMMARY_HEAD,
    PanelData,
    compared,
    difference,
    groups,
    panel_data,
    saving,
    summary_rows,
)
from search.reproduce.protocol import Panel
from search.runs.results import Point, means, setting, staircase, uni_operator_line

Results = Mapping[str, Mapping[str, Any]]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLOURS = ("#8a5bb0", "#c04f6b", "#3b9ea8", "#7a7a2e", "#d9822b", "#5a5f9e", "#3c9a5f")


def draw_planes(data: Sequence[PanelData], by_setting: bool = False) -> Figure:
    """Axes a panel: uni-operator networks as large dots, the mean line through the paper's, the staircase of the best
    at no more energy. Every other network is a small marker; a line joins the means of a series' lambdas or budgets.

    Args:
        by_setting: a look for each lambda or budget of a series, and no means, as in Fig. 9.
    """
    figure = Figure(figsize=(6.2 * len(data) + 0.6, 4.6), layout="constrained")
    for ax, panel in zip(np.atleast_1d(figure.subplots(1, len(data))), data, strict=True):
        _draw_plane(ax, panel, by_setting)
    return figure


def _draw_plane(ax: Axes, panel: PanelData, by_setting: bool) -> None:
    for name in dict.fromkeys(p["candidate"] for p in panel.baselines):
        own = [p for p in panel.baselines if p["candidate"] == name]
        ax.plot(*_coordinates(own), "o", ms=8, mec="white", color=colour(name))
        middle = [float(np.mean(values)) for values in _coordinates(own)]
        ax.annotate(f"all {name}", (middle[0], max(_coordinates(own)[1])), (0, 7), textcoords="offset points",
                    ha="center", fontsize=8)  # fmt: skip
    steps = staircase(means(panel.baselines))
    if steps:
        end = max(p["energy"] for p in panel.baselines)
        energies, values = zip(*corners(steps, end), strict=True)
        ax.plot(energies, [100 * v for v in values], color="#555555", lw=1, zorder=0)
    line = mean_line(panel.baselines)
    if len(line) > 1:
        ax.plot([p[0] for p in line], [100 * p[1] for p in line], "--", color="#888888", lw=1, zorder=0)
    series = [(k, v) for k, v in groups(panel) if not k.startswith("all ")] if by_setting else panel.series.items()
    for i, (label, points) in enumerate(series):
        x, y = _coordinates(points)
        look: dict[str, Any] = {
            "marker": _MARKERS[i % len(_MARKERS)],
            "color": _COLOURS[i % len(_COLOURS)],
            "mec": "white",
        }
        if by_setting:
            ax.plot(x, y, ms=8, linestyle="", label=label, **look)
            continue
        settings = [[p for p in points if setting(p) == own] for own in dict.fromkeys(map(setting, points))]
        if len(settings) < len(points):
            ax.plot(x, y, ms=5, alpha=0.45, linestyle="", **look)
        middles = sorted(tuple(float(np.mean(values)) for values in _coordinates(own)) for own in settings)
        ax.plot(*zip(*middles, strict=True), ms=8, lw=1, label=label, **look)
    ax.set(xlabel="energy an image / all layers T8", ylabel="test accuracy (%)")
    ax.set_title(panel.title, fontsize=10)
    ax.margins(0.08, 0.12)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)


def mean_line(baselines: Sequence[Point]) -> list[tuple[float, float]]:
    """(energy, mean test accuracy over the seeds) of the uni-operator networks at the widest precision."""
    lines = [
        uni_operator_line([b for b in baselines if b["seed"] == s]) for s in dict.fromkeys(b["seed"] for b in baselines)
    ]
    lines = [line for line in lines if line]
    return [(ends[0][0], float(np.mean([e[1] for e in ends]))) for ends in zip(*lines, strict=True)]


def _coordinates(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p["energy"] for p in points], [100 * p["test_accuracy"] for p in points]


def fig7(panels: Sequence[Panel], results: Results) -> Artefact:
    """Mixed operator, mixed precision, both, all bi-level."""
    data = [panel_data(panel, results) for panel in panels]
    claims: list[Claim | None] = []
    for d in data:
        both = d.series.get("both", ())
        claims += [
            compared(f"{d.title}: both against mixed precision at equal energy", "+3 to +5 points",
                     difference(both, d.series.get("mixed precision", ()))),
            compared(f"{d.title}: both against mixed operator at equal energy", "better",
                     difference(both, d.series.get("mixed operator", ()))),
        ]  # fmt: skip
    return _plane(
        "fig7", data, draw_planes(data), claims,
    )  # fmt: skip


def fig8(panels: Sequence[Panel], results: Results) -> Artefact:
    """The modes at equal energy."""
    data = [panel_data(panel, results) for panel in panels]
    claims: list[Claim | None] = []
    for d in data:
        s = d.series
        gaps = [
            (label, [100 * p["above_line"] for p in points if p["above_line"] is not None])
            for label, points in s.items()
        ]
        for label, gap in gaps:
            claims.append(compared(f"{d.title}: {label} against the uni-operator line", "+10 to +20 points", gap))
        claims += [claim for label, points in groups(d) if (claim := _over_uniform(d, label, points)) is not None]
        claims.append(saving(d, "20 %", "about 1.5 points", limit=3.0))
        for one, other in (("bi-level", "single-level"), ("sequential", "bi-level"), ("stochastic", "sequential")):
            if one in s and other in s:
                claims.append(compared(f"{d.title}: {one} against {other} at equal energy", "better",
                                       difference(s[one], s[other])))  # fmt: skip
    return _plane(
        "fig8", data, draw_planes(data), claims,
    )  # fmt: skip


def _over_uniform(data: PanelData, label: str, points: Sequence[Point]) -> Claim | None:
    """That searched networks beat every uniform one of no more energy, which the paper does not compare them with."""
    gains = [100 * p["gain"] for p in points if p.get("gain") is not None]
    return compared(f"{data.title}: {label} against the best uniform network of no more energy", "not given", gains)


def fig9(panels: Sequence[Panel], results: Results) -> Artefact:
    """Every network that stochastic searches sampled, by lambda."""
    data = [panel_data(panel, results, populations=True) for panel in panels]
    claims = []
    for d in data:
        by_lambda = {
            k: [p["energy"] for p in v] for k, v in groups(d) if v[0].get("lambda") is not None
        }  # fmt: skip
        means = [float(np.mean(v)) for _, v in sorted(by_lambda.items(), key=lambda item: _lambda(item[0], d))]
        if len(means) > 1:
            falls = all(a > b for a, b in itertools.pairwise(means))
            claims.append(Claim(f"{d.title}: a higher lambda gives networks of less energy", "yes",
                                ", ".join(f"{m:.2f}" for m in means),
                                falls))  # fmt: skip
    return _plane(
        "fig9", data, draw_planes(data, by_setting=True), claims,
    )  # fmt: skip


def _lambda(group: str, data: PanelData) -> float:
    points = dict(groups(data))[group]
    return float(points[0]["lambda"])


def fig10(panels: Sequence[Panel], results: Results) -> Artefact:
    """GoogLeNet on further data sets, bi-level and stochastic."""
    data = [panel_data(panel, results) for panel in panels]
    claims: list[Claim | None] = []
    for d in data:
        if "stochastic" in d.series and "bi-level" in d.series:
            claims.append(compared(f"{d.title}: stochastic against bi-level at equal energy", "better",
                                   difference(d.series["stochastic"], d.series["bi-level"])))  # fmt: skip
        claims.append(saving(d, "30 to 40 %", "2 to 3 points", limit=5.0))
    return _plane(
        "fig10", data, draw_planes(data), claims,
    )  # fmt: skip


def _plane(name: str, data: Sequence[PanelData], figure: Figure, claims: Sequence[Claim | None]) -> Artefact:
    ours = [
        part
        for d in data
        for part in (f"{d.title} (means; single ones in brackets):", markdown_table(SUMMARY_HEAD, summary_rows(d)))
    ]
    ours += [f"Note: {d.notice}." for d in data if d.notice]
    return Artefact(name, [row for d in data for row in d.table()], figure, ours, [c for c in claims if c is not None])
