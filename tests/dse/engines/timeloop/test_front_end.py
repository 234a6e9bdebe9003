"""Our reading of v4 specifications against the real front end, on random ones."""

from __future__ import annotations

import importlib
import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from dse.core.templates import read_template
from dse.engines.timeloop.front_end import transpile
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import problem_from_document
from tests.dse.hardware.random_designs import as_text, compared, design

FRONT_END = "pytimeloop.timeloopfe.v4"


pytestmark = [
    pytest.mark.timeloop,
    pytest.mark.skipif(importlib.util.find_spec("pytimeloop") is None, reason="needs Timeloop's Python front end"),
]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_designs_are_read_as_the_front_end_reads_them(first: int) -> None:
    for seed in range(first, first + 20):
        document = design(seed)
        problem = problem_from_document(document["problem"], "p")
        flat = SpecFile(transpile(FRONT_END, as_text(document)), "flat").instance(problem=problem)
        ours = SpecFile(document, "tree").instance(problem=problem)
        assert compared(ours, problem) == compared(flat, problem), seed


def _value(rng: random.Random, depth: int, anchors: list[str]) -> str:
    kind = rng.random()
    if kind < 0.3 or depth > 3:
        return str(rng.randrange(10))
    if kind < 0.5:
        return f"[{', '.join(_value(rng, depth + 2, anchors) for _ in range(rng.randrange(4)))}]"
    return _mapping(rng, depth + 1, anchors)


def _mapping(rng: random.Random, depth: int, anchors: list[str]) -> str:
    items = []
    for key in rng.sample("abcde", rng.randrange(5)):
        value = _value(rng, depth, anchors)
        whole = value[0] in "[{" and rng.random() < 0.15
        items.append(f"{key}: {'!nomerge ' if whole else ''}{value}")
    if anchors and rng.random() < 0.6:
        some = rng.sample(anchors, min(len(anchors), rng.randint(1, 2)))
        items.insert(rng.randint(0, len(items)), f"<<<: [{', '.join(f'*{name}' for name in some)}]")
    return f"{{{', '.join(items)}}}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def test_mappings_are_merged_in_depth_as_accelergys_loader_merges_them(tmp_path: Path) -> None:
    load_yaml = importlib.import_module("accelergy.utils.yaml").load_yaml
    for seed in range(100):
        rng = random.Random(seed)
        anchors: list[str] = []
        lines: list[str] = []
        for i in range(rng.randint(1, 5)):
            lines.append(f"m{i}: &m{i} {_mapping(rng, 0, anchors)}")
            anchors.append(f"m{i}")
        (tmp_path / "merges.yaml").write_text("\n".join(lines))
        assert read_template(tmp_path / "merges.yaml") == _plain(load_yaml(str(tmp_path / "merges.yaml"))), seed
