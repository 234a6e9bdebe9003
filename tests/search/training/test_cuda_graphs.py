"""Loss and gradients as a CUDA graph: the same numbers as without, also where the network changes under way."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import MixedLayer
from search.networks.squeezenet import squeezenet_cifar
from search.training.cuda_graphs import EAGER_STEPS, GraphedLoss
from search.training.train import Compute

pytestmark = pytest.mark.cuda
CANDIDATES = load_candidates()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = MixedLayer(nn.Conv2d(3, 8, 3, padding=1, bias=False), CANDIDATES)
        self.norm = nn.BatchNorm2d(8)
        self.fc = MixedLayer(nn.Linear(8, 10), CANDIDATES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return result


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 3, 8, 8, generator=generator).cuda(), torch.randint(0, 10, (16,), generator=generator).cuda()


def made(amp: bool) -> tuple[nn.Module, GraphedLoss, Compute]:
    torch.manual_seed(0)
    network, compute = Small(), Compute("cuda", channels_last=True, amp=amp, graphs=True)
    compute.place(network)
    loss = compute.losses(network)
    assert isinstance(loss, GraphedLoss)
    return network, loss, compute


@pytest.mark.parametrize("amp", [True, False])
@pytest.mark.parametrize("what", ["plain", "fixed", "relaxed"])
def test_a_graph_finds_what_steps_without_it_find(amp: bool, what: str) -> None:
    """Losses, gradients (of shares, too) and statistics, over steps that move the weights."""
    found: list[list[Tensor]] = []
    for graphed in (False, True):
        network, loss_of, compute = made(amp)
        optimiser = compute.adam(network.parameters(), 0.01)
        seen: list[Tensor] = []
        for step in range(12):
            if what == "fixed" and step == 7:
                network.conv.fix(2)  # type: ignore[call-arg, operator]
            if what == "relaxed":
                for layer in (network.conv, network.fc):
                    layer.relaxed = ((layer.alpha + step % 3) / (1 + step % 2)).softmax(0)
            loss = loss_of(batch(step)) if graphed else compute.loss(network, batch(step))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen += [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        assert not graphed or loss_of.captured
        found.append([*seen, *(b.clone() for b in network.buffers())])
    for without, within in zip(*found, strict=True):
        torch.testing.assert_close(within, without, rtol=1e-4, atol=1e-5)


def test_a_network_that_reads_back_is_computed_without_a_graph() -> None:
    class Reads(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if float(x.sum()) > 0 else 2.0)

    torch.manual_seed(0)
    network, compute = Reads(), Compute("cuda", graphs=True)
    compute.place(network)
    loss_of = compute.losses(network)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        for step in range(EAGER_STEPS + 3):
            loss_of(batch(step)).backward()
    assert isinstance(loss_of, GraphedLoss) and loss_of.refused and not loss_of.captured
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss_of(batch(9)).isfinite()


def test_layers_on_a_gpu_find_what_they_find_on_the_cpu() -> None:
    """Outputs and gradients of a whole searchable network in float32."""
    torch.manual_seed(0)
    network = squeezenet_cifar(width=0.125).module
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, MixedLayer(module, CANDIDATES))
    x, labels = torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,))
    network(x)
    network.eval()
    found = []
    for device in ("cpu", "cuda"):
        placed = copy.deepcopy(network)
        Compute(device).place(placed)
        first = placed.conv1(x.to(device))
        loss = functional.cross_entropy(placed(x.to(device)), labels.to(device))
        gradients = torch.autograd.grad(loss, list(placed.parameters()), allow_unused=True)
        found.append([first.detach(), loss.detach(), *gradients])
    for i, (here, there) in enumerate(zip(*found, strict=True)):
        if here is None or there is None:
            assert here is there
            continue
        # A value at the edge between two words may round either way, so later layers differ in single words.
        assert (there.cpu() - here).norm() <= (1e-5 if i == 0 else 0.02) * here.norm() + 1e-7
