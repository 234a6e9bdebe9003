"""Operands of the MAC core in `arch_specs/rtl`: how words of inputs and weights lie in its two bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dse.core.errors import InputError

Integers = NDArray[np.int64]

OPERATIONS = ("typical", "multiplication_free", "binary_connect")
"""Operators of the core, in the order of the codes of its input `operation`."""

PRECISIONS = (8, 4, 2)
"""Bits of a word, in the order of the codes of its input `precision`."""

OPERAND_BITS = 8


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
