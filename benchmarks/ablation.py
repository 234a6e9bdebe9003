"""What each rule of the mapper saves: nodes and CPU seconds of a fixed set of searches, with one rule switched off.

A rule is switched off by replacing the function that implements it, in a process of its own, so the mapper itself has
no switches. Answers must not change: a rule only saves work. A search that is cut short at the most nodes counts with
what it did until then, and its answer is not compared.

Prints a Markdown table; ends with exit code 1 if an answer differs.

usage: python benchmarks/ablation.py [--rule NAME]... [--timeout S]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from generic import ARCHS, LAYERS, WARM_UP
from measure import ROOT, print_head, print_row

from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.instance import instance_for, library_for, read_arch, spec_for
from dse.hardware.spec import LoopConstraint, Spec
from dse.mapper import bounds, branch_and_bound, mapspace, prices, search, tilings
from dse.model.mapping import Loops
from dse.workload.problem import Problem, conv_problem

TIMEOUT_S = 120.0
SHIPPED = "eyeriss_168"


class Question(NamedTuple):
    """A search: an architecture of archs/, or the shipped one at 8 bit; a layer of generic.py; an objective."""

    arch: str
    layer: str
    objective: str = "energy"


QUESTIONS = (
    Question(SHIPPED, "conv3x3_14"),
    Question(SHIPPED, "conv1x1_56", "edp"),
    Question(SHIPPED, "depthwise_14"),
    Question(SHIPPED, "fc", "delay"),
    Question("one_pe", "conv3x3_7"),
    Question("one_pe", "depthwise_56"),
    Question("weight_stationary", "conv1x1_7"),
    Question("weight_stationary", "conv3x3_7"),
    Question("weight_stationary", "conv3x3_7", "delay"),
)


class Rule(NamedTuple):
    """A rule, the function that implements it, and what switches it off."""

    name: str
    where: str
    off: Callable[[], None]
    compiled: bool = False  # a kernel is replaced, so those that call it must compile again


def no_first_answer() -> None:
    branch_and_bound._Walk.good = lambda _: tilings.Best()  # type: ignore[method-assign]


def no_dive() -> None:
    branch_and_bound._Walk._dive = lambda *_: None  # type: ignore[method-assign]


def no_limit() -> None:
    """Labels stay however much they cost; nodes are still pruned."""
    lift = bounds.lift

    def all_labels(space: Any, stages: Any, aim: Any, _limit: float, *rest: Any, **options: Any) -> Any:
        return lift(space, stages, aim, math.inf, *rest, **options)

    branch_and_bound.lift = all_labels


def no_outside() -> None:
    """A label is held against the limit without what further levels cost at least."""
    build = prices.build_stages

    def without(space: Any, spec: Any, ert: Any, keep: Any, base: float) -> Any:
        stages = build(space, spec, ert, keep, base)
        lowest = min((float(stage.beyond.min()) for stage in stages.stages), default=base)
        least = min(base, lowest)
        return replace(stages, stages=tuple(
            replace(s, beyond=np.full_like(s.beyond, least), outside=np.where(np.isinf(s.outside), np.inf, least))
            for s in stages.stages
        ))  # fmt: skip

    branch_and_bound.build_stages = without


def no_tiles_outside() -> None:
    """What further levels cost at least is the least of any tile, also of those that cannot lie around a label's."""
    prices._least_outside = lambda _space, costs, _allowed: np.full(len(costs), costs.min())


def no_unserved() -> None:
    """Neighbours may serve every compute unit in every step that does not move a tensor."""
    prices._unserved = lambda space, _fanout, choices, *_: np.zeros((len(choices), len(space.tensors)))


def no_outermost() -> None:
    prices._outward = lambda space, _: (-1, np.zeros(len(space.dims), bool))


def no_order_rule() -> None:
    """Every order that the constraints allow and that starts with the innermost loop, or any of its kind."""

    def all_orders(
        factors: Any,
        first: int,
        status: Any,
        grid: Any,
        constraint: LoopConstraint,
        names: tuple[str, ...],
        uneven: Any,
    ) -> Iterator[Loops]:
        loops = [d for d in range(len(names)) if factors[d] > 1]
        inner = [names.index(n) for n in constraint.inner if n in names and names.index(n) in loops]
        outer = [names.index(n) for n in constraint.outer if n in names and names.index(n) in loops]
        middle = [d for d in loops if d not in inner and d not in outer]
        for order in itertools.permutations(middle):
            yield tuple((names[d], int(factors[d])) for d in (*inner, *order, *outer))

    tilings.loop_orders = all_orders


