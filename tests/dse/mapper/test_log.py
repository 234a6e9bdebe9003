"""A finished search writes one line to the log `enos.mapper`: its nodes, what was pruned, the gap and the time."""

from __future__ import annotations

import logging
import re

import pytest

from dse.mapper import OBJECTIVES, search
from dse.workload.problem import conv_problem
from tests.dse.mapper.test_optimal import chip

LINE = re.compile(r"C4 M4 P4 R3, (\w+): (\d+) nodes expanded, (\d+) pruned, gap ([\d.e+-]+|inf), \d+\.\d+ s")
PROBLEM = conv_problem({"C": 4, "M": 4, "P": 4, "R": 3})


def one_line(caplog: pytest.LogCaptureFixture) -> tuple[str, int, int, float]:
    """Objective, nodes, pruned nodes and gap of the one line that was written."""
    (record,) = [r for r in caplog.records if r.name == "enos.mapper"]
    match = LINE.fullmatch(record.getMessage())
    assert match and record.levelno == logging.DEBUG, record.getMessage()
    return match[1], int(match[2]), int(match[3]), float(match[4])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_line_for_a_search(caplog: pytest.LogCaptureFixture, objective: str) -> None:
    caplog.set_level(logging.DEBUG, logger="enos")
    assert search(*chip(PROBLEM)[:1], PROBLEM, chip(PROBLEM)[1], objective, remainders=False).optimal
    name, nodes, pruned, gap = one_line(caplog)
    assert (name, gap) == (objective, 1.0) and nodes > 0 and pruned >= 0


def test_a_search_cut_short_shows_its_gap(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG, logger="enos")
    monkeypatch.setattr("dse.mapper.branch_and_bound._Walk.explore.__defaults__", (2,))
    spec, ert = chip(PROBLEM)
    assert not search(spec, PROBLEM, ert, remainders=False).optimal
    _, nodes, pruned, gap = one_line(caplog)
    assert gap > 1.0 and nodes > 0 and pruned > 0


def test_a_layer_without_mapping_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="enos")
    spec, ert = chip(PROBLEM, depth=1)
    assert search(spec, PROBLEM, ert, remainders=False).mapping is None
    (record,) = [r for r in caplog.records if r.name == "enos.mapper"]
    assert "no mapping" in record.getMessage()


def test_nothing_is_written_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="enos")
    spec, ert = chip(PROBLEM)
    assert search(spec, PROBLEM, ert, remainders=False).optimal
    assert not [r for r in caplog.records if r.name == "enos.mapper"]
