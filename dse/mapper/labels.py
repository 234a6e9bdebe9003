"""Labels: lower bounds of everything inside a tile, kept in small sets (derived in docs/mapper.md).

A label bounds the cost of everything inside from
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

from dse.mapper.jit import kernel
from dse.mapper.reuse import reuse_factor

CAP = 64  # labels a tile may have; beyond it two are merged into one that is below both


@kernel
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


@kernel
def settle(label, t, least_share):
    """Where no fan-out follows before the parent, reads are shared by no more and need no place of their own."""
    if least_share == 1.0:
        label[0] += label[4 + 3 * t]
        label[2 + 3 * t] += label[3 + 3 * t]
        label[3 + 3 * t] = 0.0
        label[4 + 3 * t] = 0.0


@kernel
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


@kernel
def grown(rows, used):
    """`rows` with room for at least one more than `used` label sets."""
    if used < rows.shape[0]:
        return rows
    larger = np.empty((2 * rows.shape[0], rows.shape[1], rows.shape[2]))
    larger[:used] = rows
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
        if row_of[at] >= 0:
            labels[offsets[at] : offsets[at + 1]] = rows[row_of[at], : counts[row_of[at]]]
    return labels, offsets
