"""What a cost table needs: a row for each layer under each candidate, and the key of each search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dse.core.errors import InputError
from dse.engines import Engine, load_engine
from dse.hardware.accelerator import AcceleratorLike, CandidatesLike, read_accelerator
from dse.hardware.candidate import Candidate
from dse.hardware.instance import Instance, check_given, library_for
from dse.mapper import check_objective
from dse.mapper.slack import check_slack
from dse.table.lookup import lookup, words_of
from dse.table.provenance import Provenance, provenance_of
from dse.table.result import Result
from dse.table.shapes import EMBEDDING, shape_text
from dse.table.store import canonical_json, key_of_parts
from dse.workload.layers import Workload, find_workload, read_workload
from dse.workload.problem import Problem, conv_problem

WorkloadLike = Workload | Path | str


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


def make_plan(
    workload: WorkloadLike,
    *,
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    engine: Engine | str = "native",
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
) -> Plan:
    """Loads everything a table depends on and names its jobs; arguments as in `map_workload`."""
    workload = load_workload(workload)
    accelerator = read_accelerator(arch, candidates)
    loaded = load_engine(engine) if isinstance(engine, str) else engine

    def render(like: Problem) -> list[Instance]:
        return accelerator.instances(like, loaded.energies)

    instances = render(sample_problem(workload))
    for mode in accelerator.modes:
        check_given([i for i in instances if i.candidate.mode == mode.name], library_for(mode.arch))
    plan = plan_for(workload, instances, loaded, objective, remainders, slack=slack, render=render)
    made_by = provenance_of(workload, accelerator, instances, objective=objective, engine=loaded.name,
                            engine_version=loaded.version, remainders=plan.remainders, slack=plan.slack)  # fmt: skip
    return replace(plan, provenance=made_by)


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

    declared = [instance.candidate for instance in instances]

    def hardware_of(problem: Problem) -> tuple[object, ...]:
        """What the instances for a layer depend on."""
        return names_of(problem), tuple(configured(c, problem) for c in declared)

    sample = sample_problem(workload)
    first = hardware_of(sample)
    hardware = {first: with_keys(instances)}
    rows: list[Job | Lookup] = []
    for layer in workload.layers:
        shape = shape_text(layer.instance)
        if layer.kind == EMBEDDING:
            words = words_of(layer.instance)
            rows += [Lookup(layer.name, layer.kind, shape, words, instance) for instance, _ in hardware[first]]
            continue
        problem = layer.problem
        needed = hardware_of(problem)
        if needed not in hardware:
            if render is None:
                raise InputError(
                    f"{workload.name}: {layer.name}",
                    f"has dimensions {' '.join(problem.dimensions)} and sums of {problem.reduction} products",
                    f"{' '.join(sample.dimensions)} and sums of {sample.reduction} products, as other layers",
                )
            hardware[needed] = with_keys(render(problem))
        canonical = canonical_json(problem.canonical())
        for instance, decides in hardware[needed]:
            key = key_of_parts({**decides, "problem": canonical})
            rows.append(Job(layer.name, layer.kind, shape, problem, instance, key))
    return Plan(workload.name, tuple(rows), engine, objective, remainders, slack=slack)


def sample_problem(workload: Workload) -> Problem:
    """The layer of the longest sums, which an accelerator is built for; any if no layer computes something.

    Areas, and names of dimensions and tensors, are taken from it.
    """
    problems = [layer.problem for layer in workload.layers if layer.kind != EMBEDDING]
    same = [problem for problem in problems if names_of(problem) == names_of(problems[0])]
    return max(same, key=lambda problem: problem.reduction, default=None) or conv_problem({})


def distinct_problems(workload: Workload) -> list[Problem]:
    """A layer for each kind of hardware that layers may need: names of dimensions, length of sums, sign of inputs.

    The sample comes first.

    Example:
        >>> sorted((p.reduction, p.signed) for p in distinct_problems(load_workload("squeezenet")))[:2]
        [(16, False), (27, True)]
    """
    sample = sample_problem(workload)
    problems = [sample, *(layer.problem for layer in workload.layers if layer.kind != EMBEDDING)]
    found: dict[object, Problem] = {}
    for problem in problems:
        found.setdefault((names_of(problem), problem.reduction, problem.signed), problem)
    return list(found.values())


def configured(candidate: Candidate, problem: Problem) -> tuple[int, bool]:
    """What a candidate's hardware is configured for: the width of its accumulator, and whether it is one for signs.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> configured(load_candidates()[0], conv_problem({"C": 64, "R": 3, "S": 3}))
        (26, False)
    """
    return candidate.accumulator_bits(problem.reduction), candidate.by_sign and problem.signed


def names_of(problem: Problem) -> tuple[tuple[str, ...], ...]:
    """The names of dimensions and of tensors, by which a specification is read.

    Example:
        >>> names_of(conv_problem({}))[1]
        ('Weights', 'Inputs', 'Outputs')
    """
    return problem.dimensions, tuple(tensor.name for tensor in problem.data_spaces)


def _as_json(decides: dict[str, object]) -> dict[str, str]:
    return {name: canonical_json(value) for name, value in decides.items()}


def _hardware(instance: Instance) -> dict[str, object]:
    """What a candidate's hardware contributes to the key: mapspace, capacities, and every energy that is charged."""
    spec, ert = instance.spec, instance.ert
    energies = {s.name: ert.storage(s.name) for s in spec.storages}
    return {"spec": spec.canonical(), "energies": energies, "operation": instance.e_op_pj}
