"""Every mapping of a small problem, one by one: the reference the mapper is held against.

Which mappings there are, it works out for itself. What they cost, `least` asks the readable access model, and
`least_compiled` the mapper's compiled one, which it holds against the readable one on the way.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from collections.abc import Mapping as MappingType

import numpy as np

from dse.core.errors import InputError
from dse.hardware.constraints import for_layer, searchable
from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Fanout, LoopConstraint, Spec, Storage
from dse.mapper import Found, branch_and_bound
from dse.mapper.kernels.exact import exact_counts, priced
from dse.mapper.mapspace import mapspace
from dse.mapper.tilings import Evaluator
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Loops, Mapping
from dse.workload.problem import DataSpace, Problem


def least(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy") -> tuple[float, float] | None:
    """What the best of all mappings costs, in the order of importance; None if nothing fits.

    Energy (pJ) and cycles, energy x delay (pJ cycles) and 0, or cycles and energy. Equal but for rounding is equal.
    """
    costs = []
    for mapping in every_mapping(spec, problem):
        with contextlib.suppress(InputError):  # a tile that does not fit
            costs.append(cost(evaluate(spec, problem, mapping, ert), objective))
    return _least(costs)


def least_compiled(
    spec: Spec, problem: Problem, ert: Ert, objective: str = "energy", limit: int | None = None, check_every: int = 50
) -> tuple[int, tuple[float, float] | None]:
    """(mappings tried, `least`) by the compiled access model, some thirty times as fast.

    Args:
        limit: where there are more mappings, (limit + 1, least of the first `limit`).
        check_every: holds one in so many mappings against `dse.model.evaluation`.

    Raises:
        AssertionError: the compiled model and the readable one differ.
    """
    model = CompiledModel(spec, problem, ert)
    costs, number = [], 0
    for mapping in every_mapping(spec, problem):
        number += 1
        if limit is not None and number > limit:
            break
        found = model.cost(mapping, objective)
        if number % check_every == 1:
            reference = None
            with contextlib.suppress(InputError):
                reference = cost(evaluate(spec, problem, mapping, ert), objective)
            same = found is not None and reference is not None and all(
                math.isclose(a, b, rel_tol=1e-12) for a, b in zip(found, reference, strict=True)
            )  # fmt: skip
            assert same or (found is None and reference is None), ("the access models differ", mapping)
        if found is not None:
            costs.append(found)
    return number, _least(costs)


def search_perfect(spec: Spec, problem: Problem, ert: Ert, objective: str = "energy") -> Found:
    """The mapper's answer without remainders, also where exact factors do not divide the layer."""
    return branch_and_bound.search(searchable(spec, problem), problem, ert, objective)


def _least(costs: list[tuple[float, float]]) -> tuple[float, float] | None:
    if not costs:
        return None
    first = min(c[0] for c in costs)
    return first, min(c[1] for c in costs if c[0] <= first * (1 + 1e-10))


def _box(tensor: DataSpace, inside: MappingType[str, int]) -> int:
    return math.prod(1 + sum(abs(c) * (inside[d] - 1) for d, c in axis) for axis in tensor.axes)


class CompiledModel:
    """`dse.model.evaluation.evaluate` by the mapper's compiled counts, for mappings by the thousand."""

    def __init__(self, spec: Spec, problem: Problem, ert: Ert) -> None:
        self._spec, self._problem, self._ert = spec, problem, ert
        self._of_keep: dict[tuple[frozenset[str], ...], Evaluator] = {}
        self._space = mapspace(spec, problem)
        names = [level.name for level in reversed(spec.levels)]
        self._row = {name: k for k, name in enumerate(names)}
        self._dim = {d: i for i, d in enumerate(self._space.dims)}

    def cost(self, mapping: Mapping, objective: str) -> tuple[float, float] | None:
        """As `cost`; None for a tile that does not fit, or where Timeloop stops."""
        e = self._evaluator(mapping)
        rows: list[tuple[int, int, int, int]] = []
        inside = dict.fromkeys(self._problem.dimensions, 1)
        resident = resident_words(self._spec, self._problem, mapping.keep)
        for level in reversed(self._spec.levels):
            k = self._row[level.name]
            if isinstance(level, Fanout):
                loops, spatial = (*mapping.x[level.name], *mapping.y[level.name]), 1
            else:
                loops, spatial = mapping.temporal[level.name], 0
            for d, n in loops:
                rows.append((k, self._dim[d], n, spatial))
                inside[d] *= n
            if isinstance(level, Storage) and level.capacity is not None:
                kept = [s for s in self._problem.data_spaces if s.name in mapping.keep[level.name]]
                lives = resident.get(level.name, {})
                tiles = {
                    s.name: math.prod(1 + sum(abs(c) * (inside[d] - 1) for d, c in x) for x in s.axes) for s in kept
                }
                words = sum(max(n, lives.get(t, 0)) for t, n in tiles.items())
                if words > level.capacity:
                    return None
        nest = np.array(rows, np.int64).reshape(len(rows), 4)
        coefficient = self._space.grid.coefficient
        counts = exact_counts(nest, coefficient, e.kept, e.mesh_x, e.link_allowed, e.shared_axis, e.rules)
        energy, cycles = priced(
            counts,
            self._space.read_write,
            e.kept,
            e.read,
            e.fill,
            e.update,
            e.block,
            e.leak,
            e.bandwidth,
            e.rules,
        )
        if math.isinf(energy):
            return None
        energy, cycles = energy + e.compute_energy, cycles + self._spec.network_latency
        return {"energy": (energy, cycles), "edp": (energy * cycles, 0.0), "delay": (cycles, energy)}[objective]

    def _evaluator(self, mapping: Mapping) -> Evaluator:
        key = tuple(mapping.keep[s.name] for s in self._spec.storages)
        if key not in self._of_keep:
            compute = self._problem.macs * self._ert.compute(self._spec.compute.name)
            self._of_keep[key] = Evaluator(self._space, self._spec, self._ert, mapping.keep, compute, True)
        return self._of_keep[key]


