"""What of the real Timeloop and Accelergy this machine has. Nothing of theirs is imported or started here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core.documents import read_yaml
from dse.core.errors import InputError

PAGE = "https://timeloop.csail.mit.edu/installation"
IMAGE = "timeloopaccelergy/accelergy-timeloop-infrastructure"
"""Upstream's published Docker image; its tags are ``latest-amd64`` and ``latest-arm64``."""

FRONT_ENDS = ("pytimeloop.timeloopfe.v4", "timeloopfe.v4")
_CONFIG = "accelergy_config.yaml"
_DISTRIBUTIONS = ("accelergy", "pytimeloop", "timeloopfe")


@dataclass(frozen=True)
class PlugIn:
    """An estimator that Accelergy finds in the folders of its configuration."""

    name: str
    path: Path  # its *.estimator.yaml, or its Python file
    table_based: bool = False

    @property
    def dummy(self) -> bool:
        """Whether it answers every question with an invented number."""
        return "dummy" in self.name.lower() or "dummy" in self.path.name.lower()


@dataclass(frozen=True)
class Installation:
    """The parts that were found; None stands for one that was not.

    `front_end` can be found by the import system without having been imported, so it may still fail. `versions` are
    those of Python packages, with the git commit where pip noted one; Timeloop's programs do not tell theirs.
    `problems` are things that are there but cannot be used, one sentence each.
    """

    model: Path | None
    mapper: Path | None
    accelergy: Path | None
    front_end: str | None
    accelergy_package: Path | None = None
    config: Path | None = None
    plug_ins: tuple[PlugIn, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def table_plug_in(self) -> PlugIn | None:
        """Accelergy's table-based plug-in, through which it gets the energies of our primitives."""
        return next((p for p in self.plug_ins if p.table_based), None)

    @property
    def accelergy_works(self) -> bool:
        """Whether there is what `dse.engines.timeloop.accelergy` needs."""
        return (self.accelergy_package or self.accelergy) is not None and self.table_plug_in is not None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of what the timeloop engine needs and does not find."""
        needed = {
            "timeloop-model (program)": self.model,
            "timeloop-mapper (program)": self.mapper,
            f"{' or '.join(FRONT_ENDS)} (Python)": self.front_end,
            "accelergy (Python or program)": self.accelergy_package or self.accelergy,
            "Accelergy's table-based plug-in": self.table_plug_in,
        }
        return tuple(name for name, found in needed.items() if found is None)


@cache
def find() -> Installation:
    """Looks on PATH, on Python's import path and in Accelergy's configuration; never fails.

    The answer is kept for the life of the process; `find.cache_clear()` forgets it.
    """
    problems: list[str] = []
    package = _package("accelergy")
    program = _program("accelergy", problems)
    config = _config_file()
    plug_ins = tuple(_plug_ins(config, package, program, problems))
    return Installation(
        model=_program("timeloop-model", problems),
        mapper=_program("timeloop-mapper", problems),
        accelergy=program,
        front_end=next((name for name in FRONT_ENDS if _submodule(name)), None),
        accelergy_package=package,
        config=config,
        plug_ins=plug_ins,
        versions=MappingProxyType({name: v for name in _DISTRIBUTIONS if (v := _version(name)) is not None}),
        problems=tuple(problems),
    )


def require(where: str) -> Installation:
    """What was found, for work that needs all of it.

    Args:
        where: the option or command that asks, for the error.

    Raises:
        InputError: naming everything that is missing, and upstream's installation page.
    """
    found = find()
    if found.missing:
        raise InputError(
            where, f"needs the real Timeloop; not found: {', '.join(found.missing)}; to install it see {PAGE}"
        )
    return found


def _program(name: str, problems: list[str]) -> Path | None:
    path = shutil.which(name)
    if path is not None:
        return Path(path).absolute()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        file = Path(folder or ".") / name
        with contextlib.suppress(OSError):
            if file.is_file() and not os.access(file, os.X_OK):
                problems.append(f"{file} is there but not executable.")
    return None


def _package(name: str) -> Path | None:
    """The folder of a top-level package, found without importing it."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.submodule_search_locations or spec.origin is None:
        return None  # a folder without __init__.py that happens to have the name is not an installation
    return Path(spec.origin).parent


def _submodule(name: str) -> bool:
    """Whether a package inside a package exists; `find_spec` would import the outer ones, with their libraries."""
    top, *inner = name.split(".")
    package = _package(top)
    return package is not None and package.joinpath(*inner, "__init__.py").is_file()


def _version(name: str) -> str | None:
    """A package's version, with the commit that pip installed it from."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    commit = ""
    with contextlib.suppress(ValueError, AttributeError, OSError):
        commit = json.loads(found.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id", "")
    return f"{found.version} ({commit[:7]})" if commit else found.version


def _config_file() -> Path | None:
    """Accelergy's configuration, in the order in which it looks itself."""
    candidates = [Path(_CONFIG)]
    with contextlib.suppress(RuntimeError):  # no home folder
        candidates.append(Path.home() / ".config" / "accelergy" / _CONFIG)
    return next((c.absolute() for c in candidates if c.is_file()), None)


def _plug_ins(config: Path | None, package: Path | None, program: Path | None, problems: list[str]) -> Iterator[PlugIn]:
    """The estimators in the configured folders, else in those of the installation itself."""
    paths: list[Path] = []
    if config is not None:
        paths = _configured(config, problems)
        for path in paths:
            if not path.exists():
                problems.append(f"{config} names {path}, which does not exist.")
    if not any(path.exists() for path in paths):
        paths = [folder for folder in _default_folders(package, program) if folder.is_dir()][:1]
    for path in paths:
        with contextlib.suppress(OSError):
            files = sorted(path.rglob("*.estimator.yaml")) if path.is_dir() else [path]
            for file in files:
                yield from _estimators(file, problems)


def _configured(config: Path, problems: list[str]) -> list[Path]:
    try:
        document = read_yaml(config)
    except InputError as e:
        problems.append(f"{e}.")
        return []
    if not isinstance(document, dict):
        problems.append(f"{config} is not a configuration of Accelergy.")
        return []
    listed = [document.get(key) for key in ("estimator_plug_ins", "python_plug_ins")]
    return [Path(str(path)).expanduser() for paths in listed if isinstance(paths, list) for path in paths]


def _default_folders(package: Path | None, program: Path | None) -> Iterator[Path]:
    """Where an installation without a configuration keeps its plug-ins: ``share/accelergy`` of its prefix."""
    prefixes = [Path(sys.prefix)]
    if program is not None:
        prefixes.insert(0, program.resolve().parent.parent)
    if package is not None and len(package.parents) > 3:
        prefixes.insert(0, package.parents[3])  # PREFIX/lib/pythonX.Y/site-packages/accelergy
    for prefix in prefixes:
        yield prefix / "share" / "accelergy" / "estimation_plug_ins"


def _estimators(file: Path, problems: list[str]) -> Iterator[PlugIn]:
    if file.suffix == ".py":
        yield PlugIn(file.stem, file)
        return
    try:
        document: Any = read_yaml(file)
    except InputError as e:
        problems.append(f"{e}.")
        return
    for key, entry in document.items() if isinstance(document, dict) else ():
        if isinstance(entry, dict) and "module" in entry:
            module = file.parent / f"{str(entry['module']).removesuffix('.py')}.py"
            if module.is_file():
                yield PlugIn(str(key), file, table_based=entry.get("class") == "SetsOfTables")
            else:
                problems.append(f"{file} names {module}, which does not exist.")
        elif key == "python_plug_ins" and isinstance(entry, list):
            for name in entry:
                yield PlugIn(Path(str(name)).stem, file.parent / str(name))
