"""The sums that a compute-in-memory array gives: plane by plane, group of rows by group of rows, code by code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dse.hardware.candidate import Candidate, Macro
from search.layers.in_memory.adc import codes, most
from search.layers.in_memory.chips import Chip, Variation
from search.layers.in_memory.kernels import code_sums, varied_sums
from search.layers.in_memory.planes import Term, terms_of


@dataclass(frozen=True)
class Array:
    """A layer's weights in the cells of an array.

    Attributes:
        weights: the integer weights of each term's view, shape (groups, outputs of a group, inputs of an output).
        variation: of each term on a simulated chip; empty for a chip without variations.
        portable: whether sums are computed by products of matrices, as they are on a GPU and on simulated chips.
    """

    candidate: Candidate
    signed: bool
    weights: tuple[Tensor, ...]
    variation: tuple[Variation, ...] = ()
    portable: bool = False

    @property
    def macro(self) -> Macro:
        assert self.candidate.macro is not None
        return self.candidate.macro

    @property
    def words(self) -> torch.dtype:
        """The type of words that are unfolded: the smallest one that has all of their codes."""
        return torch.int16 if self.candidate.act_bits < 16 else torch.int64

    def sums(self, words: Tensor) -> Tensor:
        """What the array adds, float64, shape (positions, out); on a CPU all counts of codes are in integers.

        Args:
            words: of the inputs, shape (positions, groups, inputs of an output).
        """
        total = torch.zeros(1, dtype=torch.float64, device=words.device)
        for i, term in enumerate(terms_of(self.candidate, self.signed)):
            total = total + self._converted(term, i, words) * self.macro.step
            if term.counted:
                total = total - counted(term.inputs.values(words), self.weights[i])
        return total.flatten(1)

    def _converted(self, term: Term, index: int, words: Tensor) -> Tensor:
        inputs, weights = term.inputs.codes(words), term.weights.codes(self.weights[index])
        if self.portable or words.device.type != "cpu":
            return self._by_products(term, index, inputs, weights)
        of_inputs, of_weights = (np.array(e.coefficients, np.int64) for e in (term.inputs, term.weights))
        seen, rows = inputs.contiguous().numpy(), self.macro.rows
        if self.variation:
            chip = self.variation[index]
            cells = (self._cells(term, weights) * chip.cells).contiguous().numpy()
            step, largest = self.macro.step, most(self.macro)
            varied = varied_sums(seen, cells, chip.offsets.numpy(), of_inputs, of_weights, rows, step, largest)
            return torch.from_numpy(varied)
        found = code_sums(seen, weights.contiguous().numpy(), of_inputs, of_weights, codes(self.macro).numpy(), rows)
        return torch.from_numpy(found).to(torch.float64)

    @staticmethod
    def _cells(term: Term, weights: Tensor) -> Tensor:
        """The bits of the weights, shape (groups, inputs, planes, outputs)."""
        return bit_planes(weights, len(term.weights.coefficients)).permute(1, 3, 0, 2)

    def _by_products(self, term: Term, index: int, inputs: Tensor, weights: Tensor) -> Tensor:
        """The same by products of matrices of bits, on any device, with the chip's variation."""
        rows, macro = self.macro.rows, self.macro
        chip = self.variation[index] if self.variation else None
        cells = self._cells(term, weights)
        if chip is not None:
            cells = cells * chip.cells
        of_weights = torch.tensor(term.weights.coefficients, dtype=torch.float64, device=inputs.device)
        table = codes(macro).to(inputs.device)
        total: Any = 0.0
        for coefficient, plane in zip(term.inputs.coefficients, bit_planes(inputs, len(term.inputs.coefficients)),
                                      strict=True):  # fmt: skip
            for c, first in enumerate(range(0, inputs.shape[-1], rows)):
                part = slice(first, first + rows)
                with torch.autocast(inputs.device.type, enabled=False):
                    analog = torch.einsum("ngk,gkqo->ngqo", plane[..., part], cells[:, part])
                if chip is None:
                    code = table[analog.round_().to(torch.int64)].to(torch.float64)
                else:
                    code = (analog / macro.step + chip.offsets[c]).round_().clamp_(0, most(macro)).to(torch.float64)
                total = total + coefficient * torch.einsum("ngqo,q->ngo", code, of_weights)
        found: Tensor = total
        return found


def counted(values: Tensor, signs: Tensor) -> Tensor:
    """What a digital counter adds: the inputs' sum, for each column over the positions whose sign is not 0."""
    total = values.sum(-1, keepdim=True).to(torch.float64)
    absent = signs == 0
    if bool(absent.any()):
        total = total - torch.einsum("ngk,gok->ngo", values.to(torch.float64), absent.to(torch.float64))
    return total


def digital_sums(array: Array, words: Tensor) -> Tensor:
    """The sums of the digital operator for the same words, float64, shape (positions, out)."""
    total = torch.zeros(1, dtype=torch.float64, device=words.device)
    for term, weights in zip(terms_of(array.candidate, array.signed), array.weights, strict=True):
        seen = {"value": words, "sign": words.sign(), "magnitude": words.abs()}[term.view]
        total = total + torch.einsum("ngk,gok->ngo", seen.to(torch.float64), weights.to(torch.float64))
    return total.flatten(1)


def bit_planes(codes_of: Tensor, planes: int) -> Tensor:
    """The bits of codes as numbers, shape (planes, ...), the lowest first."""
    return torch.stack([(codes_of >> p & 1).to(torch.float32) for p in range(planes)])


def on_chip(array: Array, chip: Chip, layer: int) -> Array:
    """The same array on a simulated chip; `layer` numbers the layers of a network."""
    variation = []
    for i, term in enumerate(terms_of(array.candidate, array.signed)):
        groups, outputs, inputs = array.weights[i].shape
        shape = (groups, inputs, len(term.weights.coefficients), outputs)
        variation.append(chip.variation(shape, -(-inputs // array.macro.rows), (layer, i), array.weights[i].device))
    return replace(array, variation=tuple(variation))
