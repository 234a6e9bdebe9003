"""Lower bounds of every partial mapping, innermost stage first (the recurrence is derived in docs/mapper.md).

For each stage and tile the kernels keep a small set of labels. A label bounds the cost of everything inside from
below as a function of what happens further out:

    K0 + sum over tensors t of g_t * (fill_t + read_t * share_t)  +  leakage of outer levels * MACs * idle

where g_t in (0, 1] is the reuse that the next loops outside give tensor t, share_t the multicast of fan-outs outside,
and idle the inverse of the fan-out inside. `label = [K0, idle, fill_0, read_0, fill_1, read_1, ...]`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CAP = 16  # labels a tile may have; beyond it two are merged by their componentwise minimum, which stays a bound
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
def halo_factor(t, r, n, below, bounds, coefficient, axis_of):
    """Least fraction of its accesses that a tensor needs if the first loop it sees outside is `n` iterations of `r`.

    Sliding windows, neighbour links and the steps that Timeloop counts as empty are all taken at their best.
    """
    a = axis_of[t, r]
    if a < 0:
        return 1.0
    step = coefficient[t, a, r] * below[r]
    extent = extent_of(below, coefficient, t, a)
    slab = min(1.0, step / (extent + step - 1.0))
    cheap = 1.0
    for d in range(below.shape[0]):
        outside = bounds[d] // below[d]
        if d == r:
            outside //= n
            if outside > 1 and (n == 2 or (n - 1) * step <= extent - 1):
                cheap *= outside
        elif outside > 1:
            b = axis_of[t, d]
            if b == a or (b >= 0 and coefficient[t, b, d] * below[d] <= extent_of(below, coefficient, t, b) - 1):
                cheap *= outside
    return min(1.0, ((n - 1) * slab + 1.0 / cheap) / n)


@njit(**OPTIONS)
def reuse(t, first, below, factors, bounds, coefficient, relevant, axis_of, inner, outer, free):
    """(g, closed): the reuse a tensor gets at a level whose innermost non-trivial loop is `first`.

    Order constraints are honoured; where the order is open the tensor gets the best one that starts with `first`.
    """
    if relevant[t, first]:
        return halo_factor(t, first, factors[first], below, bounds, coefficient, axis_of), True
    dims = below.shape[0]
    run = 1.0
    for i in range(dims):
        d = inner[i]
        if d < 0:
            break
        if factors[d] > 1:
            if relevant[t, d]:
                return halo_factor(t, d, factors[d], below, bounds, coefficient, axis_of) / run, True
            run *= factors[d]
    best = 2.0
    for d in range(dims):
        if free[d] and factors[d] > 1:
            if relevant[t, d]:
                best = min(best, halo_factor(t, d, factors[d], below, bounds, coefficient, axis_of))
            else:
                run *= factors[d]
    if best < 2.0:
        return best / run, True
    for i in range(dims):
        d = outer[i]
        if d < 0:
            break
        if factors[d] > 1:
            if relevant[t, d]:
                return halo_factor(t, d, factors[d], below, bounds, coefficient, axis_of) / run, True
            run *= factors[d]
    return 1.0 / run, False


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
def insert(labels, count, new):
    """Adds a label to a tile's set unless another bounds it; returns the new count."""
    width = new.shape[0]
    i = 0
    while i < count:
        below, above = True, True
        for j in range(width):
            a, b = labels[i, j], new[j]
            slack = 1e-12 * (abs(a) + abs(b))
            if a > b + slack:
                below = False
            if b > a + slack:
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
    for i in range(count):
        loss = 0.0
        for j in range(width):
            loss += abs(labels[i, j] - new[j])
        if loss < least:
            nearest, least = i, loss
    for j in range(width):
        labels[nearest, j] = min(labels[nearest, j], new[j])
    return count


