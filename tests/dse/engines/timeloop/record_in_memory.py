"""Records `timeloop-model` on macros that compute in memory: `python -m tests.dse.engines.timeloop.record_in_memory`.

Writes tests/golden/in_memory: the specification of `arch_specs/cim_macros.yaml` for a candidate and a layer, the
optimal mapping without remainders, energies, and what the real program says of it, in the form of tests/golden/reuse.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dse.engines.timeloop.engine import TimeloopEngine
from dse.engines.timeloop.v4_documents import v4_specification
from dse.hardware.accelerator import read_accelerator
from dse.hardware.instance import Instance
from dse.mapper import search
from dse.model.evaluation import Evaluation
from dse.model.mapping import Mapping, directives
from dse.sweep.variants import with_mode
from dse.workload.problem import Problem, conv_problem

FOLDER = Path(__file__).parents[3] / "golden" / "in_memory"
_MACRO = ("variables.macro_rows", "variables.macro_columns", "variables.macros", "variables.cell_bits")
_LAYERS = {
    "3x3": {"C": 16, "M": 64, "P": 8, "Q": 8, "R": 3, "S": 3},
    "1x1": {"C": 128, "M": 48, "P": 4, "Q": 4},
    "strided": {"C": 3, "M": 32, "P": 8, "Q": 8, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2},
    "depthwise": {"G": 12, "P": 6, "Q": 6, "R": 3, "S": 3},
}
CASES = {
    "MF8_3x3": ("MF8", (31, 64, 16, 16), _LAYERS["3x3"]),
    "T4_1x1": ("T4", (31, 64, 16, 16), _LAYERS["1x1"]),
    "BC8_strided": ("BC8", (31, 64, 16, 16), _LAYERS["strided"]),
    "BC2_depthwise": ("BC2", (31, 64, 16, 16), _LAYERS["depthwise"]),
    "MF4_small": ("MF4", (15, 12, 2, 8), _LAYERS["3x3"]),
    "T8_small": ("T8", (9, 7, 3, 32), _LAYERS["1x1"]),
}


def case(name: str) -> tuple[Instance, Problem, Mapping]:
    """The macros with a candidate, a layer, and its optimal mapping without remainders."""
    candidate, sizes, layer = CASES[name]
    problem = replace(conv_problem(layer), signed=False)
    accelerator = read_accelerator("hybrid").only([f"{candidate}@cim"])
    (mode,) = accelerator.modes
    mode = with_mode(accelerator, mode, dict(zip(_MACRO, sizes, strict=True)))
    (instance,) = mode.instances(problem)
    mapping = search(instance.spec, problem, instance.ert, remainders=False).mapping
    assert mapping is not None
    return instance, problem, mapping


def as_recorded(found: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON data."""
    levels = {level: {tensor: vars(a) for tensor, a in of.items()} for level, of in found.levels.items()}
    numbers = {"energy_pj": found.energy_pj, "cycles": found.cycles, "computes": found.computes}
    return numbers | {"leakage_pj": found.leakage_pj, "levels": levels}


def main() -> None:
    engine = TimeloopEngine()
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        instance, problem, mapping = case(name)
        found = engine.evaluate(instance.spec, problem, mapping, instance.ert)
        document = {
            "specification": v4_specification(instance.spec, problem),
            "mapping": directives(instance.spec, problem, mapping),
            "energies": {name: dict(actions) for name, actions in instance.ert.tables.items()},
            "recorded": as_recorded(found),
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
