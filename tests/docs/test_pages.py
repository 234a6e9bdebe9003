"""Every command of the tutorial and of the page on extensions runs, and prints what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dse.engines.timeloop.installation import find
from tests.docs.blocks import DOCS, ROOT, blocks
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


def test_data_of_ones_own(runner: Runner) -> None:
    """The section's blocks; the page's others need data that are downloaded."""
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    section = text[text.index("## Your own data") : text.index("### A reader")]
    assert sum(runner._block(block, f"docs/data.md, block {i}") for i, block in enumerate(blocks(section))) == 5
    assert (runner.folder / "runs" / "shapes" / "report.html").stat().st_size > 0
    assert "metric: found 'mse', but the targets of shapes:data are labels" in runner.printed


def test_a_training_loop_of_ones_own(runner: Runner) -> None:
    pytest.importorskip("onnxscript", reason="the page writes an ONNX file")
    assert runner.page(DOCS / "own_loop.md") == 18
    for file in ("network.onnx", "networks.html", "sensitivities.json"):
        assert (runner.folder / file).stat().st_size > 0


def test_transformers(runner: Runner) -> None:
    assert runner.page(DOCS / "transformers.md") == 10
    assert (runner.folder / "run" / "digits_vit" / "report.html").stat().st_size > 0


def test_designs_of_the_field(runner: Runner) -> None:
    assert runner.page(DOCS / "designs.md") == 4


def test_networks_as_onnx_files(runner: Runner) -> None:
    pytest.importorskip("onnxscript", reason="the page writes an ONNX file")
    assert runner.page(DOCS / "onnx.md") == 7


@pytest.fixture
def checkout(runner: Runner) -> Runner:
    """A folder that is a checkout of the repository, with a learning half of its own that may be edited."""
    shutil.copytree(ROOT / "search", runner.folder / "search")
    for name in ("dse", "arch_specs"):
        (runner.folder / name).symlink_to(ROOT / name)
    return runner


def test_the_examples_of_extensions(checkout: Runner) -> None:
    assert checkout.page(DOCS / "extending.md") > 20
    results = checkout.folder / "runs" / "stripes" / "results.json"
    assert results.is_file()
