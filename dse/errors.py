"""The one exception class for wrong input; the command line turns it into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: says where, what was found and what is allowed.

    Args:
        where: file and field path, for example ``arch.yaml: architecture.nodes[3].attributes.depth``.
        problem: what is wrong, naming what was found.
        allowed: what would have been accepted, if that can be said in a few words.
    """

    def __init__(self, where: object, problem: str, allowed: str | Iterable[object] | None = None) -> None:
        line = f"{where}: {problem}"
        if allowed is not None:
            names = allowed if isinstance(allowed, str) else ", ".join(str(a) for a in allowed)
            line += f" (allowed: {names})"
        super().__init__(line)
