"""What mappings with remainders bring on the shipped 168-PE array, on layers of published networks.

Prints a Markdown table; energies and cycles are those of the physical count, and beside them Timeloop's energy.

usage: python benchmarks/imperfect.py
"""

from __future__ import annotations

import time

from dse.hardware.candidates import load_candidates
from dse.hardware.instance import instance_for, library_for, read_arch
from dse.mapper import search
from dse.model.evaluation import evaluate
from dse.workload.problem import conv_problem

LAYERS = {
    "AlexNet conv1": {"C": 3, "M": 96, "P": 55, "Q": 55, "R": 11, "S": 11, "Hstride": 4, "Wstride": 4},
    "AlexNet conv2, a group": {"C": 48, "M": 128, "P": 27, "Q": 27, "R": 5, "S": 5},
    "AlexNet conv3": {"C": 256, "M": 384, "P": 13, "Q": 13, "R": 3, "S": 3},
    "AlexNet conv4": {"C": 384, "M": 256, "P": 13, "Q": 13, "R": 3, "S": 3},
    "ResNet-50 layer4.1.conv1": {"C": 2048, "M": 512, "P": 7, "Q": 7},
    "SqueezeNet 1.0 fire2 squeeze": {"C": 96, "M": 16, "P": 55, "Q": 55},
    "ShuffleNet v2 stage 2 depthwise": {"G": 58, "P": 28, "Q": 28, "R": 3, "S": 3},
    "ShuffleNet v2 stage 3 pointwise": {"C": 116, "M": 116, "P": 14, "Q": 14},
    "ShuffleNet v2 stage 4 pointwise": {"C": 232, "M": 232, "P": 7, "Q": 7},
    "GoogLeNet 4e 3x3": {"C": 160, "M": 320, "P": 14, "Q": 14, "R": 3, "S": 3},
}
OBJECTIVES = ("energy", "edp", "delay")


def main() -> None:
    arch = read_arch()
    (candidate,) = (c for c in load_candidates("operators_published_widths") if c.name == "T8")
    print("| layer | objective | | utilisation | cycles | energy, uJ | Timeloop's, uJ | EDP, nJ s | proven | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, layer in LAYERS.items():
        problem = conv_problem(layer)
        instance = instance_for(arch, candidate, problem, library_for(arch))
        search(instance.spec, problem, instance.ert, remainders=False)  # compiles
        for objective in OBJECTIVES:
            for remainders in (False, True):
                start = time.process_time()
                found = search(instance.spec, problem, instance.ert, objective, remainders)
                seconds = time.process_time() - start
                assert found.mapping is not None and found.evaluation is not None
                timeloops = evaluate(instance.spec, problem, found.mapping, instance.ert).energy_pj
                energy, cycles = found.evaluation.energy_pj, found.evaluation.cycles
                used = problem.macs / cycles / instance.spec.pe_count
                edp = energy * cycles * 1e-12  # nJ s at 1 ns a cycle
                kind = "remainders" if remainders else "perfect"
                print(
                    f"| {name} | {objective} | {kind} | {used:.1%} | {cycles:,} | {energy / 1e6:.2f} | "
                    f"{timeloops / 1e6:.2f} | {edp:.4g} | {'yes' if found.optimal else '**no**'} | {seconds:.2f} |"
                )


if __name__ == "__main__":
    main()
