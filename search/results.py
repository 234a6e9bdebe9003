"""What a run found: its networks as points of accuracy and energy, and how they lie to the uni-operator line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dse.candidates import load_candidates
from search.config import RunConfig

Point = dict[str, Any]


class StageLike(Protocol):
    """What identifies a stage; see `search.stages.Stage`."""

    @property
    def kind(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def lam(self) -> float | None: ...
    @property
    def candidate(self) -> str | None: ...


def summarise(config: RunConfig, unit_pj: float, done: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``results.json``.

    Args:
        unit_pj: energy in pJ of the network with the typical operator at 8 bits everywhere.
        done: finished stages and their records; a search counts with its relearning only.

    Returns:
        ``networks``: one point a trained network, with accuracies from 0 to 1 and energies in units of `unit_pj`;
        searched networks carry ``above_line`` too, their distance from the uni-operator line of their seed.
    """
    baselines = [_baseline(stage, record) for stage, record in done.items() if stage.kind == "baseline"]
    searches = {(s.seed, s.lam): record for s, record in done.items() if s.kind == "search"}
    searched = [
        _searched(stage, searches[stage.seed, stage.lam]["result"], record["result"])
        for stage, record in done.items()
        if stage.kind == "relearn"
    ]
    for point in searched:
        line = uni_operator_line([b for b in baselines if b["seed"] == point["seed"]])
        point["above_line"] = point["test_accuracy"] - line_accuracy(line, point["energy"]) if line else None
    return {"name": config.name, "unit_pj": unit_pj, "transmission": config.transmission,
            "networks": [*baselines, *searched]}  # fmt: skip


def uni_operator_line(baselines: Sequence[Point]) -> list[tuple[float, float]]:
    """(energy, test accuracy) of the uni-operator networks at the widest precision among them, cheapest first."""
    bits = {c.name: c.bits for c in load_candidates()}
    widest = max((bits[b["candidate"]] for b in baselines), default=0)
    return sorted((b["energy"], b["test_accuracy"]) for b in baselines if bits[b["candidate"]] == widest)


def line_accuracy(line: Sequence[tuple[float, float]], energy: float) -> float:
    """Accuracy on the line at `energy`; outside its ends, that of the nearer end."""
    return float(np.interp(energy, [p[0] for p in line], [p[1] for p in line]))


def _baseline(stage: StageLike, record: Mapping[str, Any]) -> Point:
    return {"kind": "baseline", "seed": stage.seed, "candidate": stage.candidate, **record["result"]}


def _searched(stage: StageLike, search: Mapping[str, Any], relearned: Mapping[str, Any]) -> Point:
    return {
        "kind": "searched",
        "seed": stage.seed,
        "lambda": stage.lam,
        "energy_expected": search["energy_expected"],
        **relearned,
        "assignment": search["assignment"],
        "probabilities": search["probabilities"],
    }
