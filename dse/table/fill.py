"""From workloads to cost tables: what is mapped, what the store already has, and what is left to compute.

Several tables may be made together (`map_plans`), as those of an architecture sweep are: what they have in common is
searched once, and one pool of workers does it all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dse.core.errors import InputError
from dse.engines import Engine
from dse.hardware.accelerator import AcceleratorLike, CandidatesLike
from dse.table.columns import LevelColumn, Row
from dse.table.cost_table import CostTable
from dse.table.plan import Job, Lookup, Plan, WorkloadLike, make_plan
from dse.table.result import Result, result_of, table_row
from dse.table.store import Store
from dse.table.workers import Pool, pool_of
from dse.workload.problem import Problem

_LOG = logging.getLogger("enos.table")


class Storable(Protocol):
    """What a store keeps as JSON data."""

    @property
    def payload(self) -> dict[str, Any]: ...


_Answer = TypeVar("_Answer", bound=Storable)


@dataclass(frozen=True)
class Batch:
    """What a worker gets: jobs of one layer, on an accelerator's instances for several candidates."""

    jobs: tuple[Job, ...]
    engine: Engine
    objective: str
    remainders: bool
    slack: float = 0.0


@dataclass(frozen=True)
class Report:
    """Where the rows of the tables come from; `computed` grows until `jobs` are done."""

    jobs: int
    reused: int  # rows that the store had
    duplicates: int  # rows that share the answer of another row
    computed: int = 0

    @property
    def to_compute(self) -> int:
        """Searches that the store could not answer."""
        return self.jobs - self.reused - self.duplicates


Progress = Callable[[Report], None]


def map_workload(
    workload: WorkloadLike,
    *,
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    store: Path | str | None = None,
    engine: Engine | str = "native",
    jobs: int | Pool = -1,
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
    progress: Progress | None = None,
) -> CostTable:
    """The cost table of a network: the best mapping of every layer under every candidate.

    Args:
        workload: a workload, its file, or the name of a shipped one.
        arch: Timeloop v4 specification; None takes the shipped one.
        candidates: operators and precisions, or their file; None takes the shipped ones.
        store: where results are kept; None takes the user's (`dse.table.store.default_path`).
        engine: an engine or its name.
        jobs: processes, at most one for each core, -1 takes every core; or a pool of other workers.
        objective: what the mapper minimises.
        remainders: the mapper also looks among mappings with remainders (docs/imperfect.md), where the engine has such;
            else all factors divide their dimension.
        slack: a share of the least energy, 0 to 1, that a mapping may need more to take fewer cycles (docs/mapper.md).
        progress: is called once the store has been read, and after each result.

    Raises:
        InputError: a wrong file, field or name. A layer without a mapping is not an error but a row that says why.

    Example:
        >>> from dse.workload.layers import Layer, Workload
        >>> layer = Layer("conv", "conv", {"C": 3, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3})
        >>> table = map_workload(Workload("small", (layer,)), jobs=1, remainders=False)
        >>> len(table.rows), table.candidates[:3], all(row["optimal"] for row in table.rows)
        (9, ('T8', 'T4', 'T2'), True)
    """
    # What the rows are, and the key of each: layers x candidates, the specification rendered for each candidate.
    plan = make_plan(
        workload,
        arch=arch,
        candidates=candidates,
        engine=engine,
        objective=objective,
        remainders=remainders,
        slack=slack,
    )
    (table,) = map_plans([plan], store=store, jobs=jobs, progress=progress)
    return table


def map_plans(
    plans: Sequence[Plan],
    *,
    store: Path | str | None = None,
    jobs: int | Pool = -1,
    progress: Progress | None = None,
) -> list[CostTable]:
    """The tables of plans of one engine and objective, in their order; arguments as in `map_workload`.

    Raises:
        InputError: a file that is not a store, or what the engine refuses.
    """
    with Store(store) as opened:
        # 1. What earlier runs, also killed ones, have already found.
        results = read_results(plans, opened)
        # 2. What is left: rows with the same key, be they of one plan or of several, are one search.
        batches = missing_batches(plans, results)
        report = _report(plans, results, batches)
        _LOG.debug("%d of %d rows are in the store", report.reused, report.jobs)
        if progress:
            progress(report)
        # 3. Each answer is stored as it arrives.
        with closing(search_all(batches, jobs)) as answers:
            results.update(stored(answers, opened, report, progress))
    # 4. One row for each layer and candidate.
    return [make_table(plan, results) for plan in plans]


def stored_table(
    workload: WorkloadLike,
    *,
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    store: Path | str | None = None,
    engine: Engine | str = "native",
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
) -> CostTable:
    """The cost table from the store alone; arguments as in `map_workload`.

    Raises:
        InputError: also where the store lacks rows, with their number.

    Example:
        >>> from dse.workload.layers import Layer, Workload
        >>> small = Workload("small", (Layer("conv", "conv", {"C": 3, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3}),))
        >>> mapped = map_workload(small, jobs=1, remainders=False)
        >>> stored_table(small, remainders=False).rows == mapped.rows
        True
    """
    plan = make_plan(
        workload,
        arch=arch,
        candidates=candidates,
        engine=engine,
        objective=objective,
        remainders=remainders,
        slack=slack,
    )
    with Store(store, create=False) as opened:
        results = read_results([plan], opened)
        lacking = sum(job.key not in results for job in plan.jobs)
        if lacking:
            raise InputError(
                opened.path, f"lacks {lacking} of {len(plan.jobs)} rows of {plan.workload}", hint="run `enos map` first"
            )
    return make_table(plan, results)


