"""Candidates can be told apart, and what is written on their colours can be read."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.page.colours import contrast, shades

AA = 4.5


@pytest.mark.parametrize("file", ["operators.yaml", "operators_extended.yaml"])
def test_text_on_every_candidate_has_the_contrast_of_wcag_aa(file: Any) -> None:
    kinds = [(c.operator, c.bits) for c in load_candidates(data_dir("arch_specs") / file)]
    found = shades(kinds)
    assert all(contrast(ink, fill) >= AA for fill, ink in found)
    assert len({fill for fill, _ in found}) == len(kinds)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_narrower_words_are_lighter() -> None:
    fills = [fill for fill, _ in shades([("typical", 8), ("typical", 4), ("typical", 2), ("other", 4)])]
    against_white = [contrast(fill, "#ffffff") for fill in fills[:3]]
    assert all(a > b for a, b in itertools.pairwise(against_white))
