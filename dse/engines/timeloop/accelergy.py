"""Energies of a specification's components from the real Accelergy, which reads our classes and our primitives."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from dse.core.documents import read_yaml
from dse.core.errors import InputError
from dse.engines.timeloop.component_files import architecture_file, class_files, components
from dse.engines.timeloop.estimator_tables import queries, table_files
from dse.engines.timeloop.installation import IMAGE, PAGE, Installation, find
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.ert import Ert, component_name, read_ert
from dse.hardware.instance import embedded_energies
from dse.hardware.spec import Spec

DIGITS = 17
"""Significant digits that Accelergy is asked for: all that a double has. Its own default is 6."""

SECONDS = 120
"""Time limit of a run, which takes about half a second."""

_START = "from accelergy.accelergy_console import run; run()"
_TABLES, _INPUTS, _OUTPUTS = "tables", "inputs", "outputs"


@dataclass(frozen=True)
class EnergyDifference:
    """An action whose energies differ; None where one side has no such component or action."""

    component: str
    action: str
    embedded_pj: float | None
    accelergy_pj: float | None


def energies(
    spec: Spec,
    library: ComponentLibrary,
    where: object = "Accelergy",
    compute_actions: Iterable[tuple[str, float]] = (("compute", 1),),
) -> Ert:
    """The energies that `dse.hardware.instance.embedded_energies` has, in the same form, from one run of Accelergy.

    The compound classes are evaluated by Accelergy, over energies of primitives from our tables (docs/accelergy.md).
    A second call for the same components does not run it again.

    Args:
        where: the specification's file, for errors.
        compute_actions: how often each action of the compute unit happens in one operation.

    Raises:
        InputError: Accelergy or its table-based plug-in is missing, Accelergy fails (with its own reason), an
            estimate that does not come from our tables, a missing action; what the embedded estimator refuses.
    """
    if library.energies_of:  # there is nothing to estimate
        for component in components(spec):
            if component.name not in library.energies_of:
                raise InputError(library.where, f"has no energies of {component.name}", hint="use --engine native")
        return embedded_energies(spec, library, where, compute_actions)
    tables = {name: dict(actions) for name, actions in raw_energies(spec, library, where).tables.items()}
    for component in components(spec):
        if component.name not in tables:
            raise InputError(f"{where}: {component.name}", "Accelergy's table of energies leaves it out")
    for storage in spec.storages:
        actions = tables[storage.name]
        if "write" in actions:
            actions.setdefault("update", actions["write"])
        actions.setdefault("leak", 0.0)
    compute = tables[spec.compute.name]
    leak = compute.get("leak", 0.0)
    operation = 0.0
    for action, times in compute_actions:
        if action not in compute:
            raise InputError(
                f"{where}: {spec.compute.name}", f"Accelergy's table of energies has no action {action!r}", compute
            )
        operation += times * compute[action]
    tables[spec.compute.name] = {"compute": operation, **({"leak": leak} if leak else {})}
    ert = Ert(MappingProxyType(tables), str(where))
    return ert.with_compute_leakage(spec) if library.compute_leakage else ert


def raw_energies(spec: Spec, library: ComponentLibrary, where: object, digits: int = DIGITS) -> Ert:
    """The energy reference table as Accelergy writes it; arguments and errors as `energies`."""
    return _run(tuple(input_files(spec, library, where).items()), digits, str(where))


def input_files(spec: Spec, library: ComponentLibrary, where: object) -> dict[str, str]:
    """Relative path -> text of what Accelergy reads; arguments and errors as `energies`."""
    inputs = {"architecture.yaml": architecture_file(spec, library), **class_files(spec, library)}
    files = {f"{_INPUTS}/{name}": text for name, text in inputs.items()}
    return files | {f"{_TABLES}/{name}": text for name, text in table_files(queries(spec, library, where)).items()}


def differences(embedded: Ert, accelergy: Ert, tolerance: float = 1e-12) -> list[EnergyDifference]:
    """Where two tables of the same accelerator differ by more than `tolerance` of the larger energy."""
    found = []
    for component in dict.fromkeys((*embedded.tables, *accelergy.tables)):
        ours, theirs = embedded.tables.get(component, {}), accelergy.tables.get(component, {})
        for action in dict.fromkeys((*ours, *theirs)):
            a, b = ours.get(action), theirs.get(action)
            if a is None or b is None or abs(a - b) > tolerance * max(a, b):
                found.append(EnergyDifference(component, action, a, b))
    return found


@lru_cache(maxsize=1024)
def _run(files: tuple[tuple[str, str], ...], digits: int, where: str) -> Ert:
    with tempfile.TemporaryDirectory(prefix="enos-accelergy-") as folder:
        return run_in(Path(folder), dict(files), digits, where)


def run_in(folder: Path, files: Mapping[str, str], digits: int, where: str) -> Ert:
    """Runs Accelergy in an empty folder, which keeps inputs and ``outputs/``; files as of `input_files`."""
    installation = _require(where)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    (folder / _OUTPUTS).mkdir()
    _write_config(folder, installation)
    log = _call(folder, installation, digits, where)
    return read_outputs(folder / _OUTPUTS, log, where)


def read_outputs(folder: Path, log: str, where: str) -> Ert:
    """The table of energies of a run; InputError where there is none (with the reason in `log`) or it is not ours."""
    ert, summary = folder / "ERT.yaml", folder / "ERT_summary.yaml"
    if not all(file.is_file() and file.stat().st_size for file in (ert, summary)):
        raise InputError(where, f"Accelergy gave no energies: {_reason(log)}")
    check_estimators(read_yaml(summary), where)
    return Ert(read_ert(ert).tables, where)


def _require(where: str) -> Installation:
    found = find()
    if not found.accelergy_works:
        there = found.accelergy_package or found.accelergy
        lacking = (
            "its table-based plug-in is not" if there else "neither its Python package nor the program `accelergy` is"
        )
        raise InputError(
            where,
            f"energies were to come from the real Accelergy, but {lacking} found; to install it see {PAGE} "
            f"(or the image {IMAGE})",
        )
    return found


def _write_config(folder: Path, installation: Installation) -> None:
    """A configuration of the run's own, so that only our tables answer and the user's files stay as they are."""
    plug_in = installation.table_plug_in
    config = {
        "version": "0.4",
        "estimator_plug_ins": [str(plug_in.path.parent)] if plug_in else [],
        "primitive_components": [],
        "compound_components": [],
        "math_functions": [],
        "python_plug_ins": [],
        "table_plug_ins": {"roots": [str(folder / _TABLES)]},
    }
    # Accelergy looks into the working directory first, its table-based plug-in only into the home folder.
    path = folder / ".config" / "accelergy" / "accelergy_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def _call(folder: Path, installation: Installation, digits: int, where: str) -> str:
    """Runs Accelergy and returns what it logged; its exit code says nothing."""
    inputs = sorted(str(p.relative_to(folder)) for p in (folder / _INPUTS).iterdir())
    arguments = ["-o", _OUTPUTS, "-p", str(digits), "-f", "ERT", "ERT_summary", "--", *inputs]
    # A process of its own also for the Python API: it exits, keeps global state, and reads $HOME.
    program = [sys.executable, "-c", _START] if installation.accelergy_package else [str(installation.accelergy)]
    try:
        done = subprocess.run(
            [*program, *arguments],
            cwd=folder,
            env=_environment(folder, installation),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InputError(where, f"Accelergy did not end within {SECONDS} s") from None
    except OSError as e:
        raise InputError(where, f"Accelergy cannot be started: {e.strerror or e}") from None
    return done.stdout


def _environment(folder: Path, installation: Installation) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERGY_")}
    env["PYTHONUSERBASE"] = site.getuserbase()  # packages there are found by the home folder, which changes
    env["HOME"] = str(folder)
    if installation.accelergy_package:
        paths = [env.get("PYTHONPATH", ""), str(installation.accelergy_package.parent)]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return env


def check_estimators(summary: Any, where: str) -> None:
    """Refuses a table of energies with an estimate that is not of our tables, such as one of a dummy plug-in.

    Args:
        summary: the document of ``ERT_summary.yaml``, in which Accelergy names the estimator of each primitive.

    Raises:
        InputError: naming component and estimator; another document.
    """
    try:
        for table in summary["ERT_summary"]["table_summary"]:
            for estimate in table["primitive_estimation(s)"]:
                if "table-based" not in str(estimate["estimator"]):
                    raise InputError(
                        f"{where}: {component_name(str(table['name']))}",
                        f"Accelergy took {estimate['name']} from its estimator {estimate['estimator']!r}",
                        "the table-based plug-in, with our tables",
                    )
    except (KeyError, TypeError):
        raise InputError(where, "Accelergy's ERT_summary.yaml does not name its estimators") from None


def _reason(log: str) -> str:
    """The line of Accelergy's log that says why it failed, in one piece and not too long."""
    lines = [re.sub(r"^.*?\bERROR\s+", "", line).strip() for line in log.splitlines()]
    marks = ("Can not find", "Error:", "Failed to evaluate", "Missing required", "not found")
    telling = [line for line in lines if any(mark in line for mark in marks)] or [line for line in lines if line]
    text = next((line for line in telling if line.startswith(marks[0])), telling[-1] if telling else "it said nothing")
    return text if len(text) <= 300 else f"{text[:300]}..."
