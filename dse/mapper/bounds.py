"""The bounds of all stages, from the inside out, without what cannot be part of a good enough mapping."""

from __future__ import annotations

import numpy as np

from dse.mapper.kernels.labels import ENERGY, Aim, floors_of, values_of
from dse.mapper.kernels.slots import EXTENT, IDLE, SETTLED, Flags, Floats, Ints, closed_slot, read_slot
from dse.mapper.kernels.upward import Inside, Limit, lift_fanout, lift_storage
from dse.mapper.mapspace import Mapspace
from dse.mapper.prices import Stage, Stages


def lift(
    space: Mapspace,
    stages: Stages,
    aim: Aim,
    limit: float,
    beam: int | None = None,
    within: list[Inside] | None = None,
    timed: bool = False,
) -> list[Inside]:
    """Labels of every tile: entry 0 is the compute unit's, entry k + 1 that of the tiles at stage k.

    Args:
        limit: labels that cannot lead to an objective below it are left out.
        beam: keeps only so many of a stage's most promising labels; then the bounds hold for a part of the mapspace.
        within: tables outside whose tiles there is nothing to look for.
        timed: cycles will matter too, although the aim does not say so.
    """
    timed = timed or aim.kind != ENERGY or aim.most_cycles < np.inf
    leaking = bool(stages.leak.any())
    tables = [_compute_unit(space, stages, timed)]
    for k, stage in enumerate(stages.stages):
        bound = Limit(limit, stage.outside, stage.least_idle)
        wanted = stage.wanted if within is None else stage.wanted & (np.diff(within[k + 1].offsets) > 0)
        if stage.array is not None:
            keep_idle = timed or (leaking and k != stages.last_fanout)
            labels, offsets = lift_fanout(
                space.grid, tables[-1], space.times, stage.array, wanted, bound, aim, keep_idle, space.corners
            )
        else:
            assert stage.boundary is not None and stage.order is not None
            idle_counts = timed or (leaking and k < stages.last_fanout)
            scalar = bool(stage.boundary.share.min() == 1.0) and not idle_counts
            labels, offsets = lift_storage(
                space.grid, tables[-1], stage.allowed, stage.order, stage.boundary, wanted, bound, aim,
                scalar, space.corners,
            )  # fmt: skip
        tables.append(_promising(space, stage, labels, offsets, aim, limit, beam))
    return tables


def _compute_unit(space: Mapspace, stages: Stages, timed: bool) -> Inside:
    count, tiles, macs = len(space.tensors), len(space.boxes), space.problem.macs
    start = np.zeros((1, space.label_width))
    under_fanout = stages.stages[0].array is not None
    for t in range(count):
        start[0, read_slot(t) if under_fanout else closed_slot(t)] = macs * stages.compute_price[t]
        for column in space.grid.axis_column[t]:
            if column >= 0 and stages.compute_price[t] > 0.0:
                start[0, column + EXTENT] = -1.0 if under_fanout else 1.0
    if timed or (stages.last_fanout >= 0 and stages.leak.any()):
        start[0, IDLE] = 1.0
    if stages.last_fanout < 0:
        start[0, SETTLED] = float(stages.leak.sum()) * macs
    offsets = np.ones(tiles + 1, np.int64)
    offsets[0] = 0
    linkable = stages.stages[0].array.linked if stages.stages[0].array is not None else np.zeros(count, bool)
    return _table(start, offsets, _floors(space, start, offsets, stages.first_share, linkable))


def _floors(space: Mapspace, labels: Floats, offsets: Ints, share: Floats, linkable: Flags) -> Floats:
    floors = np.empty(len(labels))
    floors_of(space.grid, labels, offsets, share, linkable, floors)
    return floors


def _promising(
    space: Mapspace, stage: Stage, labels: Floats, offsets: Ints, aim: Aim, limit: float, beam: int | None
) -> Inside:
    """The labels of a stage that may still lead below the limit."""
    floors = _floors(space, labels, offsets, stage.share_outside, stage.linkable)
    values = np.empty(len(labels))
    tile_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    values_of(aim, floors + stage.beyond[tile_of], 0.0, labels, stage.least_idle, values)
    good = values < limit
    if beam is not None and good.sum() > beam:
        nearest = float(stage.beyond.min())  # the same for all: with what each tile leaves, the best are too much alike
        values_of(aim, floors, nearest, labels, stage.least_idle, values)
        good &= values <= np.partition(values[good], beam - 1)[beam - 1]
    counts = np.bincount(tile_of[good], minlength=len(offsets) - 1)
    return _table(np.ascontiguousarray(labels[good]), np.concatenate([[0], np.cumsum(counts)]), floors[good])


def _table(labels: Floats, offsets: Ints, floors: Floats) -> Inside:
    """Labels with the least of each tile's."""
    tiles = np.flatnonzero(np.diff(offsets))
    least, idle = np.full(len(offsets) - 1, np.inf), np.zeros(len(offsets) - 1)
    if len(tiles):
        least[tiles] = np.minimum.reduceat(floors, offsets[tiles])
        idle[tiles] = np.minimum.reduceat(labels[:, IDLE], offsets[tiles])
    best_first = tiles[np.argsort(least[tiles], kind="stable")]
    return Inside(best_first, offsets, labels, least, idle)
