from __future__ import annotations

import pytest
import torch

from dse.core.errors import InputError
from dse.workload.export import export_network
from search.networks.shufflenet import STAGE_CHANNELS, ChannelShuffle, Unit, shufflenet_cifar


@pytest.mark.parametrize(("groups", "millions"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_macs_at_224_are_those_of_the_papers_table_1(groups: int, millions: int) -> None:
    workload = export_network(shufflenet_cifar(1000, groups=groups, stem_pool=True, image=224))
    assert workload.macs / 1e6 == pytest.approx(millions, rel=0.012)


@pytest.mark.parametrize("groups", [1, 3])
def test_macs_at_half_width_are_those_of_the_papers_table_2(groups: int) -> None:
    workload = export_network(shufflenet_cifar(1000, width=0.5, groups=groups, stem_pool=True, image=224))
    assert workload.macs / 1e6 == pytest.approx(38, rel=0.015)


def test_cifar_form_is_table_1_without_the_stems_strides() -> None:
    """Weights and MACs layer by layer from Table 1 for 3 groups; normalisations have 2 parameters a channel."""
    weights, macs, norms = 27 * 24, 27 * 24 * 32 * 32, 24
    channels, size = 24, 32
    for stage, (out, units) in enumerate(zip((240, 480, 960), (4, 8, 4), strict=True)):
        for i in range(units):
            middle, made = out // 4, out - channels if i == 0 else out
            first = channels * middle // (1 if (stage, i) == (0, 0) else 3)
            half = size // 2 if i == 0 else size
            weights += first + 9 * middle + middle * made // 3
            macs += first * size**2 + (9 * middle + middle * made // 3) * half**2
            norms += 2 * middle + made
            channels, size = out, half
    weights, macs = weights + 960 * 10, macs + 960 * 10
    network = shufflenet_cifar()
    workload = export_network(network)
    assert workload.name == "shufflenet_cifar" and len(workload.layers) == 50
    assert workload.macs == macs
    assert sum(p.numel() for p in network.module.parameters()) == weights + 2 * norms + 10


def test_grouped_and_depthwise_convolutions_are_exported_with_their_groups() -> None:
    layers = {layer.name: layer.instance for layer in export_network(shufflenet_cifar()).layers}
    unit = {name.removeprefix("stage3_1."): i for name, i in layers.items() if name.startswith("stage3_1.")}
    assert [(n, i["G"], i["C"], i["M"]) for n, i in unit.items()] == [
        ("compress", 3, 160, 40), ("depthwise", 120, 1, 1), ("expand", 3, 40, 160),
    ]  # fmt: skip
    assert layers["stage2_0.compress"]["G"] == 1  # Section 3.2: no groups where the input has few channels
    assert layers["stage2_0.depthwise"]["Hstride"] == 2


def test_shuffle_transposes_groups_and_places() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert ChannelShuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(ChannelShuffle(2)(ChannelShuffle(3)(x)), x)


def test_every_output_of_a_unit_depends_on_every_group() -> None:
    """What the shuffle is for: without it each third of the output would read a third of the input."""
    torch.manual_seed(0)
    unit = Unit(48, 48, stride=1, groups=3, first_groups=3)
    x = torch.randn(4, 48, 4, 4, requires_grad=True)
    y = unit.expand(unit.depthwise(unit.shuffle(unit.compress(x))))
    (gradient,) = torch.autograd.grad(y[:, :16].sum(), x)
    assert all(gradient[:, 16 * g : 16 * (g + 1)].abs().sum() > 0 for g in range(3))


@pytest.mark.parametrize("groups", sorted(STAGE_CHANNELS))
@pytest.mark.parametrize("width", [0.25, 0.4])
def test_any_width_fits_the_groups(groups: int, width: float) -> None:
    network = shufflenet_cifar(num_classes=7, in_channels=1, width=width, groups=groups, image=16)
    assert network.input_shape == (1, 1, 16, 16)
    assert network.module(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


def test_other_groups_are_refused() -> None:
    with pytest.raises(InputError, match=r"groups: found 5 \(allowed: 1, 2, 3, 4, 8\)"):
        shufflenet_cifar(groups=5)
