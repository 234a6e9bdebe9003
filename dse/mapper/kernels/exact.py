"""The access model of `dse.model` on flat arrays, fast enough to try every order of a near-optimal tiling.

Its formulas are those of `dse.model.formulas`, compiled. What stands here again is how counts are kept: multicast
groups in sorted rows instead of dictionaries, the offset of a child as one number, and all levels and tensors in one
nest of loops. `tests/dse/mapper` holds the two against each other.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.geometry import axis_extent
from dse.mapper.kernels.jit import compiled, kernel
from dse.mapper.kernels.labels import copy
from dse.mapper.kernels.slots import (
    ACCESSES,
    BOXES,
    DIMENSION,
    FACTOR,
    LEVEL,
    MULTICAST,
    READ_LIMIT,
    SHARED_LIMIT,
    SPATIAL,
    WORDS,
    WRITE_LIMIT,
    Flags,
    Floats,
    Ints,
)
from dse.model import formulas
from dse.model.formulas import COMPARABLE, KIND, NEEDED, TIMES

fill_moves = compiled(formulas.fill_moves)
fill_steps = compiled(formulas.fill_steps)
neighbours = compiled(formulas.neighbours)
fraction_of = compiled(formulas.fraction_of)
whole_accesses = compiled(formulas.whole_accesses)
access_energy = compiled(formulas.access_energy)
busy_cycles = compiled(formulas.busy_cycles)


@kernel
def _size(coefficient, covered):
    """Words of a tensor's box."""
    words = 1
    for a in range(coefficient.shape[0]):
        words *= axis_extent(coefficient[a], covered)
    return words


@kernel
def most_groups(children):
    """An upper bound of how many different numbers of children can share a box: 1 + 2 + ... + n <= children."""
    return int(math.sqrt(2.0 * children)) + 2


@kernel
def _sorted(keys, count):
    """The first `count` keys in order. Numba takes a second to compile a sort of its own."""
    ordered = np.empty(count, np.int64)
    for i in range(count):
        ordered[i] = keys[i]
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            key, j = ordered[i], i
            while j >= gap and ordered[j - gap] > key:
                ordered[j] = ordered[j - gap]
                j -= gap
            ordered[j] = key
        gap //= 3
    return ordered


@kernel
def _group(keys, count, alone, multicast, boxes):
    """Counts equal keys: fills (children sharing a box, number of such boxes), sorted; returns their number.

    If each child is `alone`, none shares.
    """
    groups = 0
    if count == 0:
        return 0
    if alone:
        multicast[0], boxes[0] = 1, count
        return 1
    ordered = _sorted(keys, count)
    run = 1
    for i in range(1, count + 1):
        if i < count and ordered[i] == ordered[i - 1]:
            run += 1
            continue
        j = 0
        while j < groups and multicast[j] < run:
            j += 1
        if j < groups and multicast[j] == run:
            boxes[j] += 1
        else:
            for k in range(groups, j, -1):
                multicast[k] = multicast[k - 1]
                boxes[k] = boxes[k - 1]
            multicast[j] = run
            boxes[j] = 1
            groups += 1
        run = 1
    return groups


MOST_DISTANCES = 32  # between neighbours that are told apart; of more, any move may lead to a neighbour's box


@kernel
def _distances(keys, mesh_x, apart):
    """Fills `apart` with the distances between neighbours' boxes; returns how many there are, no more than fit."""
    found = 0
    for c in range(keys.shape[0]):
        for other in (c + 1, c + mesh_x):
            if other < keys.shape[0] and found < apart.shape[0]:
                distance = abs(keys[other] - keys[c])
                j = 0
                while j < found and apart[j] != distance:
                    j += 1
                if j == found:
                    apart[found] = distance
                    found += 1
    return found


@kernel
def _add(stats, used, multicast, boxes, words):
    """Adds accesses to the entry of (multicast, boxes), kept in order; returns the number of entries."""
    i = 0
    while i < used and (
        stats[i, MULTICAST] < multicast or (stats[i, MULTICAST] == multicast and stats[i, BOXES] < boxes)
    ):
        i += 1
    if i < used and stats[i, MULTICAST] == multicast and stats[i, BOXES] == boxes:
        stats[i, WORDS] += words
        return used
    for k in range(used, i, -1):
        for j in range(stats.shape[1]):
            stats[k, j] = stats[k - 1, j]
    stats[i, MULTICAST], stats[i, BOXES], stats[i, WORDS] = multicast, boxes, words
    return used + 1


