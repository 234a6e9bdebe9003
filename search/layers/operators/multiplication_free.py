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

    One accumulator adds both terms, so weights use the step of the inputs and both terms have the same unit. A weight
    is a sign, which is kept if the magnitude rounds to 0, and a magnitude. The rms of a term is that of w and x
    combined; the scale makes it equal to that of x * w.
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
        largest = inputs.step * levels(weights.bits, signed=True)[1]  # words are clipped if w is much larger than x
        both = (torch.minimum(weights.rms, largest).square() + inputs.rms.square()).sqrt()
        return weights.rms * inputs.rms / both * inputs.step
