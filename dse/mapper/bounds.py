"""Lower bounds of every partial mapping, innermost stage first (the recurrence is derived in docs/mapper.md).

For each stage and tile the kernels keep a small set of labels. A label bounds the cost of everything inside from
below as a function of what happens further out:

    K0 + sum over tensors t of g_t * (fill_t + read_t * share_t) + closed_t * share_t  +  outer leakage * idle

where g_t in (0, 1] is the reuse that the next loops outside give tensor t, share_t the multicast of fan-outs outside,
closed_t the reads whose reuse is settled but whose multicast is not, and idle the inverse of the fan-out inside.

`label = [K0, idle, fill_0, read_0, closed_0, fill_1, ..., extent_0, span_0, extent_1, ...]`: behind the costs stand,
for every axis that several dimensions share, the extent of the open tile and how far a fan-out directly outside it
spreads its children. They decide how much a sliding window can reuse.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CAP = 64  # labels a tile may have; beyond it two are merged by their componentwise minimum, which stays a bound
OPTIONS = {"cache": True, "nogil": True, "boundscheck": False}


@njit(**OPTIONS)
def box_words(tile, coefficient, t):
    words = 1.0
    for a in range(coefficient.shape[1]):
        extent = 1
        for d in range(tile.shape[0]):
            extent += coefficient[t, a, d] * (tile[d] - 1)
        words *= extent
    return words


@njit(**OPTIONS)
def extent_of(tile, coefficient, t, a):
    extent = 1
    for d in range(tile.shape[0]):
        extent += coefficient[t, a, d] * (tile[d] - 1)
    return extent


@njit(**OPTIONS)
def traffic_words(tile, bounds, coefficient, t):
    """Words that all instances of a tile fetch if nothing is reused between loops outside."""
    words = box_words(tile, coefficient, t)
    for d in range(tile.shape[0]):
        words *= bounds[d] // tile[d]
    return words


@njit(**OPTIONS)
def distinct_boxes(tile, factors, coefficient, t):
    """How many of the boxes of a fan-out's children differ."""
    total = 1
    dims = tile.shape[0]
    for a in range(coefficient.shape[1]):
        first, several, product = -1, False, 1
        for d in range(dims):
            if coefficient[t, a, d] > 0 and factors[d] > 1:
                several = first >= 0
                first = d
                product *= factors[d]
        if not several:
            total *= product
            continue
        offsets = np.zeros(product, np.int64)
        count = 1
        for d in range(dims):
            if coefficient[t, a, d] > 0 and factors[d] > 1:
                step = coefficient[t, a, d] * tile[d]
                for k in range(factors[d] - 1, -1, -1):
                    for i in range(count):
                        offsets[k * count + i] = offsets[i] + k * step
                count *= factors[d]
        offsets.sort()
        unique = 1
        for i in range(1, count):
            if offsets[i] != offsets[i - 1]:
                unique += 1
        total *= unique
    return total


@njit(**OPTIONS)
def window(t, r, n, below, bounds, coefficient, axis_of, axis_column, row):
    """What decides the reuse of a sliding window if the first loop a tensor sees outside is `n` iterations of `r`.

    Fills `row` with n, step of the window, column of its axis in a label, extent, and the factors of other loops
    outside whose steps Timeloop may count as free: of the same axis, and of other axes if neighbours pass data on.
    """
    a = axis_of[t, r]
    step = coefficient[t, a, r] * below[r]
    extent = extent_of(below, coefficient, t, a)
    same, cross = 1.0, 1.0
    for d in range(below.shape[0]):
        outside = bounds[d] // below[d]
        if d == r:
            outside //= n
            if n == 2 or (n - 1) * step <= extent - 1:
                same *= outside
        elif outside > 1:
            b = axis_of[t, d]
            if b == a:
                same *= outside
            elif b >= 0 and coefficient[t, b, d] * below[d] <= extent_of(below, coefficient, t, b) - 1:
                cross *= outside
    row[0], row[1], row[2], row[3], row[4], row[5] = n, step, axis_column[t, a], extent, same, cross


