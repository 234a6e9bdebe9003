"""Views of a layer's input, concatenated along its channels, and the gradient through them."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.layers.operators import Surrogates, View
from search.layers.operators.surrogates import sign_slope
from search.layers.quantize import levels, to_words
from search.layers.tracing import traced
from search.layers.view_kernels import Words, gradients_of, views_of

_KINDS: tuple[View, ...] = ("value", "sign", "magnitude", "binary")


@dataclass(frozen=True)
class Views:
    """The views of a layer's input, in the order of concatenation; views of one word width are adjacent."""

    names: tuple[tuple[int, View], ...]  # word width, view
    signed: bool
    surrogates: Surrogates
    groups: int = 1
    linear: bool = False  # channels are the last dimension if true, else the third from the end

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(bits for bits, _ in self.names))

    def channels_of(self, x: Tensor) -> int:
        """The dimension of the channels."""
        return x.dim() - (1 if self.linear else 3)


def side_by_side(x: Tensor, steps: Sequence[Tensor], views: Views, dtype: torch.dtype | None = None) -> Tensor:
    """All views of `x`, concatenated along its channels; within a group of channels, one view after the other.

    On a CPU the result is valid until the next call in the same thread.

    Args:
        dtype: type of the result; None for that of `x`. Words are always rounded in the type of `x`. So bfloat16, which
            represents every integer up to 256, has the same words as float32.
    """
    dtype = x.dtype if dtype is None else dtype
    shape, count = list(x.shape), len(views.names)
    shape[views.channels_of(x)] *= count
    if _in_one_pass(x):
        direct = dtype == x.dtype or (x.dtype, dtype) == (torch.float32, torch.bfloat16)
        result = _scratch(dtype if direct else x.dtype, shape, _channels_last(x, views))
        views_of(
            _blocks(x, views, 1)[:, 0], _words_of(x, steps, views), _slot_table(views), _blocks(result, views, count)
        )
        return result.to(dtype)
    memory_format = torch.channels_last if _channels_last(x, views) else torch.contiguous_format
    result = torch.empty(shape, dtype=dtype, device=x.device, memory_format=memory_format)
    grouped, slots = _grouped(x, views), _slots(result, views)
    for bits, step in zip(views.widths, steps, strict=True):
        of_width = {name: slots[i] for i, (b, name) in enumerate(views.names) if b == bits}
        words = of_width.get("value")
        words = torch.empty_like(grouped) if words is None or dtype != x.dtype else words
        _words(grouped, step, bits, views.signed, words)
        for name, slot in of_width.items():
            if name == "value" and slot is not words:
                slot.copy_(words)
            elif name == "sign":
                slot.copy_(words.sign())
            elif name == "magnitude":
                slot.copy_(words.abs())
            elif name == "binary":
                slot.copy_(words if views.signed else 2 * words - 1)
    return result


def traced_side_by_side(x: Tensor, steps: Sequence[Tensor], views: Views, dtype: torch.dtype) -> Tensor:
    """`side_by_side` in operations that a graph can be made of, without memory that is shared or written to."""
    dim = views.channels_of(x)
    grouped: Tensor = x.unflatten(dim, (views.groups, -1))  # type: ignore[no-untyped-call]
    parts: dict[tuple[int, View], Tensor] = {}
    for bits, step in zip(views.widths, steps, strict=True):
        if bits == 1 and views.signed:
            words = torch.where(grouped >= 0, 1.0, -1.0).to(x.dtype)
        else:
            words = to_words(grouped, step, *levels(bits, views.signed))
        parts[bits, "value"] = words
        parts[bits, "sign"] = words.sign()
        parts[bits, "magnitude"] = words.abs()
        parts[bits, "binary"] = words if views.signed else 2 * words - 1
    return torch.cat([parts[name].to(dtype) for name in views.names], dim + 1).flatten(dim, dim + 1)


