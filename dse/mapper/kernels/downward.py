"""From the outermost stage inwards: all ways to place one stage that can still be good enough."""

from __future__ import annotations

import numpy as np

from dse.mapper.kernels.geometry import (
    duplicates,
    enter,
    extent_of,
    fan_shares,
    first_loops,
    nowhere,
    reuse_factor,
    set_spans,
    splits,
    tile_inside,
)
from dse.mapper.kernels.jit import kernel
from dse.mapper.kernels.labels import ENERGY, close_unserved, least_value, value_of
from dse.mapper.kernels.slots import EXTENT, SPAN
from dse.mapper.kernels.upward import FORGETS, PASSED_ON


@kernel
def boundary_cost(grid, tile, t, span, around, fill_price, parent_price, share, forgets, width):
    """Least cost of moving a tensor's tiles into a level whose surrounding is known; `span` as in a label.

    `forgets` as of `dse.mapper.kernels.upward.Boundary`.
    """
    if forgets == FORGETS:
        return grid.words[tile, t] * (fill_price + parent_price * share)
    label = np.zeros(width)
    for a in range(grid.axis_column.shape[1]):
        column = grid.axis_column[t, a]
        if column >= 0:
            extent = extent_of(grid, tile, t, a)
            label[column + EXTENT] = -extent if forgets == PASSED_ON else extent
            label[column + SPAN] = span[a]
    g = reuse_factor(label, around.run[t], around.windows[t], around.counts[t], around.direct[t])
    return grid.words[tile, t] * g * (fill_price + parent_price * share)


@kernel
def expand_storage(grid, at, inside, allowed, order, around, share, leak, fixed, idle, aim, limit):
    """All ways to place a level's loops that can still come below `limit`: (tile inside, innermost loop, slide, bound).

    The slide is that of `splits`: 1 if it goes on, 0 if not.
    """
    dims = grid.bounds.shape[0]
    factors, firsts = np.ones(dims, np.int64), np.zeros(dims, np.int64)
    tensors = share.shape[0]
    within = nowhere(tensors, dims, grid.axis_column.shape[1])
    room = 2 * inside.tiles.shape[0] * dims
    goes_on_of = np.zeros(room, np.bool_)
    tiles, first_of, costs = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    count = 0
    for below in inside.tiles:
        possible, loops = True, 0
        for d in range(dims):
            if not allowed[d, grid.position[at, d], grid.position[below, d]]:
                possible = False
                break
            factors[d] = grid.value[at, d] // grid.value[below, d]
            if factors[d] > 1:
                loops += 1
        if not possible:
            continue
        if value_of(aim, fixed + inside.floors[below], idle * inside.idle[below]) >= limit:
            if aim.kind == ENERGY and fixed + inside.floors[below] >= limit:
                break  # the others cost no less
            continue
        start, stop = inside.offsets[below], inside.offsets[below + 1]
        if loops == 0:
            cost = least_value(grid, inside.labels, start, stop, around, share, leak, fixed, idle, aim)
            if cost < limit:
                tiles[count], first_of[count], costs[count] = below, -1, cost
                count += 1
            continue
        for kind in range(2 * first_loops(grid, order, factors, firsts)):
            c, goes_on = kind // 2, kind % 2 == 1
            slider = splits(grid, order, firsts[c], factors)
            if goes_on and slider < 0:
                continue
            enter(grid, order, firsts[c], below, factors, slider, goes_on, around, within)
            cost = least_value(grid, inside.labels, start, stop, within, share, leak, fixed, idle, aim)
            if cost < limit:
                tiles[count], first_of[count], costs[count] = below, firsts[c], cost
                goes_on_of[count] = goes_on
                count += 1
    return tiles[:count], first_of[:count], goes_on_of[:count], costs[:count]


@kernel
def expand_fanout(grid, at, inside, array, around, share, leak, fixed, idle, aim, limit):
    """All ways to use a fan-out that can still come below `limit`: (tile inside, bound, fixed, shares, product)."""
    dims, tensors = grid.bounds.shape[0], share.shape[0]
    factors = np.ones(dims, np.int64)
    shares = np.ones(tensors)
    room = array.choices.shape[0]
    tiles, costs, fixed_out = np.empty(room, np.int64), np.empty(room), np.empty(room)
    share_out, products = np.empty((room, tensors)), np.empty(room)
    count = 0
    for s in range(array.choices.shape[0]):
        below = tile_inside(grid, at, array.choices[s], factors)
        if below < 0 or inside.offsets[below] == inside.offsets[below + 1]:
            continue
        here, product = fixed, 1
        for d in range(dims):
            product *= factors[d]
        for t in range(tensors):
            if array.saved[t] > 0.0:
                here -= array.saved[t] * (duplicates(grid, below, factors, t) - 1.0)
        if value_of(aim, here + inside.floors[below], idle / product * inside.idle[below]) >= limit:
            continue
        fan_shares(grid, below, factors, array.scaled, array.alone, shares)
        for t in range(tensors):
            shares[t] *= share[t]
        labels = inside.labels[inside.offsets[below] : inside.offsets[below + 1]].copy()
        for m in range(labels.shape[0]):
            for t in range(tensors):
                close_unserved(labels[m], t, array.unserved[s, t])
            set_spans(grid, below, factors, array.linked, labels[m])
        cost = least_value(grid, labels, 0, labels.shape[0], around, shares, leak / product, here, idle / product, aim)
        if cost < limit:
            tiles[count], costs[count], fixed_out[count], products[count] = below, cost, here, product
            for t in range(tensors):
                share_out[count, t] = shares[t]
            count += 1
    return tiles[:count], costs[:count], fixed_out[:count], share_out[:count], products[:count]
