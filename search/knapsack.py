"""One candidate for each layer, for a budget or for all of them: a multiple-choice knapsack problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.core.errors import InputError
from dse.table.cost_table import FloatArray

TOLERANCE = 0.02
"""How far below the budget a decided network may stay, as a share of the budget."""

STEPS = 50_000
"""Steps that the budget's room above the cheapest choice is divided into."""


def choose(
    log_weights: Sequence[FloatArray], costs: Sequence[FloatArray], budget: float, tolerance: float = TOLERANCE
) -> list[int]:
    """The index of one candidate for each layer, of highest total log-weight at a total cost within the budget.

    Dynamic programming over the cost above the cheapest choice, each candidate's rounded up to `STEPS` steps. So:

    - the true cost never exceeds the budget, and the cheapest choice is always found;
    - with n layers to choose for, no choice that stays n steps below the budget has a higher total log-weight;
    - the cost is at least (1 - tolerance) * budget where a choice exists that is n steps inside these two limits,
      though a cheaper one may have a higher log-weight: what a budget allows is meant to be spent. Where there is
      none, the budget alone counts.

    A budget that no choice exceeds is not a constraint: every layer has its candidate of highest weight then.

    Args:
        log_weights: one array a layer, -inf for what must not be chosen; log-probabilities up to a constant a layer.
        costs: of the same shapes, at least 0; inf for what has no mapping.
        budget: in the unit of `costs`.

    Raises:
        InputError: a budget below the cheapest choice.

    Example:
        >>> log_weights = [np.log([0.7, 0.3]), np.log([0.6, 0.4])]
        >>> costs = [np.array([3.0, 1.0]), np.array([3.0, 1.0])]
        >>> [choose(log_weights, costs, budget) for budget in (6, 4, 2)]
        [[0, 0], [0, 1], [1, 1]]
    """
    values = [np.where(np.isfinite(c), w, -np.inf) for w, c in zip(log_weights, costs, strict=True)]
    allowed = [np.where(np.isfinite(w), c, np.inf) for w, c in zip(values, costs, strict=True)]
    check_budget(allowed, budget)
    if budget >= sum(c[np.isfinite(c)].max() for c in allowed):
        return [int(w.argmax()) for w in values]
    least = sum(float(c.min()) for c in allowed)
    step = max(budget - least, 1e-12 * budget) / STEPS
    # The subtrahend forgives rounding errors, so that costs which are whole numbers of steps stay what they are.
    raised = [np.ceil(np.minimum((c - c.min()) / step, STEPS + 1) - 1e-6).astype(int) for c in allowed]
    best, chosen = _fill(values, raised)
    open_layers = sum(len(set(r.tolist())) > 1 for r in raised)  # rounding adds less than a step in each
    floor = max(0, math.ceil(((1 - tolerance) * budget - least) / step + open_layers))
    start = floor if floor <= STEPS and np.isfinite(best[floor:]).any() else 0
    position = start + int(best[start:].argmax())
    found = []
    for choice, steps in zip(reversed(chosen), reversed(raised), strict=True):
        found.append(int(choice[position]))
        position -= steps[found[-1]]
    return found[::-1]


def check_budget(costs: Sequence[FloatArray], budget: float, what: str = "energy budget") -> None:
    """Refuses a budget that no choice of one candidate a layer can meet.

    Raises:
        InputError: naming the smallest possible budget.

    Example:
        >>> check_budget([np.array([3.0, 1.0]), np.array([3.0, 1.0])], budget=1.5)
        Traceback (most recent call last):
        dse.core.errors.InputError: energy budget: 1.5 is below the cheapest assignment (allowed: at least 2)
    """
    least = sum(float(c.min()) for c in costs)
    if not budget >= least * (1 - 1e-9):
        smallest = math.ceil(least * 1e4) / 1e4  # rounded up, so that it can be asked for
        raise InputError(what, f"{budget:g} is below the cheapest assignment", f"at least {smallest:g}")


def _fill(values: Sequence[FloatArray], steps: Sequence[np.ndarray]) -> tuple[FloatArray, list[np.ndarray]]:
    """The knapsack's table.

    Returns:
        for each number of steps the highest total value of choices that use exactly these, -inf where none does; and
        for each layer the candidate that it has there, given those of the layers before.
    """
    best = np.full(STEPS + 1, -np.inf)
    best[0] = 0.0
    chosen = []
    for value, step in zip(values, steps, strict=True):
        new, choice = np.full(STEPS + 1, -np.inf), np.zeros(STEPS + 1, dtype=np.int16)
        for j in np.argsort(step, kind="stable"):
            if step[j] <= STEPS and np.isfinite(value[j]):
                reached = best[: STEPS + 1 - step[j]] + value[j]
                target = new[step[j] :]
                better = reached > target
                np.copyto(target, reached, where=better)
                np.copyto(choice[step[j] :], j, where=better)
        best = new
        chosen.append(choice)
    return best, chosen


