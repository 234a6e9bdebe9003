"""What the exact counts are made of."""

from __future__ import annotations

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
