"""The integer arithmetic of the MAC cores (paper, Section III.A and Fig. 3), a reference for searched networks.

Words are two's complement integers in int64 arrays. The paper does not specify these points:

- Overflow: the paper gives adders of 20 and 12 bits and no logic to saturate. A plain adder wraps, so `wrap` is the
  default. `saturate` is the alternative; it depends on the order of the additions, here that of the weights in memory,
  and clips once a cycle: the core in `arch_specs/rtl` adds the 8/b operations of a cycle exactly before it clips.
- Inputs after a ReLU use all codes of a word, without sign. For them the Baugh-Wooley array inverts other partial
  products; the paper's figure shows two signed words.
- Positions of the padding add nothing, also under XNOR, where they count neither +1 nor -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate, Overflow
from search.layers.accumulators import MULTIPLIER_BITS, operations_at_once
from search.layers.mixed_layer import MixedLayer
from search.layers.naive import input_words
from search.layers.operators import Inputs
from search.layers.operators.deep_shift import largest_shift

Integers = NDArray[np.int64]


def baugh_wooley(a: Integers, b: Integers, bits: int, signed_a: bool = True) -> Integers:
    """a * b from the partial products of a Baugh-Wooley array of `bits` x `bits` cells; arrays broadcast.

    Args:
        a: words of `bits` bits, signed or not.
        b: signed words of `bits` bits, at least 2.
    """
    return _array_products(a, b, bits, bits, signed_a)[0]


def subword_multiply(a: Integers, b: Integers, bits: int, signed_a: bool = True) -> Integers:
    """The 8/bits products of words of `bits` bits that one 8-bit multiplier computes at once (paper, Fig. 3c).

    Args:
        a, b: shape (8/bits, ...), the words packed into the multiplier's two operands, lowest first.
    """
    lanes = MULTIPLIER_BITS // bits
    if bits not in (8, 4, 2) or len(a) != lanes or len(b) != lanes:
        raise InputError("subword_multiply", f"found {len(a)} words of {bits} bits", "8/b words of b = 8, 4 or 2 bits")
    mask = (1 << bits) - 1
    packed_a, packed_b = (np.bitwise_or.reduce([(w[i] & mask) << (bits * i) for i in range(lanes)]) for w in (a, b))
    return np.stack(_array_products(packed_a, packed_b, MULTIPLIER_BITS, bits, signed_a))


def _array_products(a: Integers, b: Integers, width: int, bits: int, signed_a: bool) -> list[Integers]:
    """Products of an array of width x width cells; cells between different words, and their carries, are off."""
    products = []
    for lane in range(width // bits):
        # The inverted products below represent negative ones; ones in two columns correct the difference.
        total = np.full(np.broadcast_shapes(a.shape, b.shape), (1 << (2 * bits - 1)) + (1 << (bits - 1 + signed_a)))
        for i in range(bits):
            for j in range(bits):
                cell = (a >> (lane * bits + i)) & (b >> (lane * bits + j)) & 1
                inverted = (signed_a and i == bits - 1) != (j == bits - 1)
                total = total + ((cell ^ int(inverted)) << (i + j))
        products.append(wrapped(total, 2 * bits))
    return products


def wrapped(x: Integers, width: int) -> Integers:
    """The two's complement number in the lowest `width` bits."""
    half = 1 << (width - 1)
    return ((x + half) & ((1 << width) - 1)) - half


def accumulate(terms: Integers, width: int, overflow: Overflow = "wrap", at_once: int = 1) -> Integers:
    """The sum over axis 0 in an accumulator of `width` bits that starts at zero.

    Args:
        at_once: how many terms are added exactly before the sum is clipped.

    Example:
        >>> terms = np.array([100, 100, -100])
        >>> int(accumulate(terms, 8, "saturate")), int(accumulate(terms, 8, "saturate", at_once=3))
        (27, 100)
    """
    if overflow == "wrap":
        return wrapped(terms.sum(0), width)
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    total = np.zeros(terms.shape[1:], np.int64)
    for start in range(0, len(terms), at_once):
        total = np.clip(total + terms[start : start + at_once].sum(0), low, high)
    return total


def _typical(x: Integers, w: Integers, valid: Integers, candidate: Candidate, signed: bool) -> list[Integers]:
    return [baugh_wooley(x, w, candidate.bits, signed)]


def _multiplication_free(
    x: Integers, w: Integers, valid: Integers, candidate: Candidate, signed: bool
) -> list[Integers]:
    """Two additions or subtractions: |w| with the sign of x, then |x| with the sign of w; none for a zero.

    Words of weights are a sign and a magnitude, here sign * (2 * magnitude + 1).
    """
    return [_by_sign(x, np.abs(w) >> 1), _by_sign(w, np.abs(x))]


def _binary_connect(x: Integers, w: Integers, valid: Integers, candidate: Candidate, signed: bool) -> list[Integers]:
    return [np.where(w > 0, x, -x)]


def _deep_shift(x: Integers, w: Integers, valid: Integers, candidate: Candidate, signed: bool) -> list[Integers]:
    shifts = sum((np.abs(w) >> s > 1).astype(np.int64) for s in range(largest_shift(candidate.weight_bits)))
    shifted = x << shifts
    return [np.where(w > 0, shifted, -shifted)]


