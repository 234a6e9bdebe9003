"""The least of a sum of products over one choice for each group, under sums of products that have limits.

    value(choice) = sum over terms b of row 0:  c[b] * product over groups g of column[g, choice[g], b]
    for every other row:  sum of its terms <= limit of the row

The members of a group stand in a binary tree in which neighbours are similar. A node of the search is one tree node
for each group; with the least of every column below these nodes (the most, where c[b] < 0) each row gives a bound.
Nodes that cannot stay below a row's limit are dropped, the others are split at the group that leaves most open.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.jit import kernel
from dse.mapper.kernels.labels import DELAY, ENERGY, ENERGY_DELAY

TOLERANCE = 1e-9  # relative: values that differ by less are equal


@kernel
def build(features, order, left, right, start, stop):
    """Fills a binary tree over the rows of `features`, halving at the median of the feature that varies most."""
    count, width = features.shape
    used = 1
    start[0], stop[0] = 0, count
    node = 0
    while node < used:
        low, high = start[node], stop[node]
        if high - low < 2:
            left[node], right[node] = -1, -1
            node += 1
            continue
        widest, feature = -1.0, 0
        for f in range(width):
            least, most = np.inf, -np.inf
            for i in range(low, high):
                x = features[order[i], f]
                least, most = min(least, x), max(most, x)
            if most - least > widest:
                widest, feature = most - least, f
        part = order[low:high].copy()
        keys = np.empty(high - low)
        for i in range(high - low):
            keys[i] = features[part[i], feature]
        rank = np.argsort(keys, kind="mergesort")
        for i in range(high - low):
            order[low + i] = part[rank[i]]
        middle = (low + high) // 2
        left[node], right[node] = used, used + 1
        start[used], stop[used] = low, middle
        start[used + 1], stop[used + 1] = middle, high
        used += 2
        node += 1
    return used


@kernel
def least_below(
    columns, present, plain, order, left, right, start, signs, low, high, only_plain, lefts, rights, member
):
    """Fills `low[node, b]` with the least (the most where `signs[b]` < 0) of a column below each tree node.

    `high` is the opposite, `only_plain` whether all members are plain. Members that are not `present` are left out: a
    node without any has `low[node, 0]` = nan, and one of whose branches none is left stands for the other branch.
    `lefts`, `rights` and `member` are the tree that remains.
    """
    terms = columns.shape[1]
    for node in range(left.shape[0] - 1, -1, -1):
        lefts[node], rights[node], member[node] = left[node], right[node], order[start[node]]
        if left[node] < 0:
            i = order[start[node]]
            for b in range(terms):
                low[node, b] = columns[i, b]
                high[node, b] = columns[i, b]
            only_plain[node] = plain[i]
            if not present[i]:
                low[node, 0] = np.nan
            continue
        x, y = left[node], right[node]
        if np.isnan(low[x, 0]) or np.isnan(low[y, 0]):
            z = y if np.isnan(low[x, 0]) else x
            for b in range(terms):
                low[node, b], high[node, b] = low[z, b], high[z, b]
            only_plain[node] = only_plain[z]
            lefts[node], rights[node], member[node] = lefts[z], rights[z], member[z]
            continue
        only_plain[node] = only_plain[x] and only_plain[y]
        for b in range(terms):
            if signs[b] < 0.0:
                low[node, b] = max(low[x, b], low[y, b])
                high[node, b] = min(high[x, b], high[y, b])
            else:
                low[node, b] = min(low[x, b], low[y, b])
                high[node, b] = max(high[x, b], high[y, b])


class Goal(NamedTuple):
    """What is minimised: row 0 (energy), rows 1 to `cycle_rows` (cycles, of which the largest counts), or both.

    `kind` is ENERGY, ENERGY_DELAY or DELAY of `dse.mapper.kernels.labels`; `latency` cycles come to those of the rows.
    """

    kind: int
    cycle_rows: int
    latency: float


@kernel
def sums_of(coefficients, row_of, floors, rest, low, node, sums):
    """Fills `sums` (rows,) with the bounds of the rows: terms of `rest` (B,) times those of one more tree node."""
    for r in range(sums.shape[0]):
        sums[r] = 0.0
    for b in range(coefficients.shape[0]):
        sums[row_of[b]] += coefficients[b] * max(rest[b] * low[node, b], floors[b])


@kernel
def product_without(low, here, left_out, out):
    """Fills `out` (B,) with the products of the terms of one tree node for each group but one."""
    out[:] = 1.0
    for g in range(here.shape[0]):
        if g != left_out:
            node = here[g]
            for b in range(out.shape[0]):
                out[b] *= low[node, b]


@kernel
def value_below(sums, limits, goal):
    """The least objective that the rows' bounds allow; inf where one is above its limit."""
    for r in range(sums.shape[0]):
        if sums[r] > limits[r] * (1.0 + 1e-12):
            return np.inf
    if goal.kind == ENERGY:
        return sums[0]
    cycles = 0.0
    for r in range(1, 1 + goal.cycle_rows):
        cycles = max(cycles, sums[r])
    cycles += goal.latency
    return sums[0] * cycles if goal.kind == ENERGY_DELAY else cycles


@kernel
def possible(columns, rest, coefficients, row_of, floors, limits, goal, value, present):
    """Clears `present` of the members that cannot be part of a choice below `value` within the limits."""
    sums = np.empty(limits.shape[0])
    for i in range(columns.shape[0]):
        if present[i]:
            sums_of(coefficients, row_of, floors, rest, columns, i, sums)
            if not value_below(sums, limits, goal) < value:
                present[i] = False


