"""A discretised layer as its hardware has it: words of its input, and convolutions with words of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.hardware.candidate import Macro
from search.layers.mixed_layer import MixedLayer, PlainLayer
from search.layers.mixed_product import MixedProduct, Operand
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


@dataclass(frozen=True)
class IntegerLayer:
    """What the hardware computes of a layer: the sum of its terms, and the bias.

    Attributes:
        candidate: name of the layer's candidate.
        inputs: words of the input.
        terms: convolutions, or matrix products, with words of the weights.
        bias: shape (outputs,), float32; None without one.
        mode: the candidate's computing mode; "" for the first or the only one.
        macro: how its sums are converted in memory (docs/in_memory.md), where words are those of the digital operator;
            None for sums that are digital.
    """

    candidate: str
    inputs: InputWords
    terms: tuple[Term, ...]
    bias: Tensor | None
    mode: str = ""
    macro: Macro | None = None


def integer_weights(network: nn.Module) -> dict[str, IntegerLayer]:
    """The integers of each layer of a discretised network: of its input and of its weights.

    For an input x, with ``words = (x / inputs.step).round().clamp(inputs.low, inputs.high)``, a layer of the typical
    operator gives ``convolve(words * inputs.step, term.words * term.scale) + bias`` with its one term. Other operators
    convolve other views of the words, and may have two terms (`Term.view`; docs/operators.md).

    Args:
        network: what `SearchableNetwork.discretise` made, after it has seen images in training or in evaluation.

    Returns:
        Module name -> its integers, on the CPU; layers that were left out of the search have none.

    Raises:
        InputError: a network that is not discretised; see also `as_words`.

    Example:
        >>> import torch
        >>> from dse import Network, export_network, map_workload
        >>> from search import integer_weights, searchable
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> model = searchable(network, map_workload(export_network(Network("small", network, (1, 1, 4, 4)))))
        >>> fixed = model.discretise({"1": "T4"})
        >>> _ = fixed(torch.randn(8, 1, 4, 4))  # the range of the input decides its step
        >>> layer = integer_weights(fixed)["1"]
        >>> layer.inputs.low, layer.inputs.high, layer.terms[0].words.dtype, int(layer.terms[0].words.abs().max()) <= 7
        (-7, 7, torch.int8, True)
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, MixedLayer) and not isinstance(module, PlainLayer):
            inputs, terms = as_words(module, f"layer {name!r}")
            terms = tuple(Term(t.view, t.words.cpu(), t.scale.cpu()) for t in terms)
            bias = None if module.layer.bias is None else module.layer.bias.detach().clone().cpu()
            (candidate,) = module.candidates
            found[name] = IntegerLayer(candidate.name, inputs, terms, bias, candidate.mode, candidate.macro)
    if not found:
        raise InputError("network", "has no layer with a candidate", "what SearchableNetwork.discretise returns")
    return found


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


def operand_words(product: MixedProduct, where: str) -> tuple[InputWords, InputWords]:
    """The words of both operands of a product of activations with one candidate.

    Raises:
        InputError: naming the product: it has several candidates, or has not seen its operands yet.
    """
    if len(product.candidates) != 1:
        raise InputError(where, f"has {len(product.candidates)} candidates", "a discretised network")
    (candidate,) = product.candidates
    return (
        _of_operand(product.first, candidate.act_bits, where),
        _of_operand(product.second, candidate.weight_bits, where),
    )


def _of_operand(operand: Operand, bits: int, where: str) -> InputWords:
    scale = operand.scale
    if scale.signed is None:
        raise InputError(where, "has not seen an input yet, which decides its quantisers", hint="train it first")
    with torch.no_grad():
        rms = scale.rms * operand.tail if operand.heavy else scale.rms  # as it is in evaluation
        return InputWords(float(scale.step(rms, bits)), *levels(bits, scale.signed))
