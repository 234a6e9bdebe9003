"""The definition of an inference operator: views of its inputs, words of its weights, scale of its sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

from torch import Tensor

View = Literal["value", "sign", "magnitude", "binary"]
"""What an operator convolves, computed from the input's integer words: the words, their signs (0 for 0), their
magnitudes, or +1 and -1 for the two words of one bit."""


@dataclass(frozen=True)
class Surrogates:
    """Widths of the surrogate gradients (paper, reference 26), in units of the tensor's root mean square.

    The surrogate derivative of sign(x) is a Gaussian of this standard deviation, that of |x| is tanh(steepness * x).
    """

    sign_width_input: float = 0.5
    sign_width_weight: float = 1.0
    steepness: float = 10.0


@dataclass(frozen=True)
class Inputs:
    """A layer's input at one word width: integer words times `step`. Both are scalars, `rms` without gradient."""

    rms: Tensor
    step: Tensor
    signed: bool


@dataclass(frozen=True, eq=False)
class Weights:
    """A layer's weights at one word width; `rms` (shape (out, 1, ...)) and `step` broadcast against `latent`."""

    latent: Tensor  # shape (out, in, ...)
    bits: int
    rms: Tensor  # root mean square of each output channel, without gradient
    quantiser: Callable[[Tensor, int], tuple[Tensor, Tensor]]  # latent weights, bits -> words, step

    @cached_property
    def _quantised(self) -> tuple[Tensor, Tensor]:
        return self.quantiser(self.latent, self.bits)

    @property
    def words(self) -> Tensor:
        """Integer words of the layer's uniform quantiser, with gradient to the latent weights."""
        return self._quantised[0]

    @property
    def step(self) -> Tensor:
        """The value of one unit of `words`."""
        return self._quantised[1]


class Operator(Protocol):
    """An operator j of Eq. 1: output = scale * sum over views of convolution(view of the input's words, its words).

    All terms of the sum are integers, as in the hardware core (`search.layers.mac_cores`). The scale is one factor per
    output channel; it can be folded into the normalisation after the layer, and gives the output the size of the
    typical operator's.
    """

    views: ClassVar[tuple[View, ...]]
    uniform: ClassVar[bool]
    """Whether the weights are words of the layer's uniform quantiser; if not, the operator rounds them itself."""

    @staticmethod
    def words(weights: Weights, inputs: Inputs, surrogates: Surrogates) -> tuple[Tensor, ...]:
        """Integer weights for each of `views`, in the shape of the latent weights, differentiable."""

    @staticmethod
    def scale(weights: Weights, inputs: Inputs) -> Tensor:
        """The value of one unit of the sum; broadcasts against the weights, shape (out, 1, ...)."""
