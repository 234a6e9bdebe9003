"""Where tests find the real tools, and machines that have some of them."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

from dse.engines.timeloop.installation import find

PACKAGES = ("accelergy", "pytimeloop", "timeloopfe")


@pytest.fixture(scope="session")
def real_accelergy() -> Any:
    if not find().accelergy_works:
        pytest.skip("the real Accelergy with its table-based plug-in is not installed")
    return find()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A machine with nothing of Timeloop on it, to which a test adds parts; `bin` is on PATH, `site` on Python's."""
    folders = {name: tmp_path / name for name in ("bin", "site", "home", "plug_ins")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("PATH", f"{folders['bin']}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("HOME", str(folders["home"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(folders["site"]))
    monkeypatch.syspath_prepend(folders["site"])
    monkeypatch.setattr(sys, "meta_path", [_Only(folders["site"]), *sys.meta_path])
    for name in [m for m in sys.modules if m.split(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    find.cache_clear()
    yield Machine(**folders)
    find.cache_clear()


class _Only(PathFinder):
    """Finds the packages of the real tools in one folder and nowhere else."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def find_spec(self, name: Any, path: Any = None, target: Any = None) -> Any:  # type: ignore[override]
        if name.split(".")[0] not in PACKAGES:
            return None
        found = PathFinder.find_spec(name, path or [str(self.folder)], target)
        if found is None:
            raise ModuleNotFoundError(name)
        return found


@dataclass
class Machine:
    bin: Path
    site: Path
    home: Path
    plug_ins: Path

    def program(self, name: Any, script: Any = "exit 1", executable: Any = True) -> Any:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755 if executable else 0o644)
        return path

    def module(self, name: Any, text: Any = "") -> Any:
        path = self.site.joinpath(*name.split("."), "__init__.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parent.parents:
            if parent == self.site:
                break
            (parent / "__init__.py").touch()
        path.write_text(text)
        importlib.invalidate_caches()
        return path.parent

    def config(self, text: Any) -> Any:
        path = self.home / ".config" / "accelergy" / "accelergy_config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def plug_in(self, name: Any, class_name: Any = "Estimator", module: Any = True, folder: Any = None) -> Any:
        path = (folder or self.plug_ins) / name
        path.mkdir(parents=True)
        (path / f"{name}.estimator.yaml").write_text(
            f"version: 0.1\n{name}:\n  module: {name}_module\n  class: {class_name}\n"
        )
        if module:
            (path / f"{name}_module.py").write_text("")
        return path / f"{name}.estimator.yaml"

    def complete(self) -> None:
        """Everything that the timeloop engine needs, at least to look at."""
        self.program("timeloop-model")
        self.program("timeloop-mapper")
        self.program("accelergy", "exit 0")
        self.module("pytimeloop.timeloopfe.v4")
        self.module("accelergy")
        (self.site / "accelergy" / "accelergy_console.py").write_text("")
        self.plug_in("tables", "SetsOfTables")
        self.config(f"version: 0.4\nestimator_plug_ins: [{self.plug_ins}]\n")
