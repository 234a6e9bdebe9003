"""The one way kernels are compiled: no Python objects, cached on disk beside the module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

_SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()[:12]


def kernel(function: F) -> F:
    """Compiles a function with numba at its first call; later processes load it from the cache.

    Kernels contain the code of those they call, and numba renews a cache only if the file of the kernel itself has
    changed. So the name, which is part of the cache's, says which state of all files a kernel belongs to.
    """
    function.__qualname__ = f"{function.__qualname__}_{_SOURCES}"
    return cast(F, numba.njit(cache=True, nogil=True)(function))