@kernel
def widest_group(coefficients, row_of, weights, products, low, high, left, here):
    """The group whose members differ most in what is counted; -1 if each has one member only."""
    chosen, widest = -1, -1.0
    for g in range(here.shape[0]):
        node = here[g]
        if left[node] < 0:
            continue
        spread = 0.0
        for b in range(coefficients.shape[0]):
            small, large = low[node, b], high[node, b]
            if small == large:
                continue
            ratio = large / small if large > small else small / max(large, 1e-300)
            spread += abs(coefficients[b]) * weights[row_of[b]] * products[b] * min(ratio - 1.0, 8.0)
        if spread > widest:
            widest, chosen = spread, g
    return chosen


@kernel
def least(
    coefficients, row_of, floors, limits, goal, value, low, high, plain, left, right, offset, best, room, any_will_do
):
    """(value, nodes): the best choice below `value` within `limits`, and how many nodes were looked at.

    At most `room` + 1 are looked at. Choices of plain members only are left out.

    Args:
        coefficients: (B,) of the terms; `row_of` their rows; `floors` (B,) the least that a product counts.
        limits: (rows,) that the rows must not exceed.
        low, high: (all tree nodes, B) of `least_below`, groups one after another from `offset[g]` on.
        plain: (all tree nodes,) all members below a node are plain.
        best: (groups,) filled with the tree leaves of the best choice.
        any_will_do: ends with the first choice below `value`.
    """
    groups, rows = offset.shape[0], limits.shape[0]
    stack, bounds = np.empty((1024, groups), np.int64), np.empty(1024)
    sums, here, child = np.empty(rows), np.empty(groups, np.int64), np.empty(groups, np.int64)
    weights, products, rest = np.empty(rows), np.empty(coefficients.shape[0]), np.empty(coefficients.shape[0])
    looked, depth = 0, 0
    for g in range(groups):
        here[g] = offset[g]
        if np.isnan(low[offset[g], 0]):
            return value, looked
    product_without(low, here, 0, rest)
    sums_of(coefficients, row_of, floors, rest, low, here[0], sums)
    bound = value_below(sums, limits, goal)
    if bound < value:
        stack[0] = here
        bounds[0] = bound
        depth = 1
    while depth > 0:
        depth -= 1
        if bounds[depth] >= value * (1.0 - TOLERANCE):
            continue
        here[:] = stack[depth]
        bound = bounds[depth]
        only_plain = True
        for g in range(groups):
            if not plain[here[g]]:
                only_plain = False
        if only_plain:
            continue
        looked += 1
        if looked > room:
            break
        product_without(low, here, 0, products)
        sums_of(coefficients, row_of, floors, products, low, here[0], sums)
        for b in range(products.shape[0]):
            products[b] *= low[here[0], b]
        for r in range(rows):
            limit = limits[r]
            weights[r] = (1.0 if r <= goal.cycle_rows else 0.3) / limit if limit < np.inf else 0.0
            if (r == 0 and goal.kind != DELAY) or (0 < r <= goal.cycle_rows and goal.kind != ENERGY):
                weights[r] = 1.0 / max(sums[r], 1e-300)
        chosen = widest_group(coefficients, row_of, weights, products, low, high, left, here)
        if chosen < 0:
            value = bound
            best[:] = here
            if any_will_do:
                break
            continue
        if depth + 2 > stack.shape[0]:
            larger, more = np.empty((2 * stack.shape[0], groups), np.int64), np.empty(2 * stack.shape[0])
            larger[: stack.shape[0]] = stack
            more[: stack.shape[0]] = bounds
            stack, bounds = larger, more
        first = depth
        child[:] = here
        product_without(low, here, chosen, rest)
        for side in range(2):
            child[chosen] = left[here[chosen]] if side == 0 else right[here[chosen]]
            if np.isnan(low[child[chosen], 0]):
                continue
            sums_of(coefficients, row_of, floors, rest, low, child[chosen], sums)
            bound = value_below(sums, limits, goal)
            if bound < value * (1.0 - TOLERANCE):
                stack[depth] = child
                bounds[depth] = bound
                depth += 1
        if depth - first == 2 and bounds[first] < bounds[first + 1]:  # the better one last: it is looked at first
            child[:] = stack[first]
            stack[first] = stack[first + 1]
            stack[first + 1] = child
            bound = bounds[first]
            bounds[first] = bounds[first + 1]
            bounds[first + 1] = bound
    return value, looked


@kernel
def undominated(table, group):
    """Flags of the rows for which no earlier row of their group is as low everywhere; groups stand together."""
    count, width = table.shape
    keep = np.ones(count, np.bool_)
    kept = np.empty(count, np.int64)
    used = 0
    for i in range(count):
        if i == 0 or group[i] != group[i - 1]:
            used = 0
        for j in range(used):
            e = kept[j]
            as_low = True
            for c in range(width):
                if table[e, c] > table[i, c]:
                    as_low = False
                    break
            if as_low:
                keep[i] = False
                if j > 0:  # rows that rule out many come first
                    kept[j], kept[j // 2] = kept[j // 2], kept[j]
                break
        if keep[i]:
            kept[used] = i
            used += 1
    return keep
