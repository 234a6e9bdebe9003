"""The page on conventions has the numbers of the program that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks import conventions
from tests.docs.blocks import DOCS, table

PAGE = " ".join((DOCS / "conventions.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("errors", [conventions._window_errors, conventions._remainder_errors])
def test_small_nests(errors: Callable[[], Iterator[conventions.Finding]]) -> None:
    found = sorted(errors())
    assert f"Of {len(found)} " in PAGE
    assert f" {sum(abs(error) > 1e-9 for error, _ in found)} count " in PAGE
    for error, nest in (found[0], found[-1]):
        if abs(error) > 1e-9:
            assert f"{abs(error):.1%}".replace("%", f" % {'more' if error > 0 else 'fewer'} (`{nest}`") in PAGE


@pytest.mark.parametrize("name", ["depthwise 3x3, 7 x 7 of 576", "depthwise 5x5, 14 x 14 of 480"])
def test_layers(name: str) -> None:
    text = (DOCS / "conventions.md").read_text(encoding="utf-8")
    mapped = conventions._mapped(conventions.DEPTHWISE[name])
    zeros = conventions._padding_share(*mapped, conventions.DEPTHWISE[name])
    for heading, share in (("Zeros of", zeros), ("Outputs leave", conventions._unread_share(*mapped))):
        (shown,) = (list(row.values())[1] for row in table(text, f"## {heading}") if row["layer"] == name)
        assert shown == f"{share:.1%}".replace("%", " %")
