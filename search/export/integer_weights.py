"""A discretised layer as its hardware has it: words of its input, and convolutions with words of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dse.core.errors import InputError
from search.layers.mixed_layer import MixedLayer
from search.layers.operators import Inputs, View, operator
from search.layers.quantize import levels

LARGEST_WORD = 127
"""Of weights in words of 8 bits; their range is symmetric."""


@dataclass(frozen=True)
class InputWords:
    """Words `low` to `high` of a layer's input; one unit is worth `step`."""

    step: float
    low: int
    high: int


@dataclass(frozen=True)
class Term:
    """One convolution of a layer, with a view of its dequantised input: weights are `words` times `scale`.

    `words` has the shape of the layer's weights, `scale` one entry an output channel, float32. Words are int8; those of
    an operator that rounds its weights itself may be int16, as deep-shift's are: its magnitudes go up to 2^7 = 128.
    """

    view: View
    words: Tensor
    scale: Tensor


def as_words(layer: MixedLayer, where: str) -> tuple[InputWords, tuple[Term, ...]]:
    """What a layer with one candidate computes: the sum of its terms, and its bias.

    Raises:
        InputError: naming the layer: it has several candidates, has not seen an input yet, or its uniform quantiser
            gives the weights more than 8 bits, which no core here computes.
    """
    if len(layer.candidates) != 1:
        raise InputError(where, f"has {len(layer.candidates)} candidates", "a discretised network")
    if layer.scale.signed is None:
        raise InputError(where, "has not seen an input yet, which decides its quantiser", hint="train it first")
    (candidate,) = layer.candidates
    bits, rms = candidate.act_bits, layer.scale.rms.detach()
    low, high = levels(bits, layer.scale.signed)
    with torch.no_grad():
        step = layer.scale.step(rms, bits)
        ((words, scale),) = layer.candidate_weights({bits: Inputs(rms, step, layer.scale.signed)})
    scales = scale.expand(len(words[0]), *[1] * (words[0].dim() - 1)).flatten()
    terms = []
    kind = operator(candidate.operator)
    for view, integers in zip(kind.views, words, strict=True):
        wide = bool(integers.abs().max() > LARGEST_WORD)
        if wide and kind.uniform:
            raise InputError(where, f"weights of {candidate.name} are wider than words of 8 bits")
        of_values = view in ("value", "magnitude")  # the other views do not depend on the step
        stored = integers.to(torch.int16 if wide else torch.int8)
        terms.append(Term(view, stored, scales / step if of_values else scales))
    return InputWords(float(step), low, high), tuple(terms)