def no_exact_boundaries() -> None:
    tilings.Evaluator.least_boundary = lambda *_: None  # type: ignore[method-assign]


def no_reach() -> None:
    """Tiles that factor constraints further out cannot leave are labelled too."""
    reach = mapspace._reach
    mapspace._reach = lambda *a: [np.ones_like(tiles) for tiles in reach(*a)]


def no_settled_shortcut() -> None:
    """Labels whose tensors are all settled are kept one by one, not as their least number."""
    storage = bounds.lift_storage
    bounds.lift_storage = lambda *a: storage(*a[:8], False, *a[9:])


def no_dominance() -> None:
    """A label is added to its tile's set whatever the others are; full sets are merged as before."""
    from numba import njit

    from dse.mapper.kernels import labels, upward
    from dse.mapper.kernels.labels import copy, merge
    from dse.mapper.kernels.slots import cost_slots

    @njit
    def insert(rows, count, new, corners):  # type: ignore[no-untyped-def]
        if count < rows.shape[0]:
            copy(rows[count], new)
            return count + 1
        merge(rows, count, new, cost_slots(corners.shape[1]))
        return count

    labels.insert = upward.insert = insert


def no_windows() -> None:
    """A window that slides may need nothing at all beyond its steps' slabs: only repetitions are bounded as before."""
    from numba import njit

    from dse.mapper.kernels import downward, geometry, labels, upward
    from dse.mapper.kernels.slots import COLUMN, EXTENT, ITERATIONS, SPAN, STEP

    @njit
    def reuse_factor(label, run, windows, count, direct):  # type: ignore[no-untyped-def]
        best = 1.0
        for i in range(count):
            n, step, column = windows[i, ITERATIONS], windows[i, STEP], int(windows[i, COLUMN])
            extent, span = abs(label[column + EXTENT]), label[column + SPAN]
            slab = min(1.0, step / extent) if extent > 0.0 else 1.0
            if span > 0.0 or label[column + EXTENT] < 0.0:  # a neighbour may have it
                slab *= step / (span + step)
            best = min(best, (n - 1.0) * slab / n)
        return best / run

    @njit
    def reuse_parts(label, run, windows, count, direct):  # type: ignore[no-untyped-def]
        return reuse_factor(label, run, windows, count, direct), 0.0

    for module in (geometry, labels, upward, downward):
        module.reuse_factor = reuse_factor
        module.reuse_parts = reuse_parts


RULES = (
    Rule("dominance", "kernels.labels.insert", no_dominance, compiled=True),
    Rule("limit on labels", "bounds.lift", no_limit),
    Rule("least cost further out", "prices.build_stages", no_outside),
    Rule("steps of windows", "kernels.geometry.reuse_factor", no_windows, compiled=True),
    Rule("settled labels as one number", "kernels.upward.lift_storage", no_settled_shortcut),
    Rule("tiles that constraints leave", "mapspace._reach", no_reach),
    Rule("outermost", "prices._outward", no_outermost),
    Rule("orders", "orders.loop_orders", no_order_rule),
    Rule("boundaries counted exactly", "tilings.Evaluator.least_boundary", no_exact_boundaries),
    Rule("a good mapping first", "branch_and_bound._Walk.good", no_first_answer),
    Rule("dive", "branch_and_bound._Walk._dive", no_dive),
    Rule("tiles further out", "prices._least_outside", no_tiles_outside),
    Rule("what neighbours cannot serve", "prices._unserved", no_unserved),
)


