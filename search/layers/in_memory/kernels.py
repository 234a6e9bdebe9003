"""Sums of one-bit products on a CPU: the bits of a group of rows lie in words of 64 bits, whose ones are counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from search.layers.view_kernels import pool

F = TypeVar("F", bound=Callable[..., Any])


def _jit(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@intrinsic
def _count_ones(typing_context: Any, word: Any) -> Any:
    """The number of ones of a word of 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones: Any = _count_ones  # numba gives it the missing argument


@intrinsic
def _count_narrow_ones(typing_context: Any, word: Any) -> Any:
    """The same of a word of 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), generate


_narrow_ones: Any = _count_narrow_ones

_NARROW = 32
"""Rows of a group whose bits are in a word of 32 bits: vectors have twice as many of them."""
_SEVERAL = 8
"""Outputs of a group from which on a vector has those of one input, instead of planes."""


def packed(codes: NDArray[np.int64], planes: int, rows: int) -> NDArray[np.uint64]:
    """The bit planes of codes (..., inputs), as words (..., groups of rows, planes, words of 64 bits)."""
    flat = codes.reshape(-1, codes.shape[-1])
    chunks, words = -(-flat.shape[1] // rows), -(-min(rows, flat.shape[1]) // 64)
    result = np.zeros((len(flat), chunks, planes, words), np.uint64)
    for i in range(len(flat)):
        _pack(flat[i], rows, result[i])
    return result.reshape(*codes.shape[:-1], chunks, planes, words)


def code_sums(
    inputs: NDArray[np.int64], weights: NDArray[np.int64], of_inputs: NDArray[np.int64],
    of_weights: NDArray[np.int64], codes: NDArray[np.int64], rows: int,
) -> NDArray[np.int64]:  # fmt: skip
    """The sums over groups of rows and planes of coefficients * code, shape (positions, groups, outputs).

    A plane of inputs without a one in a group of rows, such as those of high bits, adds code 0 and is passed over.

    Args:
        inputs: codes of the inputs, shape (positions, groups, inputs of an output).
        weights: codes of the weights, shape (groups, outputs, inputs of an output).
        of_inputs, of_weights: coefficients of the planes.
        codes: what the ADC gives for each sum.
    """
    result = np.zeros((*inputs.shape[:2], weights.shape[1]), np.int64)
    largest = int(np.abs(of_inputs).sum()) * int(codes.max())
    if rows <= _NARROW and weights.shape[1] >= _SEVERAL and codes[0] == 0 and largest < 2**31:
        groups, outputs, summed = weights.shape
        by_output = np.zeros((groups, -(-summed // rows), of_weights.size, outputs), np.uint32)
        _pack_narrow(weights, rows, by_output)
        most = np.int32(codes.max())
        clips = bool((codes == np.minimum(np.arange(len(codes)), most)).all())
        fixed = (by_output, of_inputs.astype(np.int32), of_weights, codes.astype(np.int32), most, clips, rows)
        _in_threads(_narrow_sums, inputs, result, *fixed)
        return result
    _in_threads(_sums, inputs, result, packed(weights, of_weights.size, rows), of_inputs, of_weights, codes, rows)
    return result


def varied_sums(
    inputs: NDArray[np.int64], cells: NDArray[np.float32], offsets: NDArray[np.float32], of_inputs: NDArray[np.int64],
    of_weights: NDArray[np.int64], rows: int, step: float, most: int,
) -> NDArray[np.float64]:  # fmt: skip
    """The same with what each cell adds and each ADC's offset, which are real numbers.

    Args:
        cells: shape (groups, inputs of an output, planes, outputs).
        offsets: in codes, shape (groups of rows, groups, planes, outputs).
        step: products for a code.
        most: the largest code.
    """
    result = np.zeros((*inputs.shape[:2], cells.shape[3]), np.float64)
    flat_cells, flat_offsets = cells.reshape(*cells.shape[:2], -1), offsets.reshape(*offsets.shape[:2], -1)
    fixed = (flat_cells, flat_offsets, of_inputs, of_weights, rows, np.float32(step), np.float32(most))
    _in_threads(_varied_sums, inputs, result, *fixed)
    return result


def _in_threads(kernel: Any, inputs: Any, result: Any, *fixed: Any) -> None:
    """Runs a kernel over the positions, in torch's number of threads."""
    count = max(1, min(torch.get_num_threads(), len(inputs)))
    bounds = [len(inputs) * i // count for i in range(count + 1)]
    parts = [(inputs[a:b], *fixed, result[a:b]) for a, b in itertools.pairwise(bounds)]
    others = [pool(count).submit(kernel, *part) for part in parts[1:]]
    kernel(*parts[0])
    for other in others:
        other.result()


@_jit
def _varied_sums(inputs: Any, cells: Any, offsets: Any, of_inputs: Any, of_weights: Any, rows: Any, step: Any,
                 most: Any, result: Any) -> None:  # fmt: skip
    columns, outputs = cells.shape[2], result.shape[2]
    analog, total, zero = np.zeros(columns, np.float32), np.zeros(columns, np.float64), np.float32(0)
    for i in range(len(inputs)):
        for g in range(inputs.shape[1]):
            codes, total[:] = inputs[i, g], 0
            for c in range(len(offsets)):
                for p in range(of_inputs.size):
                    analog[:] = 0
                    for k in range(c * rows, min((c + 1) * rows, codes.size)):
                        if (codes[k] >> p) & 1:
                            row = cells[g, k]
                            for j in range(columns):
                                analog[j] += row[j]
                    factor, shift = np.float64(of_inputs[p]), offsets[c, g]
                    for j in range(columns):
                        total[j] += factor * min(max(np.rint(analog[j] / step + shift[j]), zero), most)
            for j in range(columns):
                result[i, g, j % outputs] += of_weights[j // outputs] * total[j]


@_jit
def _pack(codes: Any, rows: Any, out: Any) -> None:
    one = np.uint64(1)
    for k in range(codes.size):
        chunk, place = k // rows, k % rows
        code, word, shift = codes[k], place // 64, np.uint64(place % 64)
        for p in range(out.shape[1]):
            if (code >> p) & 1:
                out[chunk, p, word] |= one << shift


@_jit
def _pack_narrow(codes: Any, rows: Any, out: Any) -> None:
    one = np.uint32(1)
    for g in range(codes.shape[0]):
        for o in range(codes.shape[1]):
            for k in range(codes.shape[2]):
                code, place = np.uint32(codes[g, o, k]), np.uint32(k % rows)
                for p in range(out.shape[2]):
                    out[g, k // rows, p, o] |= ((code >> np.uint32(p)) & one) << place


@_jit
def _narrow_sums(inputs: Any, weights: Any, of_inputs: Any, of_weights: Any, codes: Any, most: Any, clips: bool,
                 rows: Any, result: Any) -> None:  # fmt: skip
    """`_sums` with the outputs in the innermost loop.

    Args:
        weights: by `_pack_narrow`, shape (groups, groups of rows, planes, outputs).
        clips: whether a code is the sum, at most `most`, so that no table is read.
    """
    groups, chunks, planes, outputs = weights.shape
    bits, total, of_plane = (
        np.zeros(of_inputs.size, np.uint32),
        np.zeros(outputs, np.int64),
        np.zeros(outputs, np.int32),
    )
    one = np.uint32(1)
    for i in range(len(inputs)):
        for g in range(groups):
            seen = inputs[i, g]
            total[:] = 0
            for c in range(chunks):
                bits[:] = 0
                for k in range(c * rows, min((c + 1) * rows, seen.size)):
                    if seen[k] != 0:
                        code, place = np.uint32(seen[k]), np.uint32(k - c * rows)
                        for p in range(of_inputs.size):
                            bits[p] |= ((code >> np.uint32(p)) & one) << place
                for q in range(planes):
                    row = weights[g, c, q]
                    of_plane[:] = 0
                    for p in range(of_inputs.size):
                        column, factor = bits[p], of_inputs[p]
                        if column == 0:
                            continue
                        if clips:
                            for o in range(outputs):
                                of_plane[o] += factor * min(np.int32(_narrow_ones(column & row[o])), most)
                        else:
                            for o in range(outputs):
                                of_plane[o] += factor * codes[np.int32(_narrow_ones(column & row[o]))]
                    for o in range(outputs):
                        total[o] += of_weights[q] * of_plane[o]
            for o in range(outputs):
                result[i, g, o] = total[o]


@_jit
def _sums(inputs: Any, weights: Any, of_inputs: Any, of_weights: Any, codes: Any, rows: Any, result: Any) -> None:
    groups, outputs, chunks, planes, words = weights.shape
    bits = np.zeros((chunks, of_inputs.size, words), np.uint64)
    for i in range(len(inputs)):
        for g in range(groups):
            bits[:] = 0
            _pack(inputs[i, g], rows, bits)
            if words == 1 and of_inputs.size == 1:  # the loop over more planes is the inner one
                for o in range(outputs):
                    total = 0
                    for c in range(chunks):
                        column = bits[c, 0, 0]
                        for q in range(planes):
                            total += of_weights[q] * codes[_ones(column & weights[g, o, c, q, 0])]
                    result[i, g, o] = of_inputs[0] * total
                continue
            for o in range(outputs):
                total = 0
                for c in range(chunks):
                    for q in range(planes):
                        of_plane = 0
                        if words == 1:
                            row = weights[g, o, c, q, 0]
                            for p in range(of_inputs.size):
                                of_plane += of_inputs[p] * codes[_ones(bits[c, p, 0] & row)]
                        else:
                            for p in range(of_inputs.size):
                                count = np.uint64(0)
                                for w in range(words):
                                    count += _ones(bits[c, p, w] & weights[g, o, c, q, w])
                                of_plane += of_inputs[p] * codes[count]
                        total += of_weights[q] * of_plane
                result[i, g, o] = total
