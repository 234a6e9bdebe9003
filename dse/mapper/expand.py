"""From the outermost stage inwards: all ways to place one stage that can still be cheap enough."""

from __future__ import annotations

import numpy as np

from dse.mapper.jit import kernel
from dse.mapper.labels import least_cost
from dse.mapper.reuse import enter, extent_of, fan_shares, first_loops, reuse_factor, tile_inside, traffic_words


@kernel
def boundary_cost(
    tile, bounds, coefficient, axis_column, t, span, run, windows, window_count, direct, fill_price, parent_price,
    share, width,
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


@kernel
def expand_storage(
    at, limit, fixed, run, windows, window_counts, direct, share, leak_energy, have, labels, offsets, value, position,
    strides, divisor_counts, allowed, bounds, coefficient, relevant, axis_of, axis_column, inner, outer, free, tiles,
    firsts_out, costs,
):  # fmt: skip
    """All ways to place a level's loops that can still cost less than `limit`. Returns their number, -1 if too many."""
    dims = value.shape[1]
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


@kernel
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
        cost = here + least_cost(labels[start:stop], stop - start, run, windows, window_counts, direct, shares, leak)
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
