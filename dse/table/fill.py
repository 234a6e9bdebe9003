"""From workloads to cost tables: what is mapped, what the store already has, and what is left to compute.

Several tables may be made together (`map_plans`), as those of an architecture sweep are: what they have in common is
searched once, and one pool of workers does it all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dse.core.errors import InputError, unknown
from dse.engines import Engine, load_engine
from dse.hardware.candidates import Candidate, load_candidates
from dse.hardware.instance import ArchLike, Instance, instance_for, library_for, read_arch
from dse.mapper import check_objective
from dse.mapper.slack import check_slack
from dse.table.cost_table import CostTable
from dse.table.lookup import lookup, words_of
from dse.table.provenance import Provenance, provenance_of
from dse.table.result import Result, result_of, table_row
from dse.table.shapes import EMBEDDING, shape_text
from dse.table.store import Store, canonical_json, key_of_parts
from dse.table.workers import in_workers, worker_count
from dse.workload.layers import Workload, find_workload, read_workload
from dse.workload.problem import Problem, conv_problem

_LOG = logging.getLogger("enos.table")


class Storable(Protocol):
    """What a store keeps as JSON data."""

    @property
    def payload(self) -> dict[str, Any]: ...


_Answer = TypeVar("_Answer", bound=Storable)


@dataclass(frozen=True)
class Job:
    """One row of the table to be: a layer under a candidate. Jobs with the same key have the same answer."""

    layer: str
    kind: str
    shape: str
    problem: Problem
    instance: Instance
    key: str


@dataclass(frozen=True)
class Lookup:
    """A row that needs no search: an embedding under a candidate, which moves `words` and computes nothing."""

    layer: str
    kind: str
    shape: str
    words: int
    instance: Instance

    @property
    def result(self) -> Result:
        return lookup(self.words, self.instance)


@dataclass(frozen=True)
class Plan:
    """Every row of a cost table, layer by layer in execution order, before anything is computed."""

    workload: str
    rows: tuple[Job | Lookup, ...]
    engine: Engine
    objective: str
    remainders: bool = True
    provenance: Provenance | None = None
    slack: float = 0.0

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """The rows that are searched for."""
        return tuple(row for row in self.rows if isinstance(row, Job))

    @cached_property
    def engine_label(self) -> str:
        return f"{self.engine.name} {self.engine.version}"


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
WorkloadLike = Workload | Path | str
CandidatesLike = Sequence[Candidate] | Path | str | None


def map_workload(
    workload: WorkloadLike,
    *,
    arch: ArchLike = None,
    candidates: CandidatesLike = None,
    store: Path | str | None = None,
    engine: Engine | str = "native",
    jobs: int = -1,
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
        jobs: processes, at most one for each core; -1 takes every core.
        objective: what the mapper minimises.
        remainders: the mapper also looks among mappings with remainders (docs/imperfect.md), where the engine has such;
            else all factors divide their dimension.
        slack: a share of the least energy, 0 to 1, that a mapping may need more to take fewer cycles (docs/mapper.md).
        progress: is called once the store has been read, and after each result.

    Raises:
        InputError: a wrong file, field or name. A layer without a mapping is not an error but a row that says why.

    Example:
        >>> from dse.workload.layers import Layer
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
    jobs: int = -1,
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
    arch: ArchLike = None,
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
        >>> from dse.workload.layers import Layer
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


def make_plan(
    workload: WorkloadLike,
    *,
    arch: ArchLike = None,
    candidates: CandidatesLike = None,
    engine: Engine | str = "native",
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
) -> Plan:
    """Loads everything a table depends on and names its jobs; arguments as in `map_workload`."""
    workload = load_workload(workload)
    specification = read_arch(arch)
    library = library_for(specification)
    if candidates is None or isinstance(candidates, (str, Path)):
        candidates = load_candidates(candidates)
    loaded = load_engine(engine) if isinstance(engine, str) else engine
    chosen = tuple(candidates)

    def render(like: Problem) -> list[Instance]:
        return [instance_for(specification, candidate, like, library, loaded.energies) for candidate in chosen]

    instances = render(sample_problem(workload))
    plan = plan_for(workload, instances, loaded, objective, remainders, slack=slack, render=render)
    made_by = provenance_of(workload, specification, instances, objective=objective, engine=loaded.name,
                            engine_version=loaded.version, remainders=plan.remainders, slack=plan.slack)  # fmt: skip
    return replace(plan, provenance=made_by)


def chosen_candidates(candidates: CandidatesLike, only: Sequence[str], where: str = "candidate") -> list[Candidate]:
    """The candidates with these names, in the order of the operators file; all if there are no names.

    Raises:
        InputError: at `where`, for a name that none has.

    Example:
        >>> [candidate.name for candidate in chosen_candidates(None, ["BC4", "T8"])]
        ['T8', 'BC4']
    """
    if candidates is None or isinstance(candidates, (str, Path)):
        candidates = load_candidates(candidates)
    names = [candidate.name for candidate in candidates]
    for name in only:
        if name not in names:
            raise unknown(where, "candidate", name, names)
    return [candidate for candidate in candidates if not only or candidate.name in only]


def load_workload(workload: WorkloadLike) -> Workload:
    """A workload as it is, or read from its file or by its name."""
    return workload if isinstance(workload, Workload) else read_workload(find_workload(workload))


def plan_for(
    workload: Workload,
    instances: Sequence[Instance],
    engine: Engine,
    objective: str,
    remainders: bool = True,
    *,
    slack: float = 0.0,
    render: Callable[[Problem], Sequence[Instance]] | None = None,
) -> Plan:
    """The rows of every layer on every instance of an accelerator.

    Args:
        instances: those for the dimensions of `sample_problem`.
        render: makes the instances for a layer of other dimensions, such as a 3-D convolution beside a 2-D one.

    Raises:
        InputError: also where a layer has other dimensions and `render` is not given.
    """
    check_objective(objective)
    slack = check_slack(slack, objective)
    settings: dict[str, object] = {"engine": [engine.name, engine.version], "objective": objective}
    remainders = remainders and engine.has_remainders
    if remainders:  # without these, keys are those of stores that were made before there were such options
        settings["remainders"] = True
    if slack:
        settings["slack"] = slack
    if engine.settings:
        settings["engine_settings"] = dict(engine.settings)

    def with_keys(found: Sequence[Instance]) -> list[tuple[Instance, dict[str, str]]]:
        return [(instance, _as_json({**settings, **_hardware(instance)})) for instance in found]

    first = _names(sample_problem(workload))
    hardware = {first: with_keys(instances)}
    rows: list[Job | Lookup] = []
    for layer in workload.layers:
        shape = shape_text(layer.instance)
        if layer.kind == EMBEDDING:
            words = words_of(layer.instance)
            rows += [Lookup(layer.name, layer.kind, shape, words, instance) for instance, _ in hardware[first]]
            continue
        problem = layer.problem
        names = _names(problem)
        if names not in hardware:
            if render is None:
                where = f"{workload.name}: {layer.name}"
                raise InputError(
                    where, f"has dimensions {' '.join(names[0])}", f"{' '.join(first[0])}, as other layers"
                )
            hardware[names] = with_keys(render(problem))
        canonical = canonical_json(problem.canonical())
        for instance, decides in hardware[names]:
            key = key_of_parts({**decides, "problem": canonical})
            rows.append(Job(layer.name, layer.kind, shape, problem, instance, key))
    return Plan(workload.name, tuple(rows), engine, objective, remainders, slack=slack)


def sample_problem(workload: Workload) -> Problem:
    """The first layer that computes something, for the names of dimensions and tensors; any if there is none."""
    return next((layer.problem for layer in workload.layers if layer.kind != EMBEDDING), None) or conv_problem({})


def _names(problem: Problem) -> tuple[tuple[str, ...], ...]:
    """The names of dimensions and of tensors, by which a specification is read."""
    return problem.dimensions, tuple(tensor.name for tensor in problem.data_spaces)


def _as_json(decides: dict[str, object]) -> dict[str, str]:
    return {name: canonical_json(value) for name, value in decides.items()}


def _hardware(instance: Instance) -> dict[str, object]:
    """What a candidate's hardware contributes to the key: mapspace, capacities, and every energy that is charged."""
    spec, ert = instance.spec, instance.ert
    energies = {s.name: ert.storage(s.name) for s in spec.storages}
    return {"spec": spec.canonical(), "energies": energies, "operation": instance.e_op_pj}


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


