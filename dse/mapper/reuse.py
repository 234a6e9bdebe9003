"""Tiles of tensors and how the loops outside a tile reuse them: the geometry below the bounds."""

from __future__ import annotations

import numpy as np

from dse.mapper.jit import kernel


@kernel
def box_words(tile, coefficient, t):
    words = 1.0
    for a in range(coefficient.shape[1]):
        extent = 1
        for d in range(tile.shape[0]):
            extent += coefficient[t, a, d] * (tile[d] - 1)
        words *= extent
    return words


@kernel
def extent_of(tile, coefficient, t, a):
    extent = 1
    for d in range(tile.shape[0]):
        extent += coefficient[t, a, d] * (tile[d] - 1)
    return extent


@kernel
def traffic_words(tile, bounds, coefficient, t):
    """Words that all instances of a tile fetch if nothing is reused between loops outside."""
    words = box_words(tile, coefficient, t)
    for d in range(tile.shape[0]):
        words *= bounds[d] // tile[d]
    return words


@kernel
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


@kernel
def spread(tile, factors, coefficient, t, a):
    """Distance along an axis between the boxes of a fan-out's first and last child."""
    span = 0
    for d in range(tile.shape[0]):
        span += coefficient[t, a, d] * tile[d] * (factors[d] - 1)
    return span


@kernel
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


@kernel
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


@kernel
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


@kernel
def surround(
    t, first, below, factors, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free, windows
):  # fmt: skip
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


@kernel
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


@kernel
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


@kernel
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
