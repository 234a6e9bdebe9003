"""Every command of the tutorial and of the page on extensions runs, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.timeloop.installation import find
from tests.docs.blocks import DOCS
from tests.docs.runner import Runner


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "folder").mkdir()
    (tmp_path / "tools").mkdir()
    return Runner(tmp_path / "folder", tmp_path / "tools", timeloop=not find().missing)


def test_the_tutorial(runner: Runner) -> None:
    assert runner.page(DOCS / "tutorial.md") > 15
    for file in ("breakdown.png", "mine.png", "sweep/pareto.png", "points.csv", "runs/first/report.html"):
        assert (runner.folder / file).stat().st_size > 0