def read_results(plans: Sequence[Plan], store: Store) -> dict[str, Result]:
    """The results that the store has, by key; damaged ones are left out."""
    stored = store.read(job.key for plan in plans for job in plan.jobs)
    parsed = {key: Result.from_payload(payload) for key, payload in stored.items()}
    return {key: result for key, result in parsed.items() if result is not None}


def missing_batches(plans: Sequence[Plan], results: Container[str]) -> list[Batch]:
    """The searches that are left, each key once.

    A batch holds the candidates of one layer in one plan if the engine shares work between them, else one search; a
    kill loses at most the batches under way. The largest layers come first; the batches of a layer shape follow one
    another in the order of the plans, so that neighbouring points of a sweep do.
    """
    batches: dict[Problem, dict[int, list[Job]]] = {}
    seen: set[str] = set()
    for number, plan in enumerate(plans):
        for job in plan.jobs:
            if job.key not in results and job.key not in seen:
                seen.add(job.key)
                batches.setdefault(job.problem, {}).setdefault(number, []).append(job)
    largest_first = sorted(batches, key=lambda problem: -problem.macs)
    return [
        Batch(tuple(part), plans[number].engine, plans[number].objective, plans[number].remainders, plans[number].slack)
        for problem in largest_first
        for number, jobs in sorted(batches[problem].items())
        for part in ([jobs] if plans[number].engine.batches_candidates else [[job] for job in jobs])
    ]


def stored(
    answers: Iterable[tuple[str, _Answer]], store: Store, report: Report, progress: Progress | None
) -> Iterator[tuple[str, _Answer]]:
    """Answers as they are, each written to the store and reported before the next one is asked for."""
    for key, answer in answers:
        store.write(key, answer.payload)
        report = replace(report, computed=report.computed + 1)
        if progress:
            progress(report)
        yield key, answer


def search_all(batches: Sequence[Batch], jobs: int | Pool) -> Generator[tuple[str, Result], None, None]:
    """Key and result of each job, in the order in which they are found; close it where it is left early.

    Raises:
        InputError: what an engine refuses; answers of other workers come first, so that they are stored.
    """
    pool = pool_of(jobs)
    _LOG.debug("%d searches with %s", sum(len(b.jobs) for b in batches), pool.described(len(batches)))
    if pool.alone(len(batches)):
        for batch in batches:
            for job in batch.jobs:
                yield job.key, _search(batch, job)
        return
    refused: InputError | None = None
    with closing(pool.answers(_search_batch, batches)) as answers:
        for answer in answers:
            if isinstance(answer, InputError):
                refused = answer
            else:
                yield from answer
    if refused:
        raise refused


def _search(batch: Batch, job: Job) -> Result:
    instance = job.instance
    found = batch.engine.search(
        instance.spec, job.problem, instance.ert, batch.objective, batch.remainders, slack=batch.slack
    )
    return result_of(found, instance, job.problem)


def _search_batch(batch: Batch) -> list[tuple[str, Result]] | InputError:
    """What a worker does; what it refuses is an answer, so that those of other workers are still stored."""
    if batch.engine.name == "native":
        from dse.mapper.kernels.precompile import precompile

        precompile()
    try:
        return [(job.key, _search(batch, job)) for job in batch.jobs]
    except InputError as e:
        return e


def make_table(plan: Plan, results: dict[str, Result]) -> CostTable:
    """The table of a plan whose jobs all have a result."""

    def row_of(row: Job | Lookup) -> Row:
        operations, result = (row.problem.macs, results[row.key]) if isinstance(row, Job) else (0, row.result)
        return table_row(
            plan.workload, row.layer, row.kind, row.shape, operations, row.instance, plan.engine_label, result
        )

    rows = [row_of(row) for row in plan.rows]
    if len(plan.jobs) < len(rows):  # a lookup has few levels: columns stay in the order of the others, innermost first
        searched = (made for row, made in zip(plan.rows, rows, strict=True) if isinstance(row, Job))
        levels = dict.fromkeys(name for made in searched for name in made if LevelColumn.parse(name))
        for row, made in zip(plan.rows, rows, strict=True):
            if isinstance(row, Lookup):
                own = {name: made.pop(name) for name in list(made) if LevelColumn.parse(name)}
                made |= dict.fromkeys(levels) | own
    return CostTable(tuple(rows), plan.provenance)


def _report(plans: Sequence[Plan], results: Container[str], batches: Sequence[Batch]) -> Report:
    jobs = sum(len(plan.jobs) for plan in plans)
    reused = sum(job.key in results for plan in plans for job in plan.jobs)
    return Report(jobs, reused, jobs - reused - sum(len(batch.jobs) for batch in batches))
