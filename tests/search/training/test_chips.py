"""Networks on simulated chips, calibrated and not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dse.hardware.candidate import Macro
from dse.hardware.candidates import load_candidates
from search.layers.in_memory.chips import Chip
from search.layers.mixed_layer import MixedLayer
from search.training.chips import calibrated, over_chips, placed_on

OFFSETS = Chip(1, offset=1.0)


def network() -> nn.Sequential:
    """A layer in memory and its normalisation, which has the statistics of what the layer computes in memory."""
    torch.manual_seed(0)
    t4 = next(c for c in load_candidates() if c.name == "T4")
    layer = MixedLayer(nn.Conv2d(8, 12, 3, bias=False), [replace(t4, mode="cim", macro=Macro(31, 5, 31))])
    found = nn.Sequential(layer, nn.BatchNorm2d(12))
    found(images(0))
    with calibrated(found, [images(0)]):
        state = {name: value.clone() for name, value in found[1].state_dict().items()}
    found[1].load_state_dict(state)
    return found.eval()


def images(seed: int) -> Tensor:
    return torch.randn(32, 8, 9, 9, generator=torch.Generator().manual_seed(seed)).relu()


def error(found: nn.Sequential, ideal: Tensor) -> float:
    with torch.no_grad():
        return float((found(images(1)) - ideal).square().mean())


def test_a_calibrated_chip_has_lost_the_constant_errors_of_its_converters() -> None:
    found = network()
    with torch.no_grad():
        ideal = found(images(1))
    with placed_on(found, OFFSETS):
        raw = error(found, ideal)
        with calibrated(found, [images(0)]):
            better = error(found, ideal)
        assert error(found, ideal) == raw  # its own statistics are back
    assert better < raw / 4
    assert error(found, ideal) == 0


def test_statistics_are_those_of_all_batches_in_evaluation_mode() -> None:
    found = network()
    with placed_on(found, OFFSETS), calibrated(found, [images(2), images(3)]):
        with torch.no_grad():
            sums = torch.cat([found[0](images(n)) for n in (2, 3)])
        assert not found.training and not found[1].training
        torch.testing.assert_close(found[1].running_mean, sums.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_each_chip_is_calibrated_before_it_is_measured() -> None:
    found, measured = network(), []

    def mean() -> float:
        measured.append(found[1].running_mean.clone())
        return 0.0

    over_chips(found, 2, 0.02, 1.0, mean, [images(0)])
    over_chips(found, 1, 0.02, 1.0, mean)
    assert not torch.equal(measured[0], measured[1])
    assert torch.equal(measured[2], found[1].running_mean)
