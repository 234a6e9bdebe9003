"""docs/mapper.md says what the program does: its example runs, its numbers are right, and what it names exists."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import read_yaml
from dse.hardware.constraints import searchable
from dse.hardware.energy.ert import read_ert
from dse.hardware.instance import read_arch, spec_for
from dse.mapper import bounds, mapspace, prices, search
from dse.mapper.kernels.labels import ENERGY, Aim
from dse.mapper.kernels.slots import SETTLED, open_cost
from dse.workload.problem import Problem, problem_from_document
from tests.docs.blocks import DOCS, ROOT, blocks, table
from tests.docs.runner import Runner

PAGE = (DOCS / "mapper.md").read_text(encoding="utf-8")
SUM = re.compile(r"(?m)^    ([\d +*/-]+) = (\d+)$")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with the files of the worked example."""
    for block in blocks(PAGE):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    return tmp_path


def layer(example: Path) -> Problem:
    return problem_from_document(read_yaml(example / "problem.yaml")["problem"], "problem.yaml")


def test_the_example_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    assert Runner(tmp_path, tmp_path / "tools").page(DOCS / "mapper.md") == 5


def test_the_labels_of_the_example(example: Path) -> None:
    problem = layer(example)
    spec = searchable(spec_for(read_arch(example / "arch.yaml"), problem), problem)
    ert = read_ert(example / "energies.yaml")
    space = mapspace.mapspace(spec, problem)
    (keep,) = mapspace.keep_choices(spec, problem)
    stages = prices.build_stages(space, spec, ert, keep, 0.0)
    inside = bounds.lift(space, stages, Aim(ENERGY, float(problem.macs)), math.inf)[1]
    labels = {}
    for tile, sizes in enumerate(space.grid.value.tolist()):
        for label in inside.labels[inside.offsets[tile] : inside.offsets[tile + 1]]:
            name = " ".join(f"{d}{n}" for d, n in zip(space.dims, sizes, strict=True))
            labels[name] = [float(label[SETTLED]), *(open_cost(label, t, 1.0) for t in range(3))]
    rows = table(PAGE, "This gives the labels, in pJ:")
    assert labels == {row["tile"]: [float(v) for name, v in row.items() if name != "tile"] for row in rows}
    assert len(space.boxes) == 12 and len(labels) == 7


def test_the_sums_of_the_example(example: Path) -> None:
    sums = SUM.findall(PAGE)
    assert len(sums) == 3
    for left, right in sums:
        assert eval(left) == int(right)
    problem = layer(example)
    spec, ert = spec_for(read_arch(example / "arch.yaml"), problem), read_ert(example / "energies.yaml")
    evaluation = search(spec, problem, ert, remainders=False).evaluation
    assert evaluation is not None
    assert evaluation.energy_pj == int(sums[0][1]) + evaluation.compute_energy_pj == 3566


def named(text: str) -> list[str]:
    return re.findall(r"`([a-z_]+(?:\.\w+)+)`", text)


def resolve(name: str) -> Any:
    """What a name below dse.mapper stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["dse.mapper", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"dse.mapper has no {name}")


def test_every_function_that_the_map_names_exists() -> None:
    begin = PAGE.index("| section | what | function |")
    names = named(PAGE[begin : PAGE.index("\n\n", begin)])
    assert len(names) > 30
    for name in names:
        assert callable(resolve(name)), name


def test_the_ablation_table_has_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ablation = importlib.import_module("ablation")
    rows = table(PAGE, "## What each rule saves")
    assert [row["rule that is off"] for row in rows] == ["none", *(rule.name for rule in ablation.RULES)]
    for rule in ablation.RULES:
        assert callable(resolve(rule.where)), rule.where
