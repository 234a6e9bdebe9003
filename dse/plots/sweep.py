"""Draws the figures of a sweep, without a display; `dse.plots.sweep_series` computes their content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from dse.core.files import system_errors
from dse.plots.sweep_series import (
    CurveInfo,
    CurvePanel,
    ParetoInfo,
    ParetoPanel,
    WinnersInfo,
    curve_info,
    pareto_info,
    winners_info,
)
from dse.sweep.sweep_table import SweepTable

SUFFIXES = (".png", ".svg")

# Colours that are distinct for the common forms of colour blindness: Paul Tol's "muted" scheme for levels, Okabe and
# Ito's for candidates.
_COMPUTE = "#DDDDDD"
_LEVELS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
)  # fmt: skip
_CANDIDATES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"

_LOG_FROM = 4.0  # ratio of the largest to the smallest size above which the axis is logarithmic
_MOST_TICKS = 12
_MARKER_PIXELS = 7.0
_BESIDE = (
    ((5, 3), "left", "bottom"),
    ((5, -3), "left", "top"),
    ((-5, -3), "right", "top"),
    ((-5, 3), "right", "bottom"),
)
"""Possible positions of a label relative to its data point, in points; the first free one is used."""
_MOST_POINT_LABELS = 64  # below a heat map
_DARKEST = 2.0  # ratio to a layer's least energy from which on the colour is the darkest


def draw_figures(found: SweepTable, candidates: Sequence[str], folder: Path) -> list[Path]:
    """Draws all figures of a sweep into a folder and returns their files.

    ``energy_<candidate>_<setting>``: energy per MAC against each setting; ``winners_<candidate>``; ``pareto``.

    Raises:
        InputError: a file cannot be written.
    """
    figures: dict[str, Figure] = {}
    for candidate in candidates:
        for axis in found.axes:
            curve = curve_info(found, candidate, axis)
            if curve is not None:
                figures[f"energy_{candidate}_{axis.paths[0]}"] = curve_figure(curve)
        figures[f"winners_{candidate}"] = winners_figure(winners_info(found, candidate))
    if candidates:
        figures["pareto"] = pareto_figure(pareto_info(found, candidates))
    files = [(folder / f"{name}{suffix}", figure) for name, figure in figures.items() for suffix in SUFFIXES]
    for path, figure in files:
        _save(figure, path)
    return [path for path, _ in files]


def curve_figure(info: CurveInfo) -> Figure:
    """Stacked energies per MAC, with one panel for each value of the other setting."""
    figure = _figure(2.2 + 3.9 * len(info.panels) ** 0.85, 4.2)
    panels = figure.subplots(1, len(info.panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(panels, info.panels, strict=True):
        _draw_curve(axes, panel, info.x_label)
    panels[0].set_ylabel("energy per MAC (pJ)")
    panels[0].set_ylim(0, 1.12 * max(max(panel.totals) for panel in info.panels))
    figure.suptitle(info.title, fontsize=11)
    if info.missing:
        sizes = ", ".join(f"{x:g}" for x in info.missing)
        figure.supxlabel(f"no total at {sizes}", fontsize=8)
    handles, labels = panels[-1].get_legend_handles_labels()
    panels[-1].legend(
        handles[::-1], labels[::-1], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
    )
    return figure


def _draw_curve(axes: Any, panel: CurvePanel, x_label: str) -> None:
    colours = [_COMPUTE, *(_LEVELS[i % len(_LEVELS)] for i in range(len(panel.parts) - 1))]
    axes.stackplot(
        panel.x, *panel.parts.values(), labels=list(panel.parts), colors=colours, edgecolor="white", linewidth=0.4
    )
    axes.plot(
        panel.x, panel.totals, color="black", marker="o", markersize=4, linewidth=1.2, label="total", clip_on=False
    )
    x, least = panel.x[panel.best], panel.totals[panel.best]
    axes.plot([x], [least], marker="*", markersize=13, color="white", markeredgecolor="black", clip_on=False, zorder=4)
    first, last = panel.best == 0, panel.best == len(panel.x) - 1
    axes.annotate(
        f"{least:.3g}",
        (x, least),
        xytext=(8 if first else -8 if last else 0, 8),
        textcoords="offset points",
        ha="left" if first else "right" if last else "center",
        va="bottom",
        fontsize=9,
    )
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(x_label)
    _size_axis(axes, panel.x)


def _size_axis(axes: Any, x: Sequence[float]) -> None:
    """Ticks at the sizes; the axis is logarithmic if the sizes span a large range."""
    if x[0] > 0 and x[-1] / x[0] >= _LOG_FROM:
        axes.set_xscale("log", base=2)
    if len(x) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(list(x)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", labelsize=8, rotation=45 if len(x) > 5 else 0)
    if len(x) > 1:
        axes.set_xlim(x[0], x[-1])


def pareto_figure(info: ParetoInfo) -> Figure:
    """One panel for each quantity that energy is plotted against."""
    figure = _figure(5.0 * len(info.panels), 4.4)
    panels = figure.subplots(1, len(info.panels), squeeze=False)[0]
    for axes, panel in zip(panels, info.panels, strict=True):
        _draw_pareto(axes, panel)
    figure.suptitle(info.title, fontsize=11)
    figure.supxlabel(f"lines: Pareto fronts; labels: {info.label_meaning}", fontsize=8)
    figure.draw_without_rendering()  # computes the layout, so that positions are final
    for axes, panel in zip(panels, info.panels, strict=True):
        _label_fronts(axes, panel)
    return figure


def _draw_pareto(axes: Any, panel: ParetoPanel) -> None:
    for i, series in enumerate(panel.series):
        colour, marker = _CANDIDATES[i % len(_CANDIDATES)], _MARKERS[i % len(_MARKERS)]
        axes.scatter(series.x, series.energy_uj, s=22, marker=marker, color=colour, alpha=0.35, linewidths=0)
        x = [series.x[j] for j in series.front]
        y = [series.energy_uj[j] for j in series.front]
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.2, label=series.candidate)
    values = [x for series in panel.series for x in series.x]
    if values and min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(0.12)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel("energy (uJ per inference)")
    axes.grid(alpha=0.25)
    if not values:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center")
    elif len(panel.series) > 1:
        axes.legend(fontsize=8, frameon=False)


def _label_fronts(axes: Any, panel: ParetoPanel) -> None:
    """Labels the points of each front, where there is room next to the point."""
    marks = [(series.x[j], series.energy_uj[j]) for series in panel.series for j in series.front]
    taken = [_around(x, y) for x, y in axes.transData.transform(marks)] if marks else []
    for i, series in enumerate(panel.series):
        for j in series.front:
            for (dx, dy), ha, va in _BESIDE:
                text = axes.annotate(
                    series.labels[j], (series.x[j], series.energy_uj[j]), xytext=(dx, dy), textcoords="offset points",
                    ha=ha, va=va, fontsize=7, color=_CANDIDATES[i % len(_CANDIDATES)],
                )  # fmt: skip
                box = text.get_window_extent()
                if not any(box.overlaps(other) for other in taken):
                    taken.append(box)
                    break
                text.remove()


def _around(x: float, y: float) -> Bbox:
    return Bbox.from_bounds(x - _MARKER_PIXELS / 2, y - _MARKER_PIXELS / 2, _MARKER_PIXELS, _MARKER_PIXELS)


def winners_figure(info: WinnersInfo) -> Figure:
    """A heat map of layers by points; a dot marks the cheapest point of each layer."""
    rows, columns = len(info.layers), len(info.points)
    figure = _figure(min(20.0, max(5.0, 3.0 + 0.34 * columns)), max(3.2, 1.8 + 0.2 * rows))
    axes = figure.subplots()
    values = np.array([[np.nan if r is None else r for r in row] for row in info.relative])
    known = values[~np.isnan(values)]
    top = max(1.0 + 1e-6, min(_DARKEST, float(known.max()))) if known.size else _DARKEST
    colours = matplotlib.colormaps["cividis_r"].with_extremes(bad="white")
    norm = PowerNorm(0.5, vmin=1.0, vmax=top)  # most differences are small
    image = axes.imshow(values, aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    beyond = bool(known.size) and float(known.max()) > top
    figure.colorbar(image, ax=axes, label="energy / least energy of the layer", extend="max" if beyond else "neither")
    for i, j in zip(*np.nonzero(np.isnan(values)), strict=True):
        axes.text(j, i, "x", ha="center", va="center", fontsize=7, color="grey")
    best = [(j, i) for i, j in enumerate(info.winners) if j is not None]
    axes.plot([j for j, _ in best], [i for _, i in best], linestyle="none", marker="o", markersize=4, color="black")
    if info.common is not None:
        axes.annotate(
            "best for all", (info.common, -0.5), xytext=(0, 12), textcoords="offset points", ha="center", fontsize=8,
            arrowprops={"arrowstyle": "-|>", "color": "black"}, annotation_clip=False,
        )  # fmt: skip
    every = -(-columns // _MOST_POINT_LABELS)
    axes.set_xticks(range(0, columns, every), info.points[::every], rotation=90, fontsize=8)
    axes.set_yticks(range(rows), info.layers, fontsize=8)
    axes.set_xlabel(info.points_label)
    axes.set_title(info.title, fontsize=11, pad=26 if info.common is not None else 8)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    # Text is kept as text in SVG, and files contain no time, so the same sweep gives the same files.
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with system_errors(path), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "enos"}):
        figure.savefig(path, dpi=150, metadata=metadata)
