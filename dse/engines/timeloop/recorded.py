"""A recorded run of Timeloop, as its folder has it, and the same mapping counted by the native engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.core.documents import read_text
from dse.core.errors import InputError
from dse.core.templates import read_template
from dse.engines.timeloop.compare import Difference, compare
from dse.engines.timeloop.stats import parse_mapping, parse_stats
from dse.hardware.energy.ert import Ert, read_ert
from dse.hardware.spec import Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Mapping, parse_directives
from dse.workload.problem import Problem, problem_from_document

_MOST_LOOPS = 16  # of which the literal walk of the old rule takes every combination

INPUT = "parsed-processed-input.yaml"
"""What the front end writes for the programs, beside their results."""


@dataclass(frozen=True)
class RecordedRun:
    """A run of `timeloop-model` or `timeloop-mapper`: what it read, the mapping, and what it counted."""

    folder: Path
    spec: Spec
    problem: Problem
    mapping: Mapping
    ert: Ert
    recorded: Evaluation


@dataclass(frozen=True)
class RunCheck:
    """A recorded run against the native engine.

    `differences` are of the same mapping. `by_old_rule` says that none is left when the accesses are counted as
    Timeloop before January 2025 counted them. `best` is what the native mapper finds on perfect factors, None if it was
    not asked, or if it cannot search this accelerator (`why_not`).
    """

    run: RecordedRun
    native: Evaluation
    differences: Sequence[Difference]
    by_old_rule: bool
    best: Evaluation | None
    why_not: str


def read_run(folder: Path, dense: bool = False) -> RecordedRun:
    """The run in a folder: its input, its ``ERT.yaml``, its ``stats.txt`` and its ``map.yaml``, if there is one.

    Args:
        dense: whether sparse optimisations are left out, instead of being refused.

    Raises:
        InputError: a file is missing or not readable, and what `SpecFile` refuses.
    """
    path = folder / INPUT
    document = read_template(path)
    if not isinstance(document, dict) or "problem" not in document:
        raise InputError(path, "no `problem` key", "the input of a run of Timeloop")
    own = ("ERT", "ART")  # the front end's copies of the tables that stand in the folder
    arch = SpecFile({key: part for key, part in document.items() if key not in own}, path, dense=dense)
    problem = problem_from_document(document["problem"], f"{path}: problem", arch.scope(), dense=dense)
    spec = arch.instance(problem=problem)
    ert = read_ert(_only(folder, "*.ERT.yaml"))
    stats = _only(folder, "*.stats.txt")
    mapping = _mapping(folder, document.get("mapping"), spec, problem)
    return RecordedRun(folder, spec, problem, mapping, ert, parse_stats(read_text(stats), spec, problem, stats))


def check_run(run: RecordedRun, with_mapper: bool = True) -> RunCheck:
    """The run's mapping counted by the native engine, and the best mapping that the native mapper finds."""
    native = evaluate(run.spec, run.problem, run.mapping, run.ert)
    differences = compare(run.spec, native, run.recorded)
    older = False
    loops = sum(map(len, run.mapping.temporal.values()))
    if differences and not run.mapping.remainders and loops <= _MOST_LOOPS:
        before = evaluate(run.spec, run.problem, run.mapping, run.ert, before_2025=True)
        older = not compare(run.spec, before, run.recorded)
    best, why_not = None, ""
    if with_mapper:
        try:
            found = search(run.spec, run.problem, run.ert, remainders=False)
            best, why_not = found.evaluation, found.reason
        except InputError as e:
            why_not = str(e)
    return RunCheck(run, native, differences, older, best, why_not)


def _mapping(folder: Path, directives: object, spec: Spec, problem: Problem) -> Mapping:
    maps = sorted(folder.glob("*.map.yaml"))
    if maps:
        return parse_mapping(read_text(maps[0]), spec, problem, maps[0])
    if not directives:
        raise InputError(folder, f"has no *.map.yaml, and {INPUT} has no mapping")
    return parse_directives(spec, problem, directives, f"{folder / INPUT}: mapping")


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(folder, f"has {len(found) or 'no'} files {pattern}", "one run of Timeloop in a folder")
    return found[0]
