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
    """Fills a binary tree over members, split at the mean of the feature that varies most.

    Node 0 is the root, and there are 2 x members - 1. A node's members are `order[start]` up to `order[stop]`.

    Args:
        features: (features, members)
    """
    width, count = features.shape
    used = 1
    start[0], stop[0] = 0, count
    node = 0
    while node < used:
        low, high = start[node], stop[node]
        if high - low < 2:
            left[node], right[node] = -1, -1
            node += 1
            continue
        widest, f = -1.0, 0
        for feature in range(width):
            least, most = np.inf, -np.inf
            for i in range(low, high):
                x = features[feature, order[i]]
                least, most = min(least, x), max(most, x)
            if most - least > widest:
                widest, f = most - least, feature
        mean = 0.0
        for i in range(low, high):
            mean += features[f, order[i]] / (high - low)
        middle = low
        for i in range(low, high):
            if features[f, order[i]] < mean:
                order[middle], order[i] = order[i], order[middle]
                middle += 1
        if middle in (low, high):  # nothing differs but by rounding
            middle = (low + high) // 2
        left[node], right[node] = used, used + 1
        start[used], stop[used] = low, middle
        start[used + 1], stop[used + 1] = middle, high
        used += 2
        node += 1


@kernel
def least_below(table, plain, order, left, right, start, subtracted, low, high, only_plain):
    """Fills `low[node, d]` with the least (the most where `subtracted[d]`) of a column below each tree node.

    `high` is the opposite, `only_plain` whether all members are plain. `table` is (D, members).
    """
    for node in range(left.shape[0] - 1, -1, -1):
        if left[node] < 0:
            i = order[start[node]]
            for d in range(table.shape[0]):
                low[node, d] = table[d, i]
                high[node, d] = table[d, i]
            only_plain[node] = plain[i]
            continue
        x, y = left[node], right[node]
        only_plain[node] = only_plain[x] and only_plain[y]
        for d in range(table.shape[0]):
            if subtracted[d]:
                low[node, d] = max(low[x, d], low[y, d])
                high[node, d] = min(high[x, d], high[y, d])
            else:
                low[node, d] = min(low[x, d], low[y, d])
                high[node, d] = max(high[x, d], high[y, d])


class Goal(NamedTuple):
    """What is minimised: row 0 (energy), rows 1 to `cycle_rows` (cycles, of which the largest counts), or both.

    `kind` is ENERGY, ENERGY_DELAY or DELAY of `dse.mapper.kernels.labels`; `latency` cycles come to those of the rows.
    """

    kind: int
    cycle_rows: int
    latency: float


@kernel
def sums_of(coefficients, row_of, floors, rest, low, which, node, sums):
    """Fills `sums` (rows,) with the bounds of the rows: terms of `rest` (B,) times those of one more tree node.

    `which` (B,) is the column of each term in the node's group.
    """
    for r in range(sums.shape[0]):
        sums[r] = 0.0
    for b in range(coefficients.shape[0]):
        sums[row_of[b]] += coefficients[b] * max(rest[b] * low[node, which[b]], floors[b])


@kernel
def product_without(low, which, here, left_out, out):
    """Fills `out` (B,) with the products of the terms of one tree node for each group but one."""
    out[:] = 1.0
    for g in range(here.shape[0]):
        if g != left_out:
            node = here[g]
            for b in range(out.shape[0]):
                out[b] *= low[node, which[g, b]]


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
def widest_group(coefficients, row_of, weights, products, low, high, which, left, here):
    """The group whose members differ most in what is counted; -1 if each has one member only."""
    chosen, widest = -1, -1.0
    for g in range(here.shape[0]):
        node = here[g]
        if left[node] < 0:
            continue
        spread = 0.0
        for b in range(coefficients.shape[0]):
            small, large = low[node, which[g, b]], high[node, which[g, b]]
            if small == large:
                continue
            ratio = large / small if large > small else small / max(large, 1e-300)
            spread += abs(coefficients[b]) * weights[row_of[b]] * products[b] * min(ratio - 1.0, 8.0)
        if spread > widest:
            widest, chosen = spread, g
    return chosen


@kernel
def least(
    coefficients,
    row_of,
    floors,
    limits,
    goal,
    value,
    low,
    high,
    which,
    plain,
    left,
    right,
    offset,
    best,
    room,
    any_will_do,
):
    """(value, nodes): the best choice below `value` within `limits`, and how many nodes were looked at.

    At most `room` + 1 are looked at. Choices of plain members only are left out.

    Args:
        coefficients: (B,) of the terms; `row_of` their rows; `floors` (B,) the least that a product counts.
        limits: (rows,) that the rows must not exceed.
        low, high: (all tree nodes, most columns) of `least_below`, groups one after another from `offset[g]` on.
        which: (groups, B) the column of each term.
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
    product_without(low, which, here, 0, rest)
    sums_of(coefficients, row_of, floors, rest, low, which[0], here[0], sums)
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
        product_without(low, which, here, 0, products)
        sums_of(coefficients, row_of, floors, products, low, which[0], here[0], sums)
        for b in range(products.shape[0]):
            products[b] *= low[here[0], which[0, b]]
        for r in range(rows):
            limit = limits[r]
            weights[r] = (1.0 if r <= goal.cycle_rows else 0.3) / limit if limit < np.inf else 0.0
            if (r == 0 and goal.kind != DELAY) or (0 < r <= goal.cycle_rows and goal.kind != ENERGY):
                weights[r] = 1.0 / max(sums[r], 1e-300)
        chosen = widest_group(coefficients, row_of, weights, products, low, high, which, left, here)
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
        product_without(low, which, here, chosen, rest)
        for side in range(2):
            child[chosen] = left[here[chosen]] if side == 0 else right[here[chosen]]
            sums_of(coefficients, row_of, floors, rest, low, which[chosen], child[chosen], sums)
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
