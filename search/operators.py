"""The inference operators of Eq. 3, each as a sum of ordinary convolutions over transformed inputs and weights.

Adding an operator is one class here and one entry in `arch_specs/operators.yaml`, which declares its hardware.

Every operator has a scale that makes its output as large as the typical operator's: one factor an output channel, from
the root mean squares of weights and inputs. It folds into the normalisation behind the layer and costs no hardware.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from dse.errors import InputError

View = Literal["value", "sign", "magnitude"]
"""Transforms of a quantised input that an operator may convolve."""

SIGN_WIDTH_INPUT = 0.5
SIGN_WIDTH_WEIGHT = 1.0
ABS_STEEPNESS = 10.0
"""Widths of the surrogate gradients, in units of the tensor's root mean square (paper, reference 26)."""


@dataclass(frozen=True)
class Weights:
    """A layer's weights as its operators get them; `rms` broadcasts against `quantised`."""

    quantised: Tensor  # at the candidate's word width, shape (out, in, ...)
    rms: Tensor  # root mean square of each output channel, shape (out, 1, ...)


class Operator(Protocol):
    """An operator j of Eq. 1.

    `views` names the transformed inputs; `weights` returns, in the same order, the tensors they are convolved with,
    each of the shape of the layer's weights and with every scale applied. The operator's output is the sum of the
    convolutions. `input_rms` is the root mean square of the layer's input, a scalar.
    """

    views: ClassVar[tuple[View, ...]]

    @staticmethod
    def weights(weights: Weights, input_rms: Tensor) -> tuple[Tensor, ...]: ...


class Typical:
    """Eq. 3a: sum of x * w."""

    views: ClassVar[tuple[View, ...]] = ("value",)

    @staticmethod
    def weights(weights: Weights, input_rms: Tensor) -> tuple[Tensor, ...]:
        return (weights.quantised,)


class MultiplicationFree:
    """Eq. 3b: sum of sign(x) |w| + |x| sign(w), times what makes it as large as sum of x * w.

    The two terms are as large as w and as x: together sqrt(w^2 + x^2) instead of w x, in root mean squares.
    """

    views: ClassVar[tuple[View, ...]] = ("sign", "magnitude")

    @staticmethod
    def weights(weights: Weights, input_rms: Tensor) -> tuple[Tensor, ...]:
        w, rms = weights.quantised, weights.rms
        scale = rms * input_rms / (rms.square() + input_rms.square()).sqrt()
        return magnitude(w, ABS_STEEPNESS / rms) * scale, sign(w, SIGN_WIDTH_WEIGHT * rms) * scale


class BinaryConnect:
    """Eq. 3c: sum of x * binarize(w), times the mean magnitude of the output channel's weights.

    Its weights are words of one bit, so quantising them is binarizing them.
    """

    views: ClassVar[tuple[View, ...]] = ("value",)

    @staticmethod
    def weights(weights: Weights, input_rms: Tensor) -> tuple[Tensor, ...]:
        return (weights.quantised,)


OPERATORS: dict[str, type[Operator]] = {
    "typical": Typical,
    "multiplication_free": MultiplicationFree,
    "binary_connect": BinaryConnect,
}


def operator(name: str) -> type[Operator]:
    """The class of an operator of `arch_specs/operators.yaml`.

    Raises:
        InputError: an operator that is declared for the hardware but has no class here.
    """
    if name not in OPERATORS:
        raise InputError(f"operator {name!r}", "has no class in search.operators", OPERATORS)
    return OPERATORS[name]


def view(x: Tensor, kind: View, rms: Tensor) -> Tensor:
    """A transform of the quantised input `x`; `rms` is its unit for the surrogate gradients."""
    if kind == "sign":
        return sign(x, SIGN_WIDTH_INPUT * rms)
    return magnitude(x, ABS_STEEPNESS / rms) if kind == "magnitude" else x


def sign(x: Tensor, width: Tensor | float) -> Tensor:
    """sign(x) with sign(0) = 0; its gradient is a Gaussian of standard deviation `width` and area 2."""
    result: Tensor = _Sign.apply(  # type: ignore[no-untyped-call]
        x, torch.as_tensor(width, dtype=x.dtype, device=x.device)
    )
    return result


def magnitude(x: Tensor, steepness: Tensor | float) -> Tensor:
    """|x|; its gradient is tanh(steepness * x)."""
    result: Tensor = _Magnitude.apply(  # type: ignore[no-untyped-call]
        x, torch.as_tensor(steepness, dtype=x.dtype, device=x.device)
    )
    return result


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor) -> Tensor:
        ctx.save_for_backward(x, width)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, width = ctx.saved_tensors
        return grads[0] * torch.exp(-0.5 * (x / width).square()) * (math.sqrt(2 / math.pi) / width), None


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steepness: Tensor) -> Tensor:
        ctx.save_for_backward(x, steepness)
        return x.abs()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, steepness = ctx.saved_tensors
        return grads[0] * torch.tanh(steepness * x), None
