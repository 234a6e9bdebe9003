"""The most probable choice of one candidate a layer that meets a budget: a multiple-choice knapsack problem."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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
