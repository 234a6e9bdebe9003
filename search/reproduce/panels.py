"""What the runs of a panel found, as points to draw and sentences to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.reproduce.artefact import Claim
from search.reproduce.protocol import Panel
from search.runs.records import SEARCH_KEYS, search_of
from search.runs.results import Point, above_line, gain_over_uniform, setting, uni_operator_line

Results = Mapping[str, Mapping[str, Any]]
"""``results.json`` of runs, by their names."""


@dataclass(frozen=True)
class PanelData:
    """A panel's networks. Every searched one has ``above_line`` to the uni-operator networks of its seed; None left of
    the cheapest of these, where the line says nothing. It has the ``gain`` over the best of all uniform networks of its
    seed at no more energy, and the candidate ``over``.

    `notice` says so where the data on disk were not the official set.
    """

    title: str
    baselines: tuple[Point, ...]
    series: Mapping[str, tuple[Point, ...]]
    notice: str | None = None

    def table(self) -> list[dict[str, Any]]:
        """A row a network, for ``data.csv``."""
        rows = [_row(self.title, f"all {p['candidate']}", p) for p in self.baselines]
        return rows + [_row(self.title, label, p) for label, points in self.series.items() for p in points]


def panel_data(panel: Panel, results: Results, populations: bool = False) -> PanelData:
    """The networks of a panel.

    Args:
        populations: with all networks that were sampled and relearnt (``selected`` says which was taken), not only the
            one of each search that was taken.
    """
    baselines = tuple(p for p in results[panel.baselines]["networks"] if p["kind"] == "baseline")
    series = {}
    for label, run in panel.series.items():
        found = _population(results[run]) if populations else []
        found = found or [p for p in results[run]["networks"] if p["kind"] == "searched"]
        series[label] = tuple(
            {**p, "above_line": _above_line(p, baselines), **gain_over_uniform(p, baselines)} for p in found
        )
    return PanelData(panel.title, baselines, series, results[panel.baselines].get("data", {}).get("notice"))


def _population(results: Mapping[str, Any]) -> list[Point]:
    return [
        {**{k: population.get(k) for k in SEARCH_KEYS}, **network,
         "selected": network["sample"] == population["selected"]}
        for population in results["populations"] for network in population["networks"]
    ]  # fmt: skip


def _above_line(point: Point, baselines: Sequence[Point]) -> float | None:
    return above_line(point, uni_operator_line([b for b in baselines if b["seed"] == point["seed"]]))


def _row(panel: str, label: str, p: Point) -> dict[str, Any]:
    row = {
        "panel": panel, "series": label, "seed": p["seed"], "lambda": p.get("lambda"), "budget": p.get("budget"),
        "energy": p["energy"], "energy_expected": p.get("energy_expected"), "test_accuracy": p["test_accuracy"],
        "validation_accuracy": p["validation_accuracy"], "above_line": p.get("above_line"),
        "gain": p.get("gain"), "over": p.get("over"), "image_passes": p.get("image_passes"),
    }  # fmt: skip
    if "count" in p:
        row.update(drawn=p["count"], selected=p["selected"])
    if "assignment" in p:
        row["assignment"] = " ".join(f"{layer}={candidate}" for layer, candidate in p["assignment"].items())
    return row


def groups(data: PanelData) -> list[tuple[str, list[Point]]]:
    """Networks that differ in their seed only: all of a candidate, or of a series with the same lambda or budget."""
    found: dict[str, list[Point]] = {}
    for p in data.baselines:
        found.setdefault(f"all {p['candidate']}", []).append(p)
    for label, points in data.series.items():
        several = len({setting(p) for p in points}) > 1
        for p in points:
            found.setdefault(f"{label}, {setting(p)}" if several else label, []).append(p)
    return list(found.items())


SUMMARY_HEAD = ("networks", "seeds", "energy / all T8", "test accuracy", "points above the uni-operator line",
                "points over the best uniform network")  # fmt: skip


def summary_rows(data: PanelData) -> list[list[str]]:
    """A row a group: means over its networks, and of each seed where there are several."""
    rows = []
    for label, points in groups(data):
        gaps, gains = ([p[key] for p in points if p.get(key) is not None] for key in ("above_line", "gain"))
        rows.append([
            label, str(len({p["seed"] for p in points})), f"{_mean(p['energy'] for p in points):.3f}",
            f"{_mean(p['test_accuracy'] for p in points):.1%}{_each(p['test_accuracy'] for p in points)}",
            *(f"{100 * _mean(values):+.1f}{_each(values, signed=True)}" if values else "" for values in (gaps, gains)),
        ])  # fmt: skip
    return rows


def difference(one: Sequence[Point], other: Sequence[Point]) -> list[float]:
    """Test accuracies of `one` minus those of `other` with the same seed and the same lambda or budget, in points."""
    theirs = {search_of(p): p["test_accuracy"] for p in other}
    return [100 * (p["test_accuracy"] - theirs[search_of(p)]) for p in one if search_of(p) in theirs]


def compared(claim: str, paper: str, points: Sequence[float]) -> Claim | None:
    """A claim that something is better by some points; None if there is nothing to compare.

    Its direction counts as clear where the mean is further from zero than its standard error over the seeds.
    """
    if not points:
        return None
    ours = f"{_mean(points):+.1f} points{_each([p / 100 for p in points], signed=True)}"
    return Claim(claim, paper, ours, _above(points, 0.0))


def _above(values: Sequence[float], limit: float) -> bool | None:
    """Whether the mean is above `limit`; None where it is not further from it than its standard error."""
    if len(values) < 2:
        return None
    distance = float(np.mean(values)) - limit
    return None if abs(distance) <= float(np.std(values, ddof=1) / np.sqrt(len(values))) else distance > 0


ABOUT = (0.6, 0.82)
"""Energies, as shares of the all-typical 8-bit network's, at which a loss is set beside that of 20 to 40 % less."""


def saving(data: PanelData, less: str, paper: str, limit: float) -> Claim:
    """What searched networks of such energies lose against all T8, mean over their seeds; the best series is taken.

    Args:
        less: what the paper saves for how little, paper: that loss.
        limit: loss in points of test accuracy up to which it counts as small.
    """
    claim = f"{data.title}: {less} less energy for a small loss"
    typical = {b["seed"]: b["test_accuracy"] for b in data.baselines if b["candidate"] == "T8"}
    near = [
        (label, own)
        for label, points in groups(data)
        if (own := [p for p in points if "assignment" in p and p["seed"] in typical])
        and ABOUT[0] <= _mean(p["energy"] for p in own) <= ABOUT[1]
    ]
    if not near:
        return Claim(claim, paper, f"no network with {ABOUT[0]} to {ABOUT[1]} of the energy", None)
    label, best = max(near, key=lambda found: _mean(p["validation_accuracy"] for p in found[1]))
    losses = [typical[p["seed"]] - p["test_accuracy"] for p in best]
    ours = f"{100 * _mean(losses):.1f} points{_each(losses)} at {_mean(p['energy'] for p in best):.2f} ({label})"
    return Claim(claim, paper, ours, _above([-100 * loss for loss in losses], -limit))


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _each(values: Any, signed: bool = False) -> str:
    """The single values, in percent, where there are several."""
    several = [f"{100 * v:+.1f}" if signed else f"{100 * v:.1f}" for v in values]
    return f" ({', '.join(several)})" if len(several) > 1 else ""
