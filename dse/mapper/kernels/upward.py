"""From the innermost stage outwards: the labels of every tile from those of the tiles inside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.geometry import (
    duplicates,
    extent_of,
    fan_shares,
    first_loops,
    nowhere,
    reuse_factor,
    reuse_parts,
    set_spans,
    slides_on,
    splits,
    surround,
)
from dse.mapper.kernels.jit import kernel
from dse.mapper.kernels.labels import (
    CAP,
    close_unserved,
    copy,
    floor_of,
    grown,
    insert,
    least_value,
    packed,
    settle,
    value_of,
)
from dse.mapper.kernels.slots import (
    COLUMN,
    EXTENT,
    IDLE,
    SETTLED,
    SLID,
    SPAN,
    Flags,
    Floats,
    Ints,
    closed_slot,
    fill_slot,
    open_cost,
    read_slot,
)


class Inside(NamedTuple):
    """Labels of the tiles inside a stage; tile i owns `labels[offsets[i]:offsets[i + 1]]`."""

    tiles: Ints  # numbers of the tiles that have labels, those of the least floor first
    offsets: Ints  # (all tiles + 1,)
    labels: Floats
    floors: Floats  # (all tiles,) the least that anything inside the tile can cost, in any surrounding
    idle: Floats  # (all tiles,) the same of the labels' idleness


class Boundary(NamedTuple):
    """What moving tiles into a storage level costs."""

    keep: Flags  # (T,)
    has_parent: Flags  # (T,) some level further out keeps the tensor too
    fill_price: Floats  # (T,) pJ per word written
    parent_price: Floats  # (T,) pJ per word read at the parent, before multicast
    saved: Floats  # (T,) pJ that first writes of outputs save
    leak: float  # pJ per cycle and instance
    share: Floats  # (T,) least fraction that fan-outs before the level can have left of an open read
    share_outside: Floats  # (T,) the same that those between the level and the parent can leave
    forgets: Ints  # (T,) `FORGETS` or `PASSED_ON` where the level reuses nothing, else 0


FORGETS = 1  # loops further out reuse nothing of a level's tile
PASSED_ON = 2  # and neighbours may have it, as they do for compute units


class Limit(NamedTuple):
    """What a mapping must stay below, and what lies outside a stage at least; a tile that cannot is dropped."""

    value: float
    outside: Floats  # (all tiles,) pJ that the tile above the stage's loops adds at least, with all that is further out
    idle: float  # least inverse of the fan-outs outside


@kernel
def least_slide(grid, tile, t):
    """A fraction below which no loop outside can bring the accesses of a tensor's open tile by sliding it."""
    least = 1.0
    for d in range(grid.bounds.shape[0]):
        a = grid.axis_of[t, d]
        if a >= 0:
            step = grid.coefficient[t, a, d] * grid.value[tile, d]
            extent = extent_of(grid, tile, t, a)
            least = min(least, 0.5 * min(1.0, step / extent) * step / (extent + step - 1.0))
    return least


@kernel
def settles(grid, labels, start, stop, below, factors):
    """Whether loops `factors` settle the reuse of every tensor that some label leaves open."""
    for t in range(grid.relevant.shape[0]):
        if not ends_reuse(grid, t, below, factors):
            for m in range(start, stop):
                if open_cost(labels[m], t, 1.0) > 0.0:
                    return False
                for a in range(grid.axis_column.shape[1]):
                    if grid.axis_column[t, a] >= 0 and labels[m, grid.axis_column[t, a] + SLID] > 0.0:
                        return False
    return True


@kernel
def ends_reuse(grid, t, below, factors):
    """Whether loops move a tensor along an axis of its own or along two, or along one as far as any loop does."""
    axis, moved = -1, False
    for d in range(factors.shape[0]):
        if factors[d] > 1 and grid.relevant[t, d]:
            if grid.axis_of[t, d] < 0 or (moved and grid.axis_of[t, d] != axis):
                return True
            axis, moved = grid.axis_of[t, d], True
    if moved:
        for d in range(factors.shape[0]):
            if grid.axis_of[t, d] == axis and grid.value[below, d] * factors[d] < grid.bounds[d]:
                return False
    return moved