def _xnor(x: Integers, w: Integers, valid: Integers, candidate: Candidate, signed: bool) -> list[Integers]:
    """Bits of inputs and weights are 1 for +1; equal bits add 1, different bits subtract 1."""
    x_bits, w_bits = (x > 0).astype(np.int64), (w > 0).astype(np.int64)
    equal = 1 - (x_bits ^ w_bits)
    return [np.where(valid > 0, 2 * equal - 1, 0)]


CORES: dict[str, Callable[[Integers, Integers, Integers, Candidate, bool], list[Integers]]] = {
    "typical": _typical,
    "multiplication_free": _multiplication_free,
    "binary_connect": _binary_connect,
    "deep_shift": _deep_shift,
    "xnor": _xnor,
}
"""Operator -> function from words of input and weight to the terms that one operation adds, in order."""


def _by_sign(of: Integers, value: Integers) -> Integers:
    return np.where(of > 0, value, np.where(of < 0, -value, 0))


@dataclass(frozen=True)
class IntegerLayer:
    """A layer with one candidate in the hardware's integers: output = scale * sums + bias."""

    candidate: Candidate
    layer: nn.Conv2d | nn.Linear
    inputs: Integers  # words of the layer's input, in its shape (N, ...)
    weights: Integers  # words, in the shape of the weights
    signed: bool  # whether the input's words are signed
    scale: Tensor  # shape (out,)


@torch.no_grad()
def integer_layer(mixed: MixedLayer, x: Tensor) -> IntegerLayer:
    """The words of a layer with one candidate, and of a batch of its input.

    Raises:
        InputError: the layer has several candidates, or DoReFa weights, whose words are one bit wider than the
            candidate's; or it is neither Conv2d nor Linear.
    """
    if len(mixed.candidates) != 1:
        raise InputError("layer", f"has {len(mixed.candidates)} candidates", "one")
    if not isinstance(mixed.layer, nn.Conv2d | nn.Linear):
        raise InputError("layer", f"is a {type(mixed.layer).__name__}", ("Conv2d", "Linear"))
    (candidate,) = mixed.candidates
    if mixed.options.quantiser == "dorefa" and candidate.weight_bits > 1:
        raise InputError("quantiser 'dorefa'", "has weights that the core cannot represent", ("rms", "lsq"))
    rms = mixed.scale(x)
    inputs = Inputs(rms, mixed.scale.step(rms, candidate.act_bits), bool(mixed.scale.signed))
    ((words, scale),) = mixed.candidate_weights({candidate.act_bits: inputs})
    weights = words[1] * (2 * words[0] + 1) if candidate.operator == "multiplication_free" else words[0]
    return IntegerLayer(
        candidate,
        mixed.layer,
        _integers(input_words(x, inputs, candidate.act_bits)),
        _integers(weights),
        inputs.signed,
        scale.expand(len(weights), *[1] * (weights.dim() - 1)).flatten(),
    )


def core_sums(layer: IntegerLayer, overflow: Overflow = "wrap", width: int | None = None) -> Integers:
    """The final values of the core's accumulators, one for each output.

    Args:
        width: bits of the accumulator; None for those that the candidate has for the layer's sums.
    """
    candidate, module = layer.candidate, layer.layer
    width = candidate.accumulator_bits(layer.weights[0].size) if width is None else width
    core = CORES[candidate.operator]
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    x, shape = _patches(layer.inputs, module)
    valid, _ = _patches(np.ones_like(layer.inputs), module)
    sums = []
    for g in range(groups):
        depth = x.shape[1] // groups
        of_group = slice(g * depth, (g + 1) * depth)
        w = np.split(layer.weights.reshape(len(layer.weights), -1), groups)[g]
        # (inputs of one output, N, outputs, positions)
        terms = core(x[:, of_group].swapaxes(0, 1)[:, :, None], w.T[:, None, :, None],
                     valid[:, of_group].swapaxes(0, 1)[:, :, None], candidate, layer.signed)  # fmt: skip
        shaped = np.broadcast_arrays(*terms)
        in_order = np.stack(shaped, 1).reshape(-1, *shaped[0].shape[1:])
        sums.append(accumulate(in_order, width, overflow, len(shaped) * operations_at_once(candidate)))
    return np.concatenate(sums, 1).reshape(len(x), -1, *shape)


def _patches(x: Integers, module: nn.Conv2d | nn.Linear) -> tuple[Integers, tuple[int, ...]]:
    """The inputs of each output, (N, inputs, positions), channel by channel, and the shape of the positions."""
    if isinstance(module, nn.Linear):
        return x[:, :, None], ()
    pad = module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(torch.from_numpy(x).double(), pad, mode)
    size = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded.shape[2:], module.dilation, module.kernel_size, module.stride, strict=True)
    ]
    unfolded = functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride)
    return _integers(unfolded), tuple(size)


def _integers(x: Tensor) -> Integers:
    words: Integers = x.round().to(torch.int64).numpy()
    return words
