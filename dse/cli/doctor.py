"""`enos doctor`: what is installed, what is missing and what that means."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from dse.cli.common import FILE, echo_json, json_option
from dse.core.errors import InputError
from dse.engines.timeloop.installation import IMAGE, PAGE, Installation, find
from dse.engines.timeloop.probe import SECONDS, probe
from dse.table.store import Store, default_path

_PACKAGES = (
    "enos-dse", "click", "joblib", "matplotlib", "networkx", "numba", "numpy", "pillow", "pooch", "pydantic", "pyyaml",
    "rich", "torch", "onnx", "onnxscript", "pyarrow", "tensorboard",
)  # fmt: skip
_OPTIONAL = {"onnx", "onnxscript", "pyarrow", "tensorboard"}
_NATIVE = "enos map, sweep, mapper, model, table, plot, search, run"
_REAL = "enos check, and --engine timeloop"


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
        "timeloop": _timeloop(find()),
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
    ]
    return lines + _timeloop_lines(timeloop)


def _timeloop(found: Installation) -> dict[str, Any]:
    """What there is of the real Timeloop and Accelergy, whether it starts, and what works with it."""
    probed = probe(found)
    works: bool | None = False if found.missing or probed.broken else None if probed.unanswered else True
    programs = {"timeloop-model": found.model, "timeloop-mapper": found.mapper, "accelergy": found.accelergy}
    return {
        "programs": {name: _text(path) for name, path in programs.items()},
        "front_end": found.front_end,
        "accelergy": _text(found.accelergy_package),
        "versions": dict(found.versions),
        "configuration": _text(found.config),
        "plug_ins": [
            {"name": p.name, "path": str(p.path), "table_based": p.table_based, "dummy": p.dummy}
            for p in found.plug_ins
        ],
        "missing": list(found.missing),
        "broken": probed.broken,
        "unanswered": list(probed.unanswered),
        "problems": list(found.problems),
        "commands": {_NATIVE: True, _REAL: works},
        "installation": PAGE,
        "image": IMAGE,
    }


def _timeloop_lines(found: dict[str, Any]) -> list[str]:
    lines = ["Timeloop and Accelergy:"]
    rows = {**found["programs"], "front end": found["front_end"], "Accelergy": found["accelergy"]}
    rows["configuration"] = found["configuration"] or "none; Accelergy's defaults hold"
    for name, value in rows.items():
        lines.append(f"  {name:<16} {value or 'not found'}")
    for package, installed in found["versions"].items():
        lines.append(f"  {'version':<16} {package} {installed} (the programs tell none)")
    lines += [f"  {'plug-in':<16} {_plug_in(plug_in)}" for plug_in in found["plug_ins"]]
    lines += [f"  {'broken':<16} {name}: {reason}" for name, reason in found["broken"].items()]
    lines += [
        f"  {'no answer':<16} {name}: none within {SECONDS:g} s; the machine is busy, or it hangs"
        for name in found["unanswered"]
    ]
    lines += [f"  {'problem':<16} {problem}" for problem in found["problems"]]
    lines += ["Commands:", f"  {_NATIVE}: work; the native engine needs none of the above"]
    if found["commands"][_REAL]:
        return [*lines, f"  {_REAL}: works"]
    if found["commands"][_REAL] is None:
        silent = ", ".join(found["unanswered"])
        return [*lines, f"  {_REAL}: not known: no answer from {silent}; run enos doctor again on an idle machine"]
    lacking = [*(f"{name} is missing" for name in found["missing"]), *(f"{name} is broken" for name in found["broken"])]
    return [
        *lines,
        f"  {_REAL}: does not work: {'; '.join(lacking)}",
        f"To install the real Timeloop see {PAGE}, or take the image {IMAGE} (latest-amd64, latest-arm64).",
    ]


def _plug_in(plug_in: dict[str, Any]) -> str:
    if plug_in["table_based"]:
        return f"{plug_in['name']}: table-based, gives Accelergy the energies of our tables"
    if plug_in["dummy"]:
        return f"{plug_in['name']}: DUMMY, invents energies; we never ask it, Timeloop by itself would"
    return f"{plug_in['name']}: not asked by us"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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