@kernel
def _children_accesses(extents, times, shifts, outside, spatial_n, spatial_shift, spatial, mesh_x, is_compute,
                       may_link, alone, weights, stats):  # fmt: skip
    """Accesses by (multicast, boxes) into `stats` and words passed between neighbours; see dse.model.child_accesses."""
    axes = extents.shape[0]
    count, shared, plain = 1, 1, True
    for j in range(spatial):
        count *= spatial_n[j]
        moved = 0
        for a in range(axes):
            if spatial_shift[j, a] != 0:
                moved += 1
                for i in range(j):
                    plain = plain and spatial_shift[i, a] == 0
        plain = plain and moved <= 1
        if moved == 0:
            shared *= spatial_n[j]
    linking = may_link and count > 1
    most = most_groups(count)
    multicast = np.zeros(most, np.int64)
    boxes = np.zeros(most, np.int64)
    groups = 1
    keys = np.zeros(count if linking or not plain else 0, np.int64)
    if linking or not plain:
        size = 1
        for j in range(spatial):
            step = 0
            for a in range(axes):
                step += spatial_shift[j, a] * weights[a]
            for k in range(spatial_n[j] - 1, -1, -1):
                for i in range(size):
                    keys[k * size + i] = keys[i] + k * step
            size *= spatial_n[j]
    if alone:
        multicast[0], boxes[0] = 1, count
    elif plain:  # each axis has one loop at most: boxes coincide where only loops that do not move the tensor differ
        multicast[0], boxes[0] = shared, count // shared
    else:
        groups = _group(keys, count, False, multicast, boxes)
    apart = np.zeros(MOST_DISTANCES, np.int64)
    distances = _distances(keys, mesh_x, apart) if linking else 0

    moves = np.zeros((outside + 1, axes), np.int64)
    steps = np.zeros((2 * (outside + 1), 4), np.int64)
    fill_moves(shifts, outside, moves)
    used = 0
    links = 0.0
    rest = np.empty(count if linking else 0, np.int64)
    rest_multicast = np.empty(most if linking else 0, np.int64)
    rest_boxes = np.empty(most if linking else 0, np.int64)
    for i in range(fill_steps(extents, times, moves, outside, is_compute, steps)):
        repeat, needed = steps[i, TIMES], steps[i, NEEDED]
        if needed == 0 or repeat == 0:
            continue
        if linking and steps[i, COMPARABLE]:
            move = 0
            for a in range(axes):
                move += moves[steps[i, KIND], a] * weights[a]
            possible = distances == MOST_DISTANCES
            for j in range(distances):
                possible = possible or apart[j] == abs(move)
            if not possible:
                for k in range(groups):
                    used = _add(stats, used, multicast[k], boxes[k], float(boxes[k]) * needed * repeat)
                continue
            remaining = 0  # children that no neighbour serves
            for c in range(count):
                served = False
                for other in neighbours(c, count, mesh_x):
                    served = served or (other >= 0 and keys[other] == keys[c] + move)
                if not served:
                    rest[remaining] = keys[c]
                    remaining += 1
            if remaining < count:
                kinds = _group(rest, remaining, alone, rest_multicast, rest_boxes)
                fewer = 0
                for k in range(groups):
                    fewer += boxes[k]
                for k in range(kinds):
                    fewer -= rest_boxes[k]
                if fewer > 0:
                    links += float(count - remaining) * needed * repeat
                    for k in range(kinds):
                        words = float(rest_boxes[k]) * needed * repeat
                        used = _add(stats, used, rest_multicast[k], rest_boxes[k], words)
                    continue
        for k in range(groups):
            used = _add(stats, used, multicast[k], boxes[k], float(boxes[k]) * needed * repeat)
    return used, links


class Rules(NamedTuple):
    """What levels limit, innermost first: (K, T) but for the clusters."""

    forgets: Flags  # the level's child holds nothing from one step to the next: compute units, levels without reuse
    alone: Flags  # each child of the fan-out is served by an access of its own
    merges: Flags  # the level keeps the tensor and merges its accesses
    reads_first: Flags  # the first write of an output reads, too
    scale: Floats  # words of bandwidth that a word takes
    clusters: Ints  # (K,) the most accesses at a time over all instances


class Counts(NamedTuple):
    """Accesses of each instance in words before they are rounded, (K, T) but for the last two."""

    content: Floats  # what children take, or bring
    given: Floats  # what comes from the level outside; 0 at the outermost that keeps the tensor
    peer: Floats  # what neighbours pass on
    partition: Ints  # what the first write of an output saves
    instances: Ints  # (K,)
    cycles: int