@kernel
def floor_inside(grid, labels, start, stop, first, factors, slide):
    """A quick lower bound inside loops that settle every tensor, `first` being the innermost."""
    tensors, dims = grid.relevant.shape
    best = np.inf
    n = factors[first]
    for m in range(start, stop):
        cost = labels[m, SETTLED]
        for t in range(tensors):
            pj = open_cost(labels[m], t, 1.0)
            cost += labels[m, closed_slot(t)]
            for a in range(grid.axis_column.shape[1]):
                if grid.axis_column[t, a] >= 0 and grid.relevant[t, first] and grid.axis_of[t, first] != a:
                    cost += labels[m, grid.axis_column[t, a] + SLID]
            if pj == 0.0:
                continue
            if not grid.relevant[t, first]:
                run = 1
                for d in range(dims):
                    if not grid.relevant[t, d]:
                        run *= factors[d]
                cost += pj * slide[t] / run
            elif grid.axis_of[t, first] >= 0:
                cost += pj * min(1.0, 2.0 * slide[t]) * (n - 1) / n
            else:
                cost += pj
        best = min(best, cost)
    return best


@kernel
def add_loops(grid, label, around, later, closed, share, new):
    """Fills `new` with a label outside loops that reuse its open tensors as `around` says and close some.

    Of the costs of tiles that have slid they settle the fraction `around.slid` and leave `later` to loops further out.
    """
    copy(new, label)
    for t in range(share.shape[0]):
        for a in range(grid.axis_column.shape[1]):
            column = grid.axis_column[t, a]
            if column >= 0 and label[column + SLID] > 0.0:
                new[SETTLED] += label[column + SLID] * around.slid[t, a]
                new[column + SLID] *= later[t, a]
        if open_cost(new, t, 1.0) > 0.0:
            if share[t] == 1.0:
                g, rest = reuse_parts(label, around.run[t], around.windows[t], around.counts[t], around.direct[t])
                if rest > 0.0:
                    new[int(around.windows[t, 0, COLUMN]) + SLID] += rest * open_cost(new, t, 1.0)
            else:
                g = reuse_factor(label, around.run[t], around.windows[t], around.counts[t], around.direct[t])
            new[fill_slot(t)] *= g
            new[read_slot(t)] *= g
        if closed[t]:
            new[SETTLED] += new[fill_slot(t)]
            new[closed_slot(t)] += new[read_slot(t)]
            new[fill_slot(t)] = 0.0
            new[read_slot(t)] = 0.0
            settle(new, t, share[t])
        for a in range(grid.axis_column.shape[1]):
            column = grid.axis_column[t, a]
            if column >= 0:
                if closed[t] or label[column + EXTENT] >= 0.0:
                    new[column + SPAN] = 0.0  # the repeated tile comes between: no neighbour helps
                if closed[t]:
                    new[column + EXTENT] = 0.0


@kernel
def add_boundary(grid, at, label, boundary, macs):
    """Adds what it costs to move the tile `at` into the level that it fills."""
    label[SETTLED] += boundary.leak * macs * label[IDLE]
    for t in range(boundary.keep.shape[0]):
        if not boundary.keep[t]:
            continue
        settle(label, t, 1.0)
        label[SETTLED] -= boundary.saved[t]
        if not boundary.has_parent[t]:
            continue
        if boundary.forgets[t] == FORGETS:
            label[SETTLED] += grid.words[at, t] * boundary.fill_price[t]
            label[closed_slot(t)] = grid.words[at, t] * boundary.parent_price[t]
        else:
            label[fill_slot(t)] += grid.words[at, t] * boundary.fill_price[t]
            label[read_slot(t)] = grid.words[at, t] * boundary.parent_price[t]
        settle(label, t, boundary.share_outside[t])
        if open_cost(label, t, 1.0) == 0.0:
            continue
        for a in range(grid.axis_column.shape[1]):
            column = grid.axis_column[t, a]
            if column >= 0:
                stored, span = label[column + EXTENT], label[column + SPAN]
                before, extent = abs(stored), extent_of(grid, at, t, a)
                mixed = (
                    stored < 0.0
                    or boundary.forgets[t] == PASSED_ON
                    or (span > 0.0 and before > 0.0 and before != extent)
                )
                label[column + EXTENT] = -max(before, extent) if mixed else max(before, extent)


@kernel
def boundary_floors(grid, boundary, wanted, share, linkable, width, out):
    """The least that moving each wanted tile into a level can cost; inf for the others."""
    label = np.zeros(width)
    for at in range(wanted.shape[0]):
        out[at] = np.inf
        if wanted[at]:
            for j in range(width):
                label[j] = 0.0
            add_boundary(grid, at, label, boundary, 0.0)
            out[at] = floor_of(grid, at, label, share, linkable)


