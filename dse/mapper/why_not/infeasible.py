"""Why a layer has no mapping on a specification, in one line: what is in the way, and the least change that helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from dse.hardware.spec import Fanout, LoopConstraint, Spec, Storage
from dse.mapper.divisors import divisors_of
from dse.mapper.why_not.smallest_fit import (
    FanoutGrowth,
    Growth,
    Levels,
    StorageGrowth,
    growths,
    has_mapping,
    size_attribute,
)
from dse.workload.problem import Problem

_FIELDS = {"=": "factors", ">=": "at_least", "<=": "at_most"}


_NO_ROOM = (
    "no mapping fits the memories, and no larger memories or fan-outs are known that one would fit: a tensor that "
    "bypasses every memory outside must fit where it is kept"
)

Lacks = Callable[[Storage], str] | None
"""Why a memory of some size has no energy, "" where it has; see `dse.hardware.energy.ert.Ert`."""


def explain(spec: Spec, problem: Problem, lacks: Lacks = None) -> str:
    """One line for a mapspace that is empty, "" for one that is not.

    Factors that cannot multiply up to the problem come first, because no size helps against them. Sizes that have no
    energy are not proposed.
    """
    for tensor in problem.data_spaces:
        if all(s.keep.get(tensor.name) is False for s in spec.storages):
            return f"{tensor.name} is bypassed at every level"
    for d, bound in problem.bound.items():
        if bound not in _products(spec.levels, d, bound):
            return _contradiction(spec, problem, d, lacks)
    alternatives = growths(spec, problem)
    if not alternatives:
        return "" if has_mapping(spec, problem) else _NO_ROOM
    possible = [group for group in alternatives if not _unpriced(group, lacks)]
    if not possible:
        first = alternatives[0]
        sizes = _listed(f"{_size(g)} of {g.level.name}" for g in first)
        why = f"{sizes} would fit, but there is no energy for that: {_unpriced(first, lacks)}"
        return f"{'; '.join(map(_shortage, first))}: {why}"
    first, *others = possible
    if len(first) > 1:
        fixes = _listed(f"{_size(g)} of {g.level.name}" for g in first)
        return f"{'; '.join(map(_shortage, first))}: {fixes} would fit together, not alone"
    return ", or ".join([f"{_shortage(first[0])}: {_size(first[0])} would fit"]
                        + [f"{_size(g)} of {g.level.name}" for (g,) in others])  # fmt: skip


def _unpriced(group: Iterable[Growth], lacks: Lacks) -> str:
    """Why one of the grown memories has no energy; "" if all have."""
    if lacks is None:
        return ""
    return next((why for g in group if isinstance(g, StorageGrowth) and (why := lacks(g.grown))), "")


def _shortage(growth: Growth) -> str:
    if isinstance(growth, FanoutGrowth):
        fanout, grown = growth.level, growth.grown
        loops = [f"{_product(f)} on {axis}" for f, axis in ((growth.x, "X"), (growth.y, "Y")) if f]
        need = "needs" if len(growth.x) + len(growth.y) == 1 else "need"
        return (
            f"{fanout.name} has {fanout.mesh_x} x {fanout.mesh_y} instances, {_listed(loops)} {need} at least "
            f"{grown.mesh_x} x {grown.mesh_y} under the constraints"
        )
    storage = growth.level
    attribute = size_attribute(storage)
    holds = f"{storage.name} holds {_words(storage.capacity or 0)}"
    if attribute is not None:
        holds += f" ({attribute} {int(storage.attributes[attribute])})"
    if len(growth.tiles) == 1:
        (tensor,) = growth.tiles
        if growth.whole:
            return f"{holds}, {tensor} needs {growth.words}, all of it, as no memory outside keeps it"
        return f"{holds}, {tensor} needs at least {growth.words} under the constraints"
    tiles = _listed(f"{tensor} ({words})" for tensor, words in growth.tiles.items())
    why = f", as no memory outside keeps {_listed(sorted(growth.whole))}" if growth.whole else ""
    return f"{holds}, {tiles} need at least {growth.words} under the constraints{why}"


def _size(growth: Growth) -> str:
    """The size that a level must grow to, in the terms of the specification."""
    if isinstance(growth, FanoutGrowth):
        before, now = growth.level, growth.grown
        axes = (("meshX", before.mesh_x, now.mesh_x), ("meshY", before.mesh_y, now.mesh_y))
        return " with ".join(f"{axis} {n}" for axis, old, n in axes if n > old)
    attribute = size_attribute(growth.grown)
    return f"{attribute} {growth.grown.attributes[attribute]}" if attribute else _words(growth.words)


def _words(n: int) -> str:
    return "1 word" if n == 1 else f"{n} words"


def _product(factors: dict[str, int]) -> str:
    return " x ".join(f"{d}={n}" for d, n in factors.items())


def _listed(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _contradiction(spec: Spec, problem: Problem, dimension: str, lacks: Lacks) -> str:
    """The line for a dimension whose factors cannot multiply to its bound: why not, and what to change."""
    bound = problem.bound[dimension]
    repairs = _repairs(spec.levels, dimension, bound)
    repaired = [replace(spec, levels=_permitting(spec.levels, dimension, factors)) for factors in repairs]
    best = next((i for i, candidate in enumerate(repaired) if has_mapping(candidate, problem)), 0)
    changes = _listed(
        f"{_relation(dimension, _loosened(spec.levels[i].loops, dimension, n))} at {spec.levels[i].name}"
        for i, n in repairs[best].items()
    )
    line = f"factors of {dimension} {_conflict(spec.levels, dimension, bound)}, the layer has {bound}: {changes}"
    rest = explain(repaired[best], problem, lacks)
    return f"{line} would do, but then {rest}" if rest else f"{line} would fit"


def _conflict(levels: Levels, dimension: str, bound: int) -> str:
    """What the factors of a dimension multiply to under which constraints: the ones that tell it is not the bound."""
    loops = [level.loops for level in levels]
    fixed = math.prod(c.factors.get(dimension, 1) for c in loops)
    least = math.prod(c.factors.get(dimension, c.at_least.get(dimension, 1)) for c in loops)
    most = math.prod(c.factors.get(dimension, c.at_most.get(dimension, bound)) for c in loops)
    everything = _constraints(levels, dimension)
    if all(dimension in c.factors for c in loops):
        return f"multiply to {fixed} under {everything}"
    if bound % fixed:
        return f"multiply to a multiple of {fixed} under {_constraints(levels, dimension, '=')}"
    if least > bound:
        return f"multiply to at least {least} under {_constraints(levels, dimension, '=', '>=')}"
    return f"multiply to at most {most} under {everything}" if most < bound else f"never fit {everything}"


def _constraints(levels: Levels, dimension: str, *signs: str) -> str:
    """The constraints on a dimension and their levels; those that most levels have come last, without names.

    With `signs` only those of that kind, and not those that merely leave a factor of 1.
    """
    named: dict[str, list[str]] = {}
    for level in levels:
        terms = _terms(level.loops, dimension)
        kept = {sign: n for sign, n in terms.items() if not signs or (sign in signs and n > 1)}
        named.setdefault(_relation(dimension, kept), []).append(level.name)
    common = max(named, key=lambda relation: len(named[relation]))
    if "" in named or len(named[common]) < 3:
        return _listed(f"{relation} at {_listed(names)}" for relation, names in named.items() if relation)
    texts = [f"{relation} at {_listed(names)}" for relation, names in named.items() if relation != common]
    return _listed([*texts, f"{common} at {'all other levels' if texts else 'every level'}"])


def _terms(constraint: LoopConstraint, dimension: str) -> dict[str, int]:
    """What a constraint says about a dimension's factor: a number for each relation."""
    if dimension in constraint.factors:
        return {"=": constraint.factors[dimension]}
    terms = {">=": constraint.at_least.get(dimension, 1), "<=": constraint.at_most.get(dimension, 0)}
    return {sign: n for sign, n in terms.items() if n > (sign == ">=")}


