"""Views of a layer's input and their gradients in one pass over memory, for tensors on a CPU.

A block is a run of adjacent elements of one group: inputs have the shape (blocks, elements), views and their gradients
(blocks, views, elements). Word widths are numbered; `slots[k, v]` is the index of view v (value, sign, magnitude,
binary) of width k, or -1.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

_TILE = 1024  # elements that stay in the first-level cache while all widths are computed
_SHARE = 2**16  # elements of views that are worth a thread


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Words:
    """The words of each width: step, lowest and highest word, one entry per width.

    `two` marks signed words of one bit, which are -1 and +1.
    """

    steps: Tensor
    lows: Any  # arrays in the type of the inputs
    highs: Any
    two: tuple[bool, ...]

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.steps.numpy(), self.lows, self.highs, np.array(self.two)


def views_of(x: Tensor, words: Words, slots: Any, out: Tensor) -> None:
    """Writes all views of `x` (blocks, elements) to `out` (blocks, views, elements).

    `out` has the type of `x`, or is in bfloat16 if that is float32.
    """
    _in_parallel(_views_of, out, (x.numpy(), *words.arrays, slots, _in_numpy(out), out.dtype != x.dtype))


def gradients_of(
    x: Tensor, words: Words, slots: Any, slopes: Tensor, grad: Tensor, out: Tensor, learned: bool
) -> Tensor:
    """Writes the gradient of the inputs to `out` (blocks, elements); returns that of each step, 0 if not `learned`.

    Args:
        slopes: shape (widths, 2, words): the surrogate slopes of sign and magnitude at each word from the lowest.
        grad: gradient of the views, (blocks, views, elements), in a type that `views_of` writes.
    """
    of_steps = np.zeros((len(x) if learned else 1, len(words.two)))
    arguments = (
        x.numpy(), *words.arrays, slots, slopes.numpy(), _in_numpy(grad), grad.dtype != x.dtype, out.numpy(), of_steps,
        learned,
    )  # fmt: skip
    _in_parallel(_gradients_of, grad, arguments)
    return torch.from_numpy(of_steps.sum(0)).to(words.steps.dtype)


def _in_numpy(views: Tensor) -> Any:
    """The tensor's memory; numbers in bfloat16 as their 16 bits, which are the upper ones of a float32."""
    return views.view(torch.uint16).numpy() if views.dtype == torch.bfloat16 else views.numpy()