@dataclass(frozen=True, eq=False)
class Front:
    """Choices of one candidate a layer of which none is better in both cost and value, from cheap to dear.

    Attributes:
        costs: true total costs, strictly increasing, shape (points,).
        values: true total values, strictly decreasing, of the same shape.
        choices: the index of a candidate for each layer, shape (points, layers).
        tolerance: how much less than the budget a choice may have to cost to be sure to be found, in the unit of costs.
    """

    costs: FloatArray
    values: FloatArray
    choices: npt.NDArray[np.int16]
    tolerance: float

    def __len__(self) -> int:
        return len(self.costs)

    def within(self, budget: float) -> list[int]:
        """The choice of the least value whose cost is within a budget.

        Raises:
            InputError: a budget below the cheapest choice.
        """
        index = int(np.searchsorted(self.costs, budget * (1 + 1e-9), side="right")) - 1
        if index < 0:
            check_budget([self.costs[:1]], budget)
        return [int(i) for i in self.choices[index]]


def front(values: Sequence[FloatArray], costs: Sequence[FloatArray]) -> Front:
    """The whole Pareto front of total cost against total value, of which less is better: `choose` for all budgets.

    One dynamic program over the cost above the cheapest choice, in `STEPS` steps up to the dearest, each candidate's
    cost rounded up. So for every budget, no choice whose cost is at least `tolerance` (n steps, n layers to choose for)
    below it has a lower value than the point of the front within this budget; the cheapest choice is found exactly.

    Args:
        values: one array a layer, inf for what must not be chosen; increases of the loss, say.
        costs: of the same shapes, at least 0; inf for what has no mapping.

    Raises:
        InputError: a layer without any choice.

    Example:
        >>> found = front([np.array([0.0, 2.0]), np.array([0.0, 1.0])], [np.array([3.0, 1.0]), np.array([3.0, 1.0])])
        >>> found.costs.tolist(), found.values.tolist()
        ([2.0, 4.0, 6.0], [3.0, 1.0, 0.0])
        >>> found.within(5.0)
        [0, 1]
    """
    both = [np.isfinite(v) & np.isfinite(c) for v, c in zip(values, costs, strict=True)]
    for i, allowed in enumerate(both):
        if not allowed.any():
            raise InputError(f"layer {i}", "has no candidate with both a finite cost and a finite value")
    values = [np.where(ok, v, np.inf) for v, ok in zip(values, both, strict=True)]
    costs = [np.where(ok, c, np.inf) for c, ok in zip(costs, both, strict=True)]
    least = sum(float(c.min()) for c in costs)
    most = sum(float(c[np.isfinite(c)].max()) for c in costs)
    open_layers = sum(len(set(c[np.isfinite(c)].tolist())) > 1 for c in costs)
    step = max(most - least, 1e-12 * max(most, 1e-300)) / (STEPS - open_layers)  # rounded up, the dearest still fits
    raised = [np.where(np.isfinite(c), np.ceil((np.where(np.isfinite(c), c, 0) - c.min()) / step - 1e-6), STEPS + 1)
              .astype(int) for c in costs]  # fmt: skip
    best, chosen = _fill([-v for v in values], raised)
    better = np.maximum.accumulate(best)
    positions = np.flatnonzero(np.isfinite(best) & (np.concatenate([[-np.inf], better[:-1]]) < best))
    choices, at = np.zeros((len(positions), len(costs)), dtype=np.int16), positions.copy()
    for layer in range(len(costs) - 1, -1, -1):
        choices[:, layer] = chosen[layer][at]
        at -= raised[layer][choices[:, layer]]
    total_cost = np.sum([c[choices[:, i]] for i, c in enumerate(costs)], axis=0)
    total_value = np.sum([v[choices[:, i]] for i, v in enumerate(values)], axis=0)
    order = np.lexsort((total_value, total_cost))
    kept, lowest = [], np.inf
    for i in order:
        if total_value[i] < lowest:
            kept.append(i)
            lowest = total_value[i]
    return Front(total_cost[kept], total_value[kept], choices[kept], open_layers * step)
