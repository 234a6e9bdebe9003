"""What a slack and a front bring on the layers of published networks, and what they take: T8 on the shipped array.

Maps the layer shapes of layers.yaml three times in one process: for the least energy, with --slack, and the front. CPU
seconds are of this process; the first search, which loads the mapper, is not counted.

usage: python benchmarks/front.py [--network NAME]... [--slack SHARE] [--points N]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from measure import print_table

from dse.core.documents import read_yaml
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import Instance, instance_for, library_for, read_arch
from dse.mapper import Found, search
from dse.mapper.front import Front, front
from dse.mapper.slack import read_slack
from dse.workload.problem import Problem, conv_problem

LAYERS = Path(__file__).with_name("layers.yaml")
FEW = 0.5  # of the compute units; fewer are most idle


@dataclass(frozen=True)
class Answer:
    """One layer shape three ways, with the CPU seconds of each."""

    times: int
    problem: Problem
    least: Found
    within: Found
    front: Front
    seconds: tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--slack", default="1%")
    parser.add_argument("--points", type=int, default=10)
    options = parser.parse_args()
    slack = read_slack(options.slack, "--slack")
    arch, candidate = read_arch(), load_candidates("operators_published_widths")[0]
    networks = {name: network["layers"] for name, network in read_yaml(LAYERS)["networks"].items()}
    like = conv_problem({"C": 2, "M": 2, "P": 2, "Q": 2, "R": 2, "S": 2})
    chip = instance_for(arch, candidate, like, library_for(arch))
    answer(chip, like, 1, slack, options.points)  # loads the mapper
    rows, everything = [], []
    for name in options.network or networks:
        answers = [
            answer(chip, conv_problem(layer["instance"]), layer.get("times", 1), slack, options.points)
            for layer in networks[name]
        ]
        rows.append(row(name, answers, chip.spec.pe_count))
        everything += answers
    rows.append(row("all", everything, chip.spec.pe_count))
    head = [
        "network", "shapes", "mostly idle", "idle with slack", "energy x", "cycles x", "points of a front",
        "CPU s", "with slack x", "front x", "all proven",
    ]  # fmt: skip
    print_table(head, rows)


def answer(chip: Instance, problem: Problem, times: int, slack: float, points: int) -> Answer:
    clocks = [time.process_time()]
    least = search(chip.spec, problem, chip.ert, remainders=False)
    clocks.append(time.process_time())
    within = search(chip.spec, problem, chip.ert, remainders=False, slack=slack)
    clocks.append(time.process_time())
    found = front(chip.spec, problem, chip.ert, points, remainders=False)
    clocks.append(time.process_time())
    a, b, c, d = clocks
    return Answer(times, problem, least, within, found, (b - a, c - b, d - c))


def row(name: str, answers: list[Answer], units: int) -> list[str]:
    def total(of: str, what: str) -> float:
        return sum(a.times * getattr(getattr(a, of).evaluation, what) for a in answers)

    def idle(of: str) -> int:
        return sum(a.problem.macs / units / getattr(a, of).evaluation.cycles < FEW for a in answers)

    first, second, third = (sum(a.seconds[i] for a in answers) for i in range(3))
    proven = all(p.optimal for a in answers for p in (a.least, a.within, *a.front.points))
    return [
        name, str(len(answers)), str(idle("least")), str(idle("within")),
        f"{total('within', 'energy_pj') / total('least', 'energy_pj'):.4f}",
        f"{total('within', 'cycles') / total('least', 'cycles'):.3f}",
        f"{sum(len(a.front.points) for a in answers) / len(answers):.1f}",
        f"{first:.2f}", f"{second / first:.2f}", f"{third / first:.2f}", "yes" if proven else "no",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
