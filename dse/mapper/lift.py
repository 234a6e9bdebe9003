"""From the innermost stage outwards: which tiles can occur, and the labels of each."""

from __future__ import annotations

import numpy as np

from dse.mapper.jit import kernel
from dse.mapper.labels import CAP, grown, insert, least_cost, packed, settle
from dse.mapper.reuse import (
    box_words,
    extent_of,
    fan_shares,
    first_loops,
    reuse_factor,
    spread,
    surround,
    tile_inside,
    traffic_words,
)


@kernel
def reach_storage(wanted, position, strides, divisor_counts, allowed, out):
    """Marks the tiles below the loops of a level that some wanted tile above them can be split into."""
    dims = position.shape[1]
    choice = np.zeros(dims, np.int64)
    options = np.zeros((dims, allowed.shape[1]), np.int64)
    option_counts = np.zeros(dims, np.int64)
    for at in range(wanted.shape[0]):
        if not wanted[at]:
            continue
        for d in range(dims):
            option_counts[d] = 0
            for j in range(divisor_counts[d]):
                if allowed[d, position[at, d], j]:
                    options[d, option_counts[d]] = j
                    option_counts[d] += 1
        if option_counts.min() == 0:
            continue
        choice[:] = 0
        while True:
            below = 0
            for d in range(dims):
                below += options[d, choice[d]] * strides[d]
            out[below] = True
            d = dims - 1
            while d >= 0:
                choice[d] += 1
                if choice[d] < option_counts[d]:
                    break
                choice[d] = 0
                d -= 1
            if d < 0:
                break


@kernel
def reach_fanout(wanted, value, divisors, strides, choices, out):
    """Marks the tiles inside a fan-out that some wanted tile outside it can be split into."""
    factors = np.ones(value.shape[1], np.int64)
    for at in range(wanted.shape[0]):
        if wanted[at]:
            for s in range(choices.shape[0]):
                below = tile_inside(value[at], choices[s], divisors, strides, factors)
                if below >= 0:
                    out[below] = True


@kernel
def least_window(tile, coefficient, axis_of, t):
    """A fraction below which no loop outside can bring the accesses of a tensor's open tile by sliding it."""
    least = 1.0
    for d in range(tile.shape[0]):
        a = axis_of[t, d]
        if a >= 0:
            step = coefficient[t, a, d] * tile[d]
            least = min(least, 0.5 * step / (extent_of(tile, coefficient, t, a) + step - 1.0))
    return least


@kernel
def settles(labels, count, factors, relevant):
    """Whether loops `factors` settle the reuse of every tensor that some label leaves open."""
    for t in range(relevant.shape[0]):
        moved = False
        for d in range(factors.shape[0]):
            if factors[d] > 1 and relevant[t, d]:
                moved = True
                break
        if not moved:
            for m in range(count):
                if labels[m, 2 + 3 * t] + labels[m, 3 + 3 * t] > 0.0:
                    return False
    return True


@kernel
def floor_cost(labels, count, first, factors, relevant, axis_of, least):
    """A quick lower bound of `least_cost` inside loops that settle every tensor, `first` being the innermost."""
    tensors, dims = relevant.shape
    best = np.inf
    n = factors[first]
    for m in range(count):
        cost = labels[m, 0]
        for t in range(tensors):
            open_cost = labels[m, 2 + 3 * t] + labels[m, 3 + 3 * t]
            cost += labels[m, 4 + 3 * t]
            if open_cost == 0.0:
                continue
            if not relevant[t, first]:
                run = 1
                for d in range(dims):
                    if not relevant[t, d]:
                        run *= factors[d]
                cost += open_cost * least[t] / run
            elif axis_of[t, first] >= 0:
                cost += open_cost * min(1.0, 2.0 * least[t]) * (n - 1) / n
            else:
                cost += open_cost
        best = min(best, cost)
    return best


