"""Figures of samples: over the density, as a trace, and their error by attribute of the macro."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from dse.core.files import write_atomically
from search.sampling.measure import Sampled
from search.sampling.mixture import FloatArray, Mixture

_INK, _MACRO, _EXACT, _MUTED = "#1d2733", "#4c78a8", "#c9534f", "#7f8a94"
_CHAINS = ("#4c78a8", "#f2a541", "#59a14f")
_STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _INK, "text.color": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.titlesize": 10, "legend.frameon": False,
    "savefig.bbox": "tight",
}  # fmt: skip
_MOST_DOTS = 4000
_SHARES = (0.95, 0.8, 0.5, 0.2)
"""Of the probability, inside the contours."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A histogram of one coordinate (`x` edges, `macro` densities), and the exact density at the same bins."""

    edges: FloatArray
    macro: FloatArray
    exact: FloatArray


@dataclass(frozen=True, eq=False)
class Plane:
    """Samples of the first two coordinates over the exact density of these two; `levels` are of `_SHARES`."""

    dots: FloatArray
    x: FloatArray
    y: FloatArray
    density: FloatArray
    levels: FloatArray


def plane_info(found: Sampled) -> Plane:
    """The plane of the first two coordinates; dots are evenly spaced samples.

    Example:
        >>> from search.sampling.macro import Macro
        >>> from search.sampling.measure import draw
        >>> from search.sampling.mixture import mixture
        >>> found = draw(mixture([1.0], [[0.0, 1.0]], [[[1.0, 0.0], [0.0, 1.0]]]), Macro(), 2000)
        >>> plane_info(found).dots.shape
        (2000, 2)
    """
    target = found.target
    two = Mixture(target.weights, target.means[:, :2], target.covariances[:, :2, :2])
    deviations = np.sqrt(np.diagonal(two.covariances, axis1=1, axis2=2))
    low, high = (two.means - 4 * deviations).min(0), (two.means + 4 * deviations).max(0)
    x, y = (np.linspace(low[i], high[i], 300) for i in (0, 1))
    density = np.exp(two.log_density(np.stack(np.meshgrid(x, y), -1)))
    ordered = np.sort(density.ravel())[::-1]
    within = np.cumsum(ordered) / ordered.sum()
    levels = ordered[np.minimum(np.searchsorted(within, _SHARES), len(ordered) - 1)]
    step = max(1, -(-len(found.samples) // _MOST_DOTS))
    return Plane(found.samples[::step, :2], x, y, density, np.unique(levels))


def marginal_info(found: Sampled, coordinate: int) -> Panel:
    """Density of one coordinate; bins are whole steps of the grid, or the histogram would show the grid.

    Example:
        >>> from search.sampling.macro import Macro
        >>> from search.sampling.measure import draw
        >>> from search.sampling.mixture import mixture
        >>> found = draw(mixture([1.0], [[0.0, 1.0]], [[[1.0, 0.0], [0.0, 1.0]]]), Macro(), 2000)
        >>> line = marginal_info(found, 1)
        >>> round(float((line.macro * np.diff(line.edges)).sum()), 6)
        1.0
    """
    values = found.samples[:, coordinate]
    line = found.target.projected(np.eye(found.target.dimensions)[coordinate])
    grid = np.unique(found.chains[..., coordinate])
    step = float(np.diff(grid).min()) if len(grid) > 1 else 1.0
    deviations = np.sqrt(line.covariances[:, 0, 0])
    low = min(float((line.means[:, 0] - 4 * deviations).min()), float(values.min()))
    high = max(float((line.means[:, 0] + 4 * deviations).max()), float(values.max()))
    width = step * max(1, round((high - low) / 80 / step))
    edges = grid[0] - step / 2 + width * np.arange(np.floor((low - grid[0]) / width), (high - grid[0]) / width + 2)
    counts, _ = np.histogram(values, edges)
    exact = np.diff(line.distribution(edges)) / width
    return Panel(edges, counts / len(values) / width, exact)


def draw_samples(found: Sampled) -> Figure:
    """Samples over the exact density, and the first coordinates' histograms beside it.

    Example:
        >>> from search.sampling.macro import Macro
        >>> from search.sampling.measure import draw
        >>> from search.sampling.mixture import mixture
        >>> found = draw(mixture([1.0], [[0.0, 1.0]], [[[1.0, 0.0], [0.0, 1.0]]]), Macro(), 2000)
        >>> len(draw_samples(found).axes)
        3
    """
    with mpl.rc_context(_STYLE):
        two = found.target.dimensions > 1
        figure = Figure(figsize=(10 if two else 5.4, 4.2), layout="constrained")
        panels = figure.subplots(1, 3 if two else 1, squeeze=False, width_ratios=[1.35, 1, 1] if two else None)[0]
        if two:
            info = plane_info(found)
            panels[0].scatter(*info.dots.T, s=3, alpha=0.35, color=_MACRO, linewidths=0, rasterized=True)
            panels[0].contour(info.x, info.y, info.density, info.levels, colors=_EXACT, linewidths=1)
            shares = ", ".join(f"{s:.0%}" for s in _SHARES)
            panels[0].set(xlabel="x0", ylabel="x1", title=f"exact contours around {shares}")
        for i, axes in enumerate(panels[1:] if two else panels):
            line = marginal_info(found, i)
            axes.stairs(line.macro, line.edges, fill=True, color=_MACRO, alpha=0.45, label="macro")
            axes.plot((line.edges[1:] + line.edges[:-1]) / 2, line.exact, color=_EXACT, linewidth=1.3, label="exact")
            axes.set(xlabel=f"x{i}", ylabel="probability density")
            axes.legend(fontsize=8)
        return figure


def draw_trace(found: Sampled) -> Figure:
    """The first coordinate of three chains, iteration by iteration, with the means as lines.

    Example:
        >>> from search.sampling.macro import Macro
        >>> from search.sampling.measure import draw
        >>> from search.sampling.mixture import mixture
        >>> found = draw(mixture([1.0], [[0.0, 1.0]], [[[1.0, 0.0], [0.0, 1.0]]]), Macro(), 2000)
        >>> draw_trace(found).axes[0].get_ylabel()
        'x0'
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        axes = figure.subplots()
        for colour, chain in zip(_CHAINS, range(found.chains.shape[1]), strict=False):
            axes.plot(found.chains[:400, chain, 0], drawstyle="steps-post", color=colour, linewidth=0.9,
                      label=f"chain {chain}")  # fmt: skip
        for mean in found.target.means[:, 0]:
            axes.axhline(mean, color=_MUTED, linewidth=0.7, linestyle=":")
        axes.set(xlabel="iteration after burn-in (dotted: means of the components)", ylabel="x0")
        axes.legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        return figure


_TITLES = {
    "adc_bits": "bits of the ADCs", "dac_bits": "bits of the DACs", "random_bias": "bias of a random bit",
    "random_correlation": "correlation of successive bits", "proposal_width": "proposal width",
}  # fmt: skip


def draw_study(found: Mapping[str, Any], macro: Mapping[str, Any]) -> Figure:
    """Error against each attribute: the mean over seeds with its range, the ideal sampler's range as a band.

    Args:
        found: what `search.sampling.study.study` returns.
        macro: the attributes of the macro, which are marked where they are among the values.

    Example:
        >>> from search.sampling.macro import Macro
        >>> from search.sampling.mixture import mixture
        >>> from search.sampling.study import study
        >>> found = study(mixture([1.0], [[0.0]], [[[1.0]]]), Macro(burn_in=5), samples=320)
        >>> len(draw_study(found, {"adc_bits": 6}).axes)
        6
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 6.2), layout="constrained")
        panels = figure.subplots(2, 3).ravel()
        ideal = found["ideal"]["wasserstein"]
        for axes, (field, points) in zip(panels, found["points"].items(), strict=False):
            _error_panel(axes, [(p["value"], p["wasserstein"]) for p in points], ideal)
            axes.set(xlabel=_TITLES[field], ylabel="sliced Wasserstein (std)", yscale="log")
            if field == "proposal_width":
                axes.set_xscale("log")
            if macro.get(field) is not None:
                axes.axvline(macro[field], color=_MUTED, linewidth=0.8, linestyle=":")
        points = found["points"]["proposal_width"]
        widths = [p["value"] for p in points]
        for key, label, colour in (("effective_share", "effective samples per sample", _MACRO),
                                   ("acceptance", "acceptance", _CHAINS[1])):  # fmt: skip
            panels[5].plot(widths, [np.mean(p[key]) for p in points], "o-", color=colour, markersize=4, label=label)
        panels[5].set(xlabel=_TITLES["proposal_width"], xscale="log", ylim=(0, None))
        panels[5].legend(fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
        return figure


def _error_panel(axes: Any, points: list[tuple[float, list[float]]], ideal: list[float]) -> None:
    values = [value for value, _ in points]
    axes.axhspan(min(ideal), max(ideal), color=_EXACT, alpha=0.25, linewidth=0, label="ideal sampler (range of seeds)")
    low, high = [min(errors) for _, errors in points], [max(errors) for _, errors in points]
    axes.fill_between(values, low, high, color=_MACRO, alpha=0.2, linewidth=0, label="macro (range of seeds)")
    mean = [float(np.mean(errors)) for _, errors in points]
    axes.plot(values, mean, "o-", color=_MACRO, markersize=4, linewidth=1.2, label="macro (mean)")


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file.

    Raises:
        InputError: the file cannot be written.

    Example:
        >>> write_figure(Figure(figsize=(1, 1)), Path("empty.png"))
        >>> Path("empty.png").read_bytes()[1:4]
        b'PNG'
    """
    with mpl.rc_context(_STYLE):
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150, facecolor="white"))
