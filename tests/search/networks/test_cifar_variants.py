"""What holds for every shipped network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dse.core.errors import InputError
from dse.workload.export import export_network
from dse.workload.layers import find_workload, read_workload
from dse.workload.networks import Network
from search.layers.mixed_layer import MixedLayer
from search.networks.googlenet import googlenet_cifar
from search.networks.shufflenet import shufflenet_cifar
from search.networks.squeezenet import squeezenet_cifar
from search.supernet import searchable, uniform

Factory = Callable[..., Network]

FACTORIES = {"squeezenet": squeezenet_cifar, "shufflenet": shufflenet_cifar, "googlenet": googlenet_cifar}
factories = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


@pytest.mark.parametrize("name", FACTORIES)
def test_the_shipped_workload_is_what_the_network_exports(name: str) -> None:
    assert read_workload(find_workload(name)) == export_network(FACTORIES[name]()), f"run: enos export {name}"


@factories
def test_every_weighted_layer_is_in_the_workload(factory: Factory) -> None:
    network = factory(width=0.25)
    weighted = {n for n, m in network.module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {layer.name for layer in export_network(network).layers} == weighted


@factories
@pytest.mark.parametrize("width", [0, -1, float("nan"), "wide"])
def test_a_width_that_is_none_is_refused(factory: Factory, width: object) -> None:
    with pytest.raises(InputError, match=r"width: found .* \(allowed: a number above 0\)"):
        factory(width=width)


@factories
def test_the_form_for_64x64_has_the_macs_of_that_for_32x32(factory: Factory) -> None:
    large, small = (factory(num_classes=200, width=0.25, image=image) for image in (64, 32))
    assert large.name.endswith("_64") and large.input_shape == (1, 3, 64, 64)
    assert export_network(large).macs == export_network(small).macs
    assert large.module(torch.zeros(2, 3, 64, 64)).shape == (2, 200)
    assert export_network(factory(width=0.25, image=64, stem_stride=1)).macs > 3 * export_network(small).macs


@factories
def test_gradient_reaches_every_parameter(factory: Factory) -> None:
    torch.manual_seed(0)
    module = factory(width=0.25, image=16).module
    loss = nn.functional.cross_entropy(module(torch.randn(4, 3, 16, 16)), torch.arange(4))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in module.named_parameters() if n.endswith("conv1.weight"))


@factories
def test_networks_are_searchable(factory: Factory, make_table: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = factory(width=0.125, image=16)
    table = make_table(network)
    model = searchable(network.module, table, ["T8", "MF4", "BC8"])
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)) + model.energy()
    loss.backward()
    assert len(model.alphas()) == len(table.layers) == len(export_network(network).layers)
    assert all(alpha.grad is not None and alpha.grad.abs().sum() > 0 for alpha in model.alphas())
    fixed = model.discretise(uniform(table, "MF4")).eval()
    assert fixed(torch.randn(2, 3, 16, 16)).isfinite().all()
    assert sum(isinstance(m, MixedLayer) for m in fixed.modules()) == len(table.layers)
