"""The mapspace of one layer under an accelerator's constraints: tiles, allowed factors, orders, uses of fan-outs.

Capacities, energies and what each level keeps do not enter here, so the candidates of a layer share it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dse.core.errors import InputError
from dse.hardware.spec import Fanout, LoopConstraint, Spec, Storage
from dse.mapper.divisors import divisors_of
from dse.mapper.kernels.geometry import Grid
from dse.mapper.kernels.slots import AXIS, Flags, Floats, Ints, cost_slots
from dse.workload.problem import Problem

MOST_OPERATIONS = 2**61  # of a layer: counts are 64-bit integers
_REMEMBERED = 8  # mapspaces kept for the next candidate of the same layer
_ANSWERS = 9  # tilings kept of a mapspace


@dataclass(frozen=True)
class Dims:
    """Problem dimensions above size 1, and every tile as a combination of their divisors.

    A tile is numbered by the mixed-radix number of its divisors' positions.
    """

    names: tuple[str, ...]
    counts: Ints  # (D,) number of divisors
    divisors: Ints  # (D, max count), padded with 0
    value: Ints  # (tiles, D)


@dataclass(frozen=True)
class Constraint:
    """What a stage's loops may be; a fan-out has `choices`, a storage level the rest. Lists are padded with -1."""

    allowed: Flags  # (D, max count, max count): divisor positions (at, below) a level may span
    inner: Ints  # (D,) dimensions fixed innermost, in order
    outer: Ints  # (D,) dimensions fixed outermost, in order
    free: Flags  # (D,) dimensions whose place is open
    open: Flags  # (D,) dimensions whose place and factor are open
    choices: Ints  # (choices, D) divisor positions of a fan-out's factors


@dataclass(frozen=True)
class Tiling:
    """A mapping but for the orders that make no difference to bounds."""

    keep: Mapping[str, frozenset[str]]
    tiles: tuple[int, ...]  # above each stage, outermost first, and last the compute unit's
    firsts: tuple[int, ...]  # innermost loop of each stage, outermost first; -1 for none


BoundaryCounts = tuple[tuple[float, float, float, int, int], ...] | None
"""Content of the parent; given to and passed between the children; instances of both: a row for each order of loops."""


@dataclass(frozen=True)
class Mapspace:
    """Everything the search needs to know about a layer and the loops that the specification allows."""

    problem: Problem
    dims: tuple[str, ...]
    tensors: tuple[str, ...]
    grid: Grid
    times: Ints  # (D, max count, max count): position of the product of two divisors, -1 if it is none
    boxes: Floats  # (tiles, T) words of each tensor's tile
    full_size: Floats  # (T,) words
    read_write: Flags  # (T,)
    coarse: Flags  # (T,) tensors of which bounds know little, see `_coarse`
    label_width: int
    corners: Flags  # rows of tensors that may pay in full at once, see `_corners`
    stages: tuple[Constraint, ...]  # innermost first
    reach: tuple[Flags, ...]  # reach[k + 1]: the tiles at stage k that the constraints further out can leave
    answers: list[Tiling] = field(default_factory=list)  # recent ones; a candidate's is often good for the next
    boundaries: dict[object, dict[object, BoundaryCounts]] = field(default_factory=dict)  # counted so far
    unserved: dict[object, Floats] = field(default_factory=dict)  # of compute units by neighbours, see `prices`

    @cached_property
    def uneven_outputs(self) -> Flags:
        """(T,) outputs whose tiles may have gaps or overlap: Timeloop stops where they are accessed too seldom."""
        axes = self.grid.coefficient
        uneven = (axes > 1).any(axis=(1, 2)) | ((axes > 0).sum(axis=2) > 1).any(axis=1)
        return np.asarray(uneven & self.read_write)


_spaces: dict[object, Mapspace] = {}


def mapspace(spec: Spec, problem: Problem) -> Mapspace:
    """The mapspace of a layer; a few are remembered."""
    levels = tuple(reversed(spec.levels))
    key = (problem, repr([level.loops.canonical() for level in levels]),
           tuple((v.mesh_x, v.mesh_y) if isinstance(v, Fanout) else None for v in levels))  # fmt: skip
    if key not in _spaces:
        while len(_spaces) >= _REMEMBERED:
            _spaces.pop(next(iter(_spaces)))
        _spaces[key] = _build(levels, problem)
    return _spaces[key]


