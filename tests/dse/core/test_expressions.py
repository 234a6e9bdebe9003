"""Expressions of attributes: what they are worth, and that each ends soon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.expressions import evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * n + 1", 17),
        ("pow(2, 10)", 1024),
        ("2 ** -1", 0.5),
        ("0 ** 2", 0),
        ("round(2.567, 1)", 2.6),
        ("round(2.5)", 2),
        ("4 if kind == 'wide' else 2", 4),
        ("max(n, 3) if n > 2 and not n == 9 else 0", 8),
        ("45nm", "45nm"),
        ("1e3", 1000.0),
    ],
)
def test_values(text: Any, value: Any) -> None:
    found = evaluate(text, {"n": 8, "kind": "wide"}, "field")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "pow(9, 9**9)",
        "9 ** 9 ** 9 ** 9",
        "((9**1024)**1024)**1024",
        "2 ** 0.5 ** -9999",
        "(-1) ** 0.5",
        "0 ** -1",
        "'a' * 10**11",
        "'%099999999d' % 1",
        "round(1, -10**9)",
        "round(123456789, -99)",
        "1e308 * 10",
        "1e308 * 10 - 1e308 * 10",
        "sqrt(-1)",
        "int('9' * 5000)",
        "1 << 10**9",
        "max(1)",
        "-'a'",
        "1 + (" * 150 + "1" + ")" * 150,
        "9" * 400,
        "1e999",
        "min(kind)",
        "twice30 + 0",
        "1 + undefined",
    ],
)
def test_what_does_not_end_or_is_no_number_is_one_line(text: Any) -> None:
    variables = {"kind": "wide", "twice0": 1, **{f"twice{i + 1}": f"twice{i} + twice{i}" for i in range(30)}}
    start = time.process_time()
    try:
        found = evaluate(text, variables, "field")
    except InputError as e:
        assert "\n" not in str(e)
    else:
        assert isinstance(found, str) or abs(found) <= 1e30
        assert text.startswith(("1 + (", "1 <<"))
    assert time.process_time() - start < 1