def cost(evaluation: Evaluation, objective: str) -> tuple[float, float]:
    energy, cycles = evaluation.energy_pj, float(evaluation.cycles)
    return {"energy": (energy, cycles), "edp": (energy * cycles, 0.0), "delay": (cycles, energy)}[objective]


def every_mapping(spec: Spec, problem: Problem) -> Iterator[Mapping]:
    """Under the constraints that the specification has for this layer."""
    spec = for_layer(spec, problem)
    slots = [(level, axis) for level in spec.levels for axis in (("x", "y") if isinstance(level, Fanout) else ("t",))]
    dims = [d for d, n in problem.bound.items() if n > 1]
    per_dim = [list(_splits(problem.bound[d], len(slots))) for d in dims]
    for combination in itertools.product(*per_dim):
        factors: list[dict[str, int]] = [{} for _ in slots]
        for d, split in zip(dims, combination, strict=True):
            for i, n in enumerate(split):
                if n > 1:
                    factors[i][d] = n
        if _allowed(problem, slots, factors):
            yield from _arrange(spec, problem, slots, factors)


def _splits(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (n,)
        return
    for k in range(1, n + 1):
        if n % k == 0:
            for rest in _splits(n // k, parts - 1):
                yield (k, *rest)


def _allowed(problem: Problem, slots: list, factors: list[dict[str, int]]) -> bool:
    for i, (level, axis) in enumerate(slots):
        used = math.prod(factors[i].values())
        if (axis == "x" and used > level.mesh_x) or (axis == "y" and used > level.mesh_y):
            return False
        if axis == "y" and set(factors[i]) & set(factors[i - 1]):
            return False  # a dimension stands once in a fan-out's permutation
        together = {**factors[i], **factors[i - 1]} if axis == "y" else factors[i]
        if axis == "x":
            continue
        constraint = level.spatial if isinstance(level, Fanout) else level.temporal
        for d in problem.dimensions:
            n = together.get(d, 1)
            if constraint.factors.get(d, n) != n or n > constraint.at_most.get(d, n):
                return False
            if n < constraint.at_least.get(d, 1):
                return False
    return True


def _arrange(spec: Spec, problem: Problem, slots: list, factors: list[dict[str, int]]) -> Iterator[Mapping]:
    orders = []
    for (level, _), chosen in zip(slots, factors, strict=True):
        constraint = level.spatial if isinstance(level, Fanout) else level.temporal
        orders.append(list(_orders(constraint, chosen)))
    for choice in itertools.product(*orders):
        temporal: dict[str, Loops] = {}
        x: dict[str, Loops] = {}
        y: dict[str, Loops] = {}
        for (level, axis), loops in zip(slots, choice, strict=True):
            {"t": temporal, "x": x, "y": y}[axis][level.name] = loops
        if not all(_split_fits(f, problem, x[f.name], y[f.name]) for f in spec.levels if isinstance(f, Fanout)):
            continue
        for keep in _keeps(spec, problem):
            yield Mapping(temporal, x, y, keep)


def _orders(constraint: LoopConstraint, chosen: dict[str, int]) -> Iterator[Loops]:
    for order in itertools.permutations(chosen.items()):
        names = [d for d, _ in order]
        inner = [d for d in constraint.inner if d in names]
        outer = [d for d in constraint.outer if d in names]
        if names[: len(inner)] == inner and names[len(names) - len(outer) :] == outer:
            yield order


def _split_fits(fanout: Fanout, problem: Problem, x: Loops, y: Loops) -> bool:
    """Whether one whole permutation, X loops first, agrees with the constraint's order and split."""
    constraint = fanout.spatial
    on_x, on_y = [d for d, _ in x], [d for d, _ in y]
    rest = [d for d in problem.dimensions if d not in on_x + on_y]
    for k in range(len(rest) + 1):
        for left in itertools.combinations(rest, k):
            split = len(on_x) + len(left)
            if constraint.split is not None and split != min(constraint.split, len(problem.dimensions)):
                continue
            sides = [set(on_x) | set(left), set(on_y) | (set(rest) - set(left))]
            if _order_fits(constraint, sides):
                return True
    return False


def _order_fits(constraint: LoopConstraint, sides: list[set[str]]) -> bool:
    x, y = sides
    inner, outer = constraint.inner, constraint.outer
    # The X side is the beginning of the permutation: it starts with `inner`; what it ends with may reach into `outer`.
    n = len(x)
    return (
        set(inner[:n]) <= x
        and ((n >= len(inner) and set(inner) <= x) or x <= set(inner))
        and (
            set(outer[max(0, len(outer) - len(y)) :]) <= y
            and ((len(y) >= len(outer) and set(outer) <= y) or y <= set(outer))
        )
    )


def _keeps(spec: Spec, problem: Problem) -> Iterator[dict[str, frozenset[str]]]:
    options = []
    for i, storage in enumerate(spec.storages):
        for t in problem.data_spaces:
            fixed = storage.keep.get(t.name, True if i == 0 else None)
            options.append([(storage.name, t.name, k) for k in ((fixed,) if fixed is not None else (True, False))])
    for combination in itertools.product(*options):
        keep = {s.name: frozenset(t for name, t, k in combination if k and name == s.name) for s in spec.storages}
        if all(any(t.name in kept for kept in keep.values()) for t in problem.data_spaces):
            yield keep
