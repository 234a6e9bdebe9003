"""Records energy reference tables of the real Accelergy: `python -m tests.dse.engines.timeloop.record_ert`.

Writes tests/dse/engines/timeloop/recorded/ert: one folder for each candidate on arch_specs/eyeriss_168.yaml, and `own`
for the classes of own_classes.yaml, which are in no shipped file.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from dse.engines.timeloop.accelergy import DIGITS, input_files, run_in
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.instance import candidate_spec, library_for, read_arch, spec_for
from dse.table.plan import load_workload

FOLDER = Path(__file__).parent / "recorded" / "ert"
OWN_ARCH, OWN_CLASSES = FOLDER / "own_arch.yaml", FOLDER / "own_classes.yaml"
OWN_ACTIONS = (("compute", 2), ("skip", 0.5))
PROBLEM = load_workload("squeezenet_cifar").layers[0].problem


def cases() -> Any:
    """Name -> (specification, library, actions in an operation) of everything that is recorded."""
    arch = read_arch()
    candidates = load_candidates("operators_published_widths")
    found = {c.name: (candidate_spec(arch, c, PROBLEM), library_for(arch), c.compute_actions) for c in candidates}
    own = spec_for(read_arch(OWN_ARCH), PROBLEM), ComponentLibrary.load([OWN_CLASSES]), OWN_ACTIONS
    return found | {"own": own}


def main() -> None:
    for name, (spec, library, _) in cases().items():
        with tempfile.TemporaryDirectory() as temporary:
            run_in(Path(temporary), input_files(spec, library, name), DIGITS, name)
            (FOLDER / name).mkdir(exist_ok=True)
            for file in ("ERT.yaml", "ERT_summary.yaml"):
                shutil.copy(Path(temporary) / "outputs" / file, FOLDER / name / file)


if __name__ == "__main__":
    main()