@njit(**OPTIONS)
def reuse_factor(label, run, windows, count, direct):
    """Least fraction g of its accesses that a tensor needs: repeated tiles, sliding windows and neighbours at best."""
    best = 1.0
    for i in range(count):
        n, step, column = windows[i, 0], windows[i, 1], int(windows[i, 2])
        extent, span = label[column], label[column + 1]
        slab, cheap = 1.0, windows[i, 4]
        if extent > 0.0:
            slab = min(1.0, step / extent)
        if direct and span >= step:  # a neighbour may hold what is needed
            slab = min(slab, step / (windows[i, 3] + step - 1.0))
            cheap *= windows[i, 5]
        best = min(best, ((n - 1.0) * slab + 1.0 / cheap) / n)
    return best / run


@njit(**OPTIONS)
def surround(t, first, below, factors, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free, windows):
    """(run, number of windows, direct, closed): how a level whose innermost loop is `first` reuses a tensor.

    `run` repetitions of the same tile come first, then one of the loops in `windows` slides it if there are any.
    Order constraints are honoured; where the order is open the tensor gets the best one that starts with `first`.
    """
    if relevant[t, first]:
        if axis_of[t, first] < 0:
            return 1.0, 0, True, True
        window(t, first, factors[first], below, bounds, coefficient, axis_of, axis_column, windows[0])
        return 1.0, 1, True, True
    dims = below.shape[0]
    run = 1.0
    for part in range(3):
        count, moving = 0, False
        for i in range(dims):
            d = i
            if part == 1:
                if not free[d]:
                    continue
            else:
                d = inner[i] if part == 0 else outer[i]
                if d < 0:
                    break
            if factors[d] <= 1:
                continue
            if not relevant[t, d]:
                if part == 1 or not moving:
                    run *= factors[d]
            elif part == 1 or not moving:
                moving = True
                if axis_of[t, d] >= 0:
                    window(t, d, factors[d], below, bounds, coefficient, axis_of, axis_column, windows[count])
                    count += 1
        if moving:
            return run, count, False, True
    return run, 0, False, False


@njit(**OPTIONS)
def first_loops(factors, relevant, axis_of, inner, outer, free, out):
    """Fills `out` with the loops that may be innermost, one of each kind that the tensors can tell apart."""
    dims = factors.shape[0]
    for i in range(dims):
        d = inner[i]
        if d < 0:
            break
        if factors[d] > 1:
            out[0] = d
            return 1
    count = 0
    for d in range(dims):
        if not free[d] or factors[d] <= 1:
            continue
        known = False
        for i in range(count):
            e = out[i]
            same = True
            for t in range(relevant.shape[0]):
                if relevant[t, d] != relevant[t, e] or axis_of[t, d] >= 0 or axis_of[t, e] >= 0:
                    same = False
                    break
            if same:
                known = True
                break
        if not known:
            out[count] = d
            count += 1
    if count:
        return count
    for i in range(dims):
        d = outer[i]
        if d < 0:
            break
        if factors[d] > 1:
            out[0] = d
            return 1
    return 0


@njit(**OPTIONS)
def insert(labels, count, new, corners):
    """Adds a label to a tile's set unless another is as low in every surrounding; returns the new count.

    A label's cost is linear in the reuse factors. At any level only some tensors are reused at once, those of a row
    of `corners`, so a label that is no higher at all corners of these faces is no higher anywhere. Where the share of
    a read is still open (a fan-out follows) all components are compared instead.
    """
    width = new.shape[0]
    i = 0
    while i < count:
        below, above = True, True
        split = False
        for t in range(corners.shape[1]):
            for j in (3 + 3 * t, 4 + 3 * t):
                if labels[i, j] != 0.0 or new[j] != 0.0:
                    split = True
        for j in range(2 + 3 * corners.shape[1], width):  # a larger window can be reused more
            if labels[i, j] < new[j]:
                below = False
            elif labels[i, j] > new[j]:
                above = False
        if split:
            for j in range(2 + 3 * corners.shape[1]):
                x, y = labels[i, j], new[j]
                slack = 1e-12 * (abs(x) + abs(y))
                if x > y + slack:
                    below = False
                if y > x + slack:
                    above = False
        else:
            if labels[i, 1] > new[1]:
                below = False
            if labels[i, 1] < new[1]:
                above = False
            for c in range(corners.shape[0]):
                x, y = labels[i, 0], new[0]
                for t in range(corners.shape[1]):
                    if corners[c, t]:
                        x += labels[i, 2 + 3 * t]
                        y += new[2 + 3 * t]
                slack = 1e-12 * (abs(x) + abs(y))
                if x > y + slack:
                    below = False
                if y > x + slack:
                    above = False
                if not below and not above:
                    break
        if below:
            return count
        if above:
            count -= 1
            labels[i] = labels[count]
        else:
            i += 1
    if count < labels.shape[0]:
        labels[count] = new
        return count + 1
    nearest, least = 0, np.inf
    costs = 2 + 3 * corners.shape[1]
    for i in range(count):
        loss = abs(labels[i, 0] - new[0])
        for j in range(2, costs):
            loss += abs(labels[i, j] - new[j])
        if loss < least:
            nearest, least = i, loss
    for j in range(costs):
        labels[nearest, j] = min(labels[nearest, j], new[j])
    for j in range(costs, width):
        labels[nearest, j] = max(labels[nearest, j], new[j])
    return count


