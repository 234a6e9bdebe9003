"""Measured corrections: the assignments around a solution are measured whole, and what is better is kept.

The sum of single-layer increases is a prediction. The loss of the whole network decides between assignments that it
takes for nearly equal, and between them and the uniform ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from search.knapsack import choose, front
from search.sensitivity.sensitivities import FloatArray

Choice = tuple[int, ...]
"""The index of a candidate for each layer."""


@dataclass(frozen=True)
class Measured:
    """An assignment with the loss and the metric that were measured of it."""

    choice: Choice
    cost: float
    predicted: float
    loss: float
    accuracy: float


class Measurements:
    """Measures each choice once.

    Args:
        increases, costs: one array a layer, as `search.knapsack.front` takes them.
        evaluate: loss and metric on held-out images of each of some choices, in their order.
        uniform: see `uniform_choices`.
    """

    def __init__(self, increases: Sequence[FloatArray], costs: Sequence[FloatArray],
                 evaluate: Callable[[Sequence[Choice]], Sequence[tuple[float, float]]],
                 uniform: Sequence[Sequence[int]] | None = None) -> None:  # fmt: skip
        self.increases, self.costs, self._evaluate = list(increases), list(costs), evaluate
        self.uniform = _itself(self.costs) if uniform is None else uniform
        self.known: dict[Choice, Measured] = {}

    def __call__(self, choice: Sequence[int]) -> Measured:
        return self.all([choice])[0]

    def all(self, choices: Sequence[Sequence[int]]) -> list[Measured]:
        """Several choices at once."""
        keys = [tuple(int(i) for i in choice) for choice in choices]
        new = [key for key in dict.fromkeys(keys) if key not in self.known]
        for key, found in zip(new, self._evaluate(new) if new else (), strict=True):
            self.known[key] = Measured(key, self.cost(key), self._sum(self.increases, key), *found)
        return [self.known[key] for key in keys]

    def cost(self, choice: Sequence[int]) -> float:
        return self._sum(self.costs, choice)

    @staticmethod
    def _sum(arrays: Sequence[FloatArray], choice: Sequence[int]) -> float:
        return float(sum(a[i] for a, i in zip(arrays, choice, strict=True)))


def uniform_choices(costs: Sequence[FloatArray], uniform: Sequence[Sequence[int]] | None = None) -> dict[int, Choice]:
    """The uniform choices: those with one candidate in every layer, that is, with a mapping of every layer.

    Args:
        costs: one array a layer, inf for what a layer cannot have.
        uniform: what each layer has where the network has a candidate in all layers: that one, if it is not given.
            Layers without a choice keep what they have, and products of activations have the typical operator.

    Returns:
        by the index of the candidate.
    """
    found: dict[int, Choice] = {}
    for j in range(len(costs[0])):
        choice = tuple(has[j] for has in (_itself(costs) if uniform is None else uniform))
        if j in choice and all(np.isfinite(c[k]) for c, k in zip(costs, choice, strict=True)):
            found[j] = choice
    return found


def correct(measure: Measurements, budget: float, tries: int = 24) -> Measured:
    """The best of what is measured within a budget.

    Measured are, in this order: the solution of the knapsack, every uniform assignment within the budget; for each of
    these that is better than the solution, and for pairs of candidates, the best mixes of both; then exchanges in the
    best so far, of which the predicted loss is least. So the loss on the held-out images is never above that of a
    uniform assignment of no more cost, both measured alike: without training, with calibrated weights where they help,
    with the statistics of each batch. After training, or on other images, this does not follow.

    Args:
        tries: number of measurements besides those of the solution and the uniform assignments.
    """
    solution = front(measure.increases, measure.costs).within(budget)
    limit = budget * (1 + 1e-9)
    uniforms = [c for c in uniform_choices(measure.costs, measure.uniform).values() if measure.cost(c) <= limit]
    best = min(measure.all([solution, *uniforms]), key=_rank)
    left = tries
    mixes = [m for m in _mixes(measure, budget) if m not in measure.known][: tries // 2] if tries > 1 else []
    best, left = min([best, *measure.all(mixes)], key=_rank), left - len(mixes)
    while left > 0:
        new = [c for c in _exchanges(measure, best.choice, limit) if c not in measure.known]
        if not new:
            break
        before, some = best, new[: min(left, 4)]
        best, left = min([best, *measure.all(some)], key=_rank), left - len(some)
        if best is before and len(new) <= 4:
            break
    return best


def _rank(found: Measured) -> tuple[float, float]:
    return found.loss, found.cost


def _mixes(measure: Measurements, budget: float) -> list[Choice]:
    """Solutions of the knapsack with two candidates only, those of the least predicted loss first."""
    found: dict[Choice, float] = {}
    for pair in itertools.combinations(range(len(measure.costs[0])), 2):
        costs = [_only(c, {has[j] for j in pair}) for c, has in zip(measure.costs, measure.uniform, strict=True)]
        if any(not np.isfinite(c).any() for c in costs) or sum(float(c.min()) for c in costs) > budget:
            continue
        choice = tuple(choose([-v for v in measure.increases], costs, budget))
        found[choice] = float(sum(v[i] for v, i in zip(measure.increases, choice, strict=True)))
    return sorted(found, key=lambda choice: (found[choice], choice))


def _only(costs: FloatArray, kept: Collection[int]) -> FloatArray:
    result = np.full_like(costs, np.inf)
    result[list(kept)] = costs[list(kept)]
    return result


def _itself(costs: Sequence[FloatArray]) -> list[range]:
    return [range(len(row)) for row in costs]


def _exchanges(measure: Measurements, choice: Choice, limit: float) -> list[Choice]:
    """Changes of one layer or of two within the limit, those of the least predicted loss first."""
    singles = [
        (i, j, float(v[j] - v[choice[i]]), float(c[j] - c[choice[i]]))
        for i, (v, c) in enumerate(zip(measure.increases, measure.costs, strict=True))
        for j in range(len(v))
        if j != choice[i] and np.isfinite(v[j]) and np.isfinite(c[j])
    ]
    cost, found = measure.cost(choice), []
    for n, (i, j, loss, extra) in enumerate(singles):
        if cost + extra <= limit:
            found.append((loss, _with(choice, (i, j))))
        for i2, j2, loss2, extra2 in singles[n + 1 :]:
            if i2 != i and cost + extra + extra2 <= limit and extra * extra2 < 0:
                found.append((loss + loss2, _with(choice, (i, j), (i2, j2))))
    return [c for _, c in sorted(found)[:200]]


def _with(choice: Choice, *changes: tuple[int, int]) -> Choice:
    result = list(choice)
    for i, j in changes:
        result[i] = j
    return tuple(result)
