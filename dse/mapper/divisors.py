"""Divisors: the perfect factors of a dimension."""

from __future__ import annotations

import math


def divisors_of(n: int) -> list[int]:
    """All divisors of a number in ascending order, in the time of its square root.

    >>> divisors_of(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return [*small, *(n // k for k in reversed(small) if k * k != n)]