@njit(**OPTIONS)
def settle(label, t, least_share):
    """Where no fan-out follows before the parent, reads are shared by no more and need no place of their own."""
    if least_share == 1.0:
        label[0] += label[4 + 3 * t]
        label[2 + 3 * t] += label[3 + 3 * t]
        label[3 + 3 * t] = 0.0
        label[4 + 3 * t] = 0.0


@njit(**OPTIONS)
def least_cost(labels, count, run, windows, window_counts, direct, share, leak):
    """The least a tile can cost in a given surrounding (`leak`: pJ of outer leakage per unit of idleness)."""
    best = np.inf
    for m in range(count):
        label = labels[m]
        cost = label[0] + leak * label[1]
        for t in range(run.shape[0]):
            open_cost = label[2 + 3 * t] + label[3 + 3 * t] * share[t]
            if open_cost > 0.0:
                cost += open_cost * reuse_factor(label, run[t], windows[t], window_counts[t], direct[t])
            cost += label[4 + 3 * t] * share[t]
        best = min(best, cost)
    return best


@njit(**OPTIONS)
def lift_storage(
    have, labels, counts, value, position, strides, divisor_counts, allowed, bounds, coefficient, relevant, axis_of,
    axis_column, full_size, inner, outer, free, keep, capacity, fill_price, parent_price, has_parent, credit,
    least_share, outer_share, leak, leaking, macs, wanted, corners, out, out_counts,
):  # fmt: skip
    """Labels of the wanted tiles of a storage level from those of the tiles below its loops."""
    dims, tensors = value.shape[1], relevant.shape[0]
    width = out.shape[2]
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
            for j in range(divisor_counts[d]):
                if allowed[d, position[at, d], j]:
                    options[d, option_counts[d]] = j
                    option_counts[d] += 1
            if option_counts[d] == 0:
                empty = True
        if empty:
            continue
        choice[:] = 0
        count = 0
        while True:
            below = 0
            for d in range(dims):
                below += options[d, choice[d]] * strides[d]
            if have[below]:
                loops = 0
                for d in range(dims):
                    factors[d] = tile[d] // value[below, d]
                    if factors[d] > 1:
                        loops += 1
                if loops == 0:
                    for m in range(counts[below]):
                        count = insert(out[at], count, labels[below, m], corners)
                else:
                    for c in range(first_loops(factors, relevant, axis_of, inner, outer, free, firsts)):
                        for t in range(tensors):
                            run[t], window_counts[t], direct[t], closed[t] = surround(
                                t, firsts[c], value[below], factors, bounds, coefficient, relevant, axis_of,
                                axis_column, inner, outer, free, windows[t],
                            )  # fmt: skip
                        if closed.all() and least_share.min() == 1.0 and not leaking:
                            new[:] = 0.0
                            new[0] = least_cost(
                                labels[below], counts[below], run, windows, window_counts, direct, least_share, 0.0
                            )
                            count = insert(out[at], count, new, corners)
                            continue
                        for m in range(counts[below]):
                            new[:] = labels[below, m]
                            for t in range(tensors):
                                if new[2 + 3 * t] + new[3 + 3 * t] > 0.0:
                                    g = reuse_factor(labels[below, m], run[t], windows[t], window_counts[t], direct[t])
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
                            count = insert(out[at], count, new, corners)
            d = dims - 1
            while d >= 0:
                choice[d] += 1
                if choice[d] < option_counts[d]:
                    break
                choice[d] = 0
                d -= 1
            if d < 0:
                break
        if count == 0:
            continue
        for t in range(tensors):
            words[t] = traffic_words(tile, bounds, coefficient, t)
        for m in range(count):
            label = out[at, m]
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
        out_counts[at] = count


