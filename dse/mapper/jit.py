"""The one way kernels are compiled: no Python objects, cached on disk beside the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compiles a function with numba at its first call; later processes load it from the cache."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
