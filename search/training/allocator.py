"""How a process that trains or measures networks keeps its memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, of malloc.h."""

_PAD = 2**26
"""Bytes that the heap grows by in addition, each time that it grows."""


@functools.cache
def keep_freed_memory() -> bool:
    """Lets this process use the memory of freed tensors again, instead of giving it back to the system each time.

    glibc takes each block of 32 MB and more from the system and gives it back when it is freed. The system clears
    every page before it is used again, which may take longer than what is computed (`benchmarks/freed_memory.py`).
    From now on the process keeps the most memory that it has needed. Nothing is done without glibc, or where the
    environment has settings of its own for its allocator (``MALLOC_MMAP_MAX_``, ``GLIBC_TUNABLES``).

    Returns:
        Whether glibc has taken the settings. They have no effect where another allocator was loaded before it.

    Source: mallopt(3) of the Linux manual.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc" or any(n.startswith(("MALLOC_", "GLIBC_TUNABLES")) for n in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, _PAD)])
