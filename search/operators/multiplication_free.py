"""The multiplication-free operator, Eq. 3b."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from search.operators.base import Inputs, Surrogates, View, Weights
from search.operators.surrogates import magnitude, sign


class MultiplicationFree:
    """Sum of sign(x) |w| + |x| sign(w).

    One accumulator adds both terms, so they are integer words there and not values with steps of their own. In root
    mean squares the words are as large as w / step_w and x / step_x, and a term of the sum is as large as both
    together; the scale makes that as large as x * w.
    """

    views: ClassVar[tuple[View, ...]] = ("sign", "magnitude")
    uniform: ClassVar[bool] = True

    @staticmethod
    def words(weights: Weights, surrogates: Surrogates) -> tuple[Tensor, ...]:
        words, rms = weights.words, weights.rms / weights.step.detach()
        return magnitude(words, surrogates.steepness / rms), sign(words, surrogates.sign_width_weight * rms)

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        of_weights, of_inputs = weights.rms / weights.step, inputs.rms / inputs.step
        return weights.rms * inputs.rms / (of_weights.square() + of_inputs.square()).sqrt()