@kernel
def lift_storage(grid, inside, allowed, order, boundary, wanted, limit, aim, scalar, corners):
    """Labels of the wanted tiles of a storage level from those of the tiles below its loops.

    `allowed[d, i, j]`: the level may loop over dimension d from the divisor at j to that at i. `scalar`: nothing but
    a number remains of labels whose tensors are all settled.
    """
    labels, tensors, dims = inside.labels, grid.relevant.shape[0], grid.bounds.shape[0]
    tile_count, width = grid.value.shape[0], labels.shape[1]
    factors, firsts = np.ones(dims, np.int64), np.zeros(dims, np.int64)
    around = nowhere(tensors, dims, grid.axis_column.shape[1])
    later = np.zeros((tensors, grid.axis_column.shape[1]))
    closed, new, slide = np.zeros(tensors, np.bool_), np.zeros(width), np.ones(tensors)
    choice, options = np.zeros(dims, np.int64), np.zeros((dims, allowed.shape[1]), np.int64)
    option_counts = np.zeros(dims, np.int64)
    rows = np.empty((64, CAP, width))
    row_of, row_counts = np.full(tile_count, -1, np.int64), np.zeros(tile_count, np.int64)
    used_rows = 0
    settled_cost = np.full(tile_count, np.inf)
    for below in inside.tiles:
        start, stop = inside.offsets[below], inside.offsets[below + 1]
        floor, idle = inside.floors[below], inside.idle[below] * limit.idle
        empty = False
        for d in range(dims):
            option_counts[d], choice[d] = 0, 0
            for j in range(grid.position[below, d], grid.counts[d]):
                if allowed[d, j, grid.position[below, d]]:
                    options[d, option_counts[d]] = j
                    option_counts[d] += 1
            empty = empty or option_counts[d] == 0
        for t in range(tensors):
            slide[t] = least_slide(grid, below, t)
        while not empty:
            at, loops = 0, 0
            for d in range(dims):
                at += options[d, choice[d]] * grid.strides[d]
                if options[d, choice[d]] != grid.position[below, d]:
                    loops += 1
            if wanted[at] and value_of(aim, floor + limit.outside[at], idle) < limit.value:
                if row_of[at] < 0:
                    rows = grown(rows, used_rows)
                    row_of[at] = used_rows
                    used_rows += 1
                row = rows[row_of[at]]
                count = row_counts[row_of[at]]
                if loops == 0:
                    for m in range(start, stop):
                        count = insert(row, count, labels[m], corners)
                else:
                    for d in range(dims):
                        factors[d] = grid.value[at, d] // grid.value[below, d]
                    settled = scalar and settles(grid, labels, start, stop, below, factors)
                    kinds = 0
                    if not settled or floor < settled_cost[at]:
                        kinds = first_loops(grid, order, factors, firsts)
                    for kind in range(2 * kinds):
                        c, goes_on = kind // 2, kind % 2 == 1
                        slider = splits(grid, order, firsts[c], factors)
                        if goes_on and slider < 0:
                            continue
                        if settled:
                            low = floor_inside(grid, labels, start, stop, firsts[c], factors, slide)
                            if low >= settled_cost[at]:
                                continue
                        for t in range(tensors):
                            around.run[t], around.counts[t], around.direct[t], closed[t] = surround(
                                grid, order, t, firsts[c], below, factors, slider, goes_on, around.windows[t]
                            )
                            for a in range(grid.axis_column.shape[1]):
                                if grid.axis_column[t, a] >= 0:
                                    around.slid[t, a], later[t, a] = slides_on(
                                        grid, t, a, firsts[c], below, factors, slider, goes_on
                                    )
                        if settled:
                            cost = least_value(grid, labels, start, stop, around, boundary.share, 0.0, 0.0, 0.0, aim)
                            settled_cost[at] = min(settled_cost[at], cost)
                            continue
                        for m in range(start, stop):
                            add_loops(grid, labels[m], around, later, closed, boundary.share, new)
                            count = insert(row, count, new, corners)
                row_counts[row_of[at]] = count
            d = dims - 1
            while d >= 0:
                choice[d] += 1
                if choice[d] < option_counts[d]:
                    break
                choice[d] = 0
                d -= 1
            if d < 0:
                break
    for at in range(tile_count):
        if row_of[at] < 0:
            continue
        row = rows[row_of[at]]
        if settled_cost[at] < np.inf:
            for j in range(width):
                new[j] = 0.0
            new[SETTLED] = settled_cost[at]
            row_counts[row_of[at]] = insert(row, row_counts[row_of[at]], new, corners)
        for m in range(row_counts[row_of[at]]):
            add_boundary(grid, at, row[m], boundary, aim.macs)
    return packed(rows, row_of, row_counts)


