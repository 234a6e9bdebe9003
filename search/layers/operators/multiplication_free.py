"""The multiplication-free operator, Eq. 3b."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View, Weights
from search.layers.operators.surrogates import magnitude, sign
from search.layers.quantize import levels, to_words


class MultiplicationFree:
    """Sum of sign(x) |w| + |x| sign(w).

    One accumulator adds both terms, so weights are words of the input's step: integers in the same unit. Theirs are a
    sign and a magnitude, and keep the sign where the magnitude rounds to 0. A term is as large as w and x together,
    in root mean squares; the scale makes that as large as x * w.
    """

    views: ClassVar[tuple[View, ...]] = ("sign", "magnitude")
    uniform: ClassVar[bool] = False

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        step, high = inputs.step.detach(), levels(weights.bits, signed=True)[1]
        words = to_words(weights.latent, step, -high, high)
        return (
            magnitude(words, surrogates.steepness * step / weights.rms),
            sign(weights.latent, surrogates.sign_width_weight * weights.rms),
        )

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        largest = inputs.step * levels(weights.bits, signed=True)[1]  # words are clipped where w is far above x
        both = (torch.minimum(weights.rms, largest).square() + inputs.rms.square()).sqrt()
        return weights.rms * inputs.rms / both * inputs.step