@kernel
def lift_storage(
    labels, offsets, value, position, strides, divisor_counts, allowed, bounds, coefficient, relevant, axis_of,
    axis_column, full_size, inner, outer, free, keep, capacity, fill_price, parent_price, has_parent, credit,
    least_share, outer_share, leak, leaking, macs, wanted, corners,
):  # fmt: skip
    """Labels of the wanted tiles of a storage level from those of the tiles below its loops."""
    dims, tensors = value.shape[1], relevant.shape[0]
    width = labels.shape[1]
    factors = np.ones(dims, np.int64)
    firsts = np.zeros(dims, np.int64)
    run = np.ones(tensors)
    windows = np.zeros((tensors, dims, 6))
    window_counts = np.zeros(tensors, np.int64)
    direct = np.zeros(tensors, np.bool_)
    closed = np.zeros(tensors, np.bool_)
    new = np.zeros(width)
    choice = np.zeros(dims, np.int64)
    options = np.zeros((dims, allowed.shape[1]), np.int64)
    option_counts = np.zeros(dims, np.int64)
    words = np.zeros(tensors)
    rows = np.empty((64, CAP, width))
    row_of = np.full(value.shape[0], -1, np.int64)
    row_counts = np.zeros(value.shape[0], np.int64)
    used_rows = 0
    scalar = least_share.min() == 1.0 and not leaking
    windows_least = np.ones((value.shape[0], tensors))
    for tile_number in range(value.shape[0]):
        if offsets[tile_number + 1] > offsets[tile_number]:
            for t in range(tensors):
                windows_least[tile_number, t] = least_window(value[tile_number], coefficient, axis_of, t)
    for at in range(value.shape[0]):
        if not wanted[at]:
            continue
        tile = value[at]
        used = 0.0
        for t in range(tensors):
            if keep[t]:
                used += box_words(tile, coefficient, t)
        if used > capacity:
            continue
        empty = False
        for d in range(dims):
            option_counts[d] = 0
            for j in range(divisor_counts[d] - 1, -1, -1):  # large tiles first: their cost prunes the others
                if allowed[d, position[at, d], j]:
                    options[d, option_counts[d]] = j
                    option_counts[d] += 1
            if option_counts[d] == 0:
                empty = True
        if empty:
            continue
        choice[:] = 0
        rows = grown(rows, used_rows)
        row = rows[used_rows]
        count = 0
        settled_cost = np.inf
        while True:
            below = 0
            for d in range(dims):
                below += options[d, choice[d]] * strides[d]
            start, stop = offsets[below], offsets[below + 1]
            if stop > start:
                loops = 0
                for d in range(dims):
                    factors[d] = tile[d] // value[below, d]
                    if factors[d] > 1:
                        loops += 1
                if loops == 0:
                    for m in range(start, stop):
                        count = insert(row, count, labels[m], corners)
                else:
                    settled = scalar and settles(labels[start:stop], stop - start, factors, relevant)
                    for c in range(first_loops(factors, relevant, axis_of, inner, outer, free, firsts)):
                        if settled:
                            low = floor_cost(
                                labels[start:stop], stop - start, firsts[c], factors, relevant, axis_of,
                                windows_least[below],
                            )  # fmt: skip
                            if low >= settled_cost:
                                continue
                        for t in range(tensors):
                            run[t], window_counts[t], direct[t], closed[t] = surround(
                                t, firsts[c], value[below], factors, bounds, coefficient, relevant, axis_of,
                                axis_column, inner, outer, free, windows[t],
                            )  # fmt: skip
                        if settled:
                            cost = least_cost(
                                labels[start:stop], stop - start, run, windows, window_counts, direct, least_share, 0.0
                            )
                            settled_cost = min(settled_cost, cost)
                            continue
                        for m in range(start, stop):
                            new[:] = labels[m]
                            for t in range(tensors):
                                if new[2 + 3 * t] + new[3 + 3 * t] > 0.0:
                                    g = reuse_factor(labels[m], run[t], windows[t], window_counts[t], direct[t])
                                    new[2 + 3 * t] *= g
                                    new[3 + 3 * t] *= g
                                if closed[t]:
                                    new[0] += new[2 + 3 * t]
                                    new[4 + 3 * t] += new[3 + 3 * t]
                                    new[2 + 3 * t] = 0.0
                                    new[3 + 3 * t] = 0.0
                                    settle(new, t, least_share[t])
                                for a in range(axis_column.shape[1]):
                                    column = axis_column[t, a]
                                    if column >= 0:
                                        new[column + 1] = 0.0  # the repeated tile comes between: no neighbour helps
                                        if closed[t]:
                                            new[column] = 0.0
                            count = insert(row, count, new, corners)
            d = dims - 1
            while d >= 0:
                choice[d] += 1
                if choice[d] < option_counts[d]:
                    break
                choice[d] = 0
                d -= 1
            if d < 0:
                break
        if settled_cost < np.inf:
            new[:] = 0.0
            new[0] = settled_cost
            count = insert(row, count, new, corners)
        if count == 0:
            continue
        for t in range(tensors):
            words[t] = traffic_words(tile, bounds, coefficient, t)
        for m in range(count):
            label = row[m]
            label[0] += leak * macs * label[1]
            for t in range(tensors):
                if keep[t]:
                    settle(label, t, 1.0)
                    label[0] -= credit[t] * full_size[t]
                    if has_parent[t]:
                        label[2 + 3 * t] += words[t] * fill_price[t]
                        label[3 + 3 * t] = words[t] * parent_price[t]
                        settle(label, t, outer_share[t])
                        for a in range(axis_column.shape[1]):
                            column = axis_column[t, a]
                            if column >= 0:
                                label[column] = max(label[column], extent_of(tile, coefficient, t, a))
        row_of[at] = used_rows
        row_counts[used_rows] = count
        used_rows += 1
    return packed(rows, row_of, row_counts)


