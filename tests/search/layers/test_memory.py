"""Nothing of a step outlives it: small tensors that stay keep an allocator from using the memory around them."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from dse.workload.networks import Network
from search.layers.mixed_layer import LayerOptions
from search.layers.quantisers import QuantiserName
from search.networks.vit import Attention
from search.supernet import searchable
from tests.search.conftest import synthetic_table


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.attention = nn.Conv2d(1, 8, 2, 2), nn.BatchNorm2d(8), Attention(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x))).flatten(2).transpose(1, 2)
        result: Tensor = self.head(self.attention(x).mean(1))
        return result


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
@pytest.mark.parametrize("searched", [True, False])
def test_steps_leave_no_tensors_behind(quantiser: QuantiserName, searched: bool) -> None:
    table = synthetic_table(Network("reader", Reader(), (1, 1, 4, 4)))
    model = searchable(Reader(), table, options=LayerOptions(quantiser=quantiser))
    network = model if searched else model.discretise(dict.fromkeys(model.assignment(), "T4"))
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    counts = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(network.train()(torch.randn(4, 1, 4, 4)), torch.tensor([0, 1, 2, 0]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        counts.append(tensors_alive())
    assert len(set(counts[2:])) == 1
