"""The access model of dse.model.evaluation on flat arrays, fast enough to try every order of a near-optimal tiling.

Same rules, same arithmetic; `tests/dse/mapper` holds the two against each other.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dse.mapper.kernels.jit import kernel
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
    Floats,
    Ints,
)


@kernel
def fraction_of(n, part, whole):
    """n * part // whole without overflow, for part <= whole < 2**61."""
    common = math.gcd(part, whole)
    part //= common
    whole //= common
    quotient, rest = (n // whole) * part, n % whole
    if float(rest) * float(part) < 9e18:
        return quotient + rest * part // whole
    high, low = 0, 0  # of rest * part / whole, from the first bit of `part` on
    for bit in range(62, -1, -1):
        low *= 2
        if part >> bit & 1:
            low += rest
        high = 2 * high + low // whole
        low %= whole
    return quotient + high


@kernel
def most_groups(children):
    """An upper bound of how many different numbers of children can share a box: 1 + 2 + ... + n <= children."""
    return int(math.sqrt(2.0 * children)) + 2


@kernel
def _group(keys, count, multicast, boxes):
    """Counts equal keys: fills (children sharing a box, number of such boxes), sorted; returns their number."""
    found = 0
    if count == 0:
        return 0
    ordered = np.sort(keys[:count])
    run = 1
    for i in range(1, count + 1):
        if i < count and ordered[i] == ordered[i - 1]:
            run += 1
            continue
        j = 0
        while j < found and multicast[j] < run:
            j += 1
        if j < found and multicast[j] == run:
            boxes[j] += 1
        else:
            for k in range(found, j, -1):
                multicast[k] = multicast[k - 1]
                boxes[k] = boxes[k - 1]
            multicast[j] = run
            boxes[j] = 1
            found += 1
        run = 1
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
        stats[k] = stats[k - 1]
    stats[i, MULTICAST], stats[i, BOXES], stats[i, WORDS] = multicast, boxes, words
    return used + 1


@kernel
def _slab(extents, move):
    volume, held = 1, 1
    for a in range(extents.shape[0]):
        volume *= extents[a]
        held *= max(0, extents[a] - abs(move[a]))
    return volume - held


@kernel
def _children_accesses(extents, times, shifts, outside, spatial_n, spatial_shift, spatial, mesh_x, mesh_y, is_compute,
                       may_link, weights, stats):  # fmt: skip
    """Accesses by (multicast, boxes) into `stats` and words passed between neighbours; see dse.model.child_accesses."""
    axes = extents.shape[0]
    volume = 1
    for a in range(axes):
        volume *= extents[a]
    count = 1
    for j in range(spatial):
        count *= spatial_n[j]
    keys = np.zeros(count, np.int64)
    size = 1
    for j in range(spatial):
        step = 0
        for a in range(axes):
            step += spatial_shift[j, a] * weights[a]
        for k in range(spatial_n[j] - 1, -1, -1):
            for i in range(size):
                keys[k * size + i] = keys[i] + k * step
        size *= spatial_n[j]
    most = most_groups(count)
    multicast = np.zeros(most, np.int64)
    boxes = np.zeros(most, np.int64)
    groups = _group(keys, count, multicast, boxes)
    total = 0
    for i in range(groups):
        total += boxes[i]

    # Kinds of step: 0 is the first visit, kind i + 1 advances loop i; `previous` lists what may come before kind 1.
    moves = np.zeros((outside + 1, axes), np.int64)
    rewound = np.zeros(axes, np.int64)
    often = np.zeros(outside + 1, np.int64)
    rest = 1
    for j in range(outside):
        rest *= times[j]
    often[0] = 1
    first = -1
    for j in range(outside):
        moved = False
        for a in range(axes):
            moves[j + 1, a] = shifts[j, a] - rewound[a]
            rewound[a] += shifts[j, a]
            if shifts[j, a] != 0:
                moved = True
        if moved and first < 0:
            first = j
        rest //= times[j]
        often[j + 1] = (times[j] - 1) * rest
    slab = volume
    if first >= 0 and not is_compute:
        slab = _slab(extents, moves[first + 1])
    used = 0
    links = 0.0
    linked = np.zeros(count, np.bool_)
    left = np.zeros(count, np.int64)
    left_multicast = np.zeros(most, np.int64)
    left_boxes = np.zeros(most, np.int64)
    need = np.zeros(outside + 1, np.int64)
    for i in range(outside + 1):
        if i == 0 or is_compute:
            need[i] = volume
        elif first >= 0 and i - 1 >= first:
            zero, same = True, True
            for a in range(axes):
                if moves[i, a] != 0:
                    zero = False
                if moves[i, a] != moves[first + 1, a]:
                    same = False
            need[i] = slab if i - 1 == first or same else (0 if zero else volume)
    for i in range(outside + 1):
        # A step of kind 1 may follow any other kind; split it by what the step before it needed.
        parts = 1
        if i == 1 and not is_compute:
            parts = outside
        for part in range(parts):
            amount, repeat = need[i], often[i]
            comparable = False
            if i > 0:
                if is_compute:
                    comparable = True
                elif first == 0:
                    if i == 1:
                        before = 0 if part == 0 else part + 1
                        repeat = often[before] * (times[0] - 1)
                        comparable = need[before] == slab
                    else:
                        comparable = amount == slab
                elif part > 0:
                    continue
            if amount == 0 or repeat == 0:
                continue
            hits = 0
            if may_link and comparable and count > 1:
                move = 0
                for a in range(axes):
                    move += moves[i, a] * weights[a]
                height = max(mesh_y, -(-count // mesh_x))
                remaining = 0
                for c in range(count):
                    h, v = c % mesh_x, c // mesh_x
                    wanted = keys[c] + move
                    hit = v > 0 and keys[c - mesh_x] == wanted
                    hit = hit or (v < height - 1 and c + mesh_x < count and keys[c + mesh_x] == wanted)
                    hit = hit or (h > 0 and keys[c - 1] == wanted)
                    hit = hit or (h < mesh_x - 1 and c + 1 < count and keys[c + 1] == wanted)
                    linked[c] = hit
                    if hit:
                        hits += 1
                    else:
                        left[remaining] = keys[c]
                        remaining += 1
                if hits:
                    found = _group(left, remaining, left_multicast, left_boxes)
                    kept = 0
                    for k in range(found):
                        kept += left_boxes[k]
                    if kept < total:
                        links += float(hits) * amount * repeat
                        for k in range(found):
                            words = float(left_boxes[k]) * amount * repeat
                            used = _add(stats, used, left_multicast[k], left_boxes[k], words)
                        continue
            for k in range(groups):
                used = _add(stats, used, multicast[k], boxes[k], float(boxes[k]) * amount * repeat)
    return used, links


class Counts(NamedTuple):
    """Accesses of each instance in words before they are rounded, (K, T) but for the last two."""

    content: Floats  # what children take, or bring
    given: Floats  # what comes from the level outside; 0 at the outermost that keeps the tensor
    peer: Floats  # what neighbours pass on
    partition: Ints  # what the first write of an output saves
    instances: Ints  # (K,)
    cycles: int


@kernel
def exact_counts(nest, coefficient, keep, mesh_x, mesh_y, link_allowed, has_shared_axis):
    """The `Counts` of a mapping given as loops, innermost first.

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
    found = Counts(
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
    stats = np.zeros((stages, 2 * kinds * most_groups(fanout.max()), ACCESSES))
    for t in range(tensors):
        inside = np.ones(dims, np.int64)
        extents = np.ones((stages, axes), np.int64)
        shift = np.zeros((loops, axes), np.int64)
        weights = np.ones(axes, np.int64)
        i = 0
        for k in range(stages):
            for a in range(axes):
                extents[k, a] = 1
                for d in range(dims):
                    extents[k, a] += coefficient[t, a, d] * (inside[d] - 1)
            union_done = False
            while i < loops and stage[i] == k:
                if not spatial[i] and not union_done:
                    unions[k] = 1
                    for a in range(axes):
                        e = 1
                        for d in range(dims):
                            e += coefficient[t, a, d] * (inside[d] - 1)
                        unions[k] *= e
                    union_done = True
                for a in range(axes):
                    shift[i, a] = coefficient[t, a, dim[i]] * inside[dim[i]]
                inside[dim[i]] *= n[i]
                i += 1
            sizes[k] = 1
            for a in range(axes):
                e = 1
                for d in range(dims):
                    e += coefficient[t, a, d] * (inside[d] - 1)
                sizes[k] *= e
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
                    shifts[outside] = shift[j]
                    outside += 1
            may_link = link_allowed[k, t] and (k == 0 or has_shared_axis[t])
            used[k], links[k] = _children_accesses(
                extents[k], times, shifts, outside, n[start : start + s], shift[start : start + s], s,
                mesh_x[k], mesh_y[k], k == 0, may_link, weights, stats[k],
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
            if keep[k, t]:
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
        outermost = 0
        for k in range(stages):
            peer[k] = 0.0
            if keep[k, t]:
                outermost = k
        for k in range(outermost, 0, -1):
            if links[k] != 0.0:
                peer[k - 1] += links[k] / instances[k - 1]
        for k in range(outermost + 1):
            if not keep[k, t]:
                continue
            found.content[k, t], found.peer[k, t] = content[k], peer[k]
            found.given[k, t] = 0.0 if k == outermost else share[k]
            found.partition[k, t] = partition[k]
    return found


@kernel
def priced(counts, read_write, keep, read, fill, update, block, leak, bandwidth):
    """Energy in pJ (without the compute units) and cycles, with Timeloop's rounding; inf and 0 where Timeloop stops.

    It stops where it counts fewer accesses than words that are written first; windows of outputs can do that.

    Args:
        bandwidth: (K, 3) read, write and shared limits in words per cycle, inf where there is none.
    """
    energy, slowest = 0.0, counts.cycles
    for k in range(keep.shape[0]):
        reads, writes = 0.0, 0.0
        for t in range(keep.shape[1]):
            if not keep[k, t]:
                continue
            outermost = True
            for j in range(k + 1, keep.shape[0]):
                outermost = outermost and not keep[j, t]
            content, peer, given = counts.content[k, t], counts.peer[k, t], counts.given[k, t]
            if read_write[t]:
                first = counts.partition[k, t]
                r = math.floor(content + peer - first + 0.5)
                u = math.floor(content + 0.5)
                f = math.floor(given + peer - (0 if outermost else first) + 0.5)
                if content + peer < first or f < 0:
                    return np.inf, 0
            else:
                r = math.floor(content + peer + 0.5)
                u = 0.0
                f = math.floor(given + peer)
            energy += counts.instances[k] * (
                math.ceil(r / block[k]) * read[k]
                + math.ceil(f / block[k]) * fill[k]
                + math.ceil(u / block[k]) * update[k]
            )
            reads += r / counts.cycles
            writes += (f + u) / counts.cycles
        slowdown = 1.0
        if bandwidth[k, READ_LIMIT] < reads:
            slowdown = min(slowdown, bandwidth[k, READ_LIMIT] / reads)
        if bandwidth[k, WRITE_LIMIT] < writes:
            slowdown = min(slowdown, bandwidth[k, WRITE_LIMIT] / writes)
        if bandwidth[k, SHARED_LIMIT] < reads + writes:
            slowdown = min(slowdown, bandwidth[k, SHARED_LIMIT] / (reads + writes))
        slowest = max(slowest, math.ceil(counts.cycles / slowdown))
    for k in range(keep.shape[0]):
        energy += leak[k] * slowest * counts.instances[k]
    return energy, slowest
