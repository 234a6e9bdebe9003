"""What the packages import is declared: dependencies, or an extra where only a function imports it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dse import CostTable, InputError
from search.data.datasets import digits
from tests.packaging.test_docstrings import TABLE

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
"""Names of packages on an index, where they are not those of their modules."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0].lower() for requirement in requirements}


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Distributions of the modules that some statements import, but for our own and Python's."""
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return {DISTRIBUTIONS.get(m, m.replace("_", "-")) for m in modules - sys.stdlib_module_names - {"dse", "search"}}


TREES = {path: ast.parse(path.read_text("utf-8")) for half in ("dse", "search") for path in (ROOT / half).rglob("*.py")}
DEPENDENCIES = names(PROJECT["dependencies"])
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = names([*EXTRAS["onnx"], *EXTRAS["parquet"], *EXTRAS["tensorboard"], *EXTRAS["cluster"]])


def test_importing_a_module_needs_dependencies_only() -> None:
    of_onnx = {
        path: names(EXTRAS["onnx"]) for path in TREES if path.name in ("onnx_run.py", "onnx_shapes.py")
    }  # which functions import
    needed = {p: imported(iter(tree.body)) - DEPENDENCIES - of_onnx.get(p, set()) for p, tree in TREES.items()}
    assert {path: missing for path, missing in needed.items() if missing} == {}


def test_calling_a_function_needs_dependencies_or_a_named_extra() -> None:
    needed = set().union(*(imported(ast.walk(tree)) for tree in TREES.values()))
    assert needed - DEPENDENCIES - OPTIONAL == set()


def test_every_dependency_is_imported() -> None:
    used = set().union(*(imported(ast.walk(tree)) for tree in TREES.values()))
    assert DEPENDENCIES - used == set()


def test_the_tests_have_all_extras() -> None:
    assert OPTIONAL - names(EXTRAS["dev"]) <= {"tensorboard"}  # those tests are skipped without it


def test_the_digits_need_no_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert digits().train.images.dtype == torch.float32


@pytest.mark.parametrize("call", ["save", "load"])
def test_parquet_without_pyarrow_is_one_line_that_says_what_to_install(
    call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table, path = CostTable.load(TABLE), tmp_path / "table.parquet"
    table.save(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=re.escape("pip install 'enos-dse[parquet]'")):
        table.save(path) if call == "save" else CostTable.load(path)
