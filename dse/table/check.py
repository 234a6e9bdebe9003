"""Both engines on the same layers: where energies, counts and mappings differ, and who finds the better mapping."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.core.errors import InputError
from dse.engines.timeloop.accelergy import EnergyDifference, differences
from dse.engines.timeloop.compare import Difference, compare
from dse.engines.timeloop.engine import TimeloopEngine
from dse.hardware.accelerator import AcceleratorLike, CandidatesLike
from dse.model.evaluation import evaluate
from dse.model.mapping import parse_directives
from dse.model.physical import physical
from dse.table.plan import Job, Plan, WorkloadLike, make_plan
from dse.table.result import Result, evaluation_of

EQUAL = 1e-9  # relative: energies of the mappings that two searches found


@dataclass(frozen=True)
class Agreement:
    """What comparing two plans row by row found."""

    rows: int  # layers x candidates
    searches: int  # of them different
    actions: int  # energies of components compared
    energies: tuple[tuple[str, EnergyDifference], ...]  # candidate, difference of its components
    differences: tuple[tuple[str, str, Difference], ...]  # layer, candidate, difference of its evaluation

    @property
    def complete(self) -> bool:
        """Whether nothing differs."""
        return not self.energies and not self.differences


@dataclass(frozen=True)
class Race:
    """One layer mapped by both mappers; energies in pJ, each by its own engine, times in seconds.

    Timeloop's energy is None where it found no mapping within its limit.
    """

    layer: str
    candidate: str
    native_pj: float
    timeloop_pj: float | None
    native_cpu: float
    timeloop_cpu: float
    timeloop_wall: float


def plans(
    workload: WorkloadLike, arch: AcceleratorLike, candidates: CandidatesLike, objective: str, remainders: bool
) -> tuple[Plan, Plan]:
    """The native plan, and the same with Accelergy's energies and `timeloop-model`; their jobs are in one order.

    Raises:
        InputError: as `make_plan`; Timeloop or Accelergy is not installed.
    """
    timeloop = TimeloopEngine(mapping="native")
    both = [
        make_plan(workload, arch=arch, candidates=candidates, engine=engine, objective=objective, remainders=remainders)
        for engine in ("native", timeloop)
    ]
    return both[0], both[1]


def agreement(native: Plan, timeloop: Plan, results: dict[str, Result]) -> Agreement:
    """Compares energies of components, mappings and evaluations; `results` has those of both plans' keys."""
    energies, found, actions = [], [], 0
    seen: set[str] = set()
    for ours, theirs in zip(native.jobs, timeloop.jobs, strict=True):
        candidate = ours.instance.candidate.name
        if candidate not in seen:
            seen.add(candidate)
            actions += sum(map(len, ours.instance.ert.tables.values()))
            energies += [(candidate, d) for d in differences(ours.instance.ert, theirs.instance.ert)]
        found += [(ours.layer, candidate, d) for d in _row(ours, results[ours.key], theirs, results[theirs.key])]
    searches = len({job.key for job in native.jobs})
    return Agreement(len(native.jobs), searches, actions, tuple(energies), tuple(found))


def _row(ours: Job, native: Result, theirs: Job, timeloop: Result) -> list[Difference]:
    """What `timeloop-model` and the native model differ in on the mapping that the former was given.

    Two searches may end with different mappings of equal energy, when energies differ in their last bit.
    """
    if "no_mapping" in (native.status, timeloop.status):
        same = native.status == timeloop.status
        return [] if same else [Difference("", "", f"status: {native.status}, {timeloop.status}", None, None)]
    spec, problem, where = ours.instance.spec, ours.problem, f"{ours.layer} {ours.instance.candidate.name}"
    mapping = parse_directives(spec, problem, timeloop.mapping, where)
    evaluation = evaluate(spec, problem, mapping, ours.instance.ert)
    found = compare(spec, evaluation, evaluation_of(timeloop, theirs.instance.spec, problem))
    energy_pj = physical(spec, problem, mapping, ours.instance.ert).energy_pj
    if not math.isclose(energy_pj, native.energy_pj, rel_tol=EQUAL):
        found.append(Difference("", "", "energy_pj of the mapping found", native.energy_pj, energy_pj))
    return found


def contestants(plan: Plan, number: int) -> list[Job]:
    """The largest layers of different shapes, each under another candidate, in turn."""
    by_shape = {job.problem: job.layer for job in reversed(plan.jobs)}
    largest = sorted(by_shape, key=lambda problem: -problem.macs)[:number]
    names = list(dict.fromkeys(job.instance.candidate.name for job in plan.jobs))
    jobs = {(job.layer, job.instance.candidate.name): job for job in plan.jobs}
    return [jobs[by_shape[problem], names[i % len(names)]] for i, problem in enumerate(largest)]


def race(jobs: Sequence[Job], engine: TimeloopEngine, objective: str) -> list[Race]:
    """Lets both mappers search perfect factors of the same layers in turn; layers that fit nowhere are left out.

    Raises:
        InputError: Timeloop fails.
    """
    from dse.mapper import search

    results = []
    for i, job in enumerate(jobs):
        spec, ert = job.instance.spec, job.instance.ert
        if i == 0:
            search(spec, job.problem, ert, objective, remainders=False)  # loads the compiled mapper
        began = time.process_time()
        ours = search(spec, job.problem, ert, objective, remainders=False).evaluation
        native_cpu = time.process_time() - began
        if ours is None:
            continue
        wall, cpu = time.monotonic(), _children_cpu()
        theirs = engine.search(spec, job.problem, ert, objective).evaluation
        results.append(
            Race(
                job.layer, job.instance.candidate.name, ours.energy_pj, None if theirs is None else theirs.energy_pj,
                native_cpu, _children_cpu() - cpu, time.monotonic() - wall,
            )
        )  # fmt: skip
    return results


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check_number(number: int) -> None:
    if number < 0:
        raise InputError("--mapper", f"found {number}", "a whole number, at least 0")


def write_differences(found: Agreement, path: Path) -> None:
    """Every difference as CSV: layer, candidate, level, tensor, quantity, native, timeloop."""
    energies = [
        ["", candidate, e.component, "", f"{e.action} pJ", e.embedded_pj, e.accelergy_pj]
        for candidate, e in found.energies
    ]
    _write_rows(path, energies, found.differences)


def write_recorded(differences: Iterable[Difference], path: Path) -> None:
    """The differences from a recorded run in the same columns; layer and candidate are empty."""
    _write_rows(path, [], [("", "", d) for d in differences])


def _write_rows(
    path: Path, first: Iterable[Sequence[object]], differences: Iterable[tuple[str, str, Difference]]
) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "candidate", "level", "tensor", "quantity", "native", "timeloop"])
        writer.writerows(first)
        writer.writerows([layer, name, d.level, d.tensor, d.quantity, d.native, d.timeloop]
                         for layer, name, d in differences)  # fmt: skip
