"""Simulated chips: what differs from cell to cell and from ADC to ADC, fixed for a chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Variation:
    """Factors of the cells, shape (groups, inputs, planes, outputs), and offsets of the ADCs in codes, with the groups
    of rows in the place of groups and inputs: shape (groups of rows, groups, planes, outputs)."""

    cells: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Chip:
    """A chip: its number decides all that is random in it.

    Attributes:
        mismatch: standard deviation of a cell's contribution, as a share of it.
        offset: standard deviation of an ADC's offset, in codes; each column of a group of rows has an ADC of its own.
    """

    number: int
    mismatch: float = 0.0
    offset: float = 0.0

    def variation(
        self, cells: Sequence[int], chunks: int, place: tuple[int, int], device: torch.device | str = "cpu"
    ) -> Variation:
        """The variation of an array.

        Args:
            cells: shape (groups, inputs, planes, outputs).
            chunks: groups of rows.
            place: numbers of layer and term, which have random numbers of their own.

        Example:
            >>> one, other = (Chip(n, 0.1, 0.3).variation((1, 8, 2, 4), 1, (0, 0)) for n in (1, 2))
            >>> one.cells.shape, one.offsets.shape, bool((one.cells == other.cells).any())
            (torch.Size([1, 8, 2, 4]), torch.Size([1, 1, 2, 4]), False)
        """
        random = np.random.default_rng([self.number, *place])
        groups, _, planes, outputs = cells
        factors = 1 + self.mismatch * random.standard_normal(tuple(cells), np.float32)
        offsets = self.offset * random.standard_normal((chunks, groups, planes, outputs), np.float32)
        return Variation(torch.from_numpy(factors).float().to(device), torch.from_numpy(offsets).float().to(device))
