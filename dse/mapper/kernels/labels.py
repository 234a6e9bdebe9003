"""Labels: lower bounds of everything inside a tile, kept in small sets (derived in docs/mapper.md).

A label bounds the cost of everything inside from below as a function of what happens further out:

    settled + sum over tensors t of g_t * (fill_t + read_t * share_t) + closed_t * share_t  +  outer leakage * idle

where g_t in (0, 1] is the reuse that the next loops outside give tensor t, share_t the multicast of fan-outs outside,
closed_t the reads whose reuse is settled but whose multicast is not, and idle the inverse of the fan-out inside.

The costs are followed, for every axis that several dimensions share, by the extent of the open tile and how far a
fan-out directly outside it spreads its children. They decide how much a sliding window can reuse. A negative extent
stands for any up to its size, and for that of compute units under a fan-out. `dse.mapper.kernels.slots` names the
places of all of these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.geometry import label_columns, least_slid, reuse_factor, widest_spread
from dse.mapper.kernels.jit import kernel
from dse.mapper.kernels.slots import (
    AXIS,
    EXTENT,
    IDLE,
    SETTLED,
    SLID,
    SPAN,
    closed_slot,
    cost_slots,
    fill_slot,
    open_cost,
    read_slot,
)

CAP = 64  # labels a tile may have; beyond it two are merged into one that is below both


ENERGY, ENERGY_DELAY, DELAY, BOUND_DELAY = 0, 1, 2, 3  # kinds of aim


class Aim(NamedTuple):
    """What is minimised, among mappings that take no more than `most_cycles` and `most_energy` (pJ).

    Where the kind is `BOUND_DELAY`, delay is minimised and energies stand for cycles that a bandwidth makes it take.
    """

    kind: int
    macs: float
    least_cycles: float = 0.0  # that every mapping takes
    most_cycles: float = np.inf
    most_energy: float = np.inf
    latency: float = 0.0  # cycles that networks add to every mapping's


@kernel
def value_of(aim, energy, idle):
    """The objective at an energy (pJ), `idle` being cycles / operations; inf where that takes too long."""
    cycles = max(idle * aim.macs, aim.least_cycles)
    if cycles > aim.most_cycles or energy > aim.most_energy:
        return np.inf
    if aim.kind == ENERGY:
        return energy
    if aim.kind == ENERGY_DELAY:
        return energy * (cycles + aim.latency)
    return max(energy, cycles) if aim.kind == BOUND_DELAY else cycles


@kernel
def copy(row, source):
    for j in range(row.shape[0]):
        row[j] = source[j]


@kernel
def insert(labels, count, new, corners):
    """Adds a label to a tile's set unless another is as low in every surrounding; returns the new count.

    A label's cost is linear in the reuse factors. At any level only some tensors are reused at once, those of a row
    of `corners`, so a label that is no higher at all corners of these faces is no higher anywhere. Where the share of
    a read is still open (a fan-out follows) all components are compared instead.
    """
    width, costs = new.shape[0], cost_slots(corners.shape[1])
    i = 0
    while i < count:
        below, above = labels[i, IDLE] <= new[IDLE], labels[i, IDLE] >= new[IDLE]
        split = False
        for t in range(corners.shape[1]):
            for j in (read_slot(t), closed_slot(t)):
                if labels[i, j] != 0.0 or new[j] != 0.0:
                    split = True
        for j in range(costs, width, AXIS):  # a larger window can be reused more, except by neighbours
            if labels[i, j + EXTENT] == new[j + EXTENT] and labels[i, j + SPAN] == new[j + SPAN]:
                continue
            if labels[i, j + SPAN] != 0.0 or new[j + SPAN] != 0.0:
                below, above = False, False
            elif abs(labels[i, j + EXTENT]) < abs(new[j + EXTENT]):
                below = False
            else:
                above = False
        if not below and not above:
            i += 1
            continue
        more, less = 0.0, 0.0  # what costs of tiles that have slid can make of the difference
        for j in range(costs, width, AXIS):
            more += max(0.0, labels[i, j + SLID] - new[j + SLID])
            less += max(0.0, new[j + SLID] - labels[i, j + SLID])
        if split:
            for j in range(costs):
                x, y = labels[i, j], new[j]
                slack = 1e-12 * (abs(x) + abs(y))
                if x + (more if j == SETTLED else 0.0) > y + slack:
                    below = False
                if y + (less if j == SETTLED else 0.0) > x + slack:
                    above = False
        else:
            for c in range(corners.shape[0]):
                x, y = labels[i, SETTLED], new[SETTLED]
                for t in range(corners.shape[1]):
                    if corners[c, t]:
                        x += labels[i, fill_slot(t)]
                        y += new[fill_slot(t)]
                slack = 1e-12 * (abs(x) + abs(y))
                if x + more > y + slack:
                    below = False
                if y + less > x + slack:
                    above = False
                if not below and not above:
                    break
        if below:
            return count
        if above:
            count -= 1
            copy(labels[i], labels[count])
        else:
            i += 1
    if count < labels.shape[0]:
        copy(labels[count], new)
        return count + 1
    merge(labels, count, new, costs)
    return count


@kernel
def merge(labels, count, new, costs):
    """Puts a label and the nearest of a full set together into one that is below both."""
    nearest, least = 0, np.inf
    for i in range(count):
        loss = abs(labels[i, SETTLED] - new[SETTLED])
        for j in range(fill_slot(0), costs):
            loss += abs(labels[i, j] - new[j])
        for j in range(costs, new.shape[0], AXIS):
            loss += abs(labels[i, j + SLID] - new[j + SLID])
        if loss < least:
            nearest, least = i, loss
    row = labels[nearest]
    for j in range(costs):
        row[j] = min(row[j], new[j])
    for j in range(costs, new.shape[0], AXIS):
        row[j + SLID] = min(row[j + SLID], new[j + SLID])
        if row[j + EXTENT] != new[j + EXTENT] or row[j + SPAN] != new[j + SPAN]:
            row[j + EXTENT] = -max(abs(row[j + EXTENT]), abs(new[j + EXTENT]))
            row[j + SPAN] = max(row[j + SPAN], new[j + SPAN])


@kernel
def settle(label, t, least_share):
    """Where no fan-out follows before the parent, reads are shared by no more and need no place of their own."""
    if least_share == 1.0:
        label[SETTLED] += label[closed_slot(t)]
        label[fill_slot(t)] += label[read_slot(t)]
        label[read_slot(t)] = 0.0
        label[closed_slot(t)] = 0.0


@kernel
def close_unserved(label, t, fraction):
    """Closes the reads that compute units make in every step, whatever the loops outside are: no neighbour has them."""
    label[closed_slot(t)] += fraction * label[read_slot(t)]
    label[read_slot(t)] -= fraction * label[read_slot(t)]


@kernel
def least_value(grid, labels, start, stop, around, share, leak, fixed, idle, aim):
    """The least objective that labels `start` to `stop` allow in a given surrounding.

    `fixed` is the energy of what lies outside, `leak` its leakage in pJ per unit of idleness, `idle` the inverse of
    the fan-outs outside.
    """
    best = np.inf
    for m in range(start, stop):
        label = labels[m]
        cost = fixed + label[SETTLED] + leak * label[IDLE]
        for t in range(share.shape[0]):
            pj = open_cost(label, t, share[t])
            if pj > 0.0:
                cost += pj * reuse_factor(label, around.run[t], around.windows[t], around.counts[t], around.direct[t])
            cost += label[closed_slot(t)] * share[t]
            for a in range(grid.axis_column.shape[1]):
                if grid.axis_column[t, a] >= 0:
                    cost += label[grid.axis_column[t, a] + SLID] * around.slid[t, a]
        best = min(best, value_of(aim, cost, label[IDLE] * idle))
    return best


@kernel
def window_floor(grid, tile, t, d, label, linkable):
    """A fraction below which no loop over `d` that slides a tensor's tile can bring its accesses."""
    a = grid.axis_of[t, d]
    step = grid.coefficient[t, a, d] * grid.value[tile, d]
    column = grid.axis_column[t, a]
    extent, span = abs(label[column + EXTENT]), label[column + SPAN]
    least = min(1.0, step / extent) if extent > 0.0 else 1.0
    if linkable:
        whole = 1
        for e in range(grid.bounds.shape[0]):
            whole += grid.coefficient[t, a, e] * (grid.bounds[e] - 1)
        least *= step / (whole + step - 1.0)
    elif span >= step:
        least *= step / (span + step)
    begin, end = label_columns(grid, t)
    if linkable or label[column + EXTENT] < 0.0 or widest_spread(label, begin, end) > 0.0:
        return 0.5 * least
    for e in range(grid.bounds.shape[0]):
        if e != d and grid.axis_of[t, e] == a and grid.value[tile, e] < grid.bounds[e]:
            return 0.5 * least
    return least


