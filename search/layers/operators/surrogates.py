"""Transforms without a useful derivative, with the surrogate gradients of the paper's reference 26."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from search.layers.operators.base import Inputs, Surrogates, View
from search.layers.tracing import traced


def view(words: Tensor, kind: View, inputs: Inputs, surrogates: Surrogates) -> Tensor:
    """A view of the input's integer words, differentiable."""
    if kind == "sign":
        return sign(words, surrogates.sign_width_input * inputs.rms / inputs.step.detach())
    if kind == "magnitude":
        return magnitude(words, surrogates.steepness * inputs.step.detach() / inputs.rms)
    if kind == "binary" and not inputs.signed:
        return 2 * words - 1
    return words


def sign(x: Tensor, width: Tensor | float) -> Tensor:
    """sign(x) with sign(0) = 0; its gradient is a Gaussian of standard deviation `width` and area 2."""
    if traced(x):
        return x.sign()
    result: Tensor = _Sign.apply(  # type: ignore[no-untyped-call]
        x, torch.as_tensor(width, dtype=x.dtype, device=x.device)
    )
    return result


def magnitude(x: Tensor, steepness: Tensor | float) -> Tensor:
    """|x|; its gradient is tanh(steepness * x)."""
    if traced(x):
        return x.abs()
    result: Tensor = _Magnitude.apply(  # type: ignore[no-untyped-call]
        x, torch.as_tensor(steepness, dtype=x.dtype, device=x.device)
    )
    return result


def sign_slope(x: Tensor, width: Tensor) -> Tensor:
    """The surrogate derivative of sign(x)."""
    return (x / width).square_().mul_(-0.5).exp_().mul_(math.sqrt(2 / math.pi) / width)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor) -> Tensor:
        ctx.save_for_backward(x, width)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, width = ctx.saved_tensors
        return grads[0] * sign_slope(x, width), None


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steepness: Tensor) -> Tensor:
        ctx.save_for_backward(x, steepness)
        return x.abs()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, steepness = ctx.saved_tensors
        return grads[0] * torch.tanh(steepness * x), None
