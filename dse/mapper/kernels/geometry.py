"""Tiles of tensors and how the loops outside a tile reuse them: the geometry below the bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.jit import compiled, kernel
from dse.mapper.kernels.slots import (
    AXIS,
    COLUMN,
    END_COLUMN,
    EXTENT,
    FIRST_COLUMN,
    ITERATIONS,
    LEAST,
    SAME,
    SERVED,
    SLOPE,
    SPAN,
    STEP,
    WINDOW,
    WITHIN,
    Flags,
    Floats,
    Ints,
    open_cost,
)
from dse.model import formulas

axis_extent = compiled(formulas.axis_extent)


class Grid(NamedTuple):
    """All tiles of a layer, as kernels see them: tiles by number, dimensions above size 1, tensors."""

    bounds: Ints  # (D,)
    value: Ints  # (tiles, D)
    position: Ints  # (tiles, D) position of value among the divisors of its dimension
    strides: Ints  # (D,) of the mixed-radix number of a tile
    divisors: Ints  # (D, max count), padded with 0
    quotient: Ints  # (D, max count, max count): position of the quotient of two divisors, -1 if it is none
    counts: Ints  # (D,) number of divisors
    coefficient: Ints  # (T, A, D) of the tensors' axes
    relevant: Flags  # (T, D) dimensions whose loops move a tensor; none for tensors that bounds know little of
    axis_of: Ints  # (T, D) the axis that a dimension shares with others, -1 if its axis is its own
    axis_column: Ints  # (T, A) where a label holds extent and span of a shared axis, -1 for other axes
    words: Floats  # (tiles, T) words that all instances of a tile fetch if the loops outside reuse nothing


class Order(NamedTuple):
    """What is fixed about the order of a level's loops, innermost first; lists are padded with -1."""

    inner: Ints  # (D,) dimensions fixed innermost
    outer: Ints  # (D,) dimensions fixed outermost
    free: Flags  # (D,) dimensions whose place is open
    outward: Flags  # (D,) innermost only alone: such a loop does at least as well outside the others


class Around(NamedTuple):
    """How the loops outside reuse each tensor: repetitions of a tile, then windows that may slide it."""

    run: Floats  # (T,)
    windows: Floats  # (T, D, WINDOW)
    counts: Ints  # (T,) number of windows
    direct: Flags  # (T,) no repetition lies between tile and window
    slid: Floats  # (T, A) least fraction of the steps of tiles that have slid along an axis that need the whole tile


@kernel
def nowhere(tensors, dims, axes):
    """The surrounding of the outermost tile: nothing is reused."""
    return Around(
        np.ones(tensors), np.zeros((tensors, dims, WINDOW)), np.zeros(tensors, np.int64), np.zeros(tensors, np.bool_),
        np.ones((tensors, axes)),
    )  # fmt: skip


@kernel
def extent_of(grid, tile, t, a):
    return axis_extent(grid.coefficient[t, a], grid.value[tile])


@kernel
def distinct_boxes(grid, tile, factors, t):
    """How many of the boxes of a fan-out's children differ."""
    total = 1
    dims = grid.bounds.shape[0]
    for a in range(grid.coefficient.shape[1]):
        several, product, span = 0, 1, 0
        for d in range(dims):
            if grid.coefficient[t, a, d] > 0 and factors[d] > 1:
                several += 1
                product *= factors[d]
                span += grid.coefficient[t, a, d] * grid.value[tile, d] * (factors[d] - 1)
        if several < 2:
            total *= product
            continue
        taken = np.zeros(span + 1, np.bool_)
        taken[0] = True
        reach = 0
        for d in range(dims):
            if grid.coefficient[t, a, d] > 0 and factors[d] > 1:
                step = grid.coefficient[t, a, d] * grid.value[tile, d]
                for i in range(reach, -1, -1):
                    if taken[i]:
                        for k in range(1, factors[d]):
                            taken[i + k * step] = True
                reach += step * (factors[d] - 1)
        unique = 0
        for i in range(span + 1):
            if taken[i]:
                unique += 1
        total *= unique
    return total


