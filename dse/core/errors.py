"""The one exception class for wrong input; the command line turns it into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 1000
"""Characters of a message; what is longer loses its middle."""


class InputError(ValueError):
    """Something the user gave is wrong: says where, what was found and what is allowed, in one line.

    Args:
        where: file and field path, for example ``arch.yaml: architecture.nodes[3].attributes.depth``.
        problem: what is wrong, naming what was found.
        allowed: what would have been accepted, if that can be said in a few words.
    """

    def __init__(self, where: object, problem: str, allowed: str | Iterable[object] | None = None) -> None:
        names = None if allowed is None else allowed if isinstance(allowed, str) else ", ".join(map(str, allowed))
        suffix = "" if names is None else f" (allowed: {_short(names, LONGEST // 2)})"
        super().__init__(_one_line(_short(f"{where}: {problem}", LONGEST - len(suffix)) + suffix))


def _short(text: str, most: int) -> str:
    """`text`, without its middle where it is longer: its start says where, and its end often what."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"


def _one_line(text: str) -> str:
    """`text` with every character that ends a line, moves the cursor or cannot be written replaced."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t\v\f" else ascii(c)[1:-1] for c in text)
