"""How a candidate's operands are cut into bit planes, for arrays that add products of two bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from search.layers.quantize import levels

Kind = Literal["word", "magnitude", "sign", "positive"]
"""What the bits of a code are: the two's complement word; its magnitude; whether it is above 0, and whether below; only
whether it is above 0."""


@dataclass(frozen=True)
class Encoding:
    """Bit planes of words: the bits of a code, lowest first, each with an integer coefficient.

    A word is the sum over planes of coefficient * bit. Of the kind `positive` this sum is 1 more than the sign.
    """

    kind: Kind
    coefficients: tuple[int, ...]

    def codes(self, words: Tensor) -> Tensor:
        """The codes of integer words, int64, or int16 as the words, in their shape.

        Example:
            >>> Encoding("word", (1, 2, -4)).codes(torch.tensor([-3, 3])).tolist()
            [5, 3]
        """
        words = _integers(words)
        if self.kind == "magnitude":
            return words.abs()
        if self.kind == "word":
            return words & ((1 << len(self.coefficients)) - 1)
        positive = (words > 0).to(words.dtype)
        return positive if self.kind == "positive" else positive + 2 * (words < 0)

    def values(self, words: Tensor) -> Tensor:
        """What the planes of words stand for, whole numbers: the words, their magnitudes or their signs."""
        words = _integers(words)
        return words.abs() if self.kind == "magnitude" else words.sign() if self.kind == "sign" else words


def _integers(words: Tensor) -> Tensor:
    return words if words.dtype == torch.int16 else words.to(torch.int64)


@dataclass(frozen=True)
class Term:
    """A sum over planes of inputs and planes of weights.

    `counted` means that weights are signs, 2 * [w > 0] - 1: the array adds the first part, and a digital counter the
    second one, the inputs' sum, which all columns share. Positions of a column whose sign is 0 are left out of it.
    """

    inputs: Encoding
    weights: Encoding
    view: Literal["value", "sign", "magnitude"]
    """What the digital operator multiplies by the same weights."""
    counted: bool = False


_SIGNS = Encoding("positive", (2,))
OPERATORS = ("typical", "multiplication_free", "binary_connect")
"""Operators that are computed in memory."""


def terms_of(candidate: Candidate, signed: bool) -> tuple[Term, ...]:
    """What an array adds for a candidate.

    Args:
        signed: whether the layer's inputs are; after a ReLU they are not.

    Raises:
        InputError: an operator that is not computed in memory.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> of = {c.name: c for c in load_candidates()}
        >>> [(t.view, t.inputs.coefficients, t.weights.coefficients) for t in terms_of(of["MF4"], signed=False)]
        [('sign', (1,), (1, 2, 4)), ('magnitude', (1, 2, 4, 8), (2,))]
    """
    act, weight = candidate.act_bits, candidate.weight_bits
    values = _words(act) if signed else _magnitudes(act, signed=False)
    if signed and act == 1:  # words are +1 and -1, and 0 in the padding
        values = Encoding("sign", (1, -1))
    if candidate.operator == "multiplication_free":
        signs = Encoding("sign", (1, -1)) if signed else Encoding("positive", (1,))
        return (
            Term(signs, _magnitudes(weight, signed=True), "sign"),
            Term(_magnitudes(act, signed), _SIGNS, "magnitude", counted=True),
        )
    if candidate.operator not in OPERATORS:
        raise InputError(f"candidate {candidate.name}", f"{candidate.operator} is not computed in memory", OPERATORS)
    if weight == 1:
        return (Term(values, _SIGNS, "value", counted=True),)
    return (Term(values, _words(weight), "value"),)


def conversions(candidate: Candidate, signed: bool = False) -> int:
    """How often an ADC converts for a group of rows and an output: each plane of inputs times each plane of weights.

    Args:
        signed: whether the layer's inputs are; after a ReLU they are not.

    Raises:
        InputError: an operator that is not computed in memory.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> {c.name: conversions(c) for c in load_candidates() if c.bits == 8}
        {'T8': 64, 'MF8': 15, 'BC8': 8}
    """
    return sum(len(t.inputs.coefficients) * len(t.weights.coefficients) for t in terms_of(candidate, signed))


def _words(bits: int) -> Encoding:
    """Two's complement words."""
    return Encoding("word", (*(1 << p for p in range(bits - 1)), -(1 << (bits - 1))))


def _magnitudes(bits: int, signed: bool) -> Encoding:
    """The magnitudes of words."""
    return Encoding("magnitude", tuple(1 << p for p in range(levels(bits, signed)[1].bit_length())))