def _words(x: Tensor, step: Tensor, bits: int, signed: bool, out: Tensor) -> None:
    """The integer words of `x`; signed words of one bit are -1 and +1."""
    if bits == 1 and signed:
        torch.sign(x, out=out)
        out.masked_fill_(out == 0, 1)
        return
    torch.div(x, step, out=out)
    out.round_().clamp_(*levels(bits, signed))


def view_gradients(
    x: Tensor, rms: Tensor, inputs: Tensor, of_inputs: Tensor, steps: Sequence[Tensor], views: Views, learned: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradient of `x` and, if they are learned, of the steps; may overwrite `of_inputs`.

    Args:
        inputs: `side_by_side` of the other arguments.
        of_inputs: gradient of `inputs`.
    """
    if _in_one_pass(x):
        if (x.dtype, of_inputs.dtype) != (torch.float32, torch.bfloat16):
            of_inputs = of_inputs.to(x.dtype)
        return _gradients_in_one_pass(x, rms, of_inputs, steps, views, learned)
    grouped = _grouped(x, views)
    slots = list(zip(views.names, _slots(inputs, views), _slots(of_inputs, views), strict=True))
    total = torch.zeros_like(x)
    into, of_steps = _grouped(total, views), list[Tensor | None]()
    for bits, step in zip(views.widths, steps, strict=True):
        of_width = {name: (view, gradient) for (b, name), view, gradient in slots if b == bits}
        part = _through_views(grouped, step, rms, bits, of_width, views)
        relative = grouped / step
        part.div_(step)
        part.masked_fill_(_clipped(relative, bits, views.signed), 0)
        of_steps.append(-(part * relative).sum().to(step.dtype).reshape(step.shape) if learned else None)
        into += part
    return total, of_steps


def _gradients_in_one_pass(
    x: Tensor, rms: Tensor, of_inputs: Tensor, steps: Sequence[Tensor], views: Views, learned: bool
) -> tuple[Tensor, list[Tensor | None]]:
    memory_format = torch.channels_last if _channels_last(x, views) else torch.contiguous_format
    grad = _blocks(of_inputs.contiguous(memory_format=memory_format), views, len(views.names))
    words, total = _words_of(x, steps, views), torch.empty_like(x)
    of_steps = gradients_of(
        _blocks(x, views, 1)[:, 0], words, _slot_table(views), _slopes(x, rms, words, views), grad,
        _blocks(total, views, 1)[:, 0], learned,
    )  # fmt: skip
    return total, [of_step if learned else None for of_step in of_steps]


def _through_views(
    x: Tensor, step: Tensor, rms: Tensor, bits: int, of_width: Mapping[View, tuple[Tensor, Tensor]], views: Views
) -> Tensor:
    """The gradient with respect to the words of one width: the sum over views of gradient times slope."""
    words = of_width["value"][0].to(x.dtype) if "value" in of_width else torch.empty_like(x)
    if "value" not in of_width:
        _words(x, step, bits, views.signed, words)
    total: Tensor | None = None
    for name, (_, of_view) in of_width.items():
        gradient = of_view.to(x.dtype)
        if name == "sign":
            gradient.mul_(sign_slope(words, views.surrogates.sign_width_input * rms / step))
        elif name == "magnitude":
            gradient.mul_((words * (views.surrogates.steepness * step / rms)).tanh_())
        elif name == "binary" and not views.signed:
            gradient.mul_(2)
        total = gradient if total is None else total.add_(gradient)
    assert total is not None
    return total


def _clipped(relative: Tensor, bits: int, signed: bool) -> Tensor:
    """Where x / step rounds to a value outside the word's range.

    Ends of a range are odd or 0. Rounding is half to even, so an odd end plus 0.5 rounds to a value outside.
    """
    high = levels(bits, signed)[1]
    return relative.abs() >= high + 0.5 if signed else (relative >= high + 0.5) | (relative < -0.5)


def _grouped(x: Tensor, views: Views) -> Tensor:
    """`x` as (..., groups, channels of a group, ...)."""
    dim = views.channels_of(x)
    return x.view(*x.shape[:dim], views.groups, -1, *x.shape[dim + 1 :])


def _slots(x: Tensor, views: Views) -> tuple[Tensor, ...]:
    """The part of each view in a tensor made by `side_by_side`, in the shape of `_grouped`."""
    dim = views.channels_of(x)
    parts = x.view(*x.shape[:dim], views.groups, len(views.names), -1, *x.shape[dim + 1 :])
    return parts.unbind(dim + 1)


def _in_one_pass(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not traced(x)


_scratches = threading.local()


def _scratch(dtype: torch.dtype, shape: Sequence[int], channels_last: bool) -> Tensor:
    """Memory that all layers share: allocating new pages for each would take longer than writing to them."""
    key, size = str(dtype), math.prod(shape)
    memory: Tensor | None = getattr(_scratches, key, None)
    if memory is None or memory.numel() < size:
        with torch.inference_mode(False):
            memory = torch.empty(size, dtype=dtype)
        setattr(_scratches, key, memory)
    if channels_last:
        n, c, h, w = shape
        return memory[:size].view(n, h, w, c).permute(0, 3, 1, 2)
    return memory[:size].view(list(shape))


def _channels_last(x: Tensor, views: Views) -> bool:
    """Whether the channels are innermost; of images of one channel or one pixel, which lie in both orders, on a CPU."""
    if views.linear or x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return not x.is_contiguous() or (views.groups == 1 and _in_one_pass(x))


def _blocks(x: Tensor, views: Views, count: int) -> Tensor:
    """`x`, without a copy, as (blocks, views, elements): runs of adjacent elements of one group in one view."""
    if len(views.names) == 1:  # nothing is interleaved: long runs, in whatever order the elements lie
        return (x.permute(0, 2, 3, 1) if _channels_last(x, views) else x).view(len(x), 1, x.numel() // max(1, len(x)))
    if _channels_last(x, views):
        return x.permute(0, 2, 3, 1).view(-1, count, x.shape[1] // (views.groups * count))
    inner = x.shape[views.channels_of(x) :].numel() // (views.groups * count)
    return x.view(-1, count, inner)


def _words_of(x: Tensor, steps: Sequence[Tensor], views: Views) -> Words:
    two = tuple(bits == 1 and views.signed for bits in views.widths)
    lows, highs = _ends(views.widths, views.signed, np.float64 if x.dtype == torch.float64 else np.float32)
    return Words(torch.stack([s.detach().to(x.dtype) for s in steps]), lows, highs, two)


@functools.cache
def _ends(widths: tuple[int, ...], signed: bool, dtype: Any) -> tuple[Any, Any]:
    """Lowest and highest word of each width; arrays, since a tensor of a trace must not be kept."""
    lows, highs = zip(*(levels(bits, signed) for bits in widths), strict=True)
    return np.array(lows, dtype), np.array(highs, dtype)


@functools.cache
def _slot_table(views: Views) -> Any:
    """Index of each kind of view of each width, or -1: shape (widths, kinds)."""
    places = {name: i for i, name in enumerate(views.names)}
    return np.array([[places.get((bits, kind), -1) for kind in _KINDS] for bits in views.widths])


def _slopes(x: Tensor, rms: Tensor, words: Words, views: Views) -> Tensor:
    """Surrogate slopes of sign and magnitude at every word of every width, from the lowest; empty if unused."""
    if not any(name in ("sign", "magnitude") for _, name in views.names):
        return x.new_empty((len(views.widths), 2, 0))
    span = int((words.highs - words.lows).max()) + 1
    every = torch.from_numpy(words.lows[:, None] + np.arange(span, dtype=words.lows.dtype))
    unit = (words.steps / rms.to(x.dtype))[:, None]
    of_sign = sign_slope(every, views.surrogates.sign_width_input / unit)
    return torch.stack([of_sign, torch.tanh(views.surrogates.steepness * unit * every)], 1)
