"""The one way kernels are compiled: no Python objects, cached on disk beside the module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.py")))
"""The files that the code of kernels depends on. Kernels import nothing else of this project."""


def digest(sources: Iterable[Path]) -> str:
    """Twelve digits that change with the contents of the files."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


DIGEST = digest(SOURCES)


def kernel(function: F) -> F:
    """Compiles a function with numba at its first call; later processes load it from the cache.

    A compiled kernel contains the code of the kernels it calls, but numba compiles it again only if the kernel's own
    file has changed. Numba also looks for the function's name in the cache, so the digest of all sources is part of it.
    """
    function.__qualname__ = f"{function.__qualname__}_{DIGEST}"
    return cast(F, numba.njit(cache=True, nogil=True)(function))