@njit(**OPTIONS)
def lift_storage(
    have, labels, counts, value, position, strides, divisor_counts, allowed, bounds, coefficient, relevant, axis_of,
    read_write, full_size, inner, outer, free, keep, capacity, fill_price, parent_price, has_parent, credit,
    least_share, leak, macs, wanted, out, out_counts,
):  # fmt: skip
    """Labels of the wanted tiles of a storage level from those of the tiles below its loops."""
    dims, tensors = value.shape[1], relevant.shape[0]
    width = 2 + 2 * tensors
    factors = np.ones(dims, np.int64)
    firsts = np.zeros(dims, np.int64)
    g = np.ones(tensors)
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
                        count = insert(out[at], count, labels[below, m])
                else:
                    for c in range(first_loops(factors, relevant, axis_of, inner, outer, free, firsts)):
                        for t in range(tensors):
                            g[t], closed[t] = reuse(
                                t, firsts[c], value[below], factors, bounds, coefficient, relevant, axis_of,
                                inner, outer, free,
                            )  # fmt: skip
                        for m in range(counts[below]):
                            new[:] = labels[below, m]
                            for t in range(tensors):
                                if closed[t]:
                                    new[0] += g[t] * (new[2 + 2 * t] + new[3 + 2 * t] * least_share[t])
                                    new[2 + 2 * t] = 0.0
                                    new[3 + 2 * t] = 0.0
                                else:
                                    new[2 + 2 * t] *= g[t]
                                    new[3 + 2 * t] *= g[t]
                            count = insert(out[at], count, new)
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
                    label[2 + 2 * t] += label[3 + 2 * t]
                    label[3 + 2 * t] = 0.0
                    label[0] -= credit[t] * full_size[t]
                    if has_parent[t]:
                        label[2 + 2 * t] += words[t] * fill_price[t]
                        label[3 + 2 * t] = words[t] * parent_price[t]
        out_counts[at] = count


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
    have, labels, counts, value, position, strides, times, divisors, choices, coefficient, relevant, inner_credit,
    full_size, least_share, innermost, wanted, out, out_counts,
):  # fmt: skip
    """Labels of the wanted tiles outside a fan-out from those inside it."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    shares = np.ones(tensors)
    shared = np.ones(tensors)
    new = np.zeros(2 + 2 * tensors)
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
                    new[3 + 2 * t] *= shares[t]
                    if innermost and product == 1:  # no neighbours: every operation reads
                        new[0] += new[3 + 2 * t] * least_share[t]
                        new[3 + 2 * t] = 0.0
                out_counts[at] = insert(out[at], out_counts[at], new)


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
def least_cost(labels, count, g, share, leak):
    """The least a tile can cost in a given surrounding (`leak`: pJ of outer leakage per unit of idleness)."""
    best = np.inf
    for m in range(count):
        cost = labels[m, 0] + leak * labels[m, 1]
        for t in range(g.shape[0]):
            cost += g[t] * (labels[m, 2 + 2 * t] + labels[m, 3 + 2 * t] * share[t])
        best = min(best, cost)
    return best


@njit(**OPTIONS)
def expand_storage(
    at, limit, fixed, g, share, leak_energy, have, labels, offsets, value, position, strides, divisor_counts, allowed,
    bounds, coefficient, relevant, axis_of, inner, outer, free, tiles, firsts_out, costs, g_out,
):  # fmt: skip
    """All ways to place a level's loops that can still cost less than `limit`. Returns their number."""
    dims, tensors = value.shape[1], relevant.shape[0]
    factors = np.ones(dims, np.int64)
    firsts = np.zeros(dims, np.int64)
    inside = np.ones(tensors)
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
            for c in range(kinds):
                for t in range(tensors):
                    inside[t] = g[t]
                    if loops:
                        f, closed = reuse(
                            t, firsts[c], value[below], factors, bounds, coefficient, relevant, axis_of,
                            inner, outer, free,
                        )  # fmt: skip
                        inside[t] = f if closed else g[t] * f
                start, stop = offsets[below], offsets[below + 1]
                cost = fixed + least_cost(labels[start:stop], stop - start, inside, share, leak_energy)
                if cost < limit:
                    if count == tiles.shape[0]:
                        return -1
                    tiles[count] = below
                    firsts_out[count] = firsts[c] if loops else -1
                    costs[count] = cost
                    g_out[count] = inside
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
def expand_fanout(
    at, limit, fixed, g, share, leak_energy, have, labels, offsets, value, position, strides, times,
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
        cost = here + least_cost(labels[start:stop], stop - start, g, shares, leak)
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
