"""The XNOR operator (Rastegari et al., ECCV 2016): inputs and weights of one bit."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View, Weights


class Xnor:
    """Sum of binarize(x) * binarize(w), times the mean magnitude of the weights and the inputs' root mean square.

    Signed inputs are +1 if they are at least 0, else -1. Inputs after a ReLU are +1 if they round to one step or more,
    else -1. Positions of the padding are skipped: they add nothing.
    """

    views: ClassVar[tuple[View, ...]] = ("binary",)
    uniform: ClassVar[bool] = True

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        return (weights.words,)

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        return weights.step * inputs.rms
