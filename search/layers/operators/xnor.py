"""The XNOR operator (Rastegari et al., ECCV 2016): inputs and weights of one bit."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View, Weights


class Xnor:
    """Sum of binarize(x) * binarize(w), times the mean magnitude of the weights and the inputs' root mean square.

    Inputs with a sign are +1 from zero on, else -1. Inputs behind a ReLU are +1 where they round to one step, else -1.
    Positions of the padding are skipped: they count neither way.
    """

    views: ClassVar[tuple[View, ...]] = ("binary",)
    uniform: ClassVar[bool] = True

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        return (weights.words,)

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        return weights.step * inputs.rms
