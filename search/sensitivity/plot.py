"""The figure of a front: predicted loss against energy, with the uniform networks and the found ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dse.core.files import system_errors
from search.costs import Held
from search.knapsack import Front
from search.training.measures import ACCURACY, Measure

if TYPE_CHECKING:
    from search.sensitivity.job import Solution

QUANTITIES: dict[Held, str] = {"energy": "energy", "latency": "cycles", "size": "size of weights"}
"""What texts call the quantities."""

# matplotlib is imported only to draw: the content of the figure can be computed, and tested, without it.


@dataclass(frozen=True)
class FrontInfo:
    """Two panels: predicted increase of the loss against cost, and the metric, mostly accuracy, against cost.

    Attributes:
        front: costs and predicted increases.
        uniforms, found: name, cost, predicted increase, metric of each network; shares are 0 to 1.
        accuracy: which metric, and of which images.
        percent: whether the metric is drawn in percent.
    """

    quantity: str
    front: tuple[tuple[float, float], ...]
    uniforms: tuple[tuple[str, float, float, float], ...]
    found: tuple[tuple[str, float, float, float], ...]
    accuracy: str
    percent: bool = True


def front_info(
    front: Front, uniforms: Sequence[Solution], found: Sequence[Solution], quantity: Held, measure: Measure = ACCURACY
) -> FrontInfo:
    """What is drawn: test accuracies where networks have been fine-tuned, else those that were measured."""
    trained = all(s.trained for s in [*uniforms, *found])

    def point(s: Solution) -> tuple[str, float, float, float]:
        return s.name, s.cost, s.predicted, measure.of(s.trained, "test") if trained else s.accuracy

    return FrontInfo(
        QUANTITIES[quantity],
        tuple(zip(front.costs.tolist(), front.values.tolist(), strict=True)),
        tuple(point(s) for s in uniforms),
        tuple(point(s) for s in found),
        f"test {measure.name}, fine-tuned" if trained else f"{measure.name} on held-out images, not trained",
        measure.percent,
    )


def draw_front(info: FrontInfo, path: Path) -> None:
    """Draws the two panels into a file; its suffix decides the format.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.step(*zip(*info.front, strict=True), where="post", color="C0", label="front")
    for axes, column in ((left, 2), (right, 3)):
        scale = 100 if column == 3 and info.percent else 1
        for points, marker, colour, label in ((info.uniforms, "s", "C7", "one candidate in all layers"),
                                              (info.found, "o", "C3", "found")):  # fmt: skip
            if points:
                axes.plot(
                    [p[1] for p in points], [scale * p[column] for p in points], marker, color=colour, label=label
                )
                for p in points:
                    axes.annotate(p[0], (p[1], scale * p[column]), textcoords="offset points", xytext=(4, 4),
                                  fontsize=8, color=colour)  # fmt: skip
        axes.set_xlabel(f"{info.quantity} / all-typical 8 bit")
        axes.grid(alpha=0.3)
    left.set_ylabel("predicted increase of the loss")
    left.legend(frameon=False, fontsize=8)
    right.set_ylabel(f"{info.accuracy} (%)" if info.percent else info.accuracy)
    with system_errors(path):
        figure.savefig(path, dpi=150)
