"""Whether the signs that training has seen are those that a table's energies are for."""

from __future__ import annotations

from torch import nn

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.layers.mixed_layer import MixedLayer


def check_signs(network: nn.Module, table: CostTable) -> None:
    """Refuses negative inputs of layers that the table takes for never negative, where a candidate costs more for them.

    The table's workload has followed the network at inference; in training it may do something else.

    Args:
        network: a searched or decided network that has been trained, its layers under the table's names.

    Raises:
        InputError: naming the layer.

    Example:
        >>> check_signs(nn.Linear(2, 2), CostTable.load("table.csv"))  # no layer that is searched
    """
    signed = None if table.provenance is None else table.provenance.signed_layers
    if signed is None:
        return
    for name, module in network.named_modules():
        if isinstance(module, MixedLayer) and name in table.layers and name not in signed and module.scale.seen[1]:
            raise InputError(
                f"layer {name!r}",
                "has negative inputs in training, and its energies are those of inputs that never are",
                hint="give a table of a workload that does not say signed: false of it",
            )
