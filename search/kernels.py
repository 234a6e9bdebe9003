"""Views of a layer's input and their gradients in one pass over memory, for tensors of the CPU.

A block is a run of neighbouring elements with the same group: inputs lie as (blocks, elements), views and their
gradients as (blocks, views, elements). Word widths are numbered; `slots[k, v]` is where view v (value, sign, magnitude,
binary) of width k lies, or -1.
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

_TILE = 1024  # elements that stay in the first cache from width to width


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Words:
    """The words of each width: unit, lowest and highest, one entry a width.

    `two` marks words of one bit with a sign, which are -1 and +1.
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
    x: Tensor, words: Words, slots: Any, slopes: Tensor, grad: Tensor, learned: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs (blocks, elements) and, where they are learned, of the steps (one a width).

    Args:
        slopes: shape (widths, 2, words): the surrogate slopes of sign and magnitude at each word from the lowest on.
        grad: gradient of the views, (blocks, views, elements).
    """
    result = torch.empty_like(x)
    of_steps = np.zeros((len(x), len(words.two)))
    arguments = (x.numpy(), *words.arrays, slots, slopes.numpy(), grad.numpy(), result.numpy(), of_steps, learned)
    _in_parallel(_gradients_of, len(x), arguments)
    return result, torch.from_numpy(of_steps.sum(0)).to(words.steps.dtype)


def _in_parallel(kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
    """Threads of their own, because numba's do not survive a fork beside those of torch."""
    count = min(torch.get_num_threads(), blocks)
    bounds = [blocks * i // count for i in range(count + 1)]
    if count == 1:
        kernel(0, blocks, *arguments)
        return
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda i: kernel(bounds[i], bounds[i + 1], *arguments), range(count)))


def _jit(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True)(function))


@_jit
def _word(x: Any, step: Any, low: Any, high: Any, two: Any) -> Any:
    if two:
        return step * 0 + (1 if x >= 0 else -1)
    return min(max(np.rint(x / step), low), high)


@_jit
def _views_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
              out: Any) -> None:  # fmt: skip
    length = x.shape[1]
    for b in range(first, last):
        for begin in range(0, length, _TILE):
            end = min(begin + _TILE, length)
            for k in range(len(steps)):
                step, low, high = steps[k], lows[k], highs[k]
                value, sign, magnitude, binary = slots[k]
                if value >= 0:
                    for i in range(begin, end):
                        out[b, value, i] = _word(x[b, i], step, low, high, two[k])
                if sign >= 0:
                    for i in range(begin, end):
                        out[b, sign, i] = min(max(_word(x[b, i], step, low, high, two[k]), -1), 1)
                if magnitude >= 0:
                    for i in range(begin, end):
                        out[b, magnitude, i] = abs(_word(x[b, i], step, low, high, two[k]))
                if binary >= 0:
                    factor, shift = (1, 0) if low < 0 else (2, -1)
                    for i in range(begin, end):
                        out[b, binary, i] = _word(x[b, i], step, low, high, two[k]) * factor + shift


@_jit
def _gradients_of(first: Any, last: Any, x: Any, steps: Any, lows: Any, highs: Any, two: Any, slots: Any,
                  slopes: Any, grad: Any, result: Any, of_steps: Any, learned: Any) -> None:  # fmt: skip
    length = x.shape[1]
    part = np.zeros(_TILE, dtype=x.dtype)
    for b in range(first, last):
        for begin in range(0, length, _TILE):
            size = min(_TILE, length - begin)
            for k in range(len(steps)):
                step, low, high = steps[k], lows[k], highs[k]
                value, sign, magnitude, binary = slots[k]
                for i in range(size):
                    part[i] = grad[b, value, begin + i] if value >= 0 else 0
                if sign >= 0:
                    for i in range(size):
                        word = int(_word(x[b, begin + i], step, low, high, two[k]) - low)
                        part[i] += grad[b, sign, begin + i] * slopes[k, 0, word]
                if magnitude >= 0:
                    for i in range(size):
                        word = int(_word(x[b, begin + i], step, low, high, two[k]) - low)
                        part[i] += grad[b, magnitude, begin + i] * slopes[k, 1, word]
                if binary >= 0:
                    factor = 1 if low < 0 else 2
                    for i in range(size):
                        part[i] += grad[b, binary, begin + i] * factor
                for i in range(size):
                    word = np.rint(x[b, begin + i] / step)
                    part[i] = part[i] / step if (word >= low) & (word <= high) else 0
                for i in range(size):
                    result[b, begin + i] = part[i] if k == 0 else result[b, begin + i] + part[i]
                if learned:
                    total = 0.0
                    for i in range(size):
                        total -= part[i] * (x[b, begin + i] / step)
                    of_steps[b, k] += total
