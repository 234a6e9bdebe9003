"""Uniform quantisers for weights and activations, with straight-through gradients.

Values are floating-point numbers on the grid of the hardware's words. Steps follow the tensor's root mean square, so
the quantisers have no learned parameters and cannot diverge.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_TINY = 1e-8  # smallest step, so that a tensor of zeros quantises to zeros and not to NaN


def levels(bits: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest integer of a word. Unsigned words use all 2^b codes, signed ones one code less."""
    return (-max(2 ** (bits - 1) - 1, 1), max(2 ** (bits - 1) - 1, 1)) if signed else (0, 2**bits - 1)


def clip_ratio(steps: int) -> float:
    """Where to clip a Gaussian, in standard deviations, with `steps` uniform steps on either side of zero.

    A fit (within 7 % for 1 to 255 steps) of the clipping that minimises the mean square error.
    """
    return 1.22 + 0.57 * math.log(steps)


def binarise(x: Tensor) -> Tensor:
    """+1 where `x` >= 0, else -1 (Eq. 3c); the gradient is passed unchanged."""
    return straight_through(x, torch.where(x >= 0, 1.0, -1.0).to(x.dtype))


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Exactly `value`; its gradient is passed to `x`."""
    result: Tensor = _StraightThrough.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def to_words(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Integer words of a uniform quantiser: x / step, rounded half to even and clipped to low..high.

    Gradients are those of LSQ (Esser et al. 2020): step * words has the derivative 1 with respect to `x` where `x`
    rounds to a word of the range, else 0; with respect to `step` it has words - x / step there, else words.

    Args:
        step: positive, broadcasts against `x`; its gradient is computed only if it requires one.
    """
    words: Tensor = _Words.apply(x, step, low, high)  # type: ignore[no-untyped-call]
    return words


class _Words(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        words = (x / step).round_()
        ctx.save_for_backward(x, step)
        ctx.range = low, high
        return words.clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, step = ctx.saved_tensors
        low, high = ctx.range
        relative = x / step
        rounded = relative.round()
        of_x = grads[0] * ((rounded >= low) & (rounded <= high)) / step
        of_step = -(of_x * relative).sum_to_size(step.shape) if ctx.needs_input_grad[1] else None
        return of_x, of_step, None, None


def weight_rms(weight: Tensor) -> Tensor:
    """Root mean square of each output channel of `weight`, shape (out,); positive, without gradient."""
    return weight.detach().flatten(1).square().mean(1).sqrt().clamp_min(_TINY)


def _rms(x: Tensor) -> Tensor:
    """Root mean square of all elements, image by image, so that no squares are stored and no sum is too long."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim()))) if x.dim() > 1 else x
    total: Tensor = torch.linalg.vector_norm(norms)
    return total / math.sqrt(max(1, x.numel()))


class ActivationScale(nn.Module):
    """The state that quantisers of a layer's input share: its running root mean square and whether it is signed.

    The first batch decides whether it is signed: inputs after a ReLU are never negative, so all 2^b codes are used for
    positive values. Later batches update the root mean square in training mode only, as in batch normalisation.
    """

    rms: Tensor

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.signed: bool | None = None  # None before the first batch
        self.register_buffer("rms", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Observes a batch; returns the root mean square for its quantisation, without gradient."""
        if self.signed is None or self.training:
            batch = _rms(x.detach()).clamp_min(_TINY)
            if self.signed is None:
                self.signed = bool((x < 0).any())
                self.rms.copy_(batch)
                self._begin(x.detach())
            else:
                self.rms.lerp_(batch.to(self.rms.dtype), self.momentum)
        return self.rms.clone()  # a copy, because the next batch changes the buffer in place

    def _begin(self, x: Tensor) -> None:
        """Called with the first batch, when its sign and root mean square are known."""

    def step(self, rms: Tensor, bits: int) -> Tensor:
        """The value of one unit of a word of `bits` bits, a scalar; `rms` is the result of `forward`."""
        signed = bool(self.signed)
        high = levels(bits, signed)[1]
        # Values after a ReLU are one half of a Gaussian whose standard deviation is sqrt(2) times their rms.
        ratio = (clip_ratio(high) if bits > 1 else 1.0) * (1.0 if signed else math.sqrt(2))
        return rms * (ratio / high)

    def get_extra_state(self) -> dict[str, Any]:
        return {"signed": self.signed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.signed = state["signed"]
