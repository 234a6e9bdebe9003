"""Bounds of windows that slide through several levels, against the steps that the access model counts."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from dse.mapper.kernels.geometry import Order, nowhere, slides_on, splits, surround
from dse.mapper.kernels.slots import AXIS, EXTENT, SETTLED, SLID, cost_slots, fill_slot
from dse.mapper.kernels.upward import add_loops
from dse.mapper.mapspace import _dims, _grid
from dse.model.formulas import NEEDED, TIMES, fill_moves, fill_steps
from dse.workload.problem import conv_problem

PROBLEM = conv_problem({"N": 1, "G": 1, "C": 2, "M": 2, "P": 4, "Q": 4, "R": 2, "S": 4})
DIMS = _dims(PROBLEM)
GRID, BOXES, WIDTH = _grid(PROBLEM, DIMS)
TENSORS, COUNT = len(PROBLEM.data_spaces), len(DIMS.names)
Level = list[tuple[int, int]]  # (dimension, iterations), innermost first


def random_nest(rng: random.Random) -> tuple[list[int], list[Level]]:
    """A tile, and the loops of three levels outside it in random orders."""
    tile, levels = [1] * COUNT, [[] for _ in range(3)]  # type: tuple[list[int], list[Level]]
    for d, bound in enumerate(GRID.bounds.tolist()):
        left = bound
        for level in levels:
            n = rng.choice([n for n in range(1, left + 1) if left % n == 0])
            left //= n
            if n > 1:
                level.append((d, n))
        tile[d] = left
    for level in levels:
        rng.shuffle(level)
    return tile, levels


def counted(t: int, tile: list[int], levels: list[Level]) -> float:
    """The fraction of a tile's words that a step of the loops outside needs on average."""
    size, shifts, iterations = list(tile), [], []
    axes = GRID.coefficient[t]
    for d, n in itertools.chain(*levels):
        shifts.append([int(axis[d]) * size[d] for axis in axes])
        iterations.append(n)
        size[d] *= n
    box = [1 + sum(int(c) * (s - 1) for c, s in zip(axis, tile, strict=True)) for axis in axes]
    moves = [[0] * len(axes) for _ in range(len(shifts) + 1)]
    steps = [[0] * 4 for _ in range(2 * (len(shifts) + 1))]
    fill_moves(shifts, len(shifts), moves)
    used = fill_steps(box, iterations, moves, len(shifts), False, steps)
    words = sum(steps[i][TIMES] * steps[i][NEEDED] for i in range(used))
    return words / (math.prod(box) * math.prod(iterations))


def number(tile: list[int]) -> int:
    return int(np.flatnonzero((GRID.value == tile).all(axis=1))[0])


def bounds(tile: list[int], levels: list[Level]) -> list[float]:
    """The cost of one word a step of every tensor in each label outside all loops."""
    label = np.zeros(WIDTH)
    for t in range(TENSORS):
        label[fill_slot(t)] = 1.0
        for a, column in enumerate(GRID.axis_column[t].tolist()):
            if column >= 0:
                label[column + EXTENT] = 1 + sum(
                    int(c) * (s - 1) for c, s in zip(GRID.coefficient[t, a], tile, strict=True)
                )
    free, none = np.ones(COUNT, bool), np.full(COUNT, -1, np.int64)
    order = Order(none, none, free, np.zeros(COUNT, bool))
    labels, size, axes = [label], list(tile), GRID.axis_column.shape[1]
    for level in levels:
        if not level:
            continue
        factors, below, first = np.ones(COUNT, np.int64), number(size), level[0][0]
        for d, n in level:
            factors[d], size[d] = n, size[d] * n
        slider = splits(GRID, order, first, factors)
        outside = []
        for goes_on in (False, True) if slider >= 0 else (False,):
            around, later = nowhere(TENSORS, COUNT, axes), np.zeros((TENSORS, axes))
            closed = np.zeros(TENSORS, bool)
            for t in range(TENSORS):
                around.run[t], around.counts[t], around.direct[t], closed[t] = surround(
                    GRID, order, t, first, below, factors, slider, goes_on, around.windows[t]
                )
                for a in range(axes):
                    if GRID.axis_column[t, a] >= 0:
                        around.slid[t, a], later[t, a] = slides_on(GRID, t, a, first, below, factors, slider, goes_on)
            for inside in labels:
                new = np.zeros(WIDTH)
                add_loops(GRID, inside, around, later, closed, np.ones(TENSORS), new)
                outside.append(new)
        labels = outside
    columns = range(cost_slots(TENSORS), WIDTH, AXIS)
    return [
        float(row[SETTLED] + sum(row[fill_slot(t)] for t in range(TENSORS)) + sum(row[c + SLID] for c in columns))
        for row in labels
    ]


@pytest.mark.parametrize("seed", range(4))
def test_some_label_is_below_what_all_tensors_need_in_any_order(seed: int) -> None:
    rng, tight = random.Random(seed), 0
    for _ in range(500):
        tile, levels = random_nest(rng)
        least = min(bounds(tile, levels))
        needed = sum(counted(t, tile, levels) for t in range(TENSORS))
        assert least <= needed + 1e-9, (tile, levels)
        tight += least > needed - 1e-9
    assert tight > 50  # the labels are not below by being nothing


def test_a_slide_that_another_axis_ends_pays_for_every_further_step() -> None:
    names = DIMS.names
    s, q, r = (names.index(d) for d in "SQR")
    tile = [1] * COUNT
    tile[names.index("C")], tile[names.index("M")], tile[names.index("P")] = 2, 2, 4
    ended: list[Level] = [[(s, 4)], [(r, 2)], [(q, 4)]]
    assert min(bounds(tile, ended)) == pytest.approx(sum(counted(t, tile, ended) for t in range(TENSORS)))
    kept: list[Level] = [[(s, 4)], [(q, 4)], [(r, 2)]]
    assert min(bounds(tile, kept)) < min(bounds(tile, ended))
    assert counted(1, tile, kept) < counted(1, tile, ended)