class Array(NamedTuple):
    """A fan-out."""

    choices: Ints  # (choices, D) divisor positions of its factors
    linked: Flags  # (T,) neighbours may pass a tensor on
    scaled: Flags  # (T,) the same, but the children do not keep it; see `fan_shares`
    saved: Floats  # (T,) pJ that first writes inside save at most, for each time that the children hold the words
    share_outside: Floats  # (T,) least fraction that the fan-outs from here to the parent can leave
    linkable: Flags  # (T,) the next stage is a fan-out whose children may pass the tensor on
    unserved: Floats  # (choices, T) fraction of the words of compute units, 0 above others; see `prices._unserved`
    alone: Flags  # (T,) each child is served by an access of its own
    leak_outside: float  # pJ per cycle of the levels outside if this is the outermost fan-out, else 0


@kernel
def next_choices(choices):
    """(choices, D): the first choice after each that differs from it in one of the dimensions up to d."""
    count, dims = choices.shape
    after = np.full((count, dims), count, np.int64)
    for s in range(count - 2, -1, -1):
        for d in range(dims):
            if choices[s, d] != choices[s + 1, d]:
                for e in range(d, dims):
                    after[s, e] = s + 1
                break
            after[s, d] = after[s + 1, d]
    return after


@kernel
def lift_fanout(grid, inside, times, array, wanted, limit, aim, keep_idle, corners):
    """Labels of the wanted tiles outside a fan-out from those inside it.

    `times[d, i, j]`: position of the product of two divisors. `keep_idle`: idleness still matters further out.
    """
    labels, tensors, dims = inside.labels, grid.relevant.shape[0], grid.bounds.shape[0]
    factors = np.ones(dims, np.int64)
    shares, more = np.ones(tensors), np.zeros(tensors)
    new = np.zeros(labels.shape[1])
    rows = np.empty((64, CAP, labels.shape[1]))
    tile_count = grid.value.shape[0]
    row_of, row_counts = np.full(tile_count, -1, np.int64), np.zeros(tile_count, np.int64)
    used_rows = 0
    after = next_choices(array.choices)
    for below in inside.tiles:
        following = 0
        while following < array.choices.shape[0]:
            s = following
            following += 1
            at, product = 0, 1
            for d in range(dims):
                p = times[d, grid.position[below, d], array.choices[s, d]]
                if p < 0:
                    at, following = -1, after[s, d]
                    break
                at += p * grid.strides[d]
                factors[d] = grid.divisors[d, array.choices[s, d]]
                product *= factors[d]
            if at < 0 or not wanted[at]:
                continue
            floor, idle = inside.floors[below] + limit.outside[at], inside.idle[below] / product * limit.idle
            if value_of(aim, floor, idle) >= limit.value:
                continue
            fan_shares(grid, below, factors, array.scaled, array.alone, shares)
            for t in range(tensors):
                more[t] = array.saved[t] * (duplicates(grid, below, factors, t) - 1.0) if array.saved[t] > 0.0 else 0.0
            if row_of[at] < 0:
                rows = grown(rows, used_rows)
                row_of[at] = used_rows
                used_rows += 1
            row = row_of[at]
            for m in range(inside.offsets[below], inside.offsets[below + 1]):
                copy(new, labels[m])
                new[IDLE] /= product
                for t in range(tensors):
                    new[SETTLED] -= more[t]
                    new[read_slot(t)] *= shares[t]
                    new[closed_slot(t)] *= shares[t]
                    close_unserved(new, t, array.unserved[s, t])
                    settle(new, t, array.share_outside[t])
                set_spans(grid, below, factors, array.linked, new)
                new[SETTLED] += array.leak_outside * aim.macs * new[IDLE]
                if not keep_idle:
                    new[IDLE] = 0.0
                floor = floor_of(grid, at, new, array.share_outside, array.linkable) + limit.outside[at]
                if value_of(aim, floor, new[IDLE] * limit.idle) >= limit.value:
                    continue
                row_counts[row] = insert(rows[row], row_counts[row], new, corners)
    return packed(rows, row_of, row_counts)