@njit(**OPTIONS)
def spread(tile, factors, coefficient, t, a):
    """Distance along an axis between the boxes of a fan-out's first and last child."""
    span = 0
    for d in range(tile.shape[0]):
        span += coefficient[t, a, d] * tile[d] * (factors[d] - 1)
    return span


@njit(**OPTIONS)
def boundary_cost(
    tile, bounds, coefficient, axis_column, t, span, run, windows, window_count, direct, fill_price, parent_price, share,
    width,
):  # fmt: skip
    """Least cost of moving a tensor's tiles into a level whose surrounding is known; `span` as in a label."""
    label = np.zeros(width)
    for a in range(axis_column.shape[1]):
        column = axis_column[t, a]
        if column >= 0:
            label[column] = extent_of(tile, coefficient, t, a)
            label[column + 1] = span[a]
    words = traffic_words(tile, bounds, coefficient, t) * reuse_factor(label, run, windows, window_count, direct)
    return words * (fill_price + parent_price * share)


@njit(**OPTIONS)
def fan_shares(tile, factors, coefficient, relevant, shares, shared):
    """Per tensor: fraction of the children's reads that reach the parent, and by how much they share it."""
    product = 1
    for d in range(tile.shape[0]):
        product *= factors[d]
    for t in range(relevant.shape[0]):
        boxes = distinct_boxes(tile, factors, coefficient, t)
        shares[t] = boxes / product
        s = 1
        for d in range(tile.shape[0]):
            if not relevant[t, d]:
                s *= factors[d]
        shared[t] = s
    return product


@njit(**OPTIONS)
def lift_fanout(
    have, labels, counts, value, position, strides, times, divisors, choices, coefficient, relevant, axis_column,
    linked, inner_credit, full_size, least_share, innermost, leaking, wanted, corners, out, out_counts,
):  # fmt: skip
    """Labels of the wanted tiles outside a fan-out from those inside it."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    shares = np.ones(tensors)
    shared = np.ones(tensors)
    new = np.zeros(out.shape[2])
    for below in range(value.shape[0]):
        if not have[below]:
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
            for m in range(counts[below]):
                new[:] = labels[below, m]
                new[1] /= product
                for t in range(tensors):
                    new[0] -= inner_credit[t] * full_size[t] * (shared[t] - 1.0)
                    new[3 + 3 * t] *= shares[t]
                    new[4 + 3 * t] *= shares[t]
                    if innermost and product == 1:  # no neighbours: every operation reads
                        new[4 + 3 * t] += new[3 + 3 * t]
                        new[3 + 3 * t] = 0.0
                    settle(new, t, least_share[t])
                    if linked[t]:
                        for a in range(axis_column.shape[1]):
                            column = axis_column[t, a]
                            if column >= 0:
                                new[column + 1] = spread(value[below], factors, coefficient, t, a)
                if not leaking:
                    new[1] = 0.0
                out_counts[at] = insert(out[at], out_counts[at], new, corners)


@njit(**OPTIONS)
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


@njit(**OPTIONS)
def tile_inside(tile, choice, divisors, strides, factors):
    """The tile inside a fan-out whose factors are at the divisor positions `choice`; -1 if they do not divide it."""
    below = 0
    for d in range(tile.shape[0]):
        factors[d] = divisors[d, choice[d]]
        if tile[d] % factors[d] != 0:
            return -1
        rest = tile[d] // factors[d]
        for j in range(divisors.shape[1]):
            if divisors[d, j] == rest:
                below += j * strides[d]
                break
    return below


@njit(**OPTIONS)
def reach_fanout(wanted, value, divisors, strides, choices, out):
    """Marks the tiles inside a fan-out that some wanted tile outside it can be split into."""
    factors = np.ones(value.shape[1], np.int64)
    for at in range(wanted.shape[0]):
        if wanted[at]:
            for s in range(choices.shape[0]):
                below = tile_inside(value[at], choices[s], divisors, strides, factors)
                if below >= 0:
                    out[below] = True


@njit(**OPTIONS)
def expand_storage(
    at, limit, fixed, run, windows, window_counts, direct, share, leak_energy, have, labels, offsets, value, position,
    strides, divisor_counts, allowed, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free, tiles,
    firsts_out, costs,
):  # fmt: skip
    """All ways to place a level's loops that can still cost less than `limit`. Returns their number, -1 if too many."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    firsts = np.zeros(dims, np.int64)
    inside = (run.copy(), windows.copy(), window_counts.copy(), direct.copy())
    choice = np.zeros(dims, np.int64)
    options = np.zeros((dims, allowed.shape[1]), np.int64)
    option_counts = np.zeros(dims, np.int64)
    tile = value[at]
    for d in range(dims):
        for j in range(divisor_counts[d]):
            if allowed[d, position[at, d], j]:
                options[d, option_counts[d]] = j
                option_counts[d] += 1
        if option_counts[d] == 0:
            return 0
    count = 0
    while True:
        below = 0
        for d in range(dims):
            below += options[d, choice[d]] * strides[d]
        if have[below]:
            loops = 0
            for d in range(dims):
                factors[d] = tile[d] // value[below, d]
                if factors[d] > 1:
                    loops += 1
            kinds = 1
            if loops:
                kinds = first_loops(factors, relevant, axis_of, inner, outer, free, firsts)
            else:
                inside[0][:], inside[1][:], inside[2][:], inside[3][:] = run, windows, window_counts, direct
            for c in range(kinds):
                if loops:
                    enter(
                        firsts[c], value[below], factors, bounds, coefficient, relevant, axis_of, axis_column, inner,
                        outer, free, run, windows, window_counts, inside[0], inside[1], inside[2], inside[3],
                    )  # fmt: skip
                start, stop = offsets[below], offsets[below + 1]
                cost = fixed + least_cost(
                    labels[start:stop], stop - start, inside[0], inside[1], inside[2], inside[3], share, leak_energy
                )
                if cost < limit:
                    if count == tiles.shape[0]:
                        return -1
                    tiles[count] = below
                    firsts_out[count] = firsts[c] if loops else -1
                    costs[count] = cost
                    count += 1
        d = dims - 1
        while d >= 0:
            choice[d] += 1
            if choice[d] < option_counts[d]:
                break
            choice[d] = 0
            d -= 1
        if d < 0:
            return count


