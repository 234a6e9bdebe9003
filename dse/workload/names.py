"""Names of layers, and lists of names, in texts for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SHOWN = 3
"""How many names of a list are shown."""


def unused(name: str, used: Collection[str]) -> str:
    """`name`, or ``name#2``, ``name#3``, ... if it is taken.

    Example:
        >>> unused("fc", ["fc", "fc#2"])
        'fc#3'
    """
    candidate, n = name, 1
    while candidate in used:
        n += 1
        candidate = f"{name}#{n}"
    return candidate


def listed(names: Sequence[str]) -> str:
    """How many there are, and the first different ones.

    Example:
        >>> listed(["a", "b", "a", "c", "d"])
        '5 times: a, b, c, ...'
    """
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(distinct[:SHOWN]) + (", ..." if len(distinct) > SHOWN else "")
    return f"{len(names)} times: {shown}" if len(names) > 1 else shown


def some(names: Collection[str]) -> str:
    """The first names in alphabetical order.

    Example:
        >>> some({"b", "a"})
        'a, b'
    """
    return ", ".join(sorted(names)[:SHOWN])
