"""The expected cost of a network whose layers are not decided, as a differentiable sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dse.table.cost_table import FloatArray


class ExpectedCost(nn.Module):
    """Expected cost of a network from its layers' probabilities: sum over layers and candidates of p * cost.

    With energies N_OP * E_OP + E_TX as costs it is both regularisers of Eq. 2a, without their lambda.

    Args:
        costs: one array a searched module, its candidates' costs in the order of their operator weights.
    """

    costs: Tensor

    def __init__(self, costs: Sequence[FloatArray]) -> None:
        super().__init__()
        self.register_buffer("costs", torch.tensor(np.concatenate(costs), dtype=torch.float32), persistent=False)

    def forward(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Cost for softmax(alpha) of each searched module, in the order of `costs`; a scalar."""
        return (torch.cat(list(probabilities)) * self.costs).sum()