@kernel
def exact_counts(nest, coefficient, keep, mesh_x, link_allowed, has_shared_axis, rules):
    """The `Counts` of a mapping given as loops, innermost first; levels outside all that merge count nothing.

    Args:
        nest: (loops, LOOP) LEVEL, DIMENSION, FACTOR and whether SPATIAL; a level's spatial loops come before its
            temporal ones.
    """
    stages, tensors = keep.shape
    axes, dims = coefficient.shape[1], coefficient.shape[2]
    loops = nest.shape[0]
    stage, dim = nest[:, LEVEL].copy(), nest[:, DIMENSION].copy()
    n, spatial = nest[:, FACTOR].copy(), nest[:, SPATIAL].copy()
    instances = np.ones(stages, np.int64)
    fanout = np.ones(stages, np.int64)
    cycles = 1
    for i in range(loops):
        if spatial[i]:
            fanout[stage[i]] *= n[i]
        else:
            cycles *= n[i]
    for k in range(stages - 2, -1, -1):
        instances[k] = instances[k + 1] * fanout[k + 1]
    counts = Counts(
        np.zeros((stages, tensors)), np.zeros((stages, tensors)), np.zeros((stages, tensors)),
        np.zeros((stages, tensors), np.int64), instances, cycles,
    )  # fmt: skip
    sizes = np.zeros(stages, np.int64)
    unions = np.zeros(stages, np.int64)
    content = np.zeros(stages)
    links = np.zeros(stages)
    share = np.zeros(stages)
    peer = np.zeros(stages)
    partition = np.zeros(stages, np.int64)
    used = np.zeros(stages, np.int64)
    kinds = loops + 2  # of steps that neighbours may serve differently, and the first visit
    children = 0
    for k in range(stages):
        children = max(children, fanout[k])
    stats = np.empty((stages, 2 * kinds * most_groups(children), ACCESSES))  # large, and hardly used
    for t in range(tensors):
        inside = np.ones(dims, np.int64)
        extents = np.ones((stages, axes), np.int64)
        shift = np.zeros((loops, axes), np.int64)
        weights = np.ones(axes, np.int64)
        i = 0
        for k in range(stages):
            for a in range(axes):
                extents[k, a] = axis_extent(coefficient[t, a], inside)
            union_done = False
            while i < loops and stage[i] == k:
                if not spatial[i] and not union_done:
                    unions[k] = _size(coefficient[t], inside)
                    union_done = True
                for a in range(axes):
                    shift[i, a] = coefficient[t, a, dim[i]] * inside[dim[i]]
                inside[dim[i]] *= n[i]
                i += 1
            sizes[k] = _size(coefficient[t], inside)
            if not union_done:
                unions[k] = sizes[k]
        for a in range(1, axes):
            e = 1
            for d in range(dims):
                e += coefficient[t, a - 1, d] * inside[d]
            weights[a] = weights[a - 1] * (4 * e + 1)
        for k in range(stages):
            start = 0
            while start < loops and stage[start] < k:
                start += 1
            s = 0
            while start + s < loops and stage[start + s] == k and spatial[start + s]:
                s += 1
            outside = 0
            times = np.zeros(loops, np.int64)
            shifts = np.zeros((loops, axes), np.int64)
            for j in range(start, loops):
                if not spatial[j]:
                    times[outside] = n[j]
                    for a in range(axes):
                        shifts[outside, a] = shift[j, a]
                    outside += 1
            forgets = rules.forgets[k, t]
            may_link = link_allowed[k, t] and (forgets or has_shared_axis[t])
            used[k], links[k] = _children_accesses(
                extents[k], times, shifts, outside, n[start : start + s], shift[start : start + s], s,
                mesh_x[k], forgets, may_link, rules.alone[k, t], weights, stats[k],
            )  # fmt: skip
            content[k] = 0.0
            for j in range(used[k]):
                content[k] += stats[k, j, WORDS]
        partition[stages - 1] = sizes[stages - 1]
        for k in range(stages - 2, -1, -1):
            whole = unions[k + 1] if fanout[k + 1] > 1 else sizes[k]
            partition[k] = fraction_of(partition[k + 1], sizes[k], whole)
            share[k] = 0.0
            for j in range(used[k + 1]):
                share[k] += stats[k + 1, j, WORDS] * stats[k + 1, j, MULTICAST] / fanout[k + 1]
        share[stages - 1] = 0.0
        for k in range(stages - 1):
            if rules.merges[k, t]:
                continue
            delivered = 0.0
            for j in range(used[k + 1]):
                delivered += stats[k + 1, j, WORDS] * stats[k + 1, j, MULTICAST]
            factor = content[k] * fanout[k + 1] / delivered
            content[k + 1] = 0.0
            for j in range(used[k + 1]):
                stats[k + 1, j, WORDS] *= factor
                content[k + 1] += stats[k + 1, j, WORDS]
            links[k + 1] = 0.0
        outermost = -1
        for k in range(stages):
            peer[k] = 0.0
            if rules.merges[k, t]:
                outermost = k
        for k in range(outermost, 0, -1):
            if links[k] != 0.0:
                peer[k - 1] += links[k] / instances[k - 1]
        for k in range(outermost + 1):
            if not keep[k, t]:
                continue
            counts.content[k, t], counts.peer[k, t] = content[k], peer[k]
            counts.given[k, t] = 0.0 if k == outermost else share[k]
            counts.partition[k, t] = partition[k]
    return counts


