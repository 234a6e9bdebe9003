"""Recorded runs of the real programs on the small machine of tests/golden/imperfect, and stand-ins for failures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from dse.engines.timeloop.installation import find
from dse.engines.timeloop.process import Run
from dse.hardware.energy.ert import read_ert
from dse.hardware.instance import read_arch, spec_for
from dse.workload.problem import conv_problem

FOLDER = Path(__file__).parent / "recorded"
GOLDEN = Path(__file__).parents[3] / "golden"
SMALL = GOLDEN / "imperfect"


def recorded(name: Any) -> Any:
    """A recorded run as `dse.engines.timeloop.process.run` would return it."""
    folder = FOLDER / name
    facts = json.loads((folder / "run.json").read_text())
    files = {f.name: f.read_text() for f in folder.iterdir() if f.name.startswith("timeloop-m")}
    return Run(facts["code"], (folder / "log.txt").read_text(), files, facts["stopped"], facts["killed"])


def small_case() -> Any:
    """The golden case whose layer all recordings are of."""
    return json.loads((SMALL / "small_05.json").read_text())


def small_inputs() -> Any:
    """Specification, problem and energies of the recordings."""
    problem = conv_problem(small_case()["instance"])
    return spec_for(read_arch(SMALL / "arch.yaml"), problem), problem, read_ert(SMALL / "ert.yaml")


def program(folder: Any, script: Any, name: Any = "timeloop-mapper") -> Any:
    """A stand-in program, for failures only."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def nothing_installed() -> Any:
    """What is found on a machine without Timeloop and Accelergy."""
    return dataclasses.replace(find(), model=None, mapper=None, accelergy=None, front_end=None)
