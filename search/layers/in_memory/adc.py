"""The codes that a macro's ADC gives for sums of one-bit products."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from dse.hardware.candidate import Candidate, Macro


def most(macro: Macro) -> int:
    """The largest code."""
    return (1 << macro.adc_bits) - 1


def codes(macro: Macro) -> Tensor:
    """The code of each sum from 0 to `rows`, int64: sum / step, rounded half to even, at most the largest code.

    It is computed in integers, because a step may be no number of floating point.

    Example:
        >>> codes(Macro(rows=8, adc_bits=2, full_scale=6)).tolist()
        [0, 0, 1, 2, 2, 2, 3, 3, 3]
    """
    return torch.tensor(_codes(macro), dtype=torch.int64)


@functools.cache
def _codes(macro: Macro) -> tuple[int, ...]:
    """The same as numbers: a tensor in a cache could be one of a trace."""
    parts, whole = (most(macro), macro.full_scale) if macro.full_scale > most(macro) else (1, 1)  # of 1 / step
    found = []
    for total in range(macro.rows + 1):
        below, rest = divmod(total * parts, whole)
        found.append(below + (2 * rest > whole or (2 * rest == whole and below % 2 == 1)))
    return tuple(min(code, most(macro)) for code in found)


def is_exact(macro: Macro) -> bool:
    """Whether each sum is its code, so that the digital operator gives the same.

    Example:
        >>> is_exact(Macro(rows=31, adc_bits=5, full_scale=31)), is_exact(Macro(rows=32, adc_bits=5, full_scale=31))
        (True, False)
    """
    return macro.step == 1 and most(macro) >= macro.rows


def rounds(candidate: Candidate) -> bool:
    """Whether a candidate gives something else than the digital operator, on a chip without variations."""
    return candidate.macro is not None and not is_exact(candidate.macro)
