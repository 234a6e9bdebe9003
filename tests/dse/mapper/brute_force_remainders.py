"""Every mapping of a small problem with a remainder somewhere, one by one, and what each costs physically."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from dse.core.errors import InputError
from dse.hardware.constraints import for_layer
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper import REMAINDERS, search
from dse.model.mapping import Mapping
from dse.model.physical import physical
from dse.workload.problem import Problem
from tests.dse.mapper.brute_force import _arrange, cost, least_compiled
from tests.dse.mapper.small_cases import Case

FINE = ("equal with remainders", "equal with perfect factors", "no mapping", "refused", "perfect factors only")
EQUAL = 1e-9  # relative


def compare(case: Case, largest: int) -> tuple[int, str]:
    """(mappings tried, how the mapper's answer compares with the best of them), blocks of all memories being a word.

    One more than `largest` are tried at most. An outcome is one of `FINE`, or "too large", or a difference: before the
    colon its kind. Timeloop rounds accesses up to blocks in mappings of perfect factors alone, hence blocks of a word.
    """
    levels = (replace(s, block_size=1) if isinstance(s, Storage) else s for s in case.spec.levels)
    spec, problem, ert, objective = replace(case.spec, levels=tuple(levels)), case.problem, case.ert, case.objective
    try:
        found = search(spec, problem, ert, objective)
    except InputError:
        return 0, "refused"
    if found.mapspace != REMAINDERS:
        return 0, "perfect factors only"
    number, with_remainders = least_with_remainders(spec, problem, ert, objective, largest)
    more, perfect = least_compiled(spec, problem, ert, objective, largest) if number <= largest else (0, None)
    if max(number, more) > largest:
        return largest + 1, "too large"
    number += more
    expected = min((c for c in (with_remainders, perfect) if c is not None), default=None)
    if expected is None or found.evaluation is None or found.mapping is None:
        if expected is None and found.evaluation is None:
            return number, "no mapping"
        return number, f"existence: found {found.evaluation and found.evaluation.energy_pj}, expected {expected}"
    got = cost(found.evaluation, objective)
    kind = "remainders" if found.mapping.remainders else "perfect factors"
    if got[0] < expected[0] * (1 - EQUAL):
        return number, f"below: {objective} {got}, expected {expected}, with {kind}"
    if got[0] > expected[0] * (1 + EQUAL):
        proof = "above" if found.optimal else "unproven, above"
        return number, f"{proof}: {objective} {got}, expected {expected}, with {kind}"
    if objective == "delay" and found.optimal and got[1] > expected[1] * (1 + EQUAL):
        return number, f"above in energy: {objective} {got}, expected {expected}, with {kind}"
    return number, f"equal with {kind}" if found.optimal else f"unproven, equal: with {kind}"


def least_with_remainders(
    spec: Spec, problem: Problem, ert: Ert, objective: str = "energy", limit: int | None = None
) -> tuple[int, tuple[float, float] | None]:
    """(mappings tried, what the best costs as `brute_force.least` has it); at most `limit` + 1 are tried."""
    costs, number = [], 0
    for mapping in every_mapping_with_remainders(spec, problem):
        number += 1
        if limit is not None and number > limit:
            break
        with contextlib.suppress(InputError):  # a tile that does not fit
            costs.append(cost(physical(spec, problem, mapping, ert), objective))
    if not costs:
        return number, None
    first = min(c[0] for c in costs)
    return number, (first, min(c[1] for c in costs if c[0] <= first * (1 + 1e-10)))


def every_mapping_with_remainders(spec: Spec, problem: Problem) -> Iterator[Mapping]:
    """Any factors from the inside out, as long as something is left to loop over; also those that waste iterations."""
    spec = for_layer(spec, problem)
    slots = [
        (level, axis)
        for level in reversed(spec.levels)
        for axis in (("x", "y") if isinstance(level, Fanout) else ("t",))
    ]  # innermost first
    dims = [d for d, n in problem.bound.items() if n > 1]
    per_dim = [list(_splits(d, problem.bound[d], slots)) for d in dims]
    if not all(level.loops.permits(d, 1) for level in spec.levels for d, n in problem.bound.items() if n == 1):
        return
    for combination in itertools.product(*per_dim):
        if all(_perfect(d, problem.bound[d], split, slots) for d, split in zip(dims, combination, strict=True)):
            continue
        factors = [
            {d: split[i] for d, split in zip(dims, combination, strict=True) if split[i] > 1} for i in range(len(slots))
        ]
        if not _fits(problem, slots, factors):
            continue
        by_level = [i for level in spec.levels for i, (other, _) in enumerate(slots) if other is level]  # X before Y
        remainders = {}
        for d, split in zip(dims, combination, strict=True):
            rest = problem.bound[d] - 1
            looping = [(slots[i][0].name, n) for i, n in enumerate(split) if n > 1]
            for name, n in looping[:-1]:
                rest, digit = divmod(rest, n)
                if digit + 1 < n:
                    remainders[name, d] = digit + 1
        for mapping in _arrange(spec, problem, [slots[i] for i in by_level], [factors[i] for i in by_level]):
            yield replace(mapping, remainders=remainders)


def _splits(d: str, size: int, slots: list[tuple[Storage | Fanout, str]]) -> Iterator[tuple[int, ...]]:
    def extend(i: int, covered: int, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        blocks = -(-size // covered)
        if i == len(slots):
            if blocks == 1:
                yield prefix
            return
        level, axis = slots[i]
        most = blocks if axis == "t" else min(blocks, level.mesh_x if axis == "x" else level.mesh_y)  # type: ignore[union-attr]
        for n in range(1, most + 1):
            if axis == "y" and n > 1 and prefix[-1] > 1:
                break  # a dimension stands once in a fan-out's permutation
            yield from extend(i + 1, covered * n, (*prefix, n))

    for split in extend(0, 1, ()):
        if _permitted(d, size, split, slots):
            yield split


def _permitted(d: str, size: int, split: tuple[int, ...], slots: list[tuple[Storage | Fanout, str]]) -> bool:
    covered = 1
    for i, (level, axis) in enumerate(slots):
        if axis == "x":
            continue
        n = split[i] * (split[i - 1] if axis == "y" else 1)
        blocks = -(-size // covered)
        exact = level.loops.factors.get(d)
        if exact is not None:
            if n != min(exact, blocks) or (blocks == 1 and exact > 1):
                return False
        elif not level.loops.permits(d, n):
            return False
        covered *= n
    return True


def _perfect(d: str, size: int, split: tuple[int, ...], slots: list[tuple[Storage | Fanout, str]]) -> bool:
    """Without a remainder, and with exact factors as they are."""
    for i, (level, axis) in enumerate(slots):
        n = split[i] * (split[i - 1] if axis == "y" else 1)
        if axis != "x" and level.loops.factors.get(d, n) != n:
            return False
    return math.prod(split) == size


def _fits(problem: Problem, slots: list[tuple[Storage | Fanout, str]], factors: list[dict[str, int]]) -> bool:
    for (level, axis), here in zip(slots, factors, strict=True):
        product = 1
        for n in here.values():
            product *= n
        if (axis == "x" and product > level.mesh_x) or (axis == "y" and product > level.mesh_y):  # type: ignore[union-attr]
            return False
    return True
