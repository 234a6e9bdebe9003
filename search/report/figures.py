"""The figures of a run. Each is a pure `*_info` function, which computes what is drawn, and a thin `draw_*` one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.colors
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure

from dse.page.colours import hue as hue_of
from dse.page.colours import shades
from dse.table.breakdown import breakdown
from dse.table.cost_table import CostTable
from search.runs.results import Label, Point, labels, means, setting, staircase, uni_operator_line
from search.training.measures import ACCURACY, Measure

INK = "#1d2733"
"""Text and axes."""

_PARTS = ("#4c78a8", "#f2a541", "#59a14f", "#c9534f", "#9d7bb5", "#8c6d4f", "#d37295", "#7f8a94", "#3fa7a0", "#b5b83e",
          "#e0794b", "#5a5f9e")  # fmt: skip
_STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "text.color": INK,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10,
    "legend.frameon": False, "savefig.bbox": "tight",
}  # fmt: skip


@dataclass(frozen=True)
class Breakdown:
    """Energy in uJ of every layer (rows) by where it is spent (columns): compute, then each memory level."""

    layers: tuple[str, ...]
    candidates: tuple[str, ...]
    parts: tuple[str, ...]
    energy_uj: tuple[tuple[float, ...], ...]


def breakdown_info(table: CostTable, assignment: Mapping[str, str]) -> Breakdown:
    """Where an assignment's energy goes; levels are in the order of the table's columns, leakage is the last part."""
    parts = breakdown(table, assignment)
    energies = zip(*parts.parts.values(), strict=True)
    return Breakdown(table.layers, parts.candidates, tuple(parts.parts), tuple(tuple(pj * 1e-6 for pj in layer)
                                                                               for layer in energies))  # fmt: skip


def draw_breakdown(info: Breakdown) -> Figure:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6))
        axes = figure.subplots()
        x, bottom = np.arange(len(info.layers)), np.zeros(len(info.layers))
        for i, part in enumerate(info.parts):
            height = np.array([row[i] for row in info.energy_uj])
            axes.bar(x, height, bottom=bottom, width=0.8, label=part, color=_PARTS[i % len(_PARTS)])
            bottom += height
        for i, candidate in enumerate(info.candidates):
            axes.annotate(candidate, (i, bottom[i]), (0, 2), textcoords="offset points", ha="center", fontsize=7)
        axes.set_xticks(x, info.layers, rotation=90, fontsize=7)
        axes.set(ylabel="energy per image (µJ)", xlim=(-0.6, len(x) - 0.4))
        axes.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.02))
        return figure


@dataclass(frozen=True)
class OperatorMap:
    """softmax(alpha) of every layer (rows) and candidate (columns), and the column that was chosen."""

    layers: tuple[str, ...]
    candidates: tuple[str, ...]
    hues: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    chosen: tuple[int, ...]


def operator_map_info(point: Point, declared: Sequence[Label]) -> OperatorMap:
    """The operator weights of one searched network; a candidate that a layer cannot have has the share 0."""
    shares: Mapping[str, Mapping[str, float]] = point["probabilities"]
    found = {c for row in shares.values() for c in row}
    candidates = tuple(c.name for c in declared if c.name in found)
    return OperatorMap(
        layers=tuple(shares),
        candidates=candidates,
        hues=tuple(_hue(c, declared) for c in candidates),
        shares=tuple(tuple(row.get(c, 0.0) for c in candidates) for row in shares.values()),
        chosen=tuple(candidates.index(point["assignment"][layer]) for layer in shares),
    )


def draw_operator_map(info: OperatorMap) -> Figure:
    """A row a candidate, a column a layer: the darker, the larger its softmax weight; the choice is framed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.6 + 0.28 * len(info.candidates) + 1.0))
        axes = figure.subplots()
        for y, (hue, candidate) in enumerate(zip(info.hues, info.candidates, strict=True)):
            rgb, hatch = mpl.colors.to_rgb(hue), hatch_of(candidate)
            for x, row in enumerate(info.shares):
                framed = info.chosen[x] == y
                faint = (*mpl.colors.to_rgb(INK), 0.04 + 0.96 * row[y])  # the stripes have the colour of the edge
                cell = mpl.patches.Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, facecolor=(*rgb, 0.06 + 0.94 * row[y]))
                cell.set(hatch=hatch, edgecolor=INK if framed else faint, linewidth=1.4 if framed else 0)
                cell.set_zorder(3 if framed else 1)
                axes.add_patch(cell)
        axes.set_xticks(range(len(info.layers)), info.layers, rotation=90, fontsize=7)
        axes.set_yticks(range(len(info.candidates)), info.candidates)
        axes.set(xlim=(-0.6, len(info.layers) - 0.4), ylim=(len(info.candidates) - 0.4, -0.6))
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        return figure


