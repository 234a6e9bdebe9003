"""`enos doctor`: what is installed, what is missing and what that means."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from dse.cli.common import FILE, echo_json, json_option
from dse.errors import InputError
from dse.store import Store, default_path

_PACKAGES = (
    "enos-dse", "click", "joblib", "matplotlib", "networkx", "numba", "numpy", "pooch", "pyarrow", "pyyaml", "rich",
    "scikit-learn", "torch", "torchvision",
)  # fmt: skip
_OPTIONAL = {"torchvision"}
_MODULES = ("pytimeloop", "timeloopfe", "accelergy")
_PROGRAMS = ("timeloop-mapper", "timeloop-model", "accelergy")
_INSTALLATION = "https://timeloop.csail.mit.edu/"


@click.command()
@click.option("--store", type=FILE, help="Store to look at; default: $ENOS_STORE or the user's cache.")
@json_option
def doctor(store: Path | None, as_json: bool) -> None:
    """Says what is installed, what is missing and what that means.

    \b
    Example:
      enos doctor
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "numba_cache": _numba_cache(),
        "store": _store(store or default_path()),
        "timeloop": {
            **{f"module {name}": find_spec(name) is not None for name in _MODULES},
            **{f"program {name}": shutil.which(name) is not None for name in _PROGRAMS},
        },
    }
    if as_json:
        echo_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    packages, timeloop = found["packages"], found["timeloop"]
    lines = [f"Python {found['python']}"]
    for name, installed in packages.items():
        absent = "not installed (optional)" if name in _OPTIONAL else "MISSING: reinstall with pip install enos-dse"
        lines.append(f"  {name:<13} {installed or absent}")
    lines += [
        f"Compiled loops of the mapper: {found['numba_cache']}",
        f"Store: {found['store']}",
        "Timeloop and Accelergy:",
    ]
    lines += [f"  {name:<24} {'found' if there else 'not found'}" for name, there in timeloop.items()]
    if all(timeloop.values()):
        lines.append("The real Timeloop is here; answers of the native engine can be checked against it.")
    else:
        lines.append(
            "Nothing is lacking: the native engine evaluates, maps and estimates components by itself. The real "
            f"Timeloop is only needed to check its answers; to install it see {_INSTALLATION}"
        )
    return lines


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numba_cache() -> str:
    """Whether the mapper's machine code is kept; without it the first search of a process compiles for seconds."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(named) if named else Path(__file__).resolve().parents[1]
    count = sum(1 for _ in folder.rglob("*.nbi"))
    if count:
        return f"{count} functions cached in {folder}"
    return f"none cached in {folder}; the first search compiles them, which takes some seconds"


def _store(path: Path) -> str:
    if not path.exists():
        return f"{path}, not there yet; `enos map` makes it"
    try:
        with Store(path, create=False) as opened:
            return f"{path}, {len(opened)} results"
    except InputError as e:
        return str(e)
