"""The network loss of Eq. 2: accuracy, plus regularisers for computing and for transmission energy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dse.candidates import Candidate
from dse.errors import InputError
from dse.table import CostTable, Transmission


def network_loss(accuracy_loss: Tensor, energy: Tensor, lam: float) -> Tensor:
    """L_net = L_acc + lambda * energy (Eq. 2a); `energy` is a share of the all-typical total, lambda dimensionless."""
    return accuracy_loss + lam * energy


class ExpectedEnergy(nn.Module):
    """Expected energy of a network from the operator weights: the two regularisers of Eq. 2a.

    Energies are divided by the energy of the network with the typical operator at 8 bits in every layer.

    Args:
        table: energies of every layer under every candidate.
        choices: the table's rows of layers, one entry a searched module: its layers (several if the module is called
            several times) and its candidates.
    """

    computing: Tensor
    transmission: Tensor

    def __init__(
        self,
        table: CostTable,
        choices: Sequence[tuple[Sequence[str], Sequence[Candidate]]],
        transmission: Transmission = "all",
    ) -> None:
        super().__init__()
        total = reference_pj(table, transmission)
        n_op, e_op, e_tx = table.n_ops, table.e_op_pj, table.e_tx_pj(transmission)
        computing, moving = [], []
        for layers, candidates in choices:
            rows = [table.layers.index(layer) for layer in layers]
            for candidate in candidates:
                j = table.candidates.index(candidate.name)
                computing.append(sum(n_op[i] * e_op[j] for i in rows) / total)
                moving.append(sum(e_tx[i, j] for i in rows) / total)
        self.register_buffer("computing", torch.tensor(computing, dtype=torch.float32), persistent=False)
        self.register_buffer("transmission", torch.tensor(moving, dtype=torch.float32), persistent=False)

    def forward(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Energy for softmax(alpha) of each searched module, in the order of `choices`; a scalar."""
        p = torch.cat(list(probabilities))
        return (p * self.computing).sum() + (p * self.transmission).sum()


def reference_pj(table: CostTable, transmission: Transmission = "all") -> float:
    """Energy in pJ of the network with the typical operator at 8 bits in every layer, the unit of all energies.

    Raises:
        InputError: a table without that candidate, or with a layer it cannot be mapped for.
    """
    name = next((r["candidate"] for r in table.rows if (r["operator"], r["bits"]) == ("typical", 8)), None)
    if name is None:
        raise InputError("table", "has no rows for the typical operator at 8 bits, the unit of energy", "typical, 8")
    for layer in table.layers:
        if table.row(layer, name)["status"] != "ok":
            raise InputError("table", f"layer {layer!r} has no mapping for {name}, the unit of energy")
    return table.total_pj(dict.fromkeys(table.layers, name), transmission)
