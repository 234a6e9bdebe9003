"""The least of a sum of products over one choice for each group, under sums of products that have limits.

    value(choice) = sum over terms b of row 0:  c[b] * product over groups g of column[g, choice[g], b]
    for every other row:  sum of its terms <= limit of the row

The members of a group stand in a binary tree in which neighbours are similar. A node of the search is one tree node
for each group; with the least of every column below these nodes (the most, where c[b] < 0) each row gives a bound.
Nodes that cannot stay below a row's limit are dropped, the others are split at the group that leaves most open. Of the
trees only what the search comes to is made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dse.mapper.kernels.jit import kernel
from dse.mapper.kernels.labels import DELAY, ENERGY, ENERGY_DELAY, copy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

TOLERANCE = 1e-9  # relative: values that differ by less are equal
ROUNDING = 1e-12  # relative: sums of the same numbers in another order
ENOUGH = 0.9  # another round of leaving out members has to reduce what is left to this share


class Goal(NamedTuple):
    """What is minimised: row 0 (energy), rows 1 to `cycle_rows` (cycles, of which the largest counts), or both.

    `kind` is ENERGY, ENERGY_DELAY or DELAY of `dse.mapper.kernels.labels`; `latency` cycles come to those of the rows.
    """

    kind: int
    cycle_rows: int
    latency: float


class Trees(NamedTuple):
    """A binary tree over the members of each group, of which only the nodes that a search has split are there.

    Members of the groups stand one after another. The root of group g is node g; other nodes come in pairs, as they are
    made; `used[0]` are there.

    Attributes:
        table: (members, columns) of each group its own columns, up to `width[g]` of them.
        plain: (members,)
        which: (groups, B) the column of each term.
        weights: (groups, columns) how much it counts that a column is twice its least in the group; filled by `weigh`.
        subtracted: (groups, columns) more is better.
        order: (members,) a node's are `order[start]` up to `order[stop]`.
        left: (nodes,) the first of the two nodes below; 0 where a node has not been split.
        low, high: (nodes, columns) the least and most of a column below a node, the other way where it is subtracted.
        only_plain: (nodes,) all members are.
    """

    table: Floats
    plain: Flags
    which: Ints
    weights: Floats
    subtracted: Flags
    width: Ints
    order: Ints
    start: Ints
    stop: Ints
    left: Ints
    low: Floats
    high: Floats
    only_plain: Flags
    used: Ints


@kernel
def look_below(trees, g, node):
    """Fills what is known of a node of group `g` from its members."""
    low, high, width = trees.low[node], trees.high[node], trees.width[g]
    low[:] = np.inf
    high[:] = -np.inf
    only_plain = True
    for i in range(trees.start[node], trees.stop[node]):
        member = trees.order[i]
        only_plain &= trees.plain[member]
        for d in range(width):
            x = trees.table[member, d]
            low[d] = x if x < low[d] else low[d]
            high[d] = x if x > high[d] else high[d]
    trees.only_plain[node] = only_plain
    for d in range(width):
        if trees.subtracted[g, d]:
            low[d], high[d] = high[d], low[d]


@kernel
def feature(trees, g, d, x):
    """How much more a number of column `d` counts than the least of its group."""
    least = min(trees.low[g, d], trees.high[g, d])  # of the root
    return trees.weights[g, d] * (x / max(least, 1e-300) - 1.0)


@kernel
def split(trees, g, node):
    """Makes the nodes below a node of several members: its column that varies most is split at the mean."""
    low, high = trees.start[node], trees.stop[node]
    widest, f = -1.0, 0
    for d in range(trees.width[g]):
        spread = abs(feature(trees, g, d, trees.high[node, d]) - feature(trees, g, d, trees.low[node, d]))
        if spread > widest:
            widest, f = spread, d
    order, table = trees.order, trees.table
    mean = 0.0
    for i in range(low, high):
        mean += feature(trees, g, f, table[order[i], f]) / (high - low)
    middle = low
    for i in range(low, high):
        if feature(trees, g, f, table[order[i], f]) < mean:
            order[middle], order[i] = order[i], order[middle]
            middle += 1
    if middle in (low, high):  # nothing differs but by rounding
        middle = (low + high) // 2
    left = trees.used[0]
    trees.used[0] += 2
    trees.left[node] = left
    for child in range(left, left + 2):
        trees.left[child] = 0
        trees.start[child] = low if child == left else middle
        trees.stop[child] = middle if child == left else high
        look_below(trees, g, child)


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
        if sums[r] > limits[r] * (1.0 + ROUNDING):
            return np.inf
    if goal.kind == ENERGY:
        return sums[0]
    cycles = 0.0
    for r in range(1, 1 + goal.cycle_rows):
        cycles = max(cycles, sums[r])
    cycles += goal.latency
    return sums[0] * cycles if goal.kind == ENERGY_DELAY else cycles


@kernel
def restrict(coefficients, row_of, floors, limits, goal, value, trees):
    """Leaves out members that no choice of the others makes better than `value`; False if no choice is left.

    Arguments are those of `least`. Another round is made while one leaves fewer than `ENOUGH` of the members.
    """
    groups = trees.which.shape[0]
    rest, sums = np.empty(coefficients.shape[0]), np.empty(limits.shape[0])
    here = np.arange(groups)
    left = trees.order.shape[0]
    while True:
        before, left = left, 0
        for g in range(groups):
            look_below(trees, g, g)
        for g in range(groups):
            product_without(trees.low, trees.which, here, g, rest)
            kept = trees.start[g]
            for i in range(trees.start[g], trees.stop[g]):
                member = trees.order[i]
                sums_of(coefficients, row_of, floors, rest, trees.table, trees.which[g], member, sums)
                if value_below(sums, limits, goal) * (1.0 - ROUNDING) < value:
                    trees.order[kept] = member
                    kept += 1
            trees.stop[g] = kept
            if kept == trees.start[g]:
                return False
            left += kept - trees.start[g]
        if left >= ENOUGH * before:  # equal where there is nothing to leave out
            return True


@kernel
def weigh(coefficients, row_of, floors, limits, goal, trees):
    """Fills the weights: how much of the objective, or of what a limit allows, a column is where all is least."""
    groups, rows = trees.which.shape[0], limits.shape[0]
    products, sums = np.empty(coefficients.shape[0]), np.zeros(rows)
    product_without(trees.low, trees.which, np.arange(groups), -1, products)
    for b in range(products.shape[0]):
        sums[row_of[b]] += coefficients[b] * max(products[b], floors[b])
    trees.weights[:] = 0.0
    for b in range(products.shape[0]):
        r = row_of[b]
        if (r == 0 and goal.kind != DELAY) or (0 < r <= goal.cycle_rows and goal.kind != ENERGY):
            weight = 1.0 / max(sums[r], 1e-30)
        else:
            weight = (1.0 if r <= goal.cycle_rows else 0.3) / limits[r]
        for g in range(groups):
            trees.weights[g, trees.which[g, b]] += abs(coefficients[b]) * products[b] * weight


@kernel
def widest_group(coefficients, row_of, weights, products, trees, here):
    """The group whose members differ most in what is counted; -1 if each has one member only."""
    low, high, which = trees.low, trees.high, trees.which
    chosen, widest = -1, -1.0
    for g in range(here.shape[0]):
        node = here[g]
        if trees.stop[node] - trees.start[node] == 1:
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
def least(coefficients, row_of, floors, limits, goal, value, trees, best, room, any_will_do):
    """(value, nodes): the best choice below `value` within `limits`, and how many nodes were looked at.

    At most `room` + 1 are looked at. Choices of plain members only are left out.

    Args:
        coefficients: (B,) of the terms; `row_of` their rows; `floors` (B,) the least that a product counts.
        limits: (rows,) that the rows must not exceed.
        trees: over the members, of which no node but the roots is there; they grow.
        best: (groups,) filled with the members of the best choice.
        any_will_do: ends with the first choice below `value`.
    """
    groups, rows = best.shape[0], limits.shape[0]
    low, which = trees.low, trees.which
    stack, bounds = np.empty((1024, groups), np.int64), np.empty(1024)
    sums, here, child = np.empty(rows), np.empty(groups, np.int64), np.empty(groups, np.int64)
    weights, products, rest = np.empty(rows), np.empty(coefficients.shape[0]), np.empty(coefficients.shape[0])
    looked, depth = 0, 0
    for g in range(groups):
        here[g] = g
        look_below(trees, g, g)
    weigh(coefficients, row_of, floors, limits, goal, trees)
    product_without(low, which, here, 0, rest)
    sums_of(coefficients, row_of, floors, rest, low, which[0], here[0], sums)
    bound = value_below(sums, limits, goal)
    if bound < value:
        copy(stack[0], here)
        bounds[0] = bound
        depth = 1
    while depth > 0:
        depth -= 1
        if bounds[depth] >= value * (1.0 - TOLERANCE):
            continue
        copy(here, stack[depth])
        bound = bounds[depth]
        only_plain = True
        for g in range(groups):
            if not trees.only_plain[here[g]]:
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
        chosen = widest_group(coefficients, row_of, weights, products, trees, here)
        if chosen < 0:
            value = bound
            for g in range(groups):
                best[g] = trees.order[trees.start[here[g]]]
            if any_will_do:
                break
            continue
        if depth + 2 > stack.shape[0]:
            larger, more = np.empty((2 * stack.shape[0], groups), np.int64), np.empty(2 * stack.shape[0])
            for i in range(depth):
                copy(larger[i], stack[i])
                more[i] = bounds[i]
            stack, bounds = larger, more
        if trees.left[here[chosen]] == 0:
            split(trees, chosen, here[chosen])
        first = depth
        copy(child, here)
        product_without(low, which, here, chosen, rest)
        for side in range(2):
            child[chosen] = trees.left[here[chosen]] + side
            sums_of(coefficients, row_of, floors, rest, low, which[chosen], child[chosen], sums)
            bound = value_below(sums, limits, goal)
            if bound < value * (1.0 - TOLERANCE):
                copy(stack[depth], child)
                bounds[depth] = bound
                depth += 1
        if depth - first == 2 and bounds[first] < bounds[first + 1]:  # the better one last: it is looked at first
            copy(child, stack[first])
            copy(stack[first], stack[first + 1])
            copy(stack[first + 1], child)
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
