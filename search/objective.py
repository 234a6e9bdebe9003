"""What the network loss of Eq. 2 adds to accuracy: regularisers for computing and for transmission energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from dse.candidates import Candidate
from dse.errors import InputError
from dse.table import CostTable, Transmission

if TYPE_CHECKING:
    from search.searchable import SearchableNetwork


class Regulariser(Protocol):
    """What a search adds to the accuracy loss (Eq. 2a), with the state that it keeps from step to step."""

    def __call__(self, model: SearchableNetwork) -> Tensor:
        """The term for the model's present operator weights; a differentiable scalar."""

    def update(self, model: SearchableNetwork) -> None:
        """Is called after each step of the operator weights."""

    def report(self, model: SearchableNetwork) -> dict[str, float]:
        """What an epoch's record says of it: energy (expected, a share of the all-typical 8-bit total) and lambda."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None: ...


class WeightedEnergy:
    """lambda * energy with a fixed, dimensionless lambda."""

    def __init__(self, lam: float) -> None:
        self.lam = lam

    def __call__(self, model: SearchableNetwork) -> Tensor:
        return self.lam * model.energy()

    def update(self, model: SearchableNetwork) -> None:
        pass

    def report(self, model: SearchableNetwork) -> dict[str, float]:
        return {"energy": float(model.energy().detach()), "lambda": self.lam}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        pass


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
