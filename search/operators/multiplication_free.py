"""The multiplication-free operator, Eq. 3b."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from search.operators.base import Inputs, Surrogates, View, Weights
from search.operators.surrogates import magnitude, sign


class MultiplicationFree:
    """Sum of sign(x) |w| + |x| sign(w).

    One accumulator adds the words of both, so that x and w count in units of their own steps: each uses all of its
    word's range. Weights are a sign and a magnitude, and keep the sign where the magnitude rounds to 0. The scale makes
    the sum as large as that of x * w.
    """

    views: ClassVar[tuple[View, ...]] = ("sign", "magnitude")
    uniform: ClassVar[bool] = True

    @staticmethod
    def words(weights: Weights, surrogates: Surrogates) -> tuple[Tensor, ...]:
        return (
            magnitude(weights.words, surrogates.steepness * weights.step.detach() / weights.rms),
            sign(weights.latent, surrogates.sign_width_weight * weights.rms),
        )

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        """rms(w) rms(x) over the root mean square of a term, |w| and |x| in words."""
        term = ((weights.rms / weights.step).square() + (inputs.rms / inputs.step).square()).sqrt()
        return weights.rms * inputs.rms / term