def remember(space: Mapspace, answer: Tiling) -> None:
    """Keeps an answer as a start for the next search of the same mapspace."""
    space.answers[:] = [answer, *(a for a in space.answers if a != answer)][:_ANSWERS]


def _build(levels: tuple[Storage | Fanout, ...], problem: Problem) -> Mapspace:
    _check_problem(problem)
    dims = _dims(problem)
    grid, boxes, label_width = _grid(problem, dims)
    stages = tuple(_constraint(level, dims, len(problem.dimensions)) for level in levels)
    reach = _reach(stages, dims, grid.quotient)
    if not all(v.loops.permits(d, 1) for v in levels for d in problem.dimensions if d not in dims.names):
        reach = [np.zeros_like(tiles) for tiles in reach]
    return Mapspace(
        problem=problem,
        dims=dims.names,
        tensors=tuple(s.name for s in problem.data_spaces),
        grid=grid,
        times=_positions(dims, lambda a, b: a * b),
        boxes=boxes,
        full_size=np.array([float(problem.tensor_size(s.name)) for s in problem.data_spaces]),
        read_write=np.array([s.read_write for s in problem.data_spaces]),
        coarse=_coarse(grid.coefficient),
        label_width=label_width,
        corners=_corners(grid),
        stages=stages,
        reach=tuple(reach),
    )


def _check_problem(problem: Problem) -> None:
    """Refuses a layer whose counts do not fit 64 bits: its operations, and the numbers that stand for places of boxes.

    Raises:
        InputError: names the layer's operations, or the tensor.
    """
    if problem.macs > MOST_OPERATIONS:
        raise InputError("problem", f"has {problem.macs} operations", f"at most {MOST_OPERATIONS}")
    for space in problem.data_spaces:
        extents = (1 + sum(abs(c) * problem.bound[d] for d, c in axis) for axis in space.axes)
        if math.prod(4 * extent + 1 for extent in extents) > MOST_OPERATIONS:
            raise InputError(
                "problem", f"tensor {space.name} is too large for the mapper", hint="give it fewer or smaller axes"
            )


def keep_choices(spec: Spec, problem: Problem) -> list[dict[str, frozenset[str]]]:
    """Every combination of keeping and bypassing that the specification leaves open.

    The outermost memory keeps what it does not bypass, as in Timeloop.
    """
    slots = []
    for i, storage in enumerate(spec.storages):
        for tensor in problem.data_spaces:
            fixed = storage.keep.get(tensor.name, True if i == 0 else None)
            slots.append([(storage.name, tensor.name, k) for k in ([fixed] if fixed is not None else [True, False])])
    choices = []
    for combination in itertools.product(*slots):
        kept: dict[str, set[str]] = {s.name: set() for s in spec.storages}
        for storage_name, tensor_name, k in combination:
            if k:
                kept[storage_name].add(tensor_name)
        choices.append({name: frozenset(k) for name, k in kept.items()})
    return choices


def _dims(problem: Problem) -> Dims:
    active = [(d, n) for d, n in problem.bound.items() if n > 1] or [(problem.dimensions[0], 1)]
    lists = [divisors_of(n) for _, n in active]
    counts = np.array([len(v) for v in lists], np.int64)
    divisors = np.zeros((len(active), counts.max()), np.int64)
    for d, values in enumerate(lists):
        divisors[d, : len(values)] = values
    axes = np.meshgrid(*lists, indexing="ij")
    value = np.stack([axis.ravel() for axis in axes], axis=1)
    return Dims(tuple(d for d, _ in active), counts, divisors, np.ascontiguousarray(value))


def _positions(dims: Dims, of: Callable[[int, int], int]) -> Ints:
    """(D, max count, max count): position among the divisors of what two divisors give, -1 if it is none of them."""
    width = dims.divisors.shape[1]
    table = np.full((len(dims.names), width, width), -1, np.int64)
    for d, count in enumerate(dims.counts.tolist()):
        values = dims.divisors[d, :count].tolist()
        place = {v: i for i, v in enumerate(values)}
        for (i, a), (j, b) in itertools.product(enumerate(values), repeat=2):
            table[d, i, j] = place.get(of(a, b), -1)
    return table


