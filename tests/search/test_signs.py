"""What workloads say of signs against what training sees, for every shipped network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from dse.table.provenance import Provenance
from dse.workload.export import export_network
from dse.workload.networks import Network
from search.layers.mixed_layer import MixedLayer
from search.networks.googlenet import googlenet_cifar
from search.networks.shufflenet import shufflenet_cifar
from search.networks.squeezenet import squeezenet_cifar
from search.networks.vit import vit_cifar
from search.signs import check_signs
from search.supernet import searchable, uniform

NETWORKS: dict[str, Callable[[], Network]] = {
    "squeezenet": lambda: squeezenet_cifar(width=0.125, image=16),
    "shufflenet": lambda: shufflenet_cifar(width=0.125, image=16),
    "googlenet": lambda: googlenet_cifar(width=0.125, image=16),
    "vit": lambda: vit_cifar(image=16),
}


def made_by(signed_layers: tuple[str, ...] | None) -> Provenance:
    digest = "0" * 64
    return Provenance(4, "net", digest, "arch", digest, digest, "energy", "native", "1", True, (),
                      signed_layers=signed_layers)  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_sees_negative_inputs_where_its_workload_says_so_and_nowhere_else(name: str, make_table: Any) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    table = make_table(network)
    model = searchable(network.module, table, ["T8", "MF4"])
    images = [torch.randn(4, 3, 16, 16) * scale for scale in (1, 10)]
    for x in images:
        model(x)
    products = {layer: "T8" for layer in table.layers if table.kind(layer) == "matmul"}
    decided = model.discretise(uniform(table, "MF4") | products)
    for x in images:
        decided(x)
    workload = export_network(network)
    signed = {layer.name for layer in workload.layers if layer.signed}
    for found in (model.network, decided):
        layers = {n: m for n, m in found.named_modules() if isinstance(m, MixedLayer)}
        assert {n for n, m in layers.items() if m.scale.seen[1]} == signed & set(layers)
        check_signs(found, CostTable(table.rows, made_by(tuple(signed))))


def test_negative_inputs_where_energies_are_of_others_are_one_line(make_table: Any) -> None:
    network = NETWORKS["squeezenet"]()
    table = make_table(network)
    decided = searchable(network.module, table, ["T8"]).discretise(uniform(table, "T8"))
    decided(torch.randn(2, 3, 16, 16))
    check_signs(decided, table)
    check_signs(decided, CostTable(table.rows, made_by(None)))
    check_signs(decided, CostTable(table.rows, made_by(("conv1",))))
    with pytest.raises(InputError, match=r"layer 'conv1': has negative inputs in training.*signed: false") as e:
        check_signs(decided, CostTable(table.rows, made_by(())))
    assert "\n" not in str(e.value)
