"""A discretised layer as its hardware has it: words of its input, and convolutions with words of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dse.errors import InputError
from search.mixed import MixedLayer
from search.operators import View, Weights, operator
from search.quantize import levels, quantise_weight, weight_rms

LARGEST_WORD = 127


@dataclass(frozen=True)
class InputWords:
    """Words `low` to `high` of a layer's input; one unit is worth `step`."""

    step: float
    low: int
    high: int


@dataclass(frozen=True)
class Term:
    """One convolution of a layer, with a view of its dequantised input: weights are `words` times `scale`.

    `words` has the shape of the layer's weights, int8; `scale` one entry an output channel, float32.
    """

    view: View
    words: Tensor
    scale: Tensor


def as_words(layer: MixedLayer, where: str) -> tuple[InputWords, tuple[Term, ...]]:
    """What a layer with one candidate computes: the sum of its terms, and its bias.

    Raises:
        InputError: naming the layer: it has several candidates, has not seen an input yet, or its weights are no
            words of 8 bits.
    """
    if len(layer.candidates) != 1:
        raise InputError(where, f"has {len(layer.candidates)} candidates", "a discretised network")
    if layer.scale.signed is None:
        raise InputError(where, "has not seen an input yet, which decides its quantiser", "a trained network")
    (candidate,) = layer.candidates
    rms = layer.scale.rms.detach()
    low, high = levels(candidate.act_bits, layer.scale.signed)
    top = layer.scale.quantise(torch.full_like(rms, 1e30), rms, candidate.act_bits)
    latent = layer.layer.weight.detach()
    unit = weight_rms(latent)
    quantised = quantise_weight(latent, candidate.weight_bits, unit)
    kind = operator(candidate.operator)
    tensors = kind.weights(Weights(quantised, unit.reshape(-1, *[1] * (latent.dim() - 1))), rms)
    terms = tuple(
        Term(name, *coded(t, f"{where} ({candidate.name})")) for name, t in zip(kind.views, tensors, strict=True)
    )
    return InputWords(float(top) / high, low, high), terms


def coded(weight: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Words and scales of weights that lie on a grid: for each output channel the coarsest of at most 127 steps.

    Raises:
        InputError: weights of a channel are no multiples of one step.
    """
    rows = weight.flatten(1)
    largest = rows.abs().amax(1)
    relative = rows / largest.clamp_min(torch.finfo(rows.dtype).tiny)[:, None]
    steps = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    for count in range(LARGEST_WORD, 0, -1):
        scaled = relative * count
        # Other numbers of steps leave some weight at least 1/127 off, rounding errors are a hundredth of that.
        steps[((scaled - scaled.round()).abs() < 1e-3).all(1)] = count
    if not steps.all():
        raise InputError(where, "its weights are no words of 8 bits", "operators with weights on a grid of 8 bits")
    words = (relative * steps[:, None]).round().reshape(weight.shape)
    return words.to(torch.int8), (largest / steps).to(torch.float32)
