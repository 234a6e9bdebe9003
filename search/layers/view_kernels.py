"""Views of a layer's input and their gradients in one pass over memory, for tensors on a CPU.

A block is a run of adjacent elements of one group: inputs have the shape (blocks, elements), views and their gradients
(blocks, views, elements). Word widths are numbered; `slots[k, v]` is the index of view v (value, sign, magnitude,
binary) of width k, or -1.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

_TILE = 1024  # elements that stay in the first-level cache while all widths are computed


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Words:
    """The words of each width: step, lowest and highest word, one entry per width.

    `two` marks signed words of one bit, which are -1 and +1.
    """

    steps: Tensor
    lows: Tensor
    highs: Tensor
    two: tuple[bool, ...]

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.steps.numpy(), self.lows.numpy(), self.highs.numpy(), np.array(self.two)


def views_of(x: Tensor, words: Words, slots: Any, out: Tensor) -> None:
    """Writes all views of `x` (blocks, elements) to `out` (blocks, views, elements)."""
    _in_parallel(_views_of, len(x), (x.numpy(), *words.arrays, slots, out.numpy()))


def gradients_of(
    x: Tensor, words: Words, slots: Any, slopes: Tensor, grad: Tensor, out: Tensor, learned: bool
) -> Tensor:
    """Writes the gradient of the inputs to `out` (blocks, elements); returns that of each step, 0 if not `learned`.

    Args:
        slopes: shape (widths, 2, words): the surrogate slopes of sign and magnitude at each word from the lowest.
        grad: gradient of the views, (blocks, views, elements).
    """
    of_steps = np.zeros((len(x), len(words.two)))
    arguments = (x.numpy(), *words.arrays, slots, slopes.numpy(), grad.numpy(), out.numpy(), of_steps, learned)
    _in_parallel(_gradients_of, len(x), arguments)
    return torch.from_numpy(of_steps.sum(0)).to(words.steps.dtype)


def _in_parallel(kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
    """Runs a kernel in threads of Python, because numba's threads do not survive a fork if torch has threads too."""
    count = max(1, min(torch.get_num_threads(), blocks))
    bounds = [blocks * i // count for i in range(count + 1)]
    if count == 1:
        kernel(0, blocks, *arguments)
        return
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda i: kernel(bounds[i], bounds[i + 1], *arguments), range(count)))


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
def _views_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
              out: Any) -> None:  # fmt: skip
    buffer = np.empty(_TILE, dtype=x.dtype)
    for b in range(first, last):
        for begin in range(0, x.shape[1], _TILE):
            tile = x[b, begin : begin + _TILE]
            words = buffer[: tile.size]
            for k in range(len(steps)):
                value, sign, magnitude, binary = slots[k]
                _words_of(tile, steps[k], lows[k], highs[k], two[k], words)
                if value >= 0:
                    row = out[b, value, begin : begin + _TILE]
                    for i in range(tile.size):
                        row[i] = words[i]
                if sign >= 0:
                    row = out[b, sign, begin : begin + _TILE]
                    for i in range(tile.size):
                        row[i] = min(max(words[i], -1), 1)
                if magnitude >= 0:
                    row = out[b, magnitude, begin : begin + _TILE]
                    for i in range(tile.size):
                        row[i] = abs(words[i])
                if binary >= 0:
                    row = out[b, binary, begin : begin + _TILE]
                    factor, shift = (1, 0) if lows[k] < 0 else (2, -1)
                    for i in range(tile.size):
                        row[i] = factor * words[i] + shift


@_jit
def _gradients_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
                  slopes: Any, grad: Any, result: Any, of_steps: Any, learned: Any) -> None:  # fmt: skip
    buffer, sums, places = np.empty(_TILE, x.dtype), np.empty(_TILE, x.dtype), np.empty(_TILE, np.int32)
    for b in range(first, last):
        for begin in range(0, x.shape[1], _TILE):
            tile = x[b, begin : begin + _TILE]
            total, words, part = result[b, begin : begin + _TILE], buffer[: tile.size], sums[: tile.size]
            total[:] = 0
            for k in range(len(steps)):
                step, low, high = steps[k], lows[k], highs[k]
                value, sign, magnitude, binary = slots[k]
                if value >= 0:
                    part[:] = grad[b, value, begin : begin + _TILE]
                else:
                    part[:] = 0
                if sign >= 0 or magnitude >= 0:
                    _words_of(tile, step, low, high, two[k], words)
                    for i in range(tile.size):
                        places[i] = np.int32(words[i] - low)
                    for slot, kind in ((sign, 0), (magnitude, 1)):
                        if slot >= 0:
                            _add_sloped(grad[b, slot, begin : begin + _TILE], slopes[k, kind], places, part)
                if binary >= 0:
                    row, factor = grad[b, binary, begin : begin + _TILE], 1 if low < 0 else 2
                    for i in range(tile.size):
                        part[i] += factor * row[i]
                _keep_inside(tile, step, low, high, part)
                for i in range(tile.size):
                    total[i] += part[i]
                if learned:
                    for i in range(tile.size):
                        of_steps[b, k] -= part[i] * (tile[i] / step)


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