def _in_parallel(kernel: Any, views: Tensor, arguments: tuple[Any, ...]) -> None:
    """Runs a kernel over the blocks of `views`, in threads of Python where there is enough to do.

    Not in numba's threads, which do not survive a fork if torch has threads too.
    """
    blocks = len(views)
    count = max(1, min(torch.get_num_threads(), blocks, views.numel() // _SHARE))
    bounds = [blocks * i // count for i in range(count + 1)]
    others = [pool(count).submit(kernel, bounds[i], bounds[i + 1], *arguments) for i in range(1, count)]
    kernel(0, bounds[1], *arguments)
    for other in others:
        other.result()


_pools: dict[int, ThreadPoolExecutor] = {}


def pool(count: int) -> ThreadPoolExecutor:
    """Kept, because to start threads takes longer than most kernels."""
    if count not in _pools:
        _pools[count] = ThreadPoolExecutor(count - 1)
    return _pools[count]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # the threads are not there in a forked process


def _jit(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@_jit
def _words_of(x: Any, step: Any, low: Any, high: Any, two: Any, words: Any) -> None:
    """The integer words of a tile. Loops cover whole rows without branches, so that they are vectorised."""
    if two:
        for i in range(x.size):
            words[i] = 1 if x[i] >= 0 else -1
    else:
        for i in range(x.size):
            words[i] = min(max(np.rint(x[i] / step), low), high)


@_jit
def _tiles(blocks: Any, elements: Any) -> Any:
    """How many blocks a tile has, and how many elements of each: whole blocks, or a part of one."""
    return max(1, min(blocks, _TILE // max(1, elements))), min(elements, _TILE)


@_jit
def _views_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
              out: Any, reduced: Any) -> None:  # fmt: skip
    elements = x.shape[1]
    rows_of_tile, width_of_tile = _tiles(last - first, elements)
    flat, flat_out, stride = x.reshape(-1), out.reshape(-1), out.shape[1] * elements
    size = max(1, rows_of_tile * width_of_tile)
    buffer, of_kind, halves = np.empty(size, x.dtype), np.empty(size, x.dtype), np.empty(size, np.uint16)
    for b in range(first, last, rows_of_tile):
        rows = min(rows_of_tile, last - b)
        for begin in range(0, elements, width_of_tile):
            width = min(width_of_tile, elements - begin)
            start, place = b * elements + begin, b * stride + begin
            tile = flat[start : start + rows * width]
            words, of_view = buffer[: tile.size], of_kind[: tile.size]
            for k in range(len(steps)):
                low, high = lows[k], highs[k]
                value, sign, magnitude, binary = slots[k]
                _words_of(tile, steps[k], low, high, two[k], words)
                if value >= 0:
                    _scatter(words, place + value * elements, stride, rows, width, flat_out, halves, reduced)
                if sign >= 0:
                    for i in range(tile.size):
                        of_view[i] = min(max(words[i], -1), 1)
                    _scatter(of_view, place + sign * elements, stride, rows, width, flat_out, halves, reduced)
                if magnitude >= 0:
                    for i in range(tile.size):
                        of_view[i] = abs(words[i])
                    _scatter(of_view, place + magnitude * elements, stride, rows, width, flat_out, halves, reduced)
                if binary >= 0:
                    factor, shift = (1, 0) if low < 0 else (2, -1)
                    for i in range(tile.size):
                        of_view[i] = factor * words[i] + shift
                    _scatter(of_view, place + binary * elements, stride, rows, width, flat_out, halves, reduced)


@_jit
def _gradients_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
                  slopes: Any, grad: Any, reduced: Any, result: Any, of_steps: Any, learned: Any) -> None:  # fmt: skip
    elements = x.shape[1]
    rows_of_tile, width_of_tile = _tiles(last - first, elements)
    flat, flat_grad, totals, stride = x.reshape(-1), grad.reshape(-1), result.reshape(-1), grad.shape[1] * elements
    size = max(1, rows_of_tile * width_of_tile)
    buffer, sums, row_sums = np.empty(size, x.dtype), np.empty(size, x.dtype), np.empty(size, x.dtype)
    places, halves = np.empty(size, np.int32), np.empty(size, np.uint16)
    for b in range(first, last, rows_of_tile):
        rows = min(rows_of_tile, last - b)
        for begin in range(0, elements, width_of_tile):
            width = min(width_of_tile, elements - begin)
            start, place = b * elements + begin, b * stride + begin
            tile, total = flat[start : start + rows * width], totals[start : start + rows * width]
            words, part, of_view = buffer[: tile.size], sums[: tile.size], row_sums[: tile.size]
            total[:] = 0
            for k in range(len(steps)):
                step, low, high = steps[k], lows[k], highs[k]
                value, sign, magnitude, binary = slots[k]
                if value >= 0:
                    _gather(flat_grad, place + value * elements, stride, rows, width, part, halves, reduced)
                else:
                    part[:] = 0
                if sign >= 0 or magnitude >= 0:
                    _words_of(tile, step, low, high, two[k], words)
                    for i in range(tile.size):
                        places[i] = np.int32(words[i] - low)
                    for slot, kind in ((sign, 0), (magnitude, 1)):
                        if slot >= 0:
                            _gather(flat_grad, place + slot * elements, stride, rows, width, of_view, halves, reduced)
                            _add_sloped(of_view, slopes[k, kind], places, part)
                if binary >= 0:
                    factor = 1 if low < 0 else 2
                    _gather(flat_grad, place + binary * elements, stride, rows, width, of_view, halves, reduced)
                    for i in range(tile.size):
                        part[i] += factor * of_view[i]
                _keep_inside(tile, step, low, high, part)
                for i in range(tile.size):
                    total[i] += part[i]
                if learned:
                    for r in range(rows):
                        for i in range(r * width, (r + 1) * width):
                            of_steps[b + r, k] -= part[i] * (tile[i] / step)


@_jit
def _scatter(of_view: Any, start: Any, stride: Any, rows: Any, width: Any, out: Any, halves: Any,
             reduced: Any) -> None:  # fmt: skip
    """Writes a tile's elements of one view to the rows where they belong, from `start` on, `stride` apart."""
    if reduced:
        bits = of_view.view(np.uint32)
        for i in range(of_view.size):
            halves[i] = bits[i] >> 16  # words of up to eight bits lose nothing
        _copy_rows(halves, 0, width, out, start, stride, rows, width)
    else:
        _copy_rows(of_view, 0, width, out, start, stride, rows, width)


@_jit
def _gather(grad: Any, start: Any, stride: Any, rows: Any, width: Any, out: Any, halves: Any,
            reduced: Any) -> None:  # fmt: skip
    """The gradient of one view in a tile, as a run of adjacent elements."""
    if reduced:
        _copy_rows(grad, start, stride, halves, 0, width, rows, width)
        bits = out.view(np.uint32)
        for i in range(out.size):
            bits[i] = np.uint32(halves[i]) << 16
    else:
        _copy_rows(grad, start, stride, out, 0, width, rows, width)


@_jit
def _copy_rows(source: Any, start: Any, stride: Any, target: Any, to: Any, apart: Any, rows: Any,
               width: Any) -> None:  # fmt: skip
    """Copies rows of `width` elements. Indices have no sign, so that none is checked for being negative."""
    for r in range(np.uint64(rows)):
        first, into = np.uint64(start) + r * np.uint64(stride), np.uint64(to) + r * np.uint64(apart)
        for i in range(np.uint64(width)):
            target[into + i] = source[first + i]


@_jit
def _add_sloped(row: Any, slopes: Any, places: Any, part: Any) -> None:
    """Adds a view's gradient times its slope at each word."""
    for i in range(row.size):
        part[i] += row[i] * slopes[np.uint32(places[i])]


@_jit
def _keep_inside(x: Any, step: Any, low: Any, high: Any, part: Any) -> None:
    """Turns the gradient of the words into that of the inputs, which is zero where they are clipped."""
    for i in range(x.size):
        word = np.rint(x[i] / step)
        inside = (word >= low) & (word <= high)
        part[i] = part[i] / step if inside else part[i] * 0
