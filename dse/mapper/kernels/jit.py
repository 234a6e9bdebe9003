"""The one way kernels are compiled: no Python objects, cached on disk beside the module."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

import numba

from dse.model import formulas

F = TypeVar("F", bound=Callable[..., object])

SOURCES = (*sorted(Path(__file__).parent.glob("*.py")), Path(formulas.__file__))
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


def compiled(formula: F) -> F:
    """A formula of `dse.model.formulas` as a kernel; the formula itself stays as it is."""
    copy = types.FunctionType(formula.__code__, formula.__globals__, formula.__name__)
    return cast(F, kernel(copy))
