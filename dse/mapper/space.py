"""The mapspace of one layer on one accelerator as flat arrays: tiles, stages, allowed factors, prices of accesses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.energy.ert import Ert
from dse.problem import Problem
from dse.spec import Fanout, LoopConstraint, Spec, Storage

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dims:
    """Problem dimensions above size 1, and every tile as a combination of their divisors.

    A tile is numbered by the mixed-radix number of its divisors' positions; `value[tile, d]` is its size along d.
    """

    names: tuple[str, ...]
    bounds: Ints  # (D,)
    counts: Ints  # (D,) number of divisors
    divisors: Ints  # (D, max count), padded with 0
    strides: Ints  # (D,)
    value: Ints  # (tiles, D)
    position: Ints  # (tiles, D) position of value among the divisors
    times: Ints  # (D, max count, max count): position of the product of two divisors, -1 if it is none


@dataclass(frozen=True)
class Tensors:
    """How tensors are addressed: `coefficient[t, axis, d]`; a `shared` axis sums several active dimensions."""

    names: tuple[str, ...]
    coefficient: Ints  # (T, A, D)
    relevant: Flags  # (T, D)
    axis_of: Ints  # (T, D) the shared axis of a dimension, -1 if its axis is its own
    axis_column: Ints  # (T, A) where a label holds extent and span of a shared axis, -1 for other axes
    label_width: int
    read_write: Flags  # (T,)
    full_size: Floats  # (T,) words


@dataclass(frozen=True)
class Stages:
    """Levels innermost first. Energies are pJ per word (vector energy / block size), per stage and tensor where
    the parent matters: `parent_price[k, t]` is what a word moved from the keeping level outside k costs there."""

    fanout: Flags  # (K,)
    keep: Flags  # (K, T)
    capacity: Floats  # (K,) words, inf if unlimited
    fill_price: Floats  # (K, T) a word written into k from outside; 0 at the outermost keeping level
    parent_price: Floats  # (K, T)
    compute_price: Floats  # (T,) a word an operation takes from the innermost keeping level
    has_parent: Flags  # (K, T)
    credit: Floats  # (K, T) pJ saved for each output word that is written first and not read
    inner_credit: Floats  # (K, T) upper bound of the credit of all levels inside fan-out k, per unit of sharing
    least_share: Floats  # (K, T) least fraction that fan-outs between k and the next keeping level can leave
    leak: Floats  # (K,) pJ per cycle and instance
    allowed: Flags  # (K, D, max count, max count): tile positions (at, below) a level may span
    inner: Ints  # (K, D) dimensions fixed innermost, in order, padded with -1
    outer: Ints  # (K, D) dimensions fixed outermost, in order, padded with -1
    free: Flags  # (K, D) dimensions whose place is open
    linked: Flags  # (K, T) neighbours in fan-out k may pass a tensor on: its children hold it
    spatial: tuple[Ints, ...]  # (K) of (choices, D) divisor positions of a fan-out's factors


@dataclass(frozen=True)
class Space:
    """Everything the search needs."""

    spec: Spec
    problem: Problem
    dims: Dims
    tensors: Tensors
    stages: Stages
    macs: float
    compute_energy: float
    levels: tuple[Storage | Fanout, ...]  # innermost first, as the stages


def build_space(spec: Spec, problem: Problem, ert: Ert, keep: Mapping[str, frozenset[str]]) -> Space:
    """Lays out the mapspace for one choice of what each storage keeps."""
    dims = _dims(problem)
    tensors = _tensors(problem, dims)
    levels = tuple(reversed(spec.levels))
    return Space(
        spec=spec,
        problem=problem,
        dims=dims,
        tensors=tensors,
        stages=_stages(levels, dims, tensors, ert, keep, len(problem.dimensions)),
        macs=float(problem.macs),
        compute_energy=problem.macs * ert.compute(spec.compute.name),
        levels=levels,
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
    lists = [[k for k in range(1, n + 1) if n % k == 0] for _, n in active]
    width = max(map(len, lists))
    divisors = np.zeros((len(active), width), np.int64)
    times = np.full((len(active), width, width), -1, np.int64)
    for d, values in enumerate(lists):
        divisors[d, : len(values)] = values
        place = {v: i for i, v in enumerate(values)}
        for (i, a), (j, b) in itertools.product(enumerate(values), repeat=2):
            times[d, i, j] = place.get(a * b, -1)
    counts = np.array([len(v) for v in lists], np.int64)
    strides = np.ones(len(active), np.int64)
    for d in range(len(active) - 2, -1, -1):
        strides[d] = strides[d + 1] * counts[d + 1]
    position = np.stack(np.unravel_index(np.arange(math.prod(counts.tolist())), tuple(counts)), axis=1)
    value = np.stack([divisors[d, position[:, d]] for d in range(len(active))], axis=1)
    return Dims(
        tuple(d for d, _ in active),
        np.array([n for _, n in active], np.int64),
        counts,
        divisors,
        strides,
        np.ascontiguousarray(value),
        np.ascontiguousarray(position.astype(np.int64)),
        times,
    )


def _tensors(problem: Problem, dims: Dims) -> Tensors:
    spaces = problem.data_spaces
    axes = max(len(t.axes) for t in spaces)
    coefficient = np.zeros((len(spaces), axes, len(dims.names)), np.int64)
    for t, space in enumerate(spaces):
        for a, axis in enumerate(space.axes):
            for d, c in axis:
                if d in dims.names:
                    coefficient[t, a, dims.names.index(d)] += abs(c)
    shared = (coefficient > 0).sum(axis=2) > 1  # (T, A)
    axis_of = np.full((len(spaces), len(dims.names)), -1, np.int64)
    for t, a, i in itertools.product(*map(range, coefficient.shape)):
        # With a stride above its own tile an axis of one dimension also leaves gaps, but never shares words.
        if shared[t, a] and coefficient[t, a, i]:
            axis_of[t, i] = a
    axis_column = np.full(shared.shape, -1, np.int64)
    axis_column[shared] = 2 + 3 * len(spaces) + 2 * np.arange(shared.sum())
    return Tensors(
        tuple(s.name for s in spaces),
        coefficient,
        np.asarray((coefficient > 0).any(axis=1)),
        axis_of,
        axis_column,
        int(2 + 3 * len(spaces) + 2 * shared.sum()),
        np.array([s.read_write for s in spaces]),
        np.array([float(problem.tensor_size(s.name)) for s in spaces]),
    )


def _stages(
    levels: tuple[Storage | Fanout, ...],
    dims: Dims,
    tensors: Tensors,
    ert: Ert,
    keep: Mapping[str, frozenset[str]],
    dimensions: int,
) -> Stages:
    k_count, t_count, d_count = len(levels), len(tensors.names), len(dims.names)
    kept = np.zeros((k_count, t_count), bool)
    price = np.zeros((k_count, t_count))  # a word delivered to the child
    fill = np.zeros((k_count, t_count))
    read = np.zeros(k_count)
    leak = np.zeros(k_count)
    capacity = np.full(k_count, np.inf)
    width = dims.divisors.shape[1]
    allowed = np.zeros((k_count, d_count, width, width), bool)
    inner = np.full((k_count, d_count), -1, np.int64)
    outer = np.full((k_count, d_count), -1, np.int64)
    free = np.zeros((k_count, d_count), bool)
    spatial = []
    for k, level in enumerate(levels):
        if isinstance(level, Fanout):
            spatial.append(_spatial_choices(level, dims, dimensions))
            continue
        spatial.append(np.zeros((0, d_count), np.int64))
        energies = ert.storage(level.name)
        leak[k] = energies["leak"]
        capacity[k] = np.inf if level.capacity is None else level.capacity
        kept[k] = [t in keep[level.name] for t in tensors.names]
        read[k] = energies["read"] / level.block_size
        for t in range(t_count):
            update = energies["update"] / level.block_size if tensors.read_write[t] else 0.0
            price[k, t] = read[k] + update
        fill[k] = energies["write"] / level.block_size
        allowed[k] = _allowed(level.temporal, dims)
        _order(level.temporal, dims, inner[k], outer[k], free[k])

    has_parent = np.zeros((k_count, t_count), bool)
    parent_price = np.zeros((k_count, t_count))
    least_share = np.ones((k_count, t_count))
    compute_price = np.zeros(t_count)
    credit = np.zeros((k_count, t_count))
    inner_credit = np.zeros((k_count, t_count))
    for t in range(t_count):
        keeping = np.flatnonzero(kept[:, t])
        compute_price[t] = price[keeping[0], t]
        for k in range(k_count):
            outside = keeping[keeping > k]
            has_parent[k, t] = len(outside) > 0
            if len(outside):
                parent_price[k, t] = price[outside[0], t]
            here = k if kept[k, t] else (outside[0] if len(outside) else k)
            least_share[k, t] = 1.0 / math.prod(_mesh(levels[j]) for j in range(k, here))
            if tensors.read_write[t] and kept[k, t]:
                credit[k, t] = read[k] + (fill[k, t] if len(outside) else 0.0)
        for k in range(k_count):
            for j in keeping[keeping < k]:
                inner_credit[k, t] += credit[j, t] * math.prod(_mesh(levels[i]) for i in range(j, k))
    fill *= kept & has_parent
    linked = np.zeros((k_count, t_count), bool)
    for k, level in enumerate(levels):
        if isinstance(level, Fanout):
            holds = kept[k - 1] if k else np.ones(t_count, bool)
            linked[k] = holds & [t not in level.no_link_transfer for t in tensors.names]
    return Stages(
        np.array([isinstance(level, Fanout) for level in levels]),
        kept, capacity, fill, parent_price, compute_price, has_parent, credit, inner_credit, least_share, leak,
        allowed, inner, outer, free, linked, tuple(spatial),
    )  # fmt: skip


def _mesh(level: Storage | Fanout) -> int:
    return level.mesh_x * level.mesh_y if isinstance(level, Fanout) else 1


def _permitted(constraint: LoopConstraint, dimension: str, factor: int) -> bool:
    if dimension in constraint.factors:
        return factor == constraint.factors[dimension]
    return constraint.at_least.get(dimension, 1) <= factor <= constraint.at_most.get(dimension, factor)


def _allowed(constraint: LoopConstraint, dims: Dims) -> Flags:
    width = dims.divisors.shape[1]
    table = np.zeros((len(dims.names), width, width), bool)
    for d, name in enumerate(dims.names):
        values = dims.divisors[d, : dims.counts[d]]
        for (i, at), (j, below) in itertools.product(enumerate(values), repeat=2):
            table[d, i, j] = at % below == 0 and _permitted(constraint, name, int(at // below))
    return table


def _order(constraint: LoopConstraint, dims: Dims, inner: Ints, outer: Ints, free: Any) -> None:
    for names, row in ((constraint.inner, inner), (constraint.outer, outer)):
        fixed = [dims.names.index(n) for n in names if n in dims.names]
        row[: len(fixed)] = fixed
    for d, name in enumerate(dims.names):
        free[d] = name not in constraint.inner and name not in constraint.outer


def _spatial_choices(fanout: Fanout, dims: Dims, dimensions: int) -> Ints:
    """Every vector of factors that some distribution over the mesh's two axes can hold."""
    room = fanout.mesh_x * fanout.mesh_y
    found: list[tuple[int, ...]] = []

    def extend(prefix: tuple[int, ...], used: int) -> None:
        d = len(prefix)
        if d == len(dims.names):
            factors = {dims.names[i]: int(dims.divisors[i, p]) for i, p in enumerate(prefix)}
            if next(placements(fanout, dimensions, factors), None) is not None:
                found.append(prefix)
            return
        for i in range(int(dims.counts[d])):
            n = int(dims.divisors[d, i])
            if used * n > room:
                break
            if _permitted(fanout.spatial, dims.names[d], n):
                extend((*prefix, i), used * n)

    extend((), 1)
    return np.array(found, np.int64).reshape(len(found), len(dims.names))


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
