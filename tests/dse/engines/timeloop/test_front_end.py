"""Our reading of v4 specifications against the real front end, on random ones."""

from __future__ import annotations

import importlib.util

import pytest

from dse.engines.timeloop.front_end import transpile
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import problem_from_document
from tests.dse.hardware.random_designs import as_text, compared, design

FRONT_END = "pytimeloop.timeloopfe.v4"


@pytest.mark.timeloop
@pytest.mark.skipif(importlib.util.find_spec("pytimeloop") is None, reason="needs Timeloop's Python front end")
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_designs_are_read_as_the_front_end_reads_them(first: int) -> None:
    for seed in range(first, first + 20):
        document = design(seed)
        problem = problem_from_document(document["problem"], "p")
        flat = SpecFile(transpile(FRONT_END, as_text(document)), "flat").instance(problem=problem)
        ours = SpecFile(document, "tree").instance(problem=problem)
        assert compared(ours, problem) == compared(flat, problem), seed