def search_all(batches: Sequence[Batch], jobs: int) -> Generator[tuple[str, Result], None, None]:
    """Key and result of each job, in the order in which they are found; close it where it is left early.

    Raises:
        InputError: what an engine refuses; answers of other workers come first, so that they are stored.
    """
    workers = worker_count(jobs, len(batches))
    _LOG.debug("%d searches with %d process%s", sum(len(b.jobs) for b in batches), workers, "es" * (workers > 1))
    if workers == 1:
        for batch in batches:
            for job in batch.jobs:
                yield job.key, _search(batch, job)
        return
    refused: InputError | None = None
    with closing(in_workers(_search_batch, batches, workers)) as answers:
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
    return CostTable(
        tuple(
            table_row(
                plan.workload,
                row.layer,
                row.kind,
                row.shape,
                row.problem.macs if isinstance(row, Job) else 0,
                row.instance,
                plan.engine_label,
                results[row.key] if isinstance(row, Job) else row.result,
            )
            for row in plan.rows
        ),
        plan.provenance,
    )


def _report(plans: Sequence[Plan], results: Container[str], batches: Sequence[Batch]) -> Report:
    jobs = sum(len(plan.jobs) for plan in plans)
    reused = sum(job.key in results for plan in plans for job in plan.jobs)
    return Report(jobs, reused, jobs - reused - sum(len(batch.jobs) for batch in batches))