@kernel
def floor_of(grid, tile, label, share, linkable):
    """The least that a label can cost in any surrounding: one loop comes first outside, and who it moves must pay."""
    dims, tensors = grid.bounds.shape[0], share.shape[0]
    cost = label[SETTLED]
    for t in range(tensors):
        cost += label[closed_slot(t)] * share[t]
    least = np.inf
    for first in range(dims):
        if grid.value[tile, first] == grid.bounds[first]:
            continue
        here = 0.0
        for t in range(tensors):
            for a in range(grid.axis_column.shape[1]):
                column = grid.axis_column[t, a]
                if column >= 0 and label[column + SLID] > 0.0:
                    least_left = least_slid(grid, tile, t, a)
                    if not grid.relevant[t, first]:
                        least_left = 0.5 + 0.5 * least_left  # one in two steps is this loop's, or more
                    elif grid.axis_of[t, first] != a:
                        least_left = 1.0
                    here += label[column + SLID] * least_left
            pj = open_cost(label, t, share[t])
            if pj <= 0.0:
                continue
            if grid.relevant[t, first]:
                if grid.axis_of[t, first] >= 0:
                    pj *= window_floor(grid, tile, t, first, label, linkable[t])
            else:
                run, slide = 1.0, 1.0
                for d in range(dims):
                    if not grid.relevant[t, d]:
                        run *= grid.bounds[d] // grid.value[tile, d]
                    elif grid.axis_of[t, d] >= 0 and grid.value[tile, d] < grid.bounds[d]:
                        slide = min(slide, window_floor(grid, tile, t, d, label, linkable[t]))
                pj *= slide / run
            here += pj
        least = min(least, here)
    if least == np.inf:  # nothing is left outside
        least = 0.0
        for t in range(tensors):
            least += open_cost(label, t, share[t])
            for a in range(grid.axis_column.shape[1]):
                if grid.axis_column[t, a] >= 0:
                    least += label[grid.axis_column[t, a] + SLID]
    return cost + least


