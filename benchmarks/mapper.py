"""The mapper against 60 seconds of the real timeloop-mapper, layer by layer, on the recorded architecture.

Reads what tests/golden recorded (one thread, random_pruned, metric energy); prints a Markdown table.

usage: python benchmarks/mapper.py
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from dse.core.documents import read_yaml
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.workload.problem import problem_from_document

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
PSUM_BITS = {"T": 20, "MF": 12, "BC": 12}
# pJ per operation of the recorded compute units, from tests/golden/README.md
COMPUTE = {"T": {8: 0.921875, 4: 0.328125, 2: 0.15625}, "BC": {8: 0.078125, 4: 0.0703125, 2: 0.0625}}


def main() -> None:
    arch = SpecFile.read(GOLDEN / "arch.yaml")
    shape = read_yaml(GOLDEN / "problem.yaml")["problem"]["shape"]
    storage = read_ert(GOLDEN / "ert.yaml").tables
    print("| layer | candidate | timeloop-mapper, 60 s | ENOS | ENOS / Timeloop | CPU s |")
    print("|---|---|---|---|---|---|")
    for warm in (False, True):  # the first round compiles
        for entry in json.loads((GOLDEN / "mapper_baseline.json").read_text(encoding="utf-8")):
            operator, bits = entry["operator"], entry["bits"]
            problem = problem_from_document({"shape": shape, "instance": entry["instance"]}, "problem")
            spec = arch.instance(
                {"act_bits": bits, "weight_bits": 1 if operator == "BC" else bits, "psum_bits": PSUM_BITS[operator]},
                dimensions=problem.dimensions,
                tensors=tuple(t.name for t in problem.data_spaces),
            )
            ert = Ert({**storage, "mac": {"compute": COMPUTE[operator][bits]}})
            start = time.process_time()
            found = search(spec, problem, ert, remainders=False)
            seconds = time.process_time() - start
            assert found.evaluation is not None and found.optimal
            ours, theirs = 1000 * found.evaluation.energy_pj / problem.macs, entry["fJ_per_compute"]
            if warm:
                name = f"{operator}{bits}"
                print(
                    f"| {entry['layer']} | {name} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.4f} | {seconds:.3f} |"
                )


if __name__ == "__main__":
    main()
