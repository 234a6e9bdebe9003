from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import InputError
from search.knapsack import STEPS, choose, front

Problem = tuple[list[np.ndarray], list[np.ndarray]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to five layers with up to four candidates of any costs; some have no mapping."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    log_weights = [np.array(draw(st.lists(st.floats(-20, 0), min_size=n, max_size=n))) for n in sizes]
    costs = [np.array(draw(st.lists(st.floats(1e-3, 1), min_size=n, max_size=n))) for n in sizes]
    for c in costs:
        if len(c) > 1 and draw(st.booleans()):
            c[-1] = np.inf
    return log_weights, costs


def total(arrays: list[np.ndarray], indices: list[int]) -> float:
    return float(sum(a[i] for a, i in zip(arrays, indices, strict=True)))


def every_choice(problem: Problem) -> list[tuple[float, float]]:
    """(cost, log-weight) of all choices, by brute force."""
    log_weights, costs = problem
    found = [(total(costs, list(i)), total(log_weights, list(i)))
             for i in itertools.product(*(range(len(c)) for c in costs))]  # fmt: skip
    return [f for f in found if np.isfinite(f[0])]


@given(problems(), st.floats(0, 1), st.sampled_from([0.02, 0.3, 1.0]))
@settings(deadline=None, max_examples=60)
def test_against_brute_force(problem: Problem, where: float, tolerance: float) -> None:
    choices = every_choice(problem)
    least, most = min(c for c, _ in choices), max(c for c, _ in choices)
    budget = least + where * (most - least)
    found = choose(*problem, budget, tolerance)
    cost, weight = total(problem[1], found), total(problem[0], found)
    assert cost <= budget * (1 + 1e-9)
    # Rounding hides at most a step in each layer: the answer is that of brute force up to this slack.
    slack = len(problem[0]) * (budget - least) / STEPS + 1e-9
    floor = (1 - tolerance) * budget
    inside = [w for c, w in choices if floor + slack <= c <= budget - slack]
    if budget >= most:
        assert weight == pytest.approx(max(w for _, w in choices))
    elif inside:
        assert cost >= floor - 1e-9
        assert weight >= max(inside) - 1e-9
    else:
        assert weight >= max((w for c, w in choices if c <= min(floor, budget) - slack), default=-np.inf) - 1e-9


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_whole_numbers_are_solved_exactly(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 5))
    costs = [np.array(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)), dtype=float) for _ in range(n)]
    log_weights = [np.array(data.draw(st.lists(st.floats(-9, 0), min_size=3, max_size=3))) for _ in range(n)]
    least = sum(c.min() for c in costs)
    budget = least + data.draw(st.sampled_from([1, 2, 4, 5, 8, 10, 16]))  # divide STEPS
    found = choose(log_weights, costs, float(budget), tolerance=1.0)
    best = max(w for c, w in every_choice((log_weights, costs)) if c <= budget)
    assert total(costs, found) <= budget
    assert total(log_weights, found) == pytest.approx(best)