def _relation(dimension: str, terms: dict[str, int]) -> str:
    """As the specification writes it; "" for no constraint."""
    return " and ".join(f"{dimension}{sign}{n}" for sign, n in terms.items())


def _loosened(constraint: LoopConstraint, dimension: str, factor: int) -> dict[str, int]:
    """The relations that do not permit a factor, changed just so far that they do."""
    terms = _terms(constraint, dimension)
    return {sign: factor for sign, n in terms.items() if sign == "=" or (n > factor if sign == ">=" else n < factor)}


def _permitting(levels: Levels, dimension: str, factors: dict[int, int]) -> Levels:
    """The levels with constraints on a dimension loosened for these factors, by level."""
    changed: list[Storage | Fanout] = list(levels)
    for i, factor in factors.items():
        level, constraint = levels[i], levels[i].loops
        for sign, n in _loosened(constraint, dimension, factor).items():
            field = _FIELDS[sign]
            values: dict[str, Any] = {field: {**getattr(constraint, field), dimension: n}}
            constraint = replace(constraint, **values)
        if isinstance(level, Fanout):
            changed[i] = replace(level, spatial=constraint)
        else:
            changed[i] = replace(level, temporal=constraint)
    return tuple(changed)


def _products(levels: Levels, dimension: str, bound: int) -> set[int]:
    """Divisors of a bound that the levels' factors can multiply to."""
    products = {1}
    for level in levels:
        factors = [n for n in divisors_of(bound) if level.loops.permits(dimension, n)]
        products = {p * n for p in products for n in factors if bound % (p * n) == 0}
    return products


def _repairs(levels: Levels, dimension: str, bound: int) -> list[dict[int, int]]:
    """Factors, by level, that would have to be permitted so that all levels can multiply to the bound.

    One level is changed if that is enough: the factor nearest to its constraint first, then the outermost level.
    """
    single = []
    for i, level in enumerate(levels):
        others = _products((*levels[:i], *levels[i + 1 :]), dimension, bound)
        for n in divisors_of(bound):
            if bound // n in others:
                single.append((_distance(level.loops, dimension, n), i, n))
    return [{i: n} for _, i, n in sorted(single)] or [_nearest_factors(levels, dimension, bound)]


def _nearest_factors(levels: Levels, dimension: str, bound: int) -> dict[int, int]:
    """The factors, by level, that multiply to the bound while the fewest levels have one that is not permitted."""
    reached: dict[int, tuple[int, float, tuple[int, ...]]] = {1: (0, 1.0, ())}  # product: changes, distance, -factors
    for level in levels:
        longer: dict[int, tuple[int, float, tuple[int, ...]]] = {}
        for product, (changes, distance, factors) in reached.items():
            for n in divisors_of(bound // product):
                far = _distance(level.loops, dimension, n)
                candidate = (changes + (far > 1), distance * far, (*factors, -n))
                longer[product * n] = min(candidate, longer.get(product * n, candidate))
        reached = longer
    chosen = [-n for n in reached[bound][2]]
    return {i: n for i, n in enumerate(chosen) if not levels[i].loops.permits(dimension, n)}


def _distance(constraint: LoopConstraint, dimension: str, n: int) -> float:
    """By what ratio, 1 or more, a factor n is off what a constraint permits."""
    low = constraint.factors.get(dimension, constraint.at_least.get(dimension, 1))
    high = constraint.factors.get(dimension, constraint.at_most.get(dimension, n))
    return max(1.0, n / high, low / n)