@kernel
def priced(counts, read_write, keep, read, fill, update, block, leak, bandwidth, rules):
    """Energy in pJ (without the compute units) and cycles, with Timeloop's rounding; inf and 0 where Timeloop stops.

    It stops where it counts fewer accesses than words that are written first; windows of outputs can do that. It also
    stops where no level merges a tensor's accesses.

    Args:
        bandwidth: (K, 3) read, write and shared limits in words per cycle, inf where there is none.
    """
    energy, slowest = 0.0, counts.cycles
    for t in range(keep.shape[1]):
        merged = False
        for k in range(keep.shape[0]):
            merged = merged or rules.merges[k, t]
        if not merged:
            return np.inf, 0
    for k in range(keep.shape[0]):
        used = counts.instances[k]
        sharing = used / min(used, rules.clusters[k])
        reads, writes = 0.0, 0.0
        for t in range(keep.shape[1]):
            if not keep[k, t]:
                continue
            outermost = True
            for j in range(k + 1, keep.shape[0]):
                outermost = outermost and not rules.merges[j, t]
            merges = rules.merges[k, t]
            if outermost and not merges:
                continue
            content, peer, given = counts.content[k, t], counts.peer[k, t], counts.given[k, t]
            first_writes = counts.partition[k, t] if read_write[t] else 0
            r, f, u = whole_accesses(
                content, peer, given, first_writes, read_write[t], outermost, rules.reads_first[k, t], not merges
            )
            if r < 0:
                return np.inf, 0
            energy += used * (access_energy(r, f, u, block[k], read[k], fill[k], update[k]) / sharing)
            reads += r / counts.cycles * rules.scale[k, t]
            writes += (f + u) / counts.cycles * rules.scale[k, t]
        limits = bandwidth[k]
        busy = busy_cycles(counts.cycles, reads, writes, limits[READ_LIMIT], limits[WRITE_LIMIT], limits[SHARED_LIMIT])
        slowest = max(slowest, busy)
    for k in range(keep.shape[0]):
        energy += leak[k] * slowest * counts.instances[k]
    return energy, slowest


@kernel
def least_of_orders(
    rows, ways, loops, coefficient, keep, mesh_x, link_allowed, has_shared_axis, rules,
    read_write, read, fill, update, block, leak, bandwidth,
):  # fmt: skip
    """The least energy and the least cycles, each of its own, of all choices of one order for every stage.

    They are inf where Timeloop stops at all of them. Orders are combined here because Python takes as long for a nest
    as its counts do.

    Args:
        rows: rows of nests as of `exact_counts`: the orders of the innermost stage one after the other, then those of
            the next.
        ways: (K,) orders of each stage.
        loops: (K,) rows of each of a stage's orders.
    """
    stages = ways.shape[0]
    begins, offsets = np.zeros(stages + 1, np.int64), np.zeros(stages + 1, np.int64)
    for k in range(stages):
        begins[k + 1] = begins[k] + ways[k] * loops[k]
        offsets[k + 1] = offsets[k] + loops[k]
    nest = np.empty((offsets[stages], rows.shape[1]), np.int64)
    choice = np.zeros(stages, np.int64)
    least, fewest = np.inf, np.inf
    changed = 0  # stages from this one on are not in the nest yet
    while True:
        for k in range(changed, stages):
            for i in range(loops[k]):
                copy(nest[offsets[k] + i], rows[begins[k] + choice[k] * loops[k] + i])
        counts = exact_counts(nest, coefficient, keep, mesh_x, link_allowed, has_shared_axis, rules)
        energy, cycles = priced(counts, read_write, keep, read, fill, update, block, leak, bandwidth, rules)
        if energy < np.inf:
            least, fewest = min(least, energy), min(fewest, float(cycles))
        changed = stages - 1
        while changed >= 0:
            choice[changed] += 1
            if choice[changed] < ways[changed]:
                break
            choice[changed] = 0
            changed -= 1
        if changed < 0:
            return least, fewest
