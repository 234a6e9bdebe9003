"""A whole layer in integers: its output by the sums of an array, or of accumulators, a few images at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from search.layers.fused import Layer
from search.layers.in_memory.planes import terms_of
from search.layers.in_memory.windows import in_shape, windows

_ELEMENTS = 2**22
"""Numbers of the windows, or of the columns, that are in memory at once."""


class Sums(Protocol):
    """What adds the products of a layer: `search.layers.in_memory.sums.Array` or `search.layers.accumulators`."""

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The integer weights of each view, shape (groups, outputs of a group, inputs of an output)."""

    @property
    def words(self) -> torch.dtype | None:
        """The type of the words that it takes; None for that of the layer's input."""

    def sums(self, inputs: Tensor, /) -> Tensor:
        """The sums, shape (positions, out), of windows of shape (positions, groups, inputs of an output)."""


def check_in_memory(candidates: Sequence[Candidate], quantiser: str) -> None:
    """Refuses candidates that an array cannot compute.

    Raises:
        InputError: an operator that is not computed in memory, or DoReFa weights, whose words are one bit wider than
            the candidate's.
    """
    for c in candidates:
        if c.macro is None:
            continue
        terms_of(c, signed=False)
        if quantiser == "dorefa" and c.weight_bits > 1 and c.operator != "multiplication_free":
            problem = f"has weights that the cells of {c.name} cannot represent"
            raise InputError("quantiser 'dorefa'", problem, ("rms", "lsq"))


def layer_sums(
    layer: Layer, array: Sums, words: Tensor, scale: Tensor, output_size: Sequence[int] | None = None
) -> Tensor:
    """A layer's output: scale * sums + bias, in float32 or wider.

    Args:
        words: of the layer's input, in its shape.
        scale: the value of one unit of the sums, shape (out,).
        output_size: what a transposed convolution is given.
    """
    of = windows(layer, words, output_size, array.words)
    groups, outputs, inputs = array.weights[0].shape
    of_image = max(1, of.positions // max(1, len(of.view))) * groups * max(inputs, 8 * outputs)
    images = max(1, _ELEMENTS // of_image)
    parts = [array.sums(of.of(i, i + images)) for i in range(0, len(of.view), images)]
    sums = torch.cat(parts) if parts else words.new_zeros((0, groups * outputs))
    bias = 0 if layer.bias is None else layer.bias.detach()
    return in_shape(sums * scale + bias, of)