@dataclass(frozen=True)
class TradeOff:
    """Points (energy, test accuracy in percent), in the order of `seeds`.

    `line` joins the means of the uni-operator networks at the widest precision, as the paper draws it; `stairs` has the
    corners of the best uniform network at no more energy, of the means too (`search.runs.results.staircase`).
    `colours` are those of the candidates in `baselines`. Values of a measure that is no share are not in percent.
    """

    seeds: tuple[int, ...]

    line: tuple[tuple[float, float], ...]
    stairs: tuple[tuple[float, float], ...]
    baselines: Mapping[str, tuple[tuple[float, float], ...]]
    colours: Mapping[str, str]
    searched: Mapping[str, tuple[tuple[float, float], ...]]
    label: str = "test accuracy (%)"
    higher_is_better: bool = True


def trade_off_info(networks: Sequence[Point], declared: Sequence[Label], measure: Measure = ACCURACY) -> TradeOff:
    """All seeds' points, grouped by candidate and by what was searched with."""
    scale = 100 if measure.percent else 1
    baselines: dict[str, list[tuple[float, float]]] = {}
    searched: dict[str, list[tuple[float, float]]] = {}
    for p in networks:
        point = (p["energy"], scale * measure.of(p, "test"))
        if p["kind"] == "baseline":
            baselines.setdefault(p["candidate"], []).append(point)
        else:
            searched.setdefault(setting(p), []).append(point)
    uniform = means(networks, measure)
    line = uni_operator_line(uniform, declared, measure)
    stairs = corners(staircase(uniform, measure), max(p["energy"] for p in networks))
    return TradeOff(
        tuple(dict.fromkeys(p["seed"] for p in networks)),
        tuple((energy, scale * value) for energy, value in line),
        tuple((energy, scale * value) for energy, value in stairs),
        {name: tuple(points) for name, points in baselines.items()},
        {name: colour(name, declared) for name in baselines},
        {name: tuple(points) for name, points in searched.items()},
        f"test {measure.name} (%)" if measure.percent else f"test {measure.name}",
        measure.higher_is_better,
    )


def corners(steps: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The corners of a staircase to draw: each step's height holds until the next step, the last one's until `end`.

    Example:
        >>> corners([(0.3, 40), (0.5, 60)], 1.0)
        [(0.3, 40), (0.5, 40), (0.5, 60), (1.0, 60)]
    """
    found: list[tuple[float, float]] = []
    for i, (energy, value) in enumerate(steps):
        until = steps[i + 1][0] if i + 1 < len(steps) else max(end, energy)
        found += [(energy, value), (until, value)]
    return found


def draw_trade_off(info: TradeOff) -> Figure:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.2))
        axes = figure.subplots()
        if len(info.line) > 1:
            axes.plot(
                *zip(*info.line, strict=True), color=INK, linewidth=1, linestyle="--", label="uni-operator (mean)"
            )
        if info.stairs:
            axes.plot(
                *zip(*info.stairs, strict=True),
                color="#7f8a94",
                linewidth=1.6,
                label="best uniform at no more energy (mean)",
                zorder=1,
            )
        for name, points in info.baselines.items():
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, color=info.colours[name], s=28, alpha=0.85, marker="s" if hatch_of(name) else "o")
            axes.annotate(name, (x[0], max(y)), (0, 5), textcoords="offset points", ha="center", fontsize=8)
        for (name, points), marker in zip(info.searched.items(), "*DPX^vsph" * len(info.searched), strict=False):
            x, y = zip(*points, strict=True)
            axes.scatter(
                x,
                y,
                color="#d1405a",
                marker=marker,
                s=70,
                zorder=3,
                label=f"searched, {name} (seed)".replace("lambda", "λ ="),
            )
            for seed, point in zip(info.seeds, points, strict=True):
                axes.annotate(str(seed), point, (6, -3), textcoords="offset points", fontsize=8)
        axes.set(xlabel="energy per image / all layers T8", ylabel=info.label)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, loc="lower right" if info.higher_is_better else "upper right")
        return figure


def colour(candidate: str, declared: Sequence[Label] | None = None) -> str:
    """A hue an operator; narrower words are lighter. The candidates are the shipped ones, unless they are given.

    The page has the same colours.
    """
    declared = labels({}) if declared is None else declared
    fills = shades([(c.operator, c.bits) for c in declared])
    return next(fill for c, (fill, _) in zip(declared, fills, strict=True) if c.name == candidate)


def _hue(candidate: str, declared: Sequence[Label]) -> str:
    return hue_of(next(c.operator for c in declared if c.name == candidate), [c.operator for c in declared])


def hatch_of(candidate: str) -> str | None:
    """The pattern of a candidate in a computing mode beside the first; colour is for the operator and its precision.

    Example:
        >>> hatch_of("MF8"), hatch_of("MF8@cim")
        (None, '////')
    """
    return "////" if "@" in candidate else None


def to_png(figure: Figure) -> bytes:
    out = io.BytesIO()
    settings: dict[str, Any] = {"format": "png", "dpi": 150, "facecolor": "white"}
    with mpl.rc_context(_STYLE):
        figure.savefig(out, **settings)
    return out.getvalue()