@kernel
def lift_fanout(
    labels, offsets, value, position, strides, times, divisors, choices, coefficient, relevant, axis_column,
    linked, inner_credit, full_size, least_share, innermost, last, outer_leak, macs, wanted, corners,
):  # fmt: skip
    """Labels of the wanted tiles outside a fan-out from those inside it."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    shares = np.ones(tensors)
    shared = np.ones(tensors)
    new = np.zeros(labels.shape[1])
    rows = np.empty((64, CAP, labels.shape[1]))
    row_of = np.full(value.shape[0], -1, np.int64)
    row_counts = np.zeros(value.shape[0], np.int64)
    used_rows = 0
    for below in range(value.shape[0]):
        start, stop = offsets[below], offsets[below + 1]
        if stop == start:
            continue
        for s in range(choices.shape[0]):
            at = 0
            for d in range(dims):
                p = times[d, position[below, d], choices[s, d]]
                if p < 0:
                    at = -1
                    break
                at += p * strides[d]
                factors[d] = divisors[d, choices[s, d]]
            if at < 0 or not wanted[at]:
                continue
            product = fan_shares(value[below], factors, coefficient, relevant, shares, shared)
            if row_of[at] < 0:
                rows = grown(rows, used_rows)
                row_of[at] = used_rows
                used_rows += 1
            row = row_of[at]
            for m in range(start, stop):
                new[:] = labels[m]
                new[1] /= product
                for t in range(tensors):
                    new[0] -= inner_credit[t] * full_size[t] * (shared[t] - 1.0)
                    new[3 + 3 * t] *= shares[t]
                    new[4 + 3 * t] *= shares[t]
                    apart = 0
                    for a in range(axis_column.shape[1]):
                        if axis_column[t, a] >= 0:
                            apart += spread(value[below], factors, coefficient, t, a)
                    if innermost and shared[t] == 1 and apart == 0:  # no neighbour ever has the same word
                        new[4 + 3 * t] += new[3 + 3 * t]
                        new[3 + 3 * t] = 0.0
                    settle(new, t, least_share[t])
                    if linked[t]:
                        for a in range(axis_column.shape[1]):
                            column = axis_column[t, a]
                            if column >= 0:
                                new[column + 1] = spread(value[below], factors, coefficient, t, a)
                if last:  # the fan-out is known now, and with it how long the levels outside leak
                    new[0] += outer_leak * macs * new[1]
                    new[1] = 0.0
                row_counts[row] = insert(rows[row], row_counts[row], new, corners)
    return packed(rows, row_of, row_counts)
