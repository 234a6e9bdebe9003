"""Eq. 1 as written: the mixed layer as a sum of separate convolutions, a reference for the fused one."""

from __future__ import annotations

import torch
from torch import Tensor

from search.layers.fused import product
from search.layers.mixed_layer import MixedLayer
from search.layers.operators import Inputs, operator, view
from search.layers.quantize import words_of


def naive_output(mixed: MixedLayer, x: Tensor) -> Tensor:
    """The output of `mixed`, computed with a separate convolution for each view of each candidate."""
    rms, layer = mixed.scale(x), mixed.layer
    signed = bool(mixed.scale.signed)
    inputs = {c.act_bits: Inputs(rms, mixed.scale.step(rms, c.act_bits), signed) for c in mixed.candidates}
    parts = mixed.candidate_weights(inputs)
    total: Tensor | None = None
    for share, candidate, (words, scale) in zip(mixed.probabilities(), mixed.candidates, parts, strict=True):
        of_width = inputs[candidate.act_bits]
        for name, weight in zip(operator(candidate.operator).views, words, strict=True):
            # After a ReLU the sign is known, so the slope of the magnitude is 1, at 0 too.
            kind = "value" if name == "magnitude" and not signed else name
            seen = view(input_words(x, of_width, candidate.act_bits), kind, of_width, mixed.options.surrogates)
            part = share * product(layer, seen, weight * scale)
            total = part if total is None else total + part
    assert total is not None
    if layer.bias is None:
        return total
    return total + layer.bias.reshape(-1, *[1] * (layer.weight.dim() - 2))


def input_words(x: Tensor, inputs: Inputs, bits: int) -> Tensor:
    """The integer words of a layer's input, differentiable in the input and its step."""
    return words_of(x, inputs.step, bits, inputs.signed)


def naive_(network: torch.nn.Module) -> torch.nn.Module:
    """Replaces the forward pass of every mixed layer of a network by `naive_output`, in place."""
    for module in network.modules():
        if isinstance(module, MixedLayer):
            module.forward = naive_output.__get__(module)  # type: ignore[method-assign]
    return network