def _grid(problem: Problem, dims: Dims) -> tuple[Grid, Floats, int]:
    """The layer as kernels see it, the words of every tile, and the width of a label."""
    spaces = problem.data_spaces
    axes = max(len(t.axes) for t in spaces)
    coefficient = np.zeros((len(spaces), axes, len(dims.names)), np.int64)
    for t, space in enumerate(spaces):
        for a, axis in enumerate(space.axes):
            for name, c in axis:
                if name in dims.names:
                    coefficient[t, a, dims.names.index(name)] += abs(c)
    coarse = _coarse(coefficient)
    shared = ((coefficient > 0).sum(axis=2) > 1) & ~coarse[:, None]  # (T, A)
    axis_of = np.full((len(spaces), len(dims.names)), -1, np.int64)
    for t, a, i in itertools.product(*map(range, coefficient.shape)):
        # With a stride above its own tile an axis of one dimension also leaves gaps, but never shares words.
        if shared[t, a] and coefficient[t, a, i]:
            axis_of[t, i] = a
    axis_column = np.full(shared.shape, -1, np.int64)
    axis_column[shared] = cost_slots(len(spaces)) + AXIS * np.arange(shared.sum())
    strides = np.ones(len(dims.names), np.int64)
    for d in range(len(dims.names) - 2, -1, -1):
        strides[d] = strides[d + 1] * dims.counts[d + 1]
    position = np.stack(np.unravel_index(np.arange(len(dims.value)), tuple(dims.counts)), axis=1)
    bounds = dims.value[-1].copy()
    extents = 1 + np.einsum("tad,nd->nta", coefficient, dims.value - 1)
    boxes = extents.prod(axis=2).astype(np.float64)
    words = boxes * (bounds // dims.value).prod(axis=1).astype(np.float64)[:, None]
    grid = Grid(
        bounds, dims.value, np.ascontiguousarray(position.astype(np.int64)), strides, dims.divisors,
        _positions(dims, lambda a, b: a // b if a % b == 0 else 0), dims.counts,
        coefficient, (coefficient > 0).any(axis=1) & ~coarse[:, None], axis_of, axis_column,
        np.ascontiguousarray(words),
    )  # fmt: skip
    return grid, boxes, int(cost_slots(len(spaces)) + AXIS * shared.sum())


def _coarse(coefficient: Ints) -> Flags:
    """(T,) tensors with a dimension on several axes.

    Their boxes move along several axes at once. Bounds take them for tensors that no loop moves and that all children
    share, so each instance fetches a tile once at least; only complete mappings are counted exactly.
    """
    return np.asarray(((coefficient > 0).sum(axis=1) > 1).any(axis=1))


def _corners(grid: Grid) -> Flags:
    """The corners of the reuse factors' range: rows of which tensors pay in full, the others being reused entirely.

    A level's innermost loop `d` decides which tensors can be reused at once: those it does not move and those it
    slides over. Every subset of such a set is a corner.
    """
    count = grid.relevant.shape[0]
    rows = {(True,) * count}
    for d in range(grid.relevant.shape[1]):
        reusable = [t for t in range(count) if not grid.relevant[t, d] or grid.axis_of[t, d] >= 0]
        for size in range(1, len(reusable) + 1):
            for subset in itertools.combinations(reusable, size):
                rows.add(tuple(t not in subset for t in range(count)))
    return np.array(sorted(rows, reverse=True))


def _constraint(level: Storage | Fanout, dims: Dims, dimensions: int) -> Constraint:
    count, width = len(dims.names), dims.divisors.shape[1]
    inner, outer = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    free = np.zeros(count, bool)
    nothing = np.zeros((0, count), np.int64)
    if isinstance(level, Fanout):
        choices = _spatial_choices(level, dims, dimensions)
        return Constraint(np.zeros((count, width, width), bool), inner, outer, free, free, choices)
    constraint = level.loops
    _order(constraint, dims, inner, outer, free)
    limited = {*constraint.factors, *constraint.at_most, *constraint.at_least}
    unlimited = np.array([name not in limited for name in dims.names])
    # A loop that is added outermost must not have to lie inside one that the constraints put there.
    at_liberty = free & unlimited & bool(outer[0] < 0)
    return Constraint(_allowed(constraint, dims), inner, outer, free, at_liberty, nothing)


def _reach(stages: tuple[Constraint, ...], dims: Dims, quotient: Ints) -> list[Flags]:
    """Tiles that the levels outside can leave, by their factor constraints; entry k + 1 is that of stage k."""
    shape = tuple(dims.counts.tolist())
    reach = [np.zeros(shape, bool)]
    reach[0][(-1,) * len(shape)] = True
    for stage in reversed(stages):
        outside = reach[0]
        if len(stage.choices):
            inside = np.zeros(shape, bool)
            for choice in stage.choices:
                at = [np.flatnonzero(quotient[d, : shape[d], p] >= 0) for d, p in enumerate(choice)]
                below = [quotient[d, at[d], p] for d, p in enumerate(choice)]
                inside[np.ix_(*below)] |= outside[np.ix_(*at)]
        else:
            inside = outside
            for d, n in enumerate(shape):
                moved = np.moveaxis(inside, d, -1) @ stage.allowed[d, :n, :n]
                inside = np.moveaxis(moved, -1, d)
        reach.insert(0, np.ascontiguousarray(inside))
    return [tiles.ravel() for tiles in reach]


def _allowed(constraint: LoopConstraint, dims: Dims) -> Flags:
    width = dims.divisors.shape[1]
    table = np.zeros((len(dims.names), width, width), bool)
    for d, name in enumerate(dims.names):
        values = dims.divisors[d, : dims.counts[d]].tolist()
        for (i, at), (j, below) in itertools.product(enumerate(values), repeat=2):
            table[d, i, j] = at % below == 0 and constraint.permits(name, at // below)
    return table


def _order(constraint: LoopConstraint, dims: Dims, inner: Ints, outer: Ints, free: Flags) -> None:
    for names, row in ((constraint.inner, inner), (constraint.outer, outer)):
        fixed = [dims.names.index(n) for n in names if n in dims.names]
        row[: len(fixed)] = fixed
    for d, name in enumerate(dims.names):
        free[d] = name not in constraint.inner and name not in constraint.outer


def _spatial_choices(fanout: Fanout, dims: Dims, dimensions: int) -> Ints:
    """Every vector of factors that some distribution over the mesh's two axes can hold."""
    room = fanout.mesh_x * fanout.mesh_y
    choices: list[tuple[int, ...]] = []

    def extend(prefix: tuple[int, ...], used: int) -> None:
        d = len(prefix)
        if d == len(dims.names):
            factors = {dims.names[i]: int(dims.divisors[i, p]) for i, p in enumerate(prefix)}
            if next(placements(fanout, dimensions, factors), None) is not None:
                choices.append(prefix)
            return
        for i in range(int(dims.counts[d])):
            n = int(dims.divisors[d, i])
            if used * n > room:
                break
            if fanout.spatial.permits(dims.names[d], n):
                extend((*prefix, i), used * n)

    extend((), 1)
    return np.array(choices, np.int64).reshape(len(choices), len(dims.names))


def placements(fanout: Fanout, dimensions: int, factors: Mapping[str, int]) -> Iterator[tuple[list[str], list[str]]]:
    """(dimensions on X, dimensions on Y) of every distribution of non-trivial factors that fits mesh and constraints.

    Timeloop puts the first `split` loops of one permutation on X and the others on Y.
    """
    loops = [d for d, n in factors.items() if n > 1]
    for mask in range(1 << len(loops)):
        x = [d for i, d in enumerate(loops) if mask >> i & 1]
        y = [d for d in loops if d not in x]
        if math.prod(factors[d] for d in x) > fanout.mesh_x or math.prod(factors[d] for d in y) > fanout.mesh_y:
            continue
        if _split_possible(fanout, dimensions, x, y):
            yield x, y


def _split_possible(fanout: Fanout, dimensions: int, x: list[str], y: list[str]) -> bool:
    """Whether some permutation and split that the constraints allow puts exactly `x` on X and `y` on Y."""
    inner, outer = fanout.spatial.inner, fanout.spatial.outer
    unlisted = dimensions - len(inner) - len(outer)
    fixed = fanout.spatial.split
    for split in range(dimensions + 1) if fixed is None else [min(fixed, dimensions)]:
        free_on_x = min(max(split - len(inner), 0), unlisted)
        outer_on_x = max(split - len(inner) - unlisted, 0)
        must_x = (*inner[:split], *outer[:outer_on_x])
        must_y = (*inner[split:], *outer[outer_on_x:])
        free_x = sum(d not in must_x for d in x)
        free_y = sum(d not in must_y for d in y)
        if (
            not any(d in must_y for d in x)
            and not any(d in must_x for d in y)
            and free_x <= free_on_x
            and free_y <= unlisted - free_on_x
        ):
            return True
    return False
