"""The typical operator, Eq. 3a."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View, Weights


class Typical:
    """Sum of x * w."""

    views: ClassVar[tuple[View, ...]] = ("value",)
    uniform: ClassVar[bool] = True

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        return (weights.words,)

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        return weights.step * inputs.step
