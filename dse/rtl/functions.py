"""Boolean functions of Liberty files as truth tables and as Verilog."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dse.core.errors import InputError

_TOKEN = re.compile(r"\s*(?:([A-Za-z_][\w\[\]]*)|([01])|([!'^&*|+()]))")


def to_verilog(text: str, names: Sequence[str], where: str) -> str:
    """A function with Liberty's operators (``! ' ^ & * | +``, blank for and) as an expression of Verilog.

    Raises:
        InputError: it is not such a function, or names what is not in `names`.

    Example:
        >>> to_verilog("!(A1 * A2) + B'", ["A1", "A2", "B"], "cell X")
        '(~(((A1&A2)))|~(B))'
    """
    return _Function(text, names, where).whole()


def truth_table(text: str, names: Sequence[str], where: str) -> tuple[bool, ...]:
    """Values of a function for all states; bit i of a state is the value of `names[i]`.

    Raises:
        InputError: as `to_verilog`.

    Example:
        >>> truth_table("A & !B", ["A", "B"], "cell X")
        (False, True, False, False)
    """
    expression = re.sub(r"\b1'b([01])\b", r"\1", to_verilog(text, names, where))
    code = compile(expression, where, "eval")
    states = range(1 << len(names))
    return tuple(bool(eval(code, {"__builtins__": {}}, _values(names, state)) & 1) for state in states)


def _values(names: Sequence[str], state: int) -> dict[str, int]:
    return {name: state >> i & 1 for i, name in enumerate(names)}


class _Function:
    """Recursive descent: or < xor < and < not."""

    def __init__(self, text: str, names: Sequence[str], where: str) -> None:
        self.where, self.text, self.names = where, text, set(names)
        self.tokens, at = [], 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match:
                raise self.error(f"found {text[at:].strip()[:1]!r}")
            self.tokens.append(match.group().strip())
            at = match.end()
        self.at = 0

    def error(self, problem: str) -> InputError:
        return InputError(self.where, f"function {self.text!r}: {problem}", "names of pins, ! ' ^ & * | + and brackets")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def whole(self) -> str:
        expression = self.either()
        if self.peek():
            raise self.error(f"found {self.peek()!r}")
        return expression

    def either(self) -> str:
        terms = [self.different()]
        while self.peek() in ("|", "+"):
            self.at += 1
            terms.append(self.different())
        return terms[0] if len(terms) == 1 else f"({'|'.join(terms)})"

    def different(self) -> str:
        terms = [self.both()]
        while self.peek() == "^":
            self.at += 1
            terms.append(self.both())
        return terms[0] if len(terms) == 1 else f"({'^'.join(terms)})"

    def both(self) -> str:
        terms = [self.negated()]
        while self.peek() in ("&", "*", "!", "(") or self.peek()[:1].isalnum() or self.peek()[:1] == "_":
            if self.peek() in ("&", "*"):
                self.at += 1
            terms.append(self.negated())
        return terms[0] if len(terms) == 1 else f"({'&'.join(terms)})"

    def negated(self) -> str:
        token = self.peek()
        self.at += 1
        if token == "!":
            return f"~({self.negated()})"
        if token == "(":
            inner = f"({self.either()})"
            if self.peek() != ")":
                raise self.error("a bracket is not closed")
            self.at += 1
        elif token in ("0", "1"):
            inner = f"1'b{token}"
        elif token in self.names:
            inner = token
        else:
            raise self.error(f"found {token!r}" if token else "ends too early")
        while self.peek() == "'":
            self.at += 1
            inner = f"~({inner})"
        return inner
