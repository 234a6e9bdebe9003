"""What the exact counts are made of."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from dse.mapper.kernels import exact


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 13, 40, 168, 1025])
def test_the_first_keys_are_sorted_and_the_keys_stay(count: int) -> None:
    ordered: Any = exact._sorted
    for seed in range(20):
        rng = np.random.default_rng(seed)
        keys = rng.integers(-50, 50, count + 3)
        before = keys.tolist()
        assert ordered(keys, count).tolist() == sorted(before[:count])
        assert keys.tolist() == before


@pytest.mark.parametrize("read_write", [False, True])
def test_the_least_of_all_orders_is_that_of_each_order_alone(read_write: bool) -> None:
    """2 x 2 units that hold nothing, a buffer that leaks and limits cycles, DRAM; a window slides along one axis."""
    coefficient = np.array([[[1, 1, 0], [0, 0, 1]]])
    keep = np.array([[False], [True], [True]])
    mesh_x, link_allowed, shared = np.array([2, 1, 1]), np.array([[True], [False], [False]]), np.array([True])
    nothing, forgets = np.zeros((3, 1), bool), np.array([[True], [False], [False]])
    rules = exact.Rules(forgets, nothing, keep, nothing, np.ones((3, 1)), np.full(3, 4))
    counted = (coefficient, keep, mesh_x, link_allowed, shared, rules)
    bandwidth = np.full((3, 3), math.inf)
    bandwidth[1] = 0.5
    prices = (np.array([0.0, 1.0, 90.0]), np.array([0.0, 2.0, 100.0]), np.array([0.0, 2.0, 100.0]))
    block, leak, writes = np.array([1, 2, 4]), np.array([0.0, 0.1, 0.0]), np.array([read_write])
    per_stage = [
        _orders(0, [(0, 2), (1, 2)], True),
        _orders(1, [(1, 3), (2, 2)], False),
        _orders(2, [(0, 3), (1, 2), (2, 5)], False),
    ]
    costs = []
    for choice in itertools.product(*per_stage):
        counts = exact.exact_counts(np.concatenate(choice), *counted)
        costs.append(exact.priced(counts, writes, keep, *prices, block, leak, bandwidth, rules))
    assert len({energy for energy, _ in costs}) > 1  # the order matters
    rows = np.concatenate([order for orders in per_stage for order in orders])
    ways, loops = np.array([len(orders) for orders in per_stage]), np.array([2, 2, 3])
    least = exact.least_of_orders(rows, ways, loops, *counted, writes, *prices, block, leak, bandwidth)
    assert least == (min(energy for energy, _ in costs), min(cycles for _, cycles in costs))


def _orders(stage: int, loops: list[tuple[int, int]], spatial: bool) -> list[Any]:
    return [np.array([(stage, d, n, spatial) for d, n in order]) for order in itertools.permutations(loops)]
