"""What each output of a layer is computed from: the inputs of its window, in the order of the weights in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.layers.fused import Layer, output_padding


@dataclass(frozen=True)
class Windows:
    """The windows of a batch, as a view of its memory, shape (N, channels, kernel rows, columns, rows, columns).

    A transposed convolution is one over inputs with zeros between them, whose kernel is read backwards.
    """

    view: Tensor
    groups: int
    backwards: bool
    shape: tuple[int, ...]
    """Of the layer's output, with -1 for the channels."""

    @property
    def positions(self) -> int:
        """Outputs of a channel in the batch."""
        return len(self.view) * self.view.shape[4] * self.view.shape[5]

    def of(self, first: int, last: int) -> Tensor:
        """The windows of some images, shape (positions, groups, inputs of an output)."""
        return self._rows(self.view[first:last].permute(0, 4, 5, 1, 2, 3))

    def at(self, index: Tensor) -> Tensor:
        """The windows of some positions, in the same shape.

        Args:
            index: from 0 to `positions`, image by image, row by row.
        """
        high, wide = self.view.shape[4:]
        image, row, column = index // (high * wide), index // wide % high, index % wide
        return self._rows(self.view.permute(0, 4, 5, 1, 2, 3)[image, row, column])

    def _rows(self, x: Tensor) -> Tensor:
        if self.backwards:
            x = x.flip(-2, -1)
        return x.reshape(x.shape[:-3].numel(), self.groups, x.shape[-3:].numel() // self.groups)


def windows(
    layer: Layer, x: Tensor, output_size: Sequence[int] | None = None, dtype: torch.dtype | None = None
) -> Windows:
    """The windows of a layer over its input, or over words of it.

    Args:
        x: with or without a batch, as the layer takes it.
        output_size: what a transposed convolution is given.
        dtype: of the windows, which hold each value many times; None for that of `x`.
    """
    if isinstance(layer, nn.Linear):
        shape = (*x.shape[:-1], -1)
        x = x if dtype is None else x.to(dtype)
        return Windows(x.reshape(-1, x.shape[-1])[..., None, None, None, None], 1, False, shape)
    of_layer: Any = layer
    axes = len(layer.kernel_size)
    leading = x.shape[: x.dim() - axes - 1]
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    added = output_padding(layer, x, output_size) if transposed else ()
    x = x.reshape(-1, *x.shape[-axes - 1 :])
    stride, dilation, kernel = tuple(layer.stride), tuple(layer.dilation), tuple(layer.kernel_size)
    if transposed:
        apart = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)))
        every: Any = (..., *(slice(None, None, s) for s in stride))
        apart[every] = x
        around = [(d * (k - 1) - p, d * (k - 1) - p + a)
                  for d, k, p, a in zip(dilation, kernel, of_layer.padding, added, strict=True)]  # fmt: skip
        x = functional.pad(apart, [n for pair in reversed(around) for n in pair])
        stride = (1,) * axes
    else:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = functional.pad(x, of_layer._reversed_padding_repeated_twice, mode)
    if axes == 1:
        x, stride, dilation, kernel = x.unsqueeze(-2), (1, *stride), (1, *dilation), (1, *kernel)
    x = (x if dtype is None else x.to(dtype)).contiguous()
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)]
    n, c, high, low = x.stride()
    view = x.as_strided(
        (*x.shape[:2], *kernel, *sizes),
        (n, c, high * dilation[0], low * dilation[1], high * stride[0], low * stride[1]),
    )
    return Windows(view, layer.groups, transposed, (*leading, -1, *sizes[2 - axes :]))


def in_shape(sums: Tensor, of: Windows) -> Tensor:
    """Sums of all positions, shape (positions, out), as the layer's output."""
    if of.shape[-1] == -1:
        return sums.reshape(*of.shape[:-1], sums.shape[-1])
    high, wide = of.view.shape[4:]
    batched = sums.reshape(len(of.view), high, wide, sums.shape[-1]).permute(0, 3, 1, 2)
    return batched.reshape(*(sums.shape[-1] if n == -1 else n for n in of.shape))