class Answer(NamedTuple):
    """How one search came out; `value` is the objective of its mapping."""

    nodes: int
    cpu_s: float
    value: float
    optimal: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--rule", action="append", choices=[rule.name for rule in RULES], help="only this; repeatable")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="CPU seconds of all searches without one rule")
    parser.add_argument("--answer", help=argparse.SUPPRESS)  # what the processes of this benchmark are called with
    options = parser.parse_args()
    if options.answer is not None:
        _answer_all(options.answer, options.timeout)
        return
    print_head(["rule that is off", "function", "nodes", "x", "CPU s", "x", "answers"])
    base = _answers("", options.timeout)
    total = [sum(a.nodes for a in base), sum(a.cpu_s for a in base)]
    print_row(["none", "", f"{total[0]:,}", "1.0", f"{total[1]:.2f}", "1.0", "optimal" if all(
        a.optimal for a in base) else "**not optimal**"])  # fmt: skip
    wrong = False
    for rule in RULES:
        if options.rule and rule.name not in options.rule:
            continue
        answers = _answers(rule.name, options.timeout)
        if not answers:
            print_row([rule.name, f"`{rule.where}`", "", "", f"> {options.timeout:g}", "", "ended"])
            continue
        nodes, seconds = sum(a.nodes for a in answers), sum(a.cpu_s for a in answers)
        verdict = _verdict(base, answers)
        wrong |= verdict.startswith("**")
        print_row([
            rule.name, f"`{rule.where}`", f"{nodes:,}", f"{nodes / total[0]:.1f}", f"{seconds:.2f}",
            f"{seconds / total[1]:.1f}", verdict,
        ])  # fmt: skip
    sys.exit(wrong)


def _verdict(base: list[Answer], answers: list[Answer]) -> str:
    """Whether answers that were proven are those with all rules on, and how many were not."""
    pairs = list(zip(base, answers, strict=True))
    if any(a.optimal and b.optimal and not math.isclose(a.value, b.value, rel_tol=1e-9) for a, b in pairs):
        return "**differ**"
    cut = sum(a.optimal and not b.optimal for a, b in pairs)
    return f"equal; {cut} of {len(pairs)} cut short" if cut else "equal"


def _answers(rule: str, timeout: float) -> list[Answer]:
    """The answers of a process without a rule, "" for none; [] if it took too long."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        if any(r.compiled for r in RULES if r.name == rule):
            environment["NUMBA_CACHE_DIR"] = folder  # compiled with the replaced kernel, which no other process may get
        command = [sys.executable, str(Path(__file__).resolve()), "--answer", rule, "--timeout", str(timeout)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        return []
    if done.returncode:
        sys.exit(done.stderr)
    return [Answer(*row) for row in json.loads(done.stdout.splitlines()[-1])]


def _answer_all(rule: str, timeout: float) -> None:
    """Prints the answers without a rule as JSON."""
    for r in RULES:
        if r.name == rule:
            r.off()
    expanded: list[int] = []
    report = branch_and_bound.Effort.report

    def counted(effort: branch_and_bound.Effort, *a: Any) -> None:
        expanded.append(effort.expanded)
        report(effort, *a)

    branch_and_bound.Effort.report = counted  # type: ignore[method-assign]
    for question in dict.fromkeys(Question(q.arch, "fc", q.objective) for q in QUESTIONS):
        _ask(_small(question))  # compiles
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + timeout), resource.RLIM_INFINITY))
    answers = []
    for question in QUESTIONS:
        mapspace._spaces.clear()  # no answers of other searches to start from
        expanded.clear()
        seconds, value, optimal = _ask(_inputs(question))
        answers.append(Answer(sum(expanded), seconds, value, optimal))
    print(json.dumps(answers))


def _small(question: Question) -> tuple[Spec, Problem, Ert, str]:
    """The question about a layer so small that it takes no time."""
    return _inputs(question, WARM_UP)


def _inputs(question: Question, layer: dict[str, int] | None = None) -> tuple[Spec, Problem, Ert, str]:
    problem = conv_problem(layer or LAYERS[question.layer])
    if question.arch != SHIPPED:
        spec = spec_for(read_arch(ARCHS / f"{question.arch}.yaml"), problem)
        return spec, problem, read_ert(ARCHS / f"{question.arch}.ert.yaml"), question.objective
    arch = read_arch()
    (candidate,) = (c for c in load_candidates("operators_published_widths") if c.name == "T8")
    instance = instance_for(arch, candidate, problem, library_for(arch))
    return instance.spec, problem, instance.ert, question.objective


def _ask(inputs: tuple[Spec, Problem, Ert, str]) -> tuple[float, float, bool]:
    """CPU seconds, the objective of the mapping, and whether it is proven."""
    start = time.process_time()
    result = search(*inputs, remainders=False)
    seconds = time.process_time() - start
    assert result.evaluation is not None, result.reason
    energy, cycles = result.evaluation.energy_pj, result.evaluation.cycles
    return seconds, {"energy": energy, "edp": energy * cycles, "delay": float(cycles)}[inputs[3]], result.optimal


if __name__ == "__main__":
    main()
