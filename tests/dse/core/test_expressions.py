"""Expressions of attributes: what they are worth, and that each ends soon."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.expressions import View, evaluate


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


def test_expressions_see_objects_functions_and_texts() -> None:
    column = View(
        {"spatial": View({"meshX": "wide // 2"}), "attributes": {"depth": "wide * 2"}}, {"get_fanout": lambda: 4}
    )
    scope: dict[str, Any] = {
        "wide": 8, "column": column, "values": [1, 0, 3], "double": lambda x, more=0: 2 * x + more, "encode": "double",
        "variables": View({"wide": 8}),
    }  # fmt: skip
    for text, value in (
        ("column.get_fanout() + 1", 5),
        ("column.spatial.meshX", 4),
        ("column.attributes['depth']", 16),
        ("variables.get('wide', 1) + variables.get('narrow', 2)", 10),
        ("('X=' + str(wide))", "X=8"),
        ('f"X={wide * 2}"', "X=16"),
        ("double(wide, more=1)", 17),
        ("encode(3)", 6),
        ("(double if wide > 4 else encode)(2)", 4),
        ("sum([v > 0 for v in values])", 2),
        ("max(values) + len(values) + values[0]", 7),
        ("[1] * 3", [1, 1, 1]),
        ("INF", math.inf),
        ("arch.yaml", "arch.yaml"),
        ("column", "column"),
    ):
        assert evaluate(text, scope, "field") == value, text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("column.get_width()", "there is no get_width()"),
        ("column.width", "there is no 'width'"),
        ("column.fields", "there is no 'fields'"),
        ("values[9]", "list index out of range"),
        ("[1] * 10**9", "more than 10,000 items"),
        ("'a' * 10**9 + 'b'", "more than 10,000 items"),
        ("[v for v in 3]", "only over a list"),
        ("broken(1)", "broken fails: ZeroDivisionError"),
        ("values.append(1)", "there is no append()"),
        ("column.__class__", "there is no '__class__'"),
    ],
)
def test_what_objects_do_not_have_is_one_line(text: str, message: str) -> None:
    def broken(x: int) -> float:
        return x / 0

    with pytest.raises(InputError) as e:
        evaluate(text, {"column": View({"depth": 1}), "values": [1], "broken": broken}, "field")
    assert message in str(e.value) and "\n" not in str(e.value)
