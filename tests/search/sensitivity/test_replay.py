from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from search.sensitivity.replay import Replay


class Residual(nn.Module):
    """Changes outputs of its layers in place, calls a layer twice, and skips by addition and by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.twice = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh())
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += x
        z = self.b(y)
        z.mul_(3.0)
        z = self.twice(self.twice(self.relu(z)))
        z += y
        scores: Tensor = self.last(torch.cat([y, z], 1).mean((2, 3)))
        return scores


def layers(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("make", [Residual, lambda: nn.Sequential(Residual(), nn.Linear(3, 2))])
def test_a_replay_gives_what_the_whole_network_gives(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = make(), torch.randn(5, 2, 4, 4)
    expected = network(x).detach()
    replay = Replay(network)
    with replay.patched():
        torch.testing.assert_close(replay.record(x), expected, rtol=0, atol=0)
        for layer in layers(network):
            with torch.no_grad():
                layer.bias += 0.5
            found = replay.run(x, layer)
            again = replay.run(x, layer)
            with torch.no_grad():
                layer.bias -= 0.5
            torch.testing.assert_close(found, again, rtol=0, atol=0)  # what is kept stays as it was
            assert not torch.equal(found, expected)
            other = make()
            other.load_state_dict(network.state_dict())
            with torch.no_grad():
                layers(other)[layers(network).index(layer)].bias += 0.5
                torch.testing.assert_close(found, other(x), rtol=1e-6, atol=1e-6)


def test_what_ran_before_is_not_computed_again_in_whole_blocks() -> None:
    network, x = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2)), torch.ones(1, 2)
    expected = network(x)
    replay = Replay(network)
    with replay.patched():
        replay.record(x)
        network[0][0].weight.data.zero_()  # would change everything, were it computed
        torch.testing.assert_close(replay.run(x, network[1]), expected)
        assert replay.computed == [network, network[1]]
    assert not any("forward" in vars(m) for m in network.modules())


def test_the_order_is_that_of_first_calls() -> None:
    network = Residual()
    unused = nn.Linear(1, 1)
    replay = Replay(network)
    with replay.patched():
        replay.record(torch.randn(1, 2, 4, 4))
        names = {"last": network.last, "unused": unused, "b": network.b, "a": network.a}
        assert replay.order(names) == ["a", "b", "last", "unused"]