@kernel
def spread(grid, tile, factors, t, a):
    """Distance along an axis between the boxes of a fan-out's first and last child."""
    span = 0
    for d in range(grid.bounds.shape[0]):
        span += grid.coefficient[t, a, d] * grid.value[tile, d] * (factors[d] - 1)
    return span


@kernel
def set_spans(grid, tile, factors, linked, label):
    """Writes into a label how far a fan-out spreads the tiles of open tensors that neighbours may pass on."""
    for t in range(linked.shape[0]):
        if linked[t] and open_cost(label, t, 1.0) > 0.0:
            for a in range(grid.axis_column.shape[1]):
                column = grid.axis_column[t, a]
                if column >= 0:
                    label[column + SPAN] = spread(grid, tile, factors, t, a)


@kernel
def sharing(grid, factors, t):
    """How many children of a fan-out hold the same words of a tensor because its factors do not move it."""
    children = 1.0
    for d in range(grid.bounds.shape[0]):
        if not grid.relevant[t, d]:
            children *= factors[d]
    return children


@kernel
def duplicates(grid, below, factors, t):
    """How many times over the children of a fan-out hold a tensor's words, at least 1: `below` is the tile of a child.

    Children of an output's overlapping windows hold words in common, each of which is written first by each of them.
    """
    children, several = 1.0, 1.0
    for d in range(grid.bounds.shape[0]):
        children *= factors[d]
    for a in range(grid.coefficient.shape[1]):
        extent = extent_of(grid, below, t, a)
        several *= (extent + spread(grid, below, factors, t, a)) / extent
    return max(1.0, children / several)


@kernel
def fan_shares(grid, tile, factors, scaled, alone, shares):
    """Fills `shares` with the least fraction of the children's reads of each tensor that reaches the parent.

    It is exact but for tensors that `scaled` marks: their children do not keep them, and Timeloop takes the fraction
    among those children only whom no neighbour serves. Of tensors in `alone` no child shares.
    """
    product = 1
    for d in range(grid.bounds.shape[0]):
        product *= factors[d]
    for t in range(grid.relevant.shape[0]):
        if alone[t]:
            shares[t] = 1.0
        elif scaled[t]:
            shares[t] = 1.0 / most_alike(grid, factors, t)
        else:
            shares[t] = distinct_boxes(grid, tile, factors, t) / product


@kernel
def most_alike(grid, factors, t):
    """How many children of a fan-out can need the same box of a tensor."""
    alike = sharing(grid, factors, t)
    for a in range(grid.axis_column.shape[1]):
        along, largest = 1, 1
        for d in range(grid.bounds.shape[0]):
            if grid.axis_of[t, d] == a:
                along *= factors[d]
                largest = max(largest, factors[d])
        alike *= along // largest
    return alike


@kernel
def label_columns(grid, t):
    """Where the shared axes of a tensor begin and end in a label."""
    begin, end = 0, 0
    for a in range(grid.axis_column.shape[1]):
        if grid.axis_column[t, a] >= 0:
            begin = grid.axis_column[t, a] if end == 0 else begin
            end = grid.axis_column[t, a] + AXIS
    return begin, end


@kernel
def widest_spread(label, begin, end):
    """The farthest that a fan-out directly outside spreads its children along any axis of a tensor."""
    widest = 0.0
    for column in range(begin, end, AXIS):
        widest = max(widest, label[column + SPAN])
    return widest


