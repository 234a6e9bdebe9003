"""A synthetic cost table: energies proportional to MACs, for tests of the search's mechanics and never for results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from dse.table.shapes import shape_text
from dse.workload.export import export_network
from dse.workload.networks import Network

RELATIVE = {
    "T8": 1.0,
    "T4": 0.53,
    "T2": 0.35,
    "MF8": 0.69,
    "MF4": 0.45,
    "MF2": 0.3,
    "BC8": 0.49,
    "BC4": 0.33,
    "BC2": 0.25,
}
COMPUTE_SHARE = 0.3
PJ_PER_MAC = 10.0

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


def synthetic_table(network: Network, operators: Path | str = "operators") -> CostTable:
    """A table of the candidates of an operators file; those that `RELATIVE` lacks cost half of T8."""
    rows = []
    for layer in export_network(network).layers:
        macs = layer.macs
        for c in load_candidates(operators):
            per_mac = PJ_PER_MAC * RELATIVE.get(c.name, 0.5)
            moved = (1 - COMPUTE_SHARE) * per_mac * macs
            rows.append(
                {
                    "workload": network.name, "layer": layer.name, "kind": layer.kind,
                    "shape": shape_text(layer.instance), "operator": c.operator, "bits": c.bits,
                    "candidate": c.name, "status": "ok", "reason": "", "n_ops": macs,
                    "e_op_pj": COMPUTE_SHARE * per_mac, "e_compute_pj": COMPUTE_SHARE * per_mac * macs,
                    "e_tx_pj": moved, "e_tx_on_chip_pj": moved / 2, "cycles": macs, "utilisation": 1.0,
                    "engine": "synthetic", "optimal": True, "mapping": "",
                    "dram.Weights.energy_pj": moved / 2, "glb.Inputs.energy_pj": moved / 4,
                    "glb.Outputs.energy_pj": moved / 4,
                }
            )  # fmt: skip
    return CostTable(tuple(rows))


@pytest.fixture
def make_table() -> Callable[..., CostTable]:
    return synthetic_table


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where torch has none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="torch has no GPU"))
