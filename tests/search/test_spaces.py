from __future__ import annotations

import pytest

from dse.core.errors import InputError
from dse.hardware.accelerator import read_accelerator
from dse.hardware.candidates import load_candidates
from search.runs.config import read_config
from search.spaces import Space, pinned

ALL = load_candidates()
LAYERS = ("conv1", "fire2", "conv10")


def read_space(value: object) -> Space:
    return read_config({"name": "x", "space": value}, "c.yaml").space


def read_pins(value: object) -> dict[str, str]:
    return read_config({"name": "x", "pins": value}, "c.yaml").pins


def names(space: Space) -> list[str]:
    return [c.name for c in space.of(ALL)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("operators", {"T8", "MF8", "BC8"}),
        ({"space": "operators", "bits": 4}, {"T4", "MF4", "BC4"}),
        ("precisions", {"T8", "T4", "T2"}),
        ({"space": "precisions", "operator": "multiplication_free"}, {"MF8", "MF4", "MF2"}),
        ("both", {c.name for c in ALL}),
        ({"space": "both", "bits": None, "operator": None}, {c.name for c in ALL}),  # as a run writes it down
    ],
)
def test_the_three_spaces_of_figure_7(value: object, expected: set[str]) -> None:
    assert set(names(read_space(value))) == expected


def test_a_space_keeps_to_the_candidates_it_is_given() -> None:
    few = [c for c in ALL if c.name in ("T8", "BC8", "BC4")]
    assert [c.name for c in Space("operators").of(few)] == ["T8", "BC8"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "operator",
            r"^c.yaml: space: unknown space 'operator'; did you mean 'operators'",
        ),
        (
            ["both"],
            r"^c.yaml: space: found \['both'\] \(allowed: operators, precisions, modes, both, all, or a mapping",
        ),
        ({"bits": 8}, r"^c.yaml: space: found"),
        ({"space": "operators", "precision": 8}, r"^c.yaml: space: unknown field 'precision'"),
        ({"space": "operators", "bits": "8"}, r"^c.yaml: space.bits: found '8'"),
        ({"space": "precisions", "bits": 8}, r"^c.yaml: space.bits: found 8 in the space 'precisions'"),
        ({"space": "both", "operator": "typical"}, r"^c.yaml: space.operator: found 'typical' in the space 'both'"),
    ],
)
def test_wrong_spaces_are_named(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_space(value)


def test_a_space_without_choice_is_refused() -> None:
    with pytest.raises(InputError, match=r"^space: 'operators' at 3 bits holds no candidate, .*T8"):
        Space("operators", bits=3).of(ALL)
    with pytest.raises(InputError, match=r"of operator 'xnor' holds no candidate"):
        Space("precisions", operator="xnor").of(ALL)
    with pytest.raises(InputError, match=r"holds T8, so there is nothing to choose"):
        Space("operators").of([c for c in ALL if c.name in ("T8", "T4")])


def test_pins_name_layers_or_ends() -> None:
    assert pinned({"first": "T8", "last": "T8", "fire2": "BC4"}, LAYERS) == {
        "conv1": "T8", "conv10": "T8", "fire2": "BC4",
    }  # fmt: skip
    assert pinned({"first": "T8", "conv1": "T8"}, LAYERS) == {"conv1": "T8"}
    assert pinned({"first": "T8"}, ("stem", "first")) == {"first": "T8"}


def test_wrong_pins_are_named() -> None:
    with pytest.raises(
        InputError, match=r"^pins: unknown layer 'fire3'; did you mean 'fire2'\? \(allowed: first, last, conv1"
    ):
        pinned({"fire3": "T8"}, LAYERS)
    with pytest.raises(InputError, match=r"^pins.conv1: layer 'conv1' is pinned to T8 and to T4"):
        pinned({"first": "T8", "conv1": "T4"}, LAYERS)
    with pytest.raises(InputError, match=r"^c.yaml: pins: found \['T8'\]"):
        read_pins(["T8"])
    with pytest.raises(InputError, match=r"^c.yaml: pins.first: found 8"):
        read_pins({"first": 8})
    assert read_pins({"first": "T8"}) == {"first": "T8"}


def test_computing_modes_are_a_space_of_their_own() -> None:
    hybrid = read_accelerator("hybrid").candidates
    assert [c.name for c in Space("modes").of(hybrid)] == ["T8", "T8@cim"]
    chosen = Space("modes", bits=4, operator="binary_connect").of(hybrid)
    assert [c.name for c in chosen] == ["BC4", "BC4@cim"]
    assert [c.name for c in Space("operators").of(hybrid)] == ["T8", "MF8", "BC8"]
    assert Space("all").of(hybrid) == Space("both").of(hybrid) == hybrid
    with pytest.raises(
        InputError, match=r"^space: 'modes' of operator 'typical' at 8 bits holds T8, so there is nothing"
    ):
        Space("modes").of(ALL)
