"""Runs a sweep: checks all points, then maps them together, through the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.engines import Engine, load_engine
from dse.hardware.accelerator import AcceleratorLike, CandidatesLike, read_accelerator
from dse.hardware.candidate import Candidate
from dse.hardware.instance import Instance, candidate_spec, check_given, library_for, with_energies
from dse.sweep.axes import Axis, Point, format_number, parse_zip, points_of
from dse.sweep.sweep_file import axes_of
from dse.sweep.sweep_table import SweepTable, refused_total, summary_row
from dse.sweep.variants import check_paths, check_words, modes_with, with_mode
from dse.table.columns import COLUMNS, Row
from dse.table.cost_table import CostTable
from dse.table.fill import Progress, map_plans
from dse.table.plan import Plan, WorkloadLike, configured, distinct_problems, load_workload, names_of, plan_for
from dse.table.provenance import cycle_seconds
from dse.table.store import canonical_json
from dse.table.workers import Pool
from dse.workload.layers import Workload
from dse.workload.problem import Problem


@dataclass(frozen=True)
class Refusal:
    """Why a candidate cannot be mapped at a point: ``invalid`` by the specification, ``no_energy`` in the tables."""

    status: str
    reason: str


@dataclass(frozen=True)
class Site:
    """A point of a sweep with the instance of each candidate, by name."""

    point: Point
    instances: Mapping[str, Instance | Refusal]
    plan: Plan | None  # of the candidates that can be mapped; None if there are none
    cycle_seconds: float | None


@dataclass(frozen=True)
class SweepPlan:
    """A sweep whose points are checked and not yet searched."""

    workload: Workload
    arch: str
    axes: tuple[Axis, ...]
    candidates: tuple[Candidate, ...]
    sites: tuple[Site, ...]


def sweep(
    workload: WorkloadLike,
    settings: Mapping[str, Any],
    *,
    zipped: Sequence[Mapping[str, Any]] = (),
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    only: Sequence[str] = (),
    store: Path | str | None = None,
    engine: Engine | str = "native",
    jobs: int | Pool = -1,
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
    progress: Progress | None = None,
) -> SweepTable:
    """Maps a network onto every architecture in a set of settings.

    ```python
    result = sweep("squeezenet", {"glb_ifmap.depth": "1024:65536:x2", "weights_spad.depth": [112, 224]}, only=["T8"])
    result.best("T8")["glb_ifmap.depth"]
    ```

    Energies of all components are estimated again at each point. Layers that are in the store, or are the same problem
    at another point, are not searched again.

    Args:
        workload: a workload, its file, or the name of a shipped one.
        settings: path -> values; every combination of values is a point. A path is ``node.attribute``, ``node.meshX``,
            ``node.meshY`` or ``variables.name``, or several of these joined by commas, which take the same value.
            Values are a list of numbers or words, or text: ``a,b,c``, ``start:stop:xFACTOR``, ``start:stop:+STEP``.
        zipped: groups of path -> values that vary together, each path with its own list of values.
        arch: Timeloop v4 specification; None for the shipped one.
        candidates: operators and precisions, or their file; None for the shipped ones.
        only: names of the candidates to map, such as ``T8``; empty for all.
        store, engine, jobs, objective, remainders, slack, progress: as in `dse.table.fill.map_workload`.

    Raises:
        InputError: a file, path or value is wrong, or no point of the sweep can be mapped. A point outside the energy
            tables is not an error; its rows have a status and a reason. The same holds for a layer without a mapping.
    """
    axes = axes_of(settings, "settings")
    axes += tuple(parse_zip(dict(group), f"zipped[{i}]") for i, group in enumerate(zipped))
    plan = plan_sweep(
        workload, axes, arch=arch, candidates=candidates, only=only, engine=engine, objective=objective,
        remainders=remainders, slack=slack,
    )  # fmt: skip
    return run_sweep(plan, store=store, jobs=jobs, progress=progress)


def plan_sweep(
    workload: WorkloadLike,
    axes: Sequence[Axis],
    *,
    arch: AcceleratorLike = None,
    candidates: CandidatesLike = None,
    only: Sequence[str] = (),
    engine: Engine | str = "native",
    objective: str = "energy",
    remainders: bool = True,
    slack: float = 0.0,
) -> SweepPlan:
    """Reads all files and checks every point; arguments and errors as in `sweep`."""
    points = points_of(axes)
    workload = load_workload(workload)
    accelerator = read_accelerator(arch, candidates).only(only)
    for mode in accelerator.modes:
        own = [path for axis in axes for path in axis.paths if mode in modes_with(accelerator, path)]
        check_paths(mode.arch, own, mode.candidates)
        check_words(mode.arch, axes, own)
    loaded = load_engine(engine) if isinstance(engine, str) else engine
    problems = distinct_problems(workload)

    def site(point: Point) -> Site:
        instances: dict[str, Instance | Refusal] = {}
        made: dict[object, Instance] = {}
        possible: list[Candidate] = []
        cycle = None
        for mode in accelerator.modes:
            try:
                altered = with_mode(accelerator, mode, point.settings)
            except InputError as e:
                instances |= {candidate.name: Refusal("invalid", str(e)) for candidate in mode.candidates}
                continue
            cycle = cycle_seconds(altered.arch) if cycle is None else cycle
            for candidate in altered.candidates:
                status = "invalid"
                try:
                    for problem in problems:
                        status, needed = "invalid", _needed(candidate, problem)
                        if needed not in made:
                            spec = candidate_spec(altered.arch, candidate, problem)
                            status = "no_energy"
                            made[needed] = with_energies(
                                spec, candidate, problem, altered.arch.library, altered.arch.where, loaded.energies
                            )
                    instances[candidate.name] = made[_needed(candidate, problems[0])]
                    possible.append(candidate)
                except InputError as e:
                    where = e.where.removeprefix(f"{altered.arch.where}: ")
                    instances[candidate.name] = Refusal(status, str(e.at(where)))
        usable = [found for found in instances.values() if isinstance(found, Instance)]

        def render(like: Problem) -> list[Instance]:
            return [made[_needed(candidate, like)] for candidate in possible]

        plan = plan_for(workload, usable, loaded, objective, remainders, slack=slack, render=render) if usable else None
        return Site(point, instances, plan, cycle)

    sites = tuple(map(site, points))
    for mode in accelerator.modes:
        found = (i for s in sites for i in s.instances.values() if isinstance(i, Instance))
        check_given((i for i in found if i.candidate.mode == mode.name), library_for(mode.arch))
    if not any(site.plan for site in sites):
        refusal = next(iter(sites[0].instances.values()))
        assert isinstance(refusal, Refusal)
        where = "sweep" if len(points) == 1 else f"sweep: none of the {len(points)} points can be mapped; the first"
        raise InputError(f"{where}: {points[0].label}", refusal.reason)
    return SweepPlan(workload, accelerator.where, tuple(axes), accelerator.candidates, sites)


def _needed(candidate: Candidate, problem: Problem) -> object:
    """What the instance of a candidate for a layer depends on."""
    return candidate.name, names_of(problem), configured(candidate, problem)


def run_sweep(
    plan: SweepPlan, *, store: Path | str | None = None, jobs: int | Pool = -1, progress: Progress | None = None
) -> SweepTable:
    """Maps all points in one pool of workers and stores each result when it is known; arguments as in `sweep`."""
    mapped = [site for site in plan.sites if site.plan]
    found = map_plans([site.plan for site in mapped if site.plan], store=store, jobs=jobs, progress=progress)
    tables = {site.point.number: table for site, table in zip(mapped, found, strict=True)}
    macs = {layer.name: layer.macs for layer in plan.workload.layers}
    rows: list[Row] = []
    summary: list[Row] = []
    for site in plan.sites:
        table = tables.get(site.point.number)
        head = {"point": site.point.number, **site.point.settings}
        for layer, n_ops in macs.items():
            for candidate in plan.candidates:
                rows.append(head | _layer_row(plan.workload.name, layer, n_ops, candidate, site, table))
        summary += [_total(plan.workload.name, candidate, site, table) for candidate in plan.candidates]
    points = tuple(site.point for site in plan.sites)
    return SweepTable(plan.workload.name, plan.axes, points, tuple(rows), tuple(summary))


def unchanged(plan: SweepPlan) -> tuple[str, ...]:
    """A line for each value of a setting that gives the hardware of another one, at all points that can be mapped.

    Such a value changes nothing: the name of a technology, say, that no table distinguishes.
    """
    lines = []
    for k, axis in enumerate(plan.axes):
        columns: dict[int, dict[tuple[int, ...], object]] = {}
        for site in plan.sites:
            others = tuple(step for j, step in enumerate(site.point.steps) if j != k)
            columns.setdefault(site.point.steps[k], {})[others] = _hardware(site)
        first: dict[str, int] = {}
        for step, column in columns.items():
            if not any(column.values()):  # nothing can be mapped there
                continue
            same = first.setdefault(canonical_json([[others, column[others]] for others in sorted(column)]), step)
            if same != step:
                names = [",".join(dict.fromkeys(map(format_number, axis.steps[i]))) for i in (step, same)]
                lines.append(f"{axis.name}={names[0]} changes nothing: the hardware is that of {names[1]}.")
    return tuple(lines)


def _hardware(site: Site) -> object:
    """Everything that costs at a point depend on, as JSON data; empty if no candidate can be mapped."""
    instances = {name: found for name, found in site.instances.items() if isinstance(found, Instance)}
    return {
        name: [
            found.spec.canonical(),
            {s.name: [found.ert.storage(s.name), s.datawidth] for s in found.spec.storages},
            found.e_op_pj,
            dict(found.areas.mm2),
            site.cycle_seconds,
        ]
        for name, found in instances.items()
    }


def _layer_row(workload: str, layer: str, n_ops: int, candidate: Candidate, site: Site, table: CostTable | None) -> Row:
    refusal = site.instances[candidate.name]
    if table is not None and isinstance(refusal, Instance):
        return table.row(layer, candidate.name)
    assert isinstance(refusal, Refusal)
    return dict.fromkeys(COLUMNS) | {
        "workload": workload,
        "layer": layer,
        "operator": candidate.operator,
        "bits": candidate.bits,
        "candidate": candidate.name,
        "status": refusal.status,
        "reason": refusal.reason,
        "n_ops": n_ops,
    }


def _total(workload: str, candidate: Candidate, site: Site, table: CostTable | None) -> Row:
    found = site.instances[candidate.name]
    if table is not None and isinstance(found, Instance):
        return summary_row(site.point, table, found, site.cycle_seconds)
    assert isinstance(found, Refusal)
    return refused_total(
        site.point, workload, candidate.name, candidate.operator, candidate.bits, found.status, found.reason
    )
