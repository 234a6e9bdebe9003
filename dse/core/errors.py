"""The one exception class for wrong input; the command line turns it into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LONGEST = 1000
"""Characters of a message; what is longer loses its middle."""


class InputError(ValueError):
    """Something the user gave is wrong: says where, what was found and what is allowed, in one line.

    Its text is made of its fields, for people; programs read the fields. It survives pickling, so a worker process
    raises it as it is.

    Args:
        where: file and field path, for example ``arch.yaml: architecture.nodes[3].attributes.depth``.
        problem: what is wrong, naming what was found.
        allowed: what would have been accepted: some words, or the values.
        hint: what to do about it, where that is not to give an allowed value.

    Example:
        >>> print(InputError("arch.yaml: depth", "found 0", "a whole number, at least 1"))
        arch.yaml: depth: found 0 (allowed: a whole number, at least 1)
        >>> print(InputError("table.csv", "lacks 3 rows", hint="run `enos map` first"))
        table.csv: lacks 3 rows; run `enos map` first
    """

    def __init__(
        self,
        where: object,
        problem: str,
        allowed: str | Iterable[object] | None = None,
        hint: str | None = None,
    ) -> None:
        self.where = str(where)
        self.problem = problem
        self.allowed = allowed if allowed is None or isinstance(allowed, str) else tuple(map(str, allowed))
        self.hint = hint
        names = self.allowed if isinstance(self.allowed, str) else ", ".join(self.allowed or ())
        suffix = f" (allowed: {_short(names, LONGEST // 2)})" if names else ""
        suffix += f"; {_short(hint, LONGEST // 4)}" if hint else ""
        super().__init__(_one_line(_short(f"{self.where}: {problem}", LONGEST - len(suffix)) + suffix))

    def __reduce__(self) -> tuple[Any, ...]:
        return InputError, (self.where, self.problem, self.allowed, self.hint)

    def at(self, where: object) -> InputError:
        """The same error at another place, for a reader that knows more of it."""
        return InputError(where, self.problem, self.allowed, self.hint)

    @property
    def what(self) -> str:
        """The text without its place."""
        return str(InputError("", self.problem, self.allowed, self.hint)).removeprefix(": ")


def unknown(where: object, kind: str, value: object, allowed: Iterable[object]) -> InputError:
    """The error for an unknown name; it says which allowed one is spelt nearly the same.

    Example:
        >>> print(unknown("--candidate", "candidate", "MF18", ["T8", "MF8", "MF4"]))
        --candidate: unknown candidate 'MF18'; did you mean 'MF8'? (allowed: T8, MF8, MF4)
    """
    names = tuple(map(str, allowed))
    return InputError(where, f"unknown {kind} {value!r}{did_you_mean(str(value), names)}", names)


def did_you_mean(key: str, allowed: Iterable[str], likeness: float = 0.6) -> str:
    """``; did you mean 'depth'?`` for a misspelt key; nothing where no allowed one is spelt nearly the same."""
    names: dict[str, str] = {}
    for name in allowed:
        names.setdefault(name.lower().replace("-", "_"), name)  # of two spellings the first
    import difflib  # imported here, for most commands name no near names

    near = difflib.get_close_matches(key.lower().replace("-", "_"), names, n=1, cutoff=likeness)
    return f"; did you mean {names[near[0]]!r}?" if near and names[near[0]] != key else ""


def _short(text: str, most: int) -> str:
    """`text`, without its middle where it is longer: its start says where, and its end often what."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"


def _one_line(text: str) -> str:
    """`text` with every character that ends a line, moves the cursor or cannot be written replaced."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t\v\f" else ascii(c)[1:-1] for c in text)