def squeezenet_like(layers: int, candidates: int, seed: int) -> Problem:
    """Layers of very different size, whose dearer candidates are mostly the more probable ones."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0, 1, layers)
    relative = np.linspace(0.25, 1, candidates)
    costs = [s * relative * rng.uniform(0.9, 1.1, candidates) / sizes.sum() for s in sizes]
    return [np.log(rng.dirichlet(relative)) for _ in range(layers)], costs


@pytest.mark.parametrize(("layers", "candidates"), [(26, 9), (60, 15)])
@pytest.mark.parametrize("budget", [0.3, 0.4, 0.5, 0.7, 0.9])
def test_whole_networks_spend_their_budget(layers: int, candidates: int, budget: float) -> None:
    log_weights, costs = squeezenet_like(layers, candidates, seed=1)
    found = choose(log_weights, costs, budget)
    assert 0.98 * budget <= total(costs, found) <= budget
    # Lagrange: for any multiplier m, no choice between the floor and the budget has a higher log-weight than this.
    multipliers = np.concatenate([-np.logspace(-1, 5, 1000), np.logspace(-1, 5, 1000)])
    bound = min(
        sum((w - m * c).max() for w, c in zip(log_weights, costs, strict=True)) + m * budget * (1 if m > 0 else 0.98)
        for m in multipliers
    )
    assert bound - 1 <= total(log_weights, found) <= bound + 1e-9  # one nat in all layers together


def test_a_budget_that_no_choice_exceeds_is_no_constraint() -> None:
    log_weights, costs = squeezenet_like(5, 3, seed=0)
    assert choose(log_weights, costs, 2.0) == [int(w.argmax()) for w in log_weights]


def test_the_cheapest_choice_is_found_at_its_own_cost() -> None:
    log_weights, costs = squeezenet_like(26, 9, seed=0)
    budget = sum(float(c.min()) for c in costs)
    assert choose(log_weights, costs, budget) == [int(c.argmin()) for c in costs]


def test_a_budget_below_the_cheapest_choice_is_refused_with_one_that_is_not() -> None:
    log_weights, costs = [np.zeros(2), np.zeros(2)], [np.array([0.1, 0.5]), np.array([0.123456, 0.5])]
    with pytest.raises(
        InputError, match=r"^energy budget: 0.2 is below the cheapest assignment \(allowed: at least 0.2235\)"
    ):
        choose(log_weights, costs, 0.2)
    assert choose(log_weights, costs, 0.2235) == [0, 0]


def test_a_budget_that_cannot_be_spent_is_not_exceeded() -> None:
    log_weights, costs = [np.array([0.0, -1.0, -9.0])], [np.array([0.1, 0.2, 1.0])]
    assert choose(log_weights, costs, 0.9) == [0]  # the likelier one: neither comes near the budget


def test_what_has_no_mapping_or_no_weight_is_never_chosen() -> None:
    log_weights, costs = [np.array([0.0, -5.0, -np.inf])], [np.array([np.inf, 0.2, 0.1])]
    assert choose(log_weights, costs, 0.5) == [1]


@given(problems())
@settings(deadline=None, max_examples=60)
def test_the_front_is_that_of_brute_force_up_to_its_tolerance(problem: Problem) -> None:
    values, costs = [-w for w in problem[0]], problem[1]
    found, choices = front(values, costs), [(c, -w) for c, w in every_choice(problem)]
    assert (np.diff(found.costs) > 0).all() and (np.diff(found.values) < 0).all()
    for i, choice in enumerate(found.choices.tolist()):
        assert total(costs, choice) == pytest.approx(found.costs[i])
        assert total(values, choice) == pytest.approx(found.values[i])
    for cost, value in choices:  # each choice is dominated by a point that costs no more than the tolerance above it
        inside = found.values[found.costs <= cost + found.tolerance + 1e-9]
        assert len(inside) and inside.min() <= value + 1e-9
    assert found.costs[0] == pytest.approx(min(c for c, _ in choices))
    assert found.values[-1] == pytest.approx(min(v for _, v in choices))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_front_of_whole_numbers_is_exact(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5))
    costs = [np.array(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)), dtype=float) for _ in range(n)]
    values = [np.array(data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)), dtype=float) for _ in range(n)]
    found = front(values, costs)
    everything = [(c, -w) for c, w in every_choice(([-v for v in values], costs))]
    pareto = sorted({(c, v) for c, v in everything
                     if not any((a <= c and b < v) or (a < c and b <= v) for a, b in everything)})  # fmt: skip
    assert list(zip(found.costs.tolist(), found.values.tolist(), strict=True)) == pareto


def test_the_front_agrees_with_single_budgets() -> None:
    log_weights, costs = squeezenet_like(26, 9, seed=2)
    found = front([-w for w in log_weights], costs)
    for budget in (0.3, 0.4, 0.5, 0.7):
        cost, weight = (total(arrays, found.within(budget)) for arrays in (costs, log_weights))
        assert cost <= budget
        assert weight >= total(log_weights, choose(log_weights, costs, budget - found.tolerance, 1.0)) - 1e-9
    with pytest.raises(InputError, match=r"^energy budget: 0.1 is below the cheapest"):
        found.within(0.1)


def test_a_front_needs_a_choice_in_every_layer() -> None:
    with pytest.raises(InputError, match=r"^layer 1: has no candidate"):
        front([np.zeros(2), np.array([0.0, np.inf])], [np.ones(2), np.array([np.inf, 1.0])])
    assert front([np.zeros(1)], [np.zeros(1)]).costs.tolist() == [0.0]
