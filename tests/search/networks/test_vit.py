"""The shipped transformer: its layers, their count, and a search of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dse.core.errors import InputError
from dse.workload.export import export_network
from search.networks.vit import vit_cifar
from search.supernet import searchable, uniform


def test_it_has_torchs_count_and_the_layers_of_each_block() -> None:
    network = vit_cifar()
    workload = export_network(network)
    names = ["attn.qkv", "attn.matmul_1", "attn.matmul_2", "attn.proj", "fc1", "fc2"]
    blocks = [f"blocks.{i}.{name}" for i in range(6) for name in names]
    assert [layer.name for layer in workload.layers] == ["patch_embed", *blocks, "head"]
    products = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), products, FlopCounterMode(display=False) as counter:
        network.module.eval()(torch.zeros(network.input_shape))
    assert workload.macs == counter.get_total_flops() // 2


def test_all_its_layers_are_searched(make_table: Any) -> None:
    torch.manual_seed(0)
    network = vit_cifar(in_channels=1, image=8, patch=2, width=16, depth=2, heads=2)
    table = make_table(network)
    model = searchable(network.module, table)
    loss = nn.functional.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.arange(8)) + model.energy()
    loss.backward()
    assert len(model.alphas()) == len(table.layers)
    assert all(alpha.grad is not None and alpha.grad.abs().sum() > 0 for alpha in model.alphas())
    assert {len(alpha) for alpha in model.alphas()} == {3, 9}  # products have the typical candidates
    chosen = uniform(table, "MF4")
    assert chosen["blocks.0.attn.matmul_1"] == "T4" and chosen["head"] == "MF4"
    assert model.discretise(chosen).eval()(torch.randn(2, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("wrong", "message"), [({"heads": 5}, "width: found 96"), ({"patch": 5}, "image: found 32")])
def test_sizes_that_do_not_divide_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vit_cifar(**wrong)
