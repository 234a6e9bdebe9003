"""What Timeloop's conventions leave out of a network's energy (docs/conventions.md), from the stored mappings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dse.core.errors import InputError
from dse.model.mapping import parse_directives
from dse.model.padding import check_padding
from dse.model.uncounted import PADDING, Changes, energy_of, uncounted
from dse.table.fill import read_results
from dse.table.plan import Job, Plan
from dse.table.result import evaluation_of
from dse.table.store import Store


def check_plan(plan: Plan, kinds: Sequence[str]) -> None:
    """Refuses a network of which a kind cannot be counted, before it is mapped.

    Raises:
        InputError: with padding, a layer that does not say how large its input is.
    """
    for layer, problem in {job.layer: job.problem for job in plan.jobs}.items() if PADDING in kinds else ():
        try:
            check_padding(problem)
        except InputError as error:
            raise InputError(f"{plan.workload}: {layer}", str(error)) from None


def network_changes(plan: Plan, store: Path | None, kinds: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """What each kind adds to the energy of a network under each candidate, in pJ; None if a layer has no mapping.

    Lookups in tables have neither outputs that leave a memory for another nor padding.

    Args:
        plan: of a network that is mapped.
        store: where its results are; None is the user's.
        kinds: of `dse.model.uncounted.KINDS`.

    Returns:
        By candidate and kind.
    """
    totals: dict[str, dict[str, float | None]] = {}
    for job, of_kinds in _changes(plan, store, kinds):
        of_candidate = totals.setdefault(job.instance.candidate.name, dict.fromkeys(kinds, 0.0))
        for kind, found in of_kinds.items():
            so_far = of_candidate[kind]
            of_candidate[kind] = None if found is None or so_far is None else so_far + energy_of(found)
    return totals


def layer_changes(plan: Plan, store: Path | None, candidate: str, kinds: Sequence[str]) -> dict[str, LayerChanges]:
    """What each kind changes in each layer under a candidate, by level and tensor; None for a layer without a mapping.

    Args:
        plan, store, kinds: as in `network_changes`.
        candidate: one of the plan's.
    """
    return {
        job.layer: of_kinds
        for job, of_kinds in _changes(plan, store, kinds)
        if job.instance.candidate.name == candidate
    }


LayerChanges = dict[str, Changes | None]
"""By kind."""


def _changes(plan: Plan, store: Path | None, kinds: Sequence[str]) -> Iterator[tuple[Job, LayerChanges]]:
    with Store(store, create=False) as opened:
        results = read_results([plan], opened)
    known: dict[tuple[str, str], Changes | None] = {}
    for job in plan.jobs:
        result, of_kinds = results[job.key], LayerChanges()
        for kind in kinds:
            # The size of the image is no part of the key: layers of equal shape may differ in their padding.
            key = (job.key, f"{kind} {sorted(job.problem.image.items()) if kind == PADDING else ''}")
            if key not in known:
                known[key] = None
                if result.status == "ok":
                    spec, problem = job.instance.spec, job.problem
                    mapping = parse_directives(spec, problem, result.mapping, f"{plan.workload}: {job.layer}")
                    evaluation = evaluation_of(result, spec, problem)
                    native = plan.engine.name == "native"
                    known[key] = uncounted(
                        spec, problem, mapping, job.instance.ert, evaluation, kind, timeloop=not native
                    )
            of_kinds[kind] = known[key]
        yield job, of_kinds
