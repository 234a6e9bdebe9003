"""The names of the places in the rows of numbers that kernels work on.

A row is an array and not a named tuple because kernels hold thousands of them in one block of memory. Every index into
such a row is one of these names.

Label: a lower bound of everything inside a tile (`dse.mapper.kernels.labels`), T tensors, A shared axes:

    | SETTLED | IDLE | fill, read, closed of tensor 0 | ... of T - 1 | extent, span, slid of axis 0 | ... of A - 1 |

    SETTLED         pJ that nothing further out changes
    IDLE            inverse of the fan-out inside: cycles are operations x IDLE; 0 if cycles do not matter further out
    fill_slot(t)    pJ that only the reuse of the tensor by loops further out can reduce
    read_slot(t)    pJ that also the multicast of fan-outs further out can reduce
    closed_slot(t)  pJ whose reuse is known, and that only multicast can still reduce
    column + EXTENT words of the open tile along a shared axis; negative: up to this size, or of compute units
    column + SPAN   how far along it the fan-out directly outside spreads the tiles of its children
    column + SLID   pJ of tiles that have slid along the axis, of which further loops along it may still save a part

`Grid.axis_column` holds the `column` of an axis. The first `cost_slots(T)` entries are costs.

Window: how one loop slides a tensor's tile (`dse.mapper.kernels.geometry.window`), `WINDOW` entries.

Loop: a row of the nest of `dse.mapper.kernels.exact`, innermost first, `LOOP` entries.

Accesses: a row of the counts of `dse.mapper.kernels.exact`, `ACCESSES` entries: words that several children share.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.mapper.kernels.jit import kernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SETTLED, IDLE = 0, 1
_FIRST_TENSOR, _TENSOR = 2, 3  # where the tensors of a label begin, and the entries of each
EXTENT, SPAN, SLID = 0, 1, 2  # of a shared axis
AXIS = 3  # the number of its entries


@kernel
def fill_slot(t: int) -> int:
    return _FIRST_TENSOR + _TENSOR * t


@kernel
def read_slot(t: int) -> int:
    return _FIRST_TENSOR + _TENSOR * t + 1


@kernel
def closed_slot(t: int) -> int:
    return _FIRST_TENSOR + _TENSOR * t + 2


@kernel
def open_cost(label: Floats, t: int, share: float) -> float:
    """pJ of a tensor that reuse further out still multiplies; `share` is what multicast leaves of its reads."""
    return float(label[fill_slot(t)] + label[read_slot(t)] * share)


@kernel
def cost_slots(tensors: int) -> int:
    """The entries of a label that are costs; those of the shared axes follow."""
    return _FIRST_TENSOR + _TENSOR * tensors


ITERATIONS = 0  # of the loop that slides the tile
STEP = 1  # words by which it slides
COLUMN = 2  # of its axis in a label
SAME = 3  # most iterations of further loops that could move the tile along the axis before one along another does
SERVED = 4  # most iterations of further loops whose steps neighbours could serve
LEAST, SLOPE = 5, 6  # a step of the loops of SAME needs LEAST + SLOPE x slab of the tile at least
FIRST_COLUMN, END_COLUMN = 7, 8  # of all shared axes of the tensor in a label
WITHIN = 9  # part of SAME that is due to loops of the window's own level; 0 if loops further out are not part of it
WINDOW = 10

LEVEL, DIMENSION, FACTOR, SPATIAL = 0, 1, 2, 3
LOOP = 4

MULTICAST, BOXES, WORDS = 0, 1, 2  # children that share a box; such boxes; words of them over the layer
ACCESSES = 3

READ_LIMIT, WRITE_LIMIT, SHARED_LIMIT = 0, 1, 2  # of a level's bandwidths, in words per cycle
