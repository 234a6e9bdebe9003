"""Figures of cost tables: for each, a pure function that computes its content and a thin one that draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.table.breakdown import breakdown
from dse.table.cost_table import CostTable

# matplotlib is imported only to draw: the content of a figure can be computed, and tested, without it.


@dataclass(frozen=True)
class BreakdownInfo:
    """Stacked bars, one per layer: `parts[name][i]` is the energy in uJ of a part of the hardware in layer i.

    Parts run from the compute unit outwards. A layer without a mapping has no bar; `without_mapping` names it.
    """

    title: str
    layers: tuple[str, ...]
    parts: dict[str, tuple[float, ...]]
    without_mapping: tuple[str, ...]


def breakdown_info(table: CostTable, candidate: str) -> BreakdownInfo:
    """The energy of each layer under one candidate, by part of the hardware.

    Raises:
        InputError: the candidate is unknown, or the table has no columns of levels.
    """
    parts = breakdown(table, candidate)
    total_pj = sum(map(sum, parts.parts.values()))
    return BreakdownInfo(
        title=f"{table.rows[0]['workload']}, {candidate}: {total_pj / 1e6:.0f} uJ per inference",
        layers=table.layers,
        parts={name: tuple(pj / 1e6 for pj in part) for name, part in parts.parts.items()},
        without_mapping=tuple(layer for layer, pj in zip(table.layers, parts.compute, strict=True) if pj is None),
    )


def draw_breakdown(info: BreakdownInfo, path: Path | str) -> None:
    """Draws the bars into a file; its suffix decides the format.

    Raises:
        InputError: the suffix is not a supported format, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(path, f"cannot draw a {path.suffix!r}", ".png, .pdf, .svg")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.4, 2.5 + 0.36 * len(info.layers)), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bottom = [0.0] * len(info.layers)
    for i, (name, energies) in enumerate(info.parts.items()):
        axes.bar(info.layers, energies, bottom=bottom, label=name, color=f"C{i % 10}", width=0.8)
        bottom = [b + e for b, e in zip(bottom, energies, strict=True)]
    for layer in info.without_mapping:
        axes.annotate("no mapping", (layer, 0), rotation=90, ha="center", va="bottom", fontsize=8)
    axes.set_title(info.title)
    axes.set_ylabel("energy (uJ)")
    axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.margins(x=0.01)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    with system_errors(path):
        figure.savefig(path, dpi=150)