@njit(**OPTIONS)
def enter(
    first, below, factors, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free, run, windows,
    window_counts, run_in, windows_in, counts_in, direct_in,
):  # fmt: skip
    """The surrounding inside a level, from that outside it and the level's loops, of which `first` is innermost."""
    for t in range(run.shape[0]):
        r, count, near, closed = surround(
            t, first, below, factors, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free,
            windows_in[t],
        )  # fmt: skip
        run_in[t], counts_in[t], direct_in[t] = r, count, near
        if not closed:
            run_in[t] = r * run[t]
            counts_in[t] = window_counts[t]
            windows_in[t] = windows[t]


@njit(**OPTIONS)
def expand_fanout(
    at, limit, fixed, run, windows, window_counts, direct, share, leak_energy, have, labels, offsets, value, strides,
    divisors, choices, coefficient, relevant, inner_credit, full_size, tiles, costs, fixed_out, share_out, leak_out,
):  # fmt: skip
    """All ways to use a fan-out that can still cost less than `limit`. Returns their number."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    shares = np.ones(tensors)
    shared = np.ones(tensors)
    count = 0
    tile = value[at]
    for s in range(choices.shape[0]):
        below = tile_inside(tile, choices[s], divisors, strides, factors)
        if below < 0 or not have[below]:
            continue
        product = fan_shares(value[below], factors, coefficient, relevant, shares, shared)
        here = fixed
        for t in range(tensors):
            here -= inner_credit[t] * full_size[t] * (shared[t] - 1.0)
            shares[t] *= share[t]
        leak = leak_energy / product
        start, stop = offsets[below], offsets[below + 1]
        cost = here + least_cost(
            labels[start:stop], stop - start, run, windows, window_counts, direct, shares, leak
        )
        if cost < limit:
            if count == tiles.shape[0]:
                return -1
            tiles[count] = below
            costs[count] = cost
            fixed_out[count] = here
            share_out[count] = shares
            leak_out[count] = leak
            count += 1
    return count
