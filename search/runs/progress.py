"""How long a run will still take, from the seconds its epochs took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.runs.stages import Stage
    from search.training.checkpoint import Record


class Remaining:
    """Counts the epochs of a run's stages; epochs of a search take longer than others and are timed by themselves.

    Args:
        epochs: of every stage.
        jobs: number of processes, which share what is left.
    """

    def __init__(self, epochs: Mapping[Stage, int], jobs: int) -> None:
        self._left: Counter[bool] = Counter()
        for stage, number in epochs.items():
            self._left[stage.kind == "search"] += number
        self.epochs = self._left.total()
        self._jobs = jobs
        self._done: Counter[bool] = Counter()
        self._took: dict[bool, float] = {True: 0.0, False: 0.0}

    def add(self, stage: Stage, record: Record) -> None:
        """Counts an epoch that is done, now or by an earlier process."""
        searching = stage.kind == "search"
        self._left[searching] -= 1
        self._done[searching] += 1
        self._took[searching] += record["seconds"]

    def seconds(self) -> float | None:
        """Time left, None before the first epoch; what has not been timed yet is taken to be like the rest."""
        if not self._done:
            return None
        mean = sum(self._took.values()) / self._done.total()
        of_kind = {kind: self._took[kind] / self._done[kind] if self._done[kind] else mean for kind in (True, False)}
        return sum(max(0, self._left[kind]) * seconds for kind, seconds in of_kind.items()) / self._jobs


def in_words(seconds: float | None) -> str:
    """A duration as a person would say it."""
    if seconds is None:
        return "unknown time"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return (
                f"about {seconds / size:.0f} {unit}" if seconds >= 10 * size else f"about {seconds / size:.1f} {unit}"
            )
    return f"about {seconds:.0f} s"