@kernel
def reaches(stride, wanted, outside):
    """Whether the first temporal loop of a dimension can have a stride: fan-outs before it multiply the least one."""
    return wanted % stride == 0 and outside % (wanted // stride) == 0


@kernel
def window(grid, t, r, below, factors, row):
    """What decides the reuse of a sliding window if the first loop a tensor sees is that over `r` of a level.

    Fills `row`, whose entries `dse.mapper.kernels.slots` names.

    Such a step moves the window by its own stride less those of the loops that rewind, r's included. It needs nothing
    if that is 0 and a slab if it is the window's step. The strides of the loops beyond r have a common divisor, so
    either is out of reach unless this divides the step, or twice the step (docs/mapper.md).
    """
    a, n = grid.axis_of[t, r], factors[r]
    step = grid.coefficient[t, a, r] * grid.value[below, r]
    extent = extent_of(grid, below, t, a)
    dims = grid.bounds.shape[0]
    broken = False  # another axis moves at this level: loops further out do not continue along this one
    for d in range(dims):
        if factors[d] > 1 and grid.relevant[t, d] and grid.axis_of[t, d] != a:
            broken = True
    same, passed, near, divisor = 1.0, 1.0, 1.0, 0
    zero, twice = False, False
    for d in range(dims):
        if not grid.relevant[t, d]:  # it takes the window back, perhaps to where a neighbour's was
            passed *= grid.bounds[d] // grid.value[below, d]
            continue
        b = grid.axis_of[t, d]
        if b < 0:
            continue
        stride = grid.coefficient[t, b, d] * grid.value[below, d]
        outside = grid.bounds[d] // grid.value[below, d]
        within = 1 if d == r else factors[d]
        if d == r:
            outside //= n
            stride *= n
        if outside <= 1:
            continue
        if b == a:
            passes = d != r or n == 2 or stride - step <= extent - 1
            near *= within
            if not broken or within > 1:
                same *= within if broken else outside
                zero = zero or reaches(stride, step, outside)
                twice = twice or reaches(stride, 2 * step, outside)
                divisor = np.gcd(divisor, stride)
        else:
            passes = stride <= extent_of(grid, below, t, b) - 1
            for e in range(dims):  # two dimensions of an axis can take each other's step back
                if e != d and grid.axis_of[t, e] == b and grid.value[below, e] < grid.bounds[e]:
                    passes = True
        if passes:
            passed *= outside
    row[ITERATIONS], row[STEP], row[COLUMN] = n, step, grid.axis_column[t, a]
    row[SAME], row[SERVED], row[WITHIN] = same, passed, 0.0 if broken else near
    row[FIRST_COLUMN], row[END_COLUMN] = label_columns(grid, t)
    row[LEAST], row[SLOPE] = 0.0, 0.0
    if divisor == 0 or 2 * step % divisor != 0:
        row[LEAST] = 1.0
    elif not zero and twice:
        row[SLOPE] = 0.5 if step % divisor == 0 else 1.0
    elif not zero:
        row[LEAST] = 0.5  # the first of them needs everything, and makes half of the steps or more


@kernel
def reuse_factor(label, run, windows, count, direct):
    """Least fraction g of its accesses that a tensor needs: repeated tiles, sliding windows and neighbours at best.

    Neighbours compare what they need with what the step before needed: nothing after a repetition, except at compute
    units (whose extent is negative), and only windows that do not overlap need the same at every step. Loops that
    cancel along the window's axis may leave a step along another one, where neighbours have it.
    """
    best = 1.0
    for i in range(count):
        n, slab, same, other, _ = steps_of(label, windows[i], direct)
        best = min(best, ((n - 1.0) * slab + 1.0 / same + (1.0 - 1.0 / same) * other) / n)
    return best / run


@kernel
def steps_of(label, row, direct):
    """(n, slab, same, other, open): of n steps n - 1 need `slab`; of those further out 1 / same everything, or `other`.

    `open`: loops of levels further out decide `same` too.
    """
    n, step, column = row[ITERATIONS], row[STEP], int(row[COLUMN])
    extent, span = abs(label[column + EXTENT]), label[column + SPAN]
    slab = min(1.0, step / extent) if extent > 0.0 else 1.0
    apart = slab == 1.0 or label[column + EXTENT] < 0.0
    near = direct or label[column + EXTENT] < 0.0
    if near and span >= step:  # all but the last of each chain of children this far apart have a neighbour
        slab *= step / (span + step)
    same, other = row[SAME], row[LEAST] + row[SLOPE] * slab
    widest = widest_spread(label, int(row[FIRST_COLUMN]), int(row[END_COLUMN]))
    if near and apart and widest > 0.0:
        free = label[column + EXTENT] < 0.0 or other == 0.0
        return n, slab, row[SERVED], 0.0 if free else min(slab, 1.0 / (widest + 1.0)), False
    return n, slab, same, other, 0.0 < row[WITHIN] < same


@kernel
def reuse_parts(label, run, windows, count, direct):
    """`reuse_factor` as (what is known, what levels further out multiply by the fraction that `slides_on` leaves)."""
    if count == 1:
        n, slab, _, other, later = steps_of(label, windows[0], direct)
        if later:
            return ((n - 1.0) * slab + other) / (n * run), (1.0 - other) / (n * run * windows[0, WITHIN])
    return reuse_factor(label, run, windows, count, direct), 0.0


@kernel
def slides_on(grid, t, a, first, below, factors, slider, goes_on):
    """(at once, later): what a level's loops, `first` innermost, leave of the cost of tiles that slid along axis `a`.

    A step needs the whole tile unless its loop is along the axis and lies before the first along another one. So of
    the visits that remain, those of a loop that does not move the tensor pay at once; loops along the axis divide
    what the loops further out repeat. Loops of a kind stand for each other, hence the fewest iterations of them.
    """
    if grid.relevant[t, first] and grid.axis_of[t, first] != a:
        return 1.0, 0.0
    within, fewest, ends, more = 1.0, np.inf, False, False
    for d in range(grid.bounds.shape[0]):
        if not grid.relevant[t, d]:
            if factors[d] > 1:
                fewest = min(fewest, float(factors[d]))
        elif grid.axis_of[t, d] == a:
            if t != slider or goes_on or d == first:
                within *= factors[d]
            if grid.value[below, d] * factors[d] < grid.bounds[d]:
                more = True
        elif factors[d] > 1:
            ends = True
    known, later = 0.0, 1.0 / within
    if not grid.relevant[t, first]:
        known = 1.0 - 1.0 / fewest
        later /= fewest
    if ends or not more:
        return known + later, 0.0
    return known, later


@kernel
def least_slid(grid, tile, t, a):
    """The least fraction that all loops outside a tile leave of the cost of tiles that slid along an axis."""
    least = 1.0
    for d in range(grid.bounds.shape[0]):
        if grid.axis_of[t, d] == a:
            least *= grid.value[tile, d] / grid.bounds[d]
    return least


@kernel
def splits(grid, order, first, factors):
    """A tensor whose windows loop `first` slides and for which it matters what comes next, -1 if there is none.

    If a loop along the same axis comes next, tensors that it moves are not reused by loops that end the slide; if one
    along another axis does, the window needs everything at every step of loops further out.
    """
    for d in range(factors.shape[0]):
        if factors[d] > 1 and not order.free[d]:
            return -1
    for t in range(grid.relevant.shape[0]):
        a = grid.axis_of[t, first]
        if a >= 0:
            goes_on, ends = False, False
            for d in range(factors.shape[0]):
                if factors[d] > 1 and d != first and grid.relevant[t, d]:
                    if grid.axis_of[t, d] == a:
                        goes_on = True
                    else:
                        ends = True
            if goes_on and ends:
                return t
    return -1


@kernel
def interrupts(grid, t, slider, first, factors):
    """Whether every loop that continues the slide of tensor `slider` moves tensor `t`."""
    for d in range(factors.shape[0]):
        goes_on = factors[d] > 1 and d != first and grid.axis_of[slider, d] == grid.axis_of[slider, first]
        if goes_on and not grid.relevant[t, d]:
            return False
    return True


@kernel
def surround(grid, order, t, first, below, factors, slider, goes_on, windows):
    """(run, number of windows, direct, closed): how a level whose innermost loop is `first` reuses a tensor.

    `run` repetitions of the same tile come first, then one of the loops in `windows` slides it if there are any.
    Order constraints are honoured; where the order is open the tensor gets the best one that starts with `first`.
    Where `slider` is a tensor, as `splits` finds it, `goes_on` says whether its slide does before it ends.
    """
    if grid.relevant[t, first]:
        if grid.axis_of[t, first] < 0:
            return 1.0, 0, True, True
        window(grid, t, first, below, factors, windows[0])
        if t == slider and not goes_on:
            windows[0, SAME] = 1.0
        return 1.0, 1, True, True
    dims = grid.bounds.shape[0]
    run = 1.0
    short = slider >= 0 and goes_on and interrupts(grid, t, slider, first, factors)
    for part in range(3):
        count, moving = 0, False
        for i in range(dims):
            d = i
            if part == 1:
                if not order.free[d]:
                    continue
            else:
                d = order.inner[i] if part == 0 else order.outer[i]
                if d < 0:
                    break
            if factors[d] <= 1:
                continue
            if not grid.relevant[t, d]:
                if short and d != first and grid.relevant[slider, d]:
                    continue  # it would end the slide
                if part == 1 or not moving:
                    run *= factors[d]
            elif part == 1 or not moving:
                moving = True
                if grid.axis_of[t, d] >= 0:
                    window(grid, t, d, below, factors, windows[count])
                    count += 1
        if moving:
            return run, count, False, True
    return run, 0, False, False


@kernel
def first_loops(grid, order, factors, out):
    """Fills `out` with the loops that may be innermost, one of each kind that the tensors can tell apart."""
    dims = factors.shape[0]
    for i in range(dims):
        d = order.inner[i]
        if d < 0:
            break
        if factors[d] > 1:
            out[0] = d
            return 1
    count, any_free, last = 0, False, -1
    for d in range(dims):
        if not order.free[d] or factors[d] <= 1:
            continue
        any_free = True
        if order.outward[d]:
            last = d
        if order.outward[d]:
            continue
        known = False
        for i in range(count):
            e = out[i]
            same = True
            for t in range(grid.relevant.shape[0]):
                if grid.relevant[t, d] != grid.relevant[t, e] or grid.axis_of[t, d] >= 0 or grid.axis_of[t, e] >= 0:
                    same = False
                    break
            if same:
                known = True
                break
        if not known:
            out[count] = d
            count += 1
    if count == 0 and last >= 0:
        out[0] = last
        return 1
    if any_free:
        return count
    for i in range(dims):
        d = order.outer[i]
        if d < 0:
            break
        if factors[d] > 1:
            out[0] = d
            return 1
    return 0


@kernel
def enter(grid, order, first, below, factors, slider, goes_on, outside, inside):
    """The surrounding inside a level, from that outside it and the level's loops, of which `first` is innermost."""
    for t in range(outside.run.shape[0]):
        run, count, near, closed = surround(grid, order, t, first, below, factors, slider, goes_on, inside.windows[t])
        inside.run[t], inside.counts[t], inside.direct[t] = run, count, near
        for a in range(grid.axis_column.shape[1]):
            if grid.axis_column[t, a] >= 0:
                known, later = slides_on(grid, t, a, first, below, factors, slider, goes_on)
                inside.slid[t, a] = known + later * outside.slid[t, a]
                for i in range(count):  # the loops outside are known here
                    row = inside.windows[t, i]
                    if row[COLUMN] == grid.axis_column[t, a] and row[WITHIN] > 0.0:
                        row[SAME] = min(row[SAME], row[WITHIN] / outside.slid[t, a])
        if not closed:
            inside.run[t] = run * outside.run[t]
            inside.counts[t] = outside.counts[t]
            for i in range(outside.counts[t]):
                for j in range(WINDOW):
                    inside.windows[t, i, j] = outside.windows[t, i, j]


@kernel
def tile_inside(grid, tile, choice, factors):
    """The tile inside a fan-out whose factors are at the divisor positions `choice`; -1 if they do not divide it."""
    below = 0
    for d in range(grid.bounds.shape[0]):
        factors[d] = grid.divisors[d, choice[d]]
        rest = grid.quotient[d, grid.position[tile, d], choice[d]]
        if rest < 0:
            return -1
        below += rest * grid.strides[d]
    return below