@kernel
def floors_of(grid, labels, offsets, share, linkable, out):
    """`floor_of` of every label."""
    for tile in range(offsets.shape[0] - 1):
        for m in range(offsets[tile], offsets[tile + 1]):
            out[m] = floor_of(grid, tile, labels[m], share, linkable)


@kernel
def values_of(aim, floors, beyond, labels, idle_beyond, out):
    """The least objective that each label can lead to."""
    for m in range(floors.shape[0]):
        out[m] = value_of(aim, floors[m] + beyond, labels[m, IDLE] * idle_beyond)


@kernel
def grown(rows, used):
    """`rows` with room for at least one more than `used` label sets."""
    if used < rows.shape[0]:
        return rows
    larger = np.empty((2 * rows.shape[0], rows.shape[1], rows.shape[2]))
    for i in range(used):
        for j in range(rows.shape[1]):
            copy(larger[i, j], rows[i, j])
    return larger


@kernel
def packed(rows, row_of, counts):
    """The label sets of all tiles one after the other, and where each tile's begin."""
    tiles = row_of.shape[0]
    offsets = np.zeros(tiles + 1, np.int64)
    for at in range(tiles):
        offsets[at + 1] = offsets[at] + (counts[row_of[at]] if row_of[at] >= 0 else 0)
    labels = np.empty((offsets[tiles], rows.shape[2]))
    for at in range(tiles):
        for m in range(offsets[at + 1] - offsets[at]):
            copy(labels[offsets[at] + m], rows[row_of[at], m])
    return labels, offsets
