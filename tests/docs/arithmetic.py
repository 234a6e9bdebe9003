"""Evaluates the arithmetic that a page shows."""

from __future__ import annotations

import math
import re

from tests.docs.blocks import blocks

_TOKEN = re.compile(r"ln(?=\()|\d[\d,]*(?:\.\d+)?|[-+/()^]|\bx\b")
_PYTHON = {"x": "*", "^": "**", "ln": "math.log"}


def number(text: str) -> float:
    """A number as the pages write it: 2,097,152 or 0.265."""
    return float(text.replace(",", ""))


def value(expression: str) -> float:
    """``2,097,152 / 2 x 0.79``; also ln(...) and ^."""
    tokens = _TOKEN.findall(expression)
    assert "".join(tokens) == expression.replace(" ", ""), f"no arithmetic: {expression!r}"
    found = eval("".join(_PYTHON.get(t, t.replace(",", "")) for t in tokens), {"math": math})
    return float(found)


def shown_as(exact: float, text: str) -> bool:
    """Whether `text` is what `exact` rounds to at the decimals that it shows."""
    decimals = len(text.partition(".")[2])
    return abs(exact - number(text)) <= 0.5000001 * 10**-decimals


def calculations(markdown: str) -> dict[str, tuple[str, str]]:
    """Name -> expression and result of each line ``name = expression = result`` of the blocks ``calculation``."""
    found = {}
    for block in blocks(markdown):
        if block.language == "calculation":
            for line in block.text.splitlines():
                name, expression, result = line.split(" = ")
                found[name] = (expression, result)
    return found
