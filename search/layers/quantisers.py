"""Quantisers of a layer's weights and inputs by name: from root mean squares, LSQ, DoReFa.

All are uniform: integer words times a step. They differ in how the step is determined; LSQ learns it. With each of
them, weights of one bit are binarize(w) times the output channel's mean magnitude.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from dse.core.errors import unknown
from search.layers.quantize import (
    ActivationScale,
    binarise,
    clip_ratio,
    levels,
    several_processes,
    to_words,
    weight_rms,
)
from search.layers.tracing import traced

QuantiserName = Literal["rms", "lsq", "dorefa"]
_TINY = 1e-8


class WeightQuantiser(nn.Module):
    """Steps from the root mean square of each output channel, without learned parameters (`search.layers.quantize`)."""

    def forward(self, latent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Integer words in the shape (out, ...) of `latent`, and the value of one unit, which broadcasts to it."""
        if bits == 1:
            return binarise(latent), _column(mean_magnitude(latent), latent)
        return self._words(latent, bits)

    def _words(self, latent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        low, high = levels(bits, signed=True)
        step = _column(weight_rms(latent), latent) * (clip_ratio(high) / high)
        return to_words(latent, step, low, high), step


class LsqWeights(WeightQuantiser):
    """Learned step size quantisation (Esser et al., ICLR 2020): one learned step per layer and width.

    The range is symmetric (-127 to 127 for eight bits); LSQ also uses -128.
    """

    def __init__(self, latent: Tensor, widths: Iterable[int]) -> None:
        super().__init__()
        self.steps = nn.ParameterDict(
            {str(b): nn.Parameter(first_step(latent.detach(), levels(b, True)[1])) for b in sorted(widths) if b > 1}
        )

    def _words(self, latent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        low, high = levels(bits, signed=True)
        step = scaled_gradient(self.steps[str(bits)], latent.numel(), high)
        return to_words(latent, step, low, high), step


class DorefaWeights(WeightQuantiser):
    """DoReFa-Net (Zhou et al. 2016): 2 q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1 with 2^b levels in q, none of them zero.

    The words are the odd numbers from 1 - 2^b to 2^b - 1, one bit wider than `bits`; hardware could also use words of
    b bits and add the inputs' sum once. The step scales them to tanh(w); the normalisation after the layer removes
    this scale.
    """

    def _words(self, latent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        top = 2**bits - 1
        squashed = latent.tanh()
        largest = squashed.abs().max().clamp_min(_TINY)
        level = to_words(squashed / (2 * largest) + 0.5, latent.new_full((), 1 / top), 0, top)
        return 2 * level - top, largest.detach() / top


class LsqInputs(ActivationScale):
    """LSQ for a layer's input: one learned step for each width, initialised from the first batch."""

    def __init__(self, widths: Iterable[int]) -> None:
        super().__init__()
        self.steps = nn.ParameterDict({str(b): nn.Parameter(torch.ones(())) for b in sorted(widths)})
        self._numel = 1

    def forward(self, x: Tensor) -> Tensor:
        if not traced(x):  # what is traced has the same number, maybe as a symbol
            self._numel = x.numel() // (len(x) if x.dim() else 1)
        return super().forward(x)

    def _start(self, x: Tensor) -> None:
        if self.training and several_processes():
            warnings.warn("each process begins LSQ's steps of inputs with a batch of its own; compute one batch before "
                          "the network is wrapped for distributed training", stacklevel=2)  # fmt: skip
        for bits, step in self.steps.items():
            step.data.copy_(first_step(x, levels(int(bits), bool(self.signed))[1]))

    def _widen(self) -> None:
        """Steps as if the first batch had been signed; not seen by autograd, which may have kept steps of a call."""
        for bits, step in self.steps.items():
            unsigned, signed = (levels(int(bits), sign)[1] for sign in (False, True))
            step.data.mul_(math.sqrt(unsigned / signed))

    def step(self, rms: Tensor, bits: int) -> Tensor:
        return scaled_gradient(self.steps[str(bits)], self._numel, levels(bits, bool(self.signed))[1])


class DorefaInputs(ActivationScale):
    """DoReFa-Net for a layer's input: clipped to 0..1, or to -1..1 if it is signed, in equal steps."""

    def step(self, rms: Tensor, bits: int) -> Tensor:
        return torch.full_like(rms, 1 / levels(bits, bool(self.signed))[1])


def weight_quantiser(name: QuantiserName, latent: Tensor, widths: Iterable[int]) -> WeightQuantiser:
    """The quantiser of latent weights for the given word widths.

    Raises:
        InputError: an unknown name.
    """
    if name == "lsq":
        return LsqWeights(latent, widths)
    return DorefaWeights() if checked(name) == "dorefa" else WeightQuantiser()


def input_quantiser(name: QuantiserName, widths: Iterable[int]) -> ActivationScale:
    """The quantiser of a layer's input for the given word widths.

    Raises:
        InputError: an unknown name.
    """
    if name == "lsq":
        return LsqInputs(widths)
    return DorefaInputs() if checked(name) == "dorefa" else ActivationScale()


def checked(name: str) -> QuantiserName:
    if name not in get_args(QuantiserName):
        raise unknown("quantiser", "quantiser", name, get_args(QuantiserName))
    return cast(QuantiserName, name)


def first_step(x: Tensor, high: int) -> Tensor:
    """LSQ's initial step, 2 mean|x| / sqrt(high)."""
    return (2 * x.abs().mean() / math.sqrt(high)).clamp_min(_TINY)


def scaled_gradient(step: Tensor, numel: int, high: int) -> Tensor:
    """|step|, whose gradient is multiplied by LSQ's 1 / sqrt(numel * high).

    `numel` is the number of weights, or of features of one input.
    """
    factor = 1 / math.sqrt(numel * high)
    positive = step.abs().clamp_min(_TINY)
    return positive * factor + (positive * (1 - factor)).detach()


def mean_magnitude(latent: Tensor) -> Tensor:
    """Mean magnitude of each output channel, shape (out,); positive, without gradient."""
    return latent.detach().flatten(1).abs().mean(1).clamp_min(_TINY)


def _column(x: Tensor, weight: Tensor) -> Tensor:
    return x.reshape(-1, *[1] * (weight.dim() - 1))
