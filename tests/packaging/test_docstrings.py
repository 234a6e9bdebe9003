"""Examples in docstrings: they do what they say, and functions that others call have one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import dse
import search

EXPLAINED = ("dse.workload", "dse.hardware", "search.costs", "search.knapsack", "search.networks", "search.sampling",
             "search.spaces")  # fmt: skip
"""Packages and modules whose every public function has an example."""

TABLE = Path(__file__).parents[2] / "results" / "squeezenet_cifar" / "table.csv"
"""The `table.csv` of the examples."""


def modules() -> list[str]:
    """Names of all modules that have an example."""
    names = [
        (m.name, m.module_finder.find_spec(m.name, None))  # type: ignore[call-arg, union-attr]
        for package in (dse, search)
        for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [name for name, spec in names if spec and spec.origin and ">>> " in Path(spec.origin).read_text("utf-8")]


def functions(module: ModuleType) -> Iterator[FunctionType]:
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith("_"):
            yield value


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_show(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(TABLE, "table.csv")
    monkeypatch.setenv("ENOS_STORE", str(tmp_path / "store.sqlite"))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", EXPLAINED)
def test_public_functions_have_an_example(name: str) -> None:
    module = importlib.import_module(name)
    below = pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.")
    for member in [module, *(importlib.import_module(m.name) for m in below)]:
        without = [f.__name__ for f in functions(member) if ">>> " not in (inspect.getdoc(f) or "")]
        assert without == [], member.__name__


@pytest.mark.parametrize("package", [dse, search], ids=lambda p: p.__name__)
def test_the_public_names_have_an_example(package: ModuleType) -> None:
    assert [name for name in package.__all__ if ">>> " not in (inspect.getdoc(getattr(package, name)) or "")] == []
