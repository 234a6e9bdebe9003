"""What a run's networks are judged by: accuracy, or another measure with a direction; under which keys results have it.

Apart from `search.training.metrics`, which computes it, so that reading results does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SplitName = Literal["validation", "test"]


@dataclass(frozen=True)
class Measure:
    """A measure of networks.

    Args:
        name: as texts call it.
        higher_is_better: its direction.
        percent: a share from 0 to 1, which texts show in percent.

    Example:
        >>> mse = Measure("mse", higher_is_better=False, percent=False)
        >>> mse.key("test"), mse.gain(0.2, over=0.5), mse.text(0.2), Measure().text(0.2)
        ('test_metric', 0.3, '0.2', '20.0%')
    """

    name: str = "accuracy"
    higher_is_better: bool = True
    percent: bool = True

    def key(self, split: SplitName) -> str:
        """Key of a network's value in results: ``test_accuracy``, or ``test_metric`` for other measures."""
        return f"{split}_accuracy" if self.name == "accuracy" else f"{split}_metric"

    def of(self, point: Mapping[str, Any], split: SplitName) -> float:
        """A network's value on a split."""
        return float(point[self.key(split)])

    def gain(self, value: float, over: float) -> float:
        """How much better `value` is than `over`; negative if it is worse."""
        return value - over if self.higher_is_better else over - value

    def rank(self, value: float) -> float:
        """A number that is the larger, the better `value` is."""
        return value if self.higher_is_better else -value

    def text(self, value: float) -> str:
        """A value for people."""
        return f"{value:.1%}" if self.percent else f"{value:.4g}"

    def gain_text(self, gain: float) -> str:
        """A gain for people: percentage points, or the measure's own unit; with a sign."""
        return f"{100 * gain:+.1f}" if self.percent else f"{gain:+.3g}"

    @property
    def unit(self) -> str:
        """Behind a gain: `` percentage points``, or the measure's name."""
        return "percentage points" if self.percent else f"in {self.name}"


ACCURACY = Measure()
"""Share of images that are classified right; all results have it that do not name another measure."""


def measure_of(results: Mapping[str, Any]) -> Measure:
    """The measure that the networks of ``results.json`` were judged by; accuracy where none is named."""
    named = results.get("metric")
    return Measure(**named) if named else ACCURACY


def discretised_key(measure: Measure) -> str:
    """Key, in the record of a search, of the values of its discretised networks."""
    return "validation_accuracies_discretised" if measure == ACCURACY else "validation_metrics_discretised"


OWN = "own"
"""Targets of any kind."""

LOSSES = {"cross_entropy": "labels", "next_token": "labels", "mse": "numbers", "l1": "numbers", "bce": "numbers"}
"""Losses by name, and the kind of their targets: labels (whole numbers) or numbers."""

METRICS = {
    "accuracy": ACCURACY,
    "mean_iou": Measure("mean_iou"),
    "mse": Measure("mse", higher_is_better=False, percent=False),
    "mae": Measure("mae", higher_is_better=False, percent=False),
    "perplexity": Measure("perplexity", higher_is_better=False, percent=False),
}
"""Metrics by name."""
