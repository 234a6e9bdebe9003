"""Compiled kernels are cached on disk. What their code depends on, and nothing else, makes them compile again."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import numba
import pytest

import dse
from dse.mapper.kernels import jit

PACKAGE = Path(dse.__file__).parent
KERNELS = PACKAGE / "mapper" / "kernels"
MODULES = [path.stem for path in sorted(KERNELS.glob("*.py")) if path.stem not in ("__init__", "jit")]
OUTSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if KERNELS not in path.parents]


def imports(path: Path) -> set[str]:
    """The modules that a file imports, and what it imports from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_only_the_kernels_folder_compiles_anything() -> None:
    assert "numba" in imports(KERNELS / "jit.py")
    for path in OUTSIDE:
        assert not imports(path) & {"numba", "dse.mapper.kernels.jit"}, path


def test_the_digest_is_of_the_kernels_folder_and_of_the_formulas_that_it_compiles() -> None:
    formulas = PACKAGE / "model" / "formulas.py"
    assert set(jit.SOURCES) == {*KERNELS.glob("*.py"), formulas}
    assert not any(name.startswith("dse") for name in imports(formulas))


@pytest.mark.parametrize("name", MODULES)
def test_kernels_depend_on_nothing_that_the_digest_leaves_out(name: str) -> None:
    """A constant of another module would be compiled in, and a new value of it would never reach a cached kernel."""
    for imported in imports(KERNELS / f"{name}.py") - {"dse.model"}:
        assert not imported.startswith("dse") or imported.startswith(("dse.model.formulas", "dse.mapper.kernels."))
    module = importlib.import_module(f"dse.mapper.kernels.{name}")
    kernels = [v for v in vars(module).values() if isinstance(v, numba.core.dispatcher.Dispatcher)]
    assert kernels
    for kernel in kernels:
        assert kernel.py_func.__qualname__.endswith(f"_{jit.DIGEST}")


def test_the_digest_follows_the_sources(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x = 1\n")
    second.write_text("y = 1\n")
    before = jit.digest([first, second])
    assert jit.digest([first, second]) == before
    second.write_text("y = 2\n")
    assert jit.digest([first, second]) != before
