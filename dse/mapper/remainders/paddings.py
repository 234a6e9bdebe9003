"""Sizes to which a layer's dimensions can be raised so that fan-outs leave fewer units idle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dse.hardware.spec import Fanout, Spec
from dse.mapper.mapspace import placements
from dse.workload.problem import Problem

Ints = NDArray[np.int64]
Loops = tuple[int, ...]  # which dimensions have a loop, by their numbers

_MOST_ON_AXIS = 500  # uses of a mesh's axis that are combined with others, those that leave the fewest steps
_MOST = 20_000  # uses of all fan-outs so far


@dataclass(frozen=True)
class Padding:
    """A layer raised to `bounds`, and the `steps` that are left when fan-outs hold the factors it was raised for."""

    bounds: tuple[int, ...]
    steps: int


def paddings(spec: Spec, problem: Problem, most: int) -> list[Padding]:
    """The paddings that leave the fewest steps, at most so many; of equal ones the smaller first.

    A factor s of a dimension of size N leaves ceil(N / s) steps, and asks for the next multiple of s.
    """
    uses = np.ones((1, len(problem.dimensions)), np.int64)
    for level in spec.levels:
        if isinstance(level, Fanout):
            uses = _fewest_steps(problem, _products(problem, uses, _fanout_uses(level, problem)), _MOST)
    runs = -(-np.array(problem.bounds) // uses)
    padded, steps = uses * runs, runs.prod(axis=1)
    chosen: dict[tuple[int, ...], Padding] = {}
    for i in np.lexsort((*padded.T, padded.prod(axis=1), steps)):
        bounds = tuple(padded[i].tolist())
        if bounds != problem.bounds:
            chosen.setdefault(bounds, Padding(bounds, int(steps[i])))
        if len(chosen) == most:
            break
    return list(chosen.values())


def _fanout_uses(fanout: Fanout, problem: Problem) -> Ints:
    """(uses, dimensions): factors that a fan-out can hold under its constraints, whether or not they divide."""
    on_x, on_y = (_by_loops(_axis_uses(fanout, problem, size)) for size in (fanout.mesh_x, fanout.mesh_y))
    nothing = np.zeros((0, len(problem.dimensions)), np.int64)
    parts = [_products(problem, on_x.get(x, nothing), on_y.get(y, nothing)) for x, y in _splits(fanout, problem)]
    uses = np.concatenate([nothing, *parts])
    needed = [i for i, d in enumerate(problem.dimensions) if not fanout.spatial.permits(d, 1)]
    return uses[(uses[:, needed] > 1).all(axis=1)]


def _axis_uses(fanout: Fanout, problem: Problem, size: int) -> Ints:
    """(uses, dimensions): factors that one axis of a mesh can hold."""
    uses: list[tuple[int, ...]] = []

    def extend(prefix: tuple[int, ...], room: int) -> None:
        d = len(prefix)
        if d == len(problem.dimensions):
            uses.append(prefix)
            return
        for n in range(1, min(room, problem.bounds[d]) + 1):
            if n == 1 or fanout.spatial.permits(problem.dimensions[d], n):
                extend((*prefix, n), room // n)

    extend((), size)
    return _fewest_steps(problem, np.array(uses, np.int64), _MOST_ON_AXIS)


def _by_loops(uses: Ints) -> dict[Loops, Ints]:
    """Uses by the dimensions that have a factor above 1 in them."""
    groups: dict[Loops, list[Ints]] = {}
    for use in uses:
        groups.setdefault(tuple(np.flatnonzero(use > 1).tolist()), []).append(use)
    return {loops: np.array(rows) for loops, rows in groups.items()}


def _splits(fanout: Fanout, problem: Problem) -> Iterator[tuple[Loops, Loops]]:
    """Every (dimensions on X, dimensions on Y) that the constraints on order and split allow."""
    names = problem.dimensions
    loops = [d for d, n in problem.bound.items() if n > 1]
    roomy = replace(fanout, mesh_x=2 ** len(loops), mesh_y=2 ** len(loops))
    for count in range(len(loops) + 1):
        for chosen in itertools.combinations(loops, count):
            for x, y in placements(roomy, len(names), dict.fromkeys(chosen, 2)):
                yield tuple(map(names.index, x)), tuple(map(names.index, y))


def _products(problem: Problem, outer: Ints, inner: Ints) -> Ints:
    """Every pair of uses as one; no factor is larger than its dimension."""
    both = (outer[:, None, :] * inner[None, :, :]).reshape(-1, len(problem.bounds))
    return both[(both <= np.array(problem.bounds)).all(axis=1)]


def _fewest_steps(problem: Problem, uses: Ints, most: int) -> Ints:
    """The uses that leave the fewest steps, each once."""
    steps = (-(-np.array(problem.bounds) // uses)).prod(axis=1)
    return np.unique(uses[np.argsort(steps, kind="stable")[:most]], axis=0)
