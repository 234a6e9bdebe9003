"""Operands of the MAC core in `arch_specs/rtl`: how words of inputs and weights lie in its two bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.core.errors import InputError

Integers = NDArray[np.int64]

OPERATIONS = ("typical", "multiplication_free", "binary_connect")
"""Operators of the core, in the order of the codes of its input `operation`."""

PRECISIONS = (8, 4, 2)
"""Bits of a word, in the order of the codes of its input `precision`."""

OPERAND_BITS = 8


@dataclass(frozen=True)
class Accumulator:
    """The two widths between which the core's accumulator is switched; the defaults are the paper's.

    Raises:
        InputError: `long` cannot hold an addend of 17 bits, or the Verilog cannot be built for the two.

    Example:
        >>> Accumulator().width("typical"), Accumulator().width("binary_connect")
        (20, 12)
    """

    long: int = 20
    short: int = 12

    def __post_init__(self) -> None:
        if not 17 <= self.long <= 62:
            raise InputError("--long", f"found {self.long}", "17 to 62 bits")
        if not 4 <= self.short <= self.long - 2:
            raise InputError("--short", f"found {self.short}", f"4 to {self.long - 2} bits, two less than --long")

    def width(self, operator: str) -> int:
        """The width that the paper gives an operator: the long one for products."""
        return self.long if operator == "typical" else self.short

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters of `mac_core.v`."""
        return {"LONG": self.long, "SHORT": self.short}


def lanes(bits: int) -> int:
    """How many operations one cycle computes.

    Raises:
        InputError: the core has no such precision.

    Example:
        >>> lanes(4)
        2
    """
    if bits not in PRECISIONS:
        raise InputError("bits", f"found {bits}", PRECISIONS)
    return OPERAND_BITS // bits


def weight_codes(operator: str, words: Integers, bits: int) -> Integers:
    """Words of weights, as `search.layers.mac_cores` has them, as the core's codes without sign.

    Typical: two's complement of `bits` bits. Multiplication-free: words are sign * (2 * magnitude + 1), the code is a
    sign (the highest bit, 1 for -) and the magnitude. Binary-connect: words are 1 and -1, the code is one bit, 1 for 1.

    Raises:
        InputError: the core has no such operator.

    Example:
        >>> weight_codes("multiplication_free", np.array([-7, 1]), 4)
        array([11,  0])
    """
    if operator == "typical":
        return words & ((1 << bits) - 1)
    if operator == "multiplication_free":
        return (np.abs(words) >> 1) | ((words < 0).astype(np.int64) << (bits - 1))
    if operator == "binary_connect":
        return (words > 0).astype(np.int64)
    raise InputError("operator", f"found {operator!r}", OPERATIONS)


def pack(codes: Integers, bits: int, width: int) -> Integers:
    """The operands of cycles: 8/bits codes in each, lowest first.

    Args:
        codes: shape (cycles, 8/bits).
        bits: precision, which gives the number of lanes.
        width: bits of a code: `bits`, or 1 for weights of binary-connect.

    Raises:
        InputError: the core has no such precision, or the number of codes is not that of its lanes.

    Example:
        >>> pack(np.array([[0x3, 0xA]]), bits=4, width=4)
        array([163])
    """
    if codes.ndim != 2 or codes.shape[1] != lanes(bits):
        raise InputError("codes", f"have the shape {codes.shape}", f"(cycles, {lanes(bits)})")
    packed: Integers = np.bitwise_or.reduce((codes & ((1 << width) - 1)) << (width * np.arange(lanes(bits))), axis=1)
    return packed
