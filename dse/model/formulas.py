"""The formulas of the access model, each once: numbers and rows of numbers in, numbers out.

`dse.model` calls them as they are, with tuples and lists; `dse.mapper.kernels.exact` compiles them and calls them with
arrays. So they use what both have: rows that are indexed as `row[i][j]`, loops, and whole numbers, which Python never
lets overflow and the mapper keeps within 64 bits. No formula calls another, and none imports anything of this project.

docs/model.md derives them.
"""

from __future__ import annotations

import math
from typing import Any

Row = Any
"""A sequence of whole numbers: a tuple or list, or an array where the formula is compiled."""

TIMES, NEEDED, KIND, COMPARABLE = 0, 1, 2, 3  # the entries of a row that `fill_steps` writes


def axis_extent(coefficients: Row, sizes: Row) -> int:
    """Words of a box along an axis to which each dimension adds its coefficient times its size less one.

    >>> axis_extent((2, 1), (4, 3))  # 4 outputs at stride 2 and a filter of 3
    9
    """
    words = 1
    for d in range(len(coefficients)):
        words += coefficients[d] * (sizes[d] - 1)
    return words


def fill_moves(shifts: Row, loops: int, moves: Row) -> None:
    """Fills `moves[i]` with how a step of kind i moves a box: by the shift of loop i, less those of all loops inside.

    Args:
        shifts: the translation of the box from one iteration of a loop to the next, innermost first.
        moves: a row more than `loops`; row 0, that of the first visit, is left with the sum of all shifts.
    """
    for a in range(len(moves[0])):
        moves[0][a] = 0
    for i in range(loops):
        for a in range(len(moves[0])):
            moves[i + 1][a] = shifts[i][a] - moves[0][a]
            moves[0][a] += shifts[i][a]


def fill_steps(box: Row, iterations: Row, moves: Row, loops: int, is_compute: bool, steps: Row) -> int:
    """Fills `steps` with TIMES, NEEDED, KIND and COMPARABLE of all steps; returns the number of rows.

    A step of kind i > 0 advances loop i, the innermost being 1, and takes the loops inside it back to their start; kind
    0 is the first visit. A step of kind 1 comes before every other step, and follows one of any kind. TIMES is how
    often a step happens over the layer and NEEDED the words of the box that it needs. COMPARABLE is 1 if the step
    before needed a part of the same form: only then neighbours can have what this one needs.

    Args:
        box: extents of the tile.
        iterations: of the temporal loops outside, innermost first.
        moves: as `fill_moves` leaves them.
        is_compute: the box is that of a compute unit, which holds nothing between two steps.
        steps: room for 2 x (`loops` + 1) rows of 4.
    """
    volume, outer, first = 1, 1, 0
    for words in box:
        volume *= words
    for i in range(loops, 0, -1):
        outer *= iterations[i - 1]
        for distance in moves[i]:
            if distance != 0:
                first = i  # in the end the innermost loop that moves the box
    kept = 1 if first > 0 else 0
    for a in range(len(box)):
        kept *= max(0, box[a] - abs(moves[first][a]))
    slab = volume - kept
    runs = first == 1 and not is_compute  # steps of kind 1 need something: each is in a run that follows another step
    count = 0
    for i in range(loops + 1):
        times, needed = 1, volume
        if i > 0:
            outer //= iterations[i - 1]
            times = (iterations[i - 1] - 1) * outer
        if i > 0 and not is_compute:
            still, same = True, True
            for a in range(len(box)):
                still = still and moves[i][a] == 0
                same = same and moves[i][a] == moves[first][a]
            if first == 0 or i < first or (still and not same):
                needed = 0
            elif same:
                needed = slab
        if i != 1 or not runs:
            row = steps[count]
            row[TIMES], row[NEEDED], row[KIND] = times, needed, i
            row[COMPARABLE] = int(i > 0 and (is_compute or (runs and needed == slab)))
            count += 1
            if runs:
                row = steps[count]
                row[TIMES], row[NEEDED], row[KIND] = times * (iterations[0] - 1), slab, 1
                row[COMPARABLE] = int(needed == slab)
                count += 1
    return count


def neighbours(child: int, children: int, width: int) -> tuple[int, int, int, int]:
    """The numbers of a child's neighbours on the physical mesh: above, below, before and after; -1 if there is none.

    Children are numbered in the order of the spatial loops and laid out row by row on the physical mesh, also where
    the loops use only part of a row: that is how Timeloop numbers them.

    >>> neighbours(4, 6, 3)  # 4 is in the middle of the second of two rows
    (1, -1, 3, 5)
    """
    column = child % width
    return (
        child - width if 0 <= child - width < children else -1,
        child + width if child + width < children else -1,
        child - 1 if column > 0 and child - 1 < children else -1,
        child + 1 if column < width - 1 and child + 1 < children else -1,
    )


def fraction_of(n: int, part: int, whole: int) -> int:
    """n * part // whole for part <= whole < 2**61, with no number on the way above 64 bits.

    >>> fraction_of(10, 2, 3)
    6
    """
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


def whole_accesses(
    content: float,
    peer: float,
    given: float,
    first_writes: int,
    read_write: bool,
    outermost: bool,
    reads_first: bool,
    apart: bool,
) -> tuple[int, int, int]:
    """(reads, fills, updates) of an instance, rounded as Timeloop does; -1 for all where Timeloop stops.

    It stops where it counts fewer accesses than words that are written first.

    Args:
        content: words that the children take, or bring.
        peer: words passed on to neighbours.
        given: words that come from the level outside, 0 at the outermost that keeps the tensor.
        first_writes: words whose first write saves a read here, and a fill from outside.
        reads_first: the first write of an output reads, too, so that it saves nothing.
        apart: accesses to an output are not merged: each word is filled, read and updated.
    """
    if not read_write:
        return math.floor(content + peer + 0.5), math.floor(given + peer), 0
    if content + peer < first_writes:
        return -1, -1, -1
    if apart:
        return math.floor(content + peer + 0.5), math.floor(content + peer + 0.5), math.floor(content + 0.5)
    if reads_first:
        first_writes = 0
    fills = given + peer - (0 if outermost else first_writes)
    if fills <= -0.5:
        return -1, -1, -1
    return math.floor(content + peer - first_writes + 0.5), math.floor(fills + 0.5), math.floor(content + 0.5)


def access_energy(reads: int, fills: int, updates: int, block: int, read: float, write: float, update: float) -> float:
    """pJ of an instance: every physical access moves `block` words and costs the same, also if it is not full.

    >>> access_energy(5, 0, 0, 4, 1.5, 2.0, 2.0)
    3.0
    """
    return -(-reads // block) * read + -(-fills // block) * write + -(-updates // block) * update


def busy_cycles(
    cycles: int, reads: float, writes: float, read_limit: float, write_limit: float, shared_limit: float
) -> int:
    """Cycles of a level whose bandwidths allow so many words per cycle, infinite where there is no limit.

    Args:
        cycles: without stalls.
        reads: words per cycle that an instance would read in them, `writes` those that it would write.

    >>> busy_cycles(100, 1.0, 0.5, math.inf, math.inf, 1.0)
    150
    """
    slowdown = 1.0
    if read_limit < reads:
        slowdown = min(slowdown, read_limit / reads)
    if write_limit < writes:
        slowdown = min(slowdown, write_limit / writes)
    if shared_limit < reads + writes:
        slowdown = min(slowdown, shared_limit / (reads + writes))
    return math.ceil(cycles / slowdown)
