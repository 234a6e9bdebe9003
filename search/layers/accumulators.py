"""Sums of a digital core whose accumulators are narrower than some of them, for the evaluation of networks.

`search.layers.mac_cores` has the same arithmetic word by word, as a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.core.errors import InputError
from dse.hardware.candidate import Candidate
from dse.rtl.operands import OPERATIONS
from search.layers.operators import View, operator

MULTIPLIER_BITS = 8
"""Of the reconfigurable core, which computes 8/b operations of words of b bits in a cycle."""

_EXACT = 2**24
"""Integers up to this magnitude, and their sums, are exact in float32."""


def operations_at_once(candidate: Candidate) -> int:
    """How many operations the core adds in a cycle: 8/b, and one for operators that it does not have.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> {c.name: operations_at_once(c) for c in load_candidates()}
        {'T8': 1, 'T4': 2, 'T2': 4, 'MF8': 1, 'MF4': 2, 'MF2': 4, 'BC8': 1, 'BC4': 2, 'BC2': 4}
    """
    return max(1, MULTIPLIER_BITS // candidate.bits) if candidate.operator in OPERATIONS else 1


def check_accumulators(candidates: Sequence[Candidate], quantiser: str) -> None:
    """Refuses candidates whose overflow cannot be simulated.

    Raises:
        InputError: DoReFa weights, whose words are one bit wider than the candidate's.
    """
    for c in candidates:
        if c.overflow is not None and quantiser == "dorefa" and operator(c.operator).uniform and c.weight_bits > 1:
            problem = f"has weights that the core of {c.name} cannot represent, whose overflow is simulated"
            raise InputError("quantiser 'dorefa'", problem, ("rms", "lsq"))


@dataclass(frozen=True)
class Accumulators:
    """A layer's weights in a core of the candidate, whose accumulators start at zero.

    Attributes:
        weights: the integer weights of each of the operator's views, shape (groups, outputs of a group, inputs of an
            output).
    """

    candidate: Candidate
    signed: bool
    weights: tuple[Tensor, ...]

    def inputs(self, words: Tensor) -> Tensor:
        """What windows are taken of: padding adds nothing to a sum, under XNOR too, whose words are +1 and -1."""
        return 2 * words - 1 if self._views == ("binary",) and not self.signed else words

    @property
    def words(self) -> torch.dtype | None:
        """Its products are of the layer's own type."""
        return None

    def sums(self, inputs: Tensor) -> Tensor:
        """The final values of the accumulators, shape (positions, out).

        Args:
            inputs: windows of the result of `inputs`, shape (positions, groups, inputs of an output).
        """
        if self.candidate.overflow == "saturate":
            return self._saturated(inputs).flatten(1)
        total: Tensor | None = None
        dtype = self._exact_type(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            for name, weights in zip(self._views, self.weights, strict=True):
                part = torch.einsum("ngk,gok->ngo", _seen(inputs, name).to(dtype), weights.to(dtype))
                total = part if total is None else total + part
        assert total is not None
        return wrapped(total, self._bits).flatten(1)

    @property
    def _bits(self) -> int:
        return self.candidate.accumulator_bits(self.weights[0].shape[-1])

    @property
    def _views(self) -> tuple[View, ...]:
        return operator(self.candidate.operator).views

    def _exact_type(self, inputs: Tensor) -> torch.dtype:
        """A type in which no sum is rounded; GPUs may multiply float32 with fewer bits, so there it is the wide one."""
        if inputs.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest" or inputs.numel() == 0:
            return torch.float64
        most = 0.0
        for name, weights in zip(self._views, self.weights, strict=True):
            largest = float(_seen(inputs, name).abs().max())
            most += largest * float(weights.abs().sum(-1, dtype=torch.float64).max())
        return torch.float32 if most < _EXACT else torch.float64

    def _saturated(self, inputs: Tensor) -> Tensor:
        """Cycle by cycle, in the order of the weights in memory: the operations of a cycle are added, then clipped."""
        low, high = -(2.0 ** (self._bits - 1)), 2.0 ** (self._bits - 1) - 1
        views = [_seen(inputs, name).to(torch.float64) for name in self._views]
        of_views = [weights.to(torch.float64) for weights in self.weights]
        total = inputs.new_zeros((*inputs.shape[:2], of_views[0].shape[1]), dtype=torch.float64)
        step = operations_at_once(self.candidate)
        with torch.autocast(inputs.device.type, enabled=False):
            for k in range(0, inputs.shape[-1], step):
                for seen, weights in zip(views, of_views, strict=True):
                    total += torch.einsum("ngk,gok->ngo", seen[..., k : k + step], weights[..., k : k + step])
                total.clamp_(low, high)
        return total


def wrapped(sums: Tensor, width: int) -> Tensor:
    """The two's complement numbers in the lowest `width` bits of integers that the type of `sums` represents exactly.

    Example:
        >>> wrapped(torch.tensor([127.0, 128.0, -129.0, 300.0]), 8).tolist()
        [127.0, -128.0, 127.0, 44.0]
    """
    whole, half = 2.0**width, 2.0 ** (width - 1)
    return sums - ((sums + half) / whole).floor() * whole


def _seen(inputs: Tensor, name: View) -> Tensor:
    if name == "sign":
        return inputs.sign()
    return inputs.abs() if name == "magnitude" else inputs
