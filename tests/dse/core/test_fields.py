"""Fields of hand-written documents: what is taken, and the line that says what is wrong."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from dse.core import fields
from dse.core.errors import InputError

ODD: list[Any] = [
    None,
    True,
    "8",
    [],
    {},
    {1, 2},
    datetime.date(2024, 1, 1),
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    10**6000,
    1.5,
]


def test_what_is_right_is_taken() -> None:
    assert fields.mapping({"a": 1}, "f", ("a", "b"), required=("a",)) == {"a": 1}
    assert fields.optional_mapping(None, "f") == {} and fields.optional_sequence(None, "f", fields.text) == []
    assert fields.sequence(["a", "b"], "f", fields.text) == ["a", "b"]
    assert fields.integer(4.0, "f") == 4 and fields.integer(0, "f", least=0) == 0
    assert fields.number(0, "f") == 0.0 and fields.number(1e-3, "f", above=True) == 1e-3
    assert fields.name(1, "f") == "1" and fields.boolean(False, "f") is False
    assert fields.one_of("x", "f", ("x", "y")) == "x"


@pytest.mark.parametrize("value", ODD, ids=fields.shown)
@pytest.mark.parametrize("read", [fields.integer, fields.text, fields.name, fields.boolean, fields.number])
def test_odd_values_end_in_one_short_line(read: Any, value: Any) -> None:
    """Only the right type is taken; what is not is shown, whatever its size."""
    types = {fields.text: str, fields.name: (str, int, float), fields.boolean: bool, fields.number: (int, float)}
    try:
        assert isinstance(read(value, "a.yaml: x"), types.get(read, int))
    except InputError as e:
        line = str(e)
        assert line.startswith("a.yaml: x: found ") and "\n" not in line and len(line) < 300


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, True, "1", None, -1])
def test_numbers_are_finite(value: Any) -> None:
    with pytest.raises(InputError, match=r"of at least 0"):
        fields.number(value, "f")


@pytest.mark.parametrize("value", [2**53 + 1, 10**6000, 0, -3, True, 1.5], ids=fields.shown)
def test_integers_have_a_range(value: Any) -> None:
    with pytest.raises(InputError, match=r"a whole number, at (least|most)"):
        fields.integer(value, "f")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "f: found 'text' (allowed: a mapping with depth, width)"),
        ({"dept": []}, "f: unknown field 'dept'; did you mean 'depth'? (allowed: depth, width)"),
        ({"height": None}, "f: unknown field 'height' (allowed: depth, width)"),
        ({"width": 1}, "f: field 'depth' is missing"),
        ({3: 1}, "f: the key 3 is not text (allowed: depth, width)"),
        ({(1, 2): 1}, "f: the key (1, 2) is not text (allowed: depth, width)"),
    ],
)
def test_mappings_name_what_is_wrong(value: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        fields.mapping(value, "f", ("depth", "width"), required=("depth",))
    assert str(e.value) == message


def test_a_list_says_which_item_is_wrong() -> None:
    with pytest.raises(InputError, match=r"f\[1\]: found 3 \(allowed: text\)"):
        fields.sequence(["a", 3], "f", fields.text)
    with pytest.raises(InputError, match=r"f: found 'ab' \(allowed: a list\)"):
        fields.sequence("ab", "f", fields.text)
    with pytest.raises(InputError, match=r"unknown kind 'Dram'; did you mean 'DRAM'\?"):
        fields.one_of("Dram", "f", ("DRAM", "SRAM"), "kind")
