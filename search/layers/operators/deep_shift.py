"""The deep-shift operator (Elhoushi et al. 2019, arXiv:1905.13298): weights are signed powers of two."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View, Weights
from search.layers.quantize import straight_through

_TOP = {1: 1.3, 3: 2.15, 7: 2.35}
"""Largest shift -> largest magnitude, in units of the rms, that minimises the mean square error of a Gaussian."""


class DeepShift:
    """Sum of (x << shift) with the sign of w. The word of a weight is this sign and a shift; there is no zero.

    Magnitudes are rounded to the nearest power of two on a logarithmic scale; the largest is `_TOP` times the rms.
    """

    views: ClassVar[tuple[View, ...]] = ("value",)
    uniform: ClassVar[bool] = False

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        relative = weights.latent / _unit(weights)
        shifts = torch.log2(relative.detach().abs()).round_().clamp_(0, largest_shift(weights.bits))
        powers = torch.exp2(shifts)
        return (straight_through(relative, torch.where(relative < 0, -powers, powers)),)

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        return _unit(weights) * inputs.step


def largest_shift(bits: int) -> int:
    """The largest shift of a weight of `bits` bits, one of which is its sign."""
    return int(2 ** (bits - 1)) - 1


def _unit(weights: Weights) -> Tensor:
    """The value of a weight with shift 0."""
    most = largest_shift(weights.bits)
    return weights.rms * (_TOP.get(most, 2.35) * 0.5**most)
