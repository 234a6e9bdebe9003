from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.knapsack import front
from search.sensitivity.correct import Measurements, correct, uniform_choices


def problem(seed: int, layers: int = 6, candidates: int = 4) -> Measurements:
    """Increases that predict the measured loss badly: it has pairs of layers that matter together."""
    rng = np.random.default_rng(seed)
    relative = np.linspace(1, 0.2, candidates)
    costs = [rng.uniform(0.5, 2) / layers * relative * rng.uniform(0.9, 1.1, candidates) for _ in range(layers)]
    increases = [np.concatenate([[0], np.sort(rng.exponential(0.1, candidates - 1))]) for _ in range(layers)]
    together = rng.normal(0, 0.2, (layers, layers, candidates, candidates))

    def evaluate(choice: tuple[int, ...]) -> tuple[float, float]:
        loss = 1 + sum(v[i] for v, i in zip(increases, choice, strict=True))
        loss += sum(abs(together[a, b, choice[a], choice[b]]) for a in range(layers) for b in range(a))
        return float(loss), 0.5

    return Measurements(increases, costs, lambda choices: [evaluate(c) for c in choices])


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_what_is_found_is_never_worse_than_a_uniform_or_the_solution(seed: int, where: float, tries: int) -> None:
    measure = problem(seed)
    points = front(measure.increases, measure.costs)
    budget = float(points.costs[0] + where * (points.costs[-1] - points.costs[0]))
    found = correct(measure, budget, tries)
    assert found.cost <= budget * (1 + 1e-9)
    within = [measure(c) for c in uniform_choices(measure.costs).values() if measure.cost(c) <= budget]
    solution = measure(points.within(budget))
    assert found.loss == min([found.loss, solution.loss, *(m.loss for m in within)])
    assert len(measure.known) <= tries + 1 + len(uniform_choices(measure.costs))


def test_corrections_find_what_the_prediction_misses() -> None:
    gains = []
    for seed in range(10):
        measure = problem(seed)
        budget = 0.5 * sum(float(c[0]) for c in measure.costs)
        solution = measure(front(measure.increases, measure.costs).within(budget))
        gains.append(solution.loss - correct(measure, budget, 40).loss)
    assert min(gains) >= 0 and np.mean(gains) > 0.1


def test_nothing_is_measured_twice() -> None:
    measure = problem(0)
    inner, calls = measure._evaluate, list[tuple[int, ...]]()

    def counting(choices: Sequence[tuple[int, ...]]) -> Sequence[tuple[float, float]]:
        calls.extend(choices)
        return inner(choices)

    measure._evaluate = counting
    for budget in (0.5, 0.6, 0.5):
        correct(measure, budget * sum(float(c[0]) for c in measure.costs), 20)
    assert len(calls) == len(set(calls)) == len(measure.known)


def test_a_candidate_without_a_mapping_is_no_uniform() -> None:
    costs = [np.array([1.0, 0.5]), np.array([1.0, np.inf])]
    assert uniform_choices(costs) == {0: (0, 0)}
    measure = Measurements([np.array([0.0, 0.1])] * 2, costs, lambda choices: [(float(sum(c)), 0.0) for c in choices])
    assert correct(measure, 1.5, 10).choice == (1, 0)
    assert measure((0, 0)).cost == pytest.approx(2)


def test_a_layer_without_a_choice_keeps_what_it_has_in_uniform_assignments() -> None:
    costs = [np.array([1.0, 0.5, np.inf]), np.array([1.0, np.inf, np.inf])]
    assert uniform_choices(costs, uniform=[[0, 1, 2], [0, 0, 0]]) == {0: (0, 0), 1: (1, 0)}
    losses = {(0, 0): 0.0, (1, 0): 1.0}
    increases = [np.array([0.0, 0.1, 0.0]), np.zeros(3)]
    measure = Measurements(
        increases, costs, lambda choices: [(losses[c], 0.0) for c in choices], [[0, 1, 2], [0, 0, 0]]
    )
    assert correct(measure, 2.0, 0).choice == (0, 0) and correct(measure, 1.5, 0).choice == (1, 0)
