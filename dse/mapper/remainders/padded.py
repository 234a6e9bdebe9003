"""Mappings with remainders: perfect mappings of a padded layer, with the last runs that the layer itself leaves.

A layer with a dimension raised to a multiple of a fan-out's factor has perfect mappings that the layer itself lacks.
Each becomes a mapping of the layer: its loops keep their order, and the last run of a loop is the digit of size - 1 at
that loop, plus one. docs/imperfect.md says which of these mappings are searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper import REMAINDERS, Found
from dse.mapper.remainders.paddings import paddings
from dse.model.evaluation import Evaluation
from dse.model.mapping import Loops, Mapping
from dse.model.physical import physical
from dse.workload.problem import Problem

MOST_PADDINGS = 24  # that are searched
NOISE = 1e-9  # relative: values that differ by less are equal

Search = Callable[[Spec, Problem, Ert, str], Found]


class _Choice(NamedTuple):
    value: tuple[float, float]  # compared in this order
    mapping: Mapping
    evaluation: Evaluation


def search(spec: Spec, problem: Problem, ert: Ert, objective: str, perfect: Search) -> Found:
    """The best mapping of those that `perfect` finds for the layer and for its paddings.

    Args:
        objective: one of `dse.mapper.OBJECTIVES`; mappings are compared by the physical count.
        perfect: finds the best mapping without remainders.

    The mapping is not proven to be optimal, unless there was no padding to search: then it is the perfect optimum.
    """
    result = perfect(spec, problem, ert, objective)
    best, searched = None, False
    if result.mapping is not None and result.evaluation is not None:
        best = _choice(spec, problem, ert, objective, result.mapping)
    for padding in paddings(spec, problem, MOST_PADDINGS):
        if objective == "delay" and best is not None and padding.steps > best.evaluation.cycles:
            break
        searched = True
        padded = perfect(spec, replace(problem, bounds=padding.bounds), ert, objective)
        if padded.mapping is None:
            continue
        mapping = with_remainders(spec, problem, padded.mapping)
        choice = _choice(spec, problem, ert, objective, mapping) if permitted(spec, problem, mapping) else None
        if choice is not None and (best is None or _better(choice.value, best.value)):
            best = choice
    if best is not None and searched:
        return Found(best.mapping, best.evaluation, False, mapspace=REMAINDERS)
    return replace(result, mapspace=REMAINDERS) if searched else result


def where_factors_do_not_divide(
    spec: Spec, problem: Problem, ert: Ert, objective: str, perfect: Search
) -> Found | None:
    """A mapping where exact factors do not divide the layer: Timeloop gives the last run of a loop what remains.

    The layer is raised to the next multiple of those factors, mapped, and the mapping shortened again; no proof.
    None where every dimension can be divided, or where nothing fits.
    """
    bounds = []
    for d, size in problem.bound.items():
        exact = math.prod(level.loops.factors.get(d, 1) for level in spec.levels)
        bounds.append(-(-size // exact) * exact)
    if tuple(bounds) == problem.bounds:
        return None
    padded = perfect(spec, replace(problem, bounds=tuple(bounds)), ert, objective)
    if padded.mapping is None:
        return None
    # The outermost loop of a raised dimension may become shorter than its exact factor, as in Timeloop.
    choice = _choice(spec, problem, ert, objective, with_remainders(spec, problem, padded.mapping))
    return None if choice is None else Found(choice.mapping, choice.evaluation, False, mapspace=REMAINDERS)


def _choice(spec: Spec, problem: Problem, ert: Ert, objective: str, mapping: Mapping) -> _Choice | None:
    """A mapping and how good it is; None where it does not fit, or where its words cannot be counted."""
    try:
        evaluation = physical(spec, problem, mapping, ert)
    except InputError:
        return None
    return _Choice(value(evaluation, objective), mapping, evaluation)


def value(evaluation: Evaluation, objective: str) -> tuple[float, float]:
    """What the search minimises: energy (pJ), energy x delay (pJ cycles), or delay (cycles); then energy."""
    energy, cycles = evaluation.energy_pj, float(evaluation.cycles)
    return {"energy": energy, "edp": energy * cycles, "delay": cycles}[objective], energy


def _better(one: tuple[float, float], than: tuple[float, float]) -> bool:
    pairs = zip(one, than, strict=True)
    return next((a < b for a, b in pairs if not math.isclose(a, b, rel_tol=NOISE)), False)


def with_remainders(spec: Spec, problem: Problem, padded: Mapping) -> Mapping:
    """A mapping of a padded layer as one of the layer itself.

    The outermost loop of a dimension has no last run: it becomes as short as its last run would be, and is left out
    where that is 1.
    """
    factors: dict[tuple[str, str], int] = {}
    remainders: dict[tuple[str, str], int] = {}
    for d, size in problem.bound.items():
        loops = [(level.name, n) for level in reversed(spec.levels) for x, n in padded.loops(level) if x == d]
        digits, rest = [], size - 1
        for name, n in loops:  # innermost first
            rest, digit = divmod(rest, n)
            digits.append((name, n, digit + 1))
        outermost = True
        for name, n, last in reversed(digits):
            factors[name, d] = last if outermost else n
            if not outermost and last < n:
                remainders[name, d] = last
            outermost = outermost and last == 1

    def resized(name: str, loops: Loops) -> Loops:
        return tuple((d, factors[name, d]) for d, _ in loops if factors[name, d] > 1)

    temporal, x, y = (
        {name: resized(name, loops) for name, loops in part.items()} for part in (padded.temporal, padded.x, padded.y)
    )
    return Mapping(temporal, x, y, padded.keep, remainders)


def permitted(spec: Spec, problem: Problem, mapping: Mapping) -> bool:
    """Whether the constraints permit the factors, of which the outermost may have become smaller."""

    def allowed(level: Storage | Fanout) -> bool:
        factors = dict(mapping.loops(level))
        return all(level.loops.permits(d, factors.get(d, 1)) for d in problem.dimensions)

    return all(map(allowed, spec.levels))
