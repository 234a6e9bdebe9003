"""Mixed layers with candidates in memory: exact where they are decided, a line and noise where they learn."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate, Macro
from dse.hardware.candidates import load_candidates
from search.data.datasets import digits
from search.layers.in_memory.adc import rounds
from search.layers.in_memory.chips import Chip
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.mixed_product import MixedProduct
from search.training.epochs import batches

DIGITAL = load_candidates()
BY_NAME = {c.name: c for c in load_candidates(data_dir("arch_specs") / "operators_extended.yaml")}
NAMES = ("T8", "T4", "MF8", "MF4", "BC8", "BC4")


def in_memory(name: str, rows: int = 31, adc: int = 4, scale: int = 31) -> Candidate:
    return replace(BY_NAME[name], mode="cim", macro=Macro(rows, adc, scale))


def conv(**options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 12, 3, padding=1, **options)


def inputs(seed: int, signed: bool = False, sparse: bool = False) -> Tensor:
    x = torch.randn(32, 8, 9, 9, generator=torch.Generator().manual_seed(seed))
    return x if signed else (x - 1.5 * sparse).relu()


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_an_adc_with_a_code_for_each_sum_changes_nothing(name: str, signed: bool) -> None:
    fine, digital = MixedLayer(conv(), [in_memory(name, 31, 5)]), MixedLayer(conv(), [BY_NAME[name]])
    assert torch.equal(fine(inputs(1, signed)), digital(inputs(1, signed)))
    assert torch.equal(fine.eval()(inputs(2, signed)), digital.eval()(inputs(2, signed)))


@pytest.mark.parametrize("layer", [nn.Linear(8, 5), nn.Conv2d(8, 12, 3, groups=4, stride=2), nn.Conv1d(8, 4, 3),
                                   nn.ConvTranspose2d(8, 6, 3, stride=2)])  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_a_chip_without_variations_is_as_the_exact_sums(name: str, layer: Any) -> None:
    shape = {nn.Linear: (4, 3, 8), nn.Conv1d: (4, 8, 7)}.get(type(layer), (4, 8, 7, 7))
    mixed = MixedLayer(copy.deepcopy(layer), [in_memory(name, 31, 3)])
    x = torch.randn(shape).relu()
    mixed(x)
    with torch.no_grad():
        ideal = mixed.eval()(x)
        mixed.chip = Chip(1), 0
        torch.testing.assert_close(mixed(x), ideal)
        mixed.chip = Chip(1, mismatch=0.1, offset=0.5), 0
        varied = mixed(x)
        assert torch.equal(mixed(x), varied) and not torch.allclose(varied, ideal)
        mixed.chip = Chip(2, mismatch=0.1, offset=0.5), 0
        assert not torch.equal(mixed(x), varied)


@pytest.mark.parametrize("adc", [1, 3, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_decided_layer_is_further_from_the_digital_one_the_fewer_codes_it_has(name: str, adc: int) -> None:
    digital, coarse, fine = (MixedLayer(conv(), [c]) for c in (BY_NAME[name], in_memory(name, 62, adc, 62),
                                                               in_memory(name, 62, adc + 2, 62)))  # fmt: skip
    for layer in (digital, coarse, fine):
        layer(inputs(1))
        layer.eval()
    with torch.no_grad():
        y = digital(inputs(2))
        errors = [(layer(inputs(2)) - y).square().mean().sqrt() for layer in (coarse, fine)]
    if rounds(coarse.candidates[0]) and adc > 1:  # of one bit, most sums are 0
        assert errors[0] > errors[1]
    assert bool(errors[0].isfinite())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("adc", [2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_training_has_the_mean_and_the_variance_of_the_array(name: str, adc: int, signed: bool, sparse: bool) -> None:
    torch.manual_seed(1)
    mixed = MixedLayer(conv(), [in_memory(name, 31, adc)])
    with torch.no_grad():
        for seed in range(160):
            mixed(inputs(seed, signed, sparse))
        trained = torch.cat([mixed(inputs(seed, signed, sparse)) for seed in range(200, 208)])
        mixed.eval()
        exact = torch.cat([mixed(inputs(seed, signed, sparse)) for seed in range(200, 208)])
    deviation = exact.std((0, 2, 3)).clamp_min(1e-6)
    assert ((trained.mean((0, 2, 3)) - exact.mean((0, 2, 3))).abs() < 0.1 * deviation + 1e-4).all()
    ratio = trained.var() / exact.var()
    assert 0.85 < float(ratio) < 1.18


@pytest.mark.parametrize("name", ["T8", "MF8", "MF4", "BC4"])
def test_training_has_mean_and_variance_on_activations_of_a_trained_network(name: str) -> None:
    data = digits(subset=600)
    torch.manual_seed(0)
    first, second = MixedLayer(nn.Conv2d(1, 12, 3, padding=1), [BY_NAME[name]]), MixedLayer(conv12(), [BY_NAME[name]])
    network = nn.Sequential(first, nn.BatchNorm2d(12), nn.ReLU(), second, nn.BatchNorm2d(16), nn.ReLU(),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(4):
        for images, labels in batches(data.train, 40, 0, epoch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    mixed = MixedLayer(copy.deepcopy(second.layer), [in_memory(name)])
    with torch.no_grad():
        x = network.eval()[:3](data.train.prepared(data.train.images[:320]))
        for i in range(96):
            mixed(x[32 * (i % 10) :][:32])
        trained, exact = mixed(x), mixed.eval()(x)
    deviation = exact.std((0, 2, 3)).clamp_min(1e-6)
    assert ((trained.mean((0, 2, 3)) - exact.mean((0, 2, 3))).abs() < 0.12 * deviation).all()
    assert 0.9 < float(trained.var() / exact.var()) < 1.1


def conv12() -> nn.Conv2d:
    return nn.Conv2d(12, 16, 3, padding=1)


def test_autocast_changes_little() -> None:
    """Candidates of a layer, and one alone, whose unit is apart from its words in bfloat16."""
    for candidates in ([in_memory("MF8")], [in_memory("MF8"), in_memory("T4", adc=3)]):
        mixed = MixedLayer(conv(), candidates)
        with torch.no_grad():
            for seed in range(9):
                mixed(inputs(seed))
            torch.manual_seed(0)
            y = mixed(inputs(1))
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                reduced = mixed(inputs(1))
        assert float((y - reduced).std() / y.std()) < 0.03


def test_each_candidate_adds_its_share_of_the_error() -> None:
    candidates = [BY_NAME["T8"], in_memory("MF8"), in_memory("T4", adc=2), in_memory("BC4", adc=3), BY_NAME["MF4"]]
    mixed = MixedLayer(conv(), candidates)
    assert mixed.alpha is not None
    mixed.alpha.data.copy_(torch.tensor([0.3, 0.5, -0.2, 0.1, 0.0]))
    mixed(inputs(1))
    with torch.no_grad():
        y = mixed.eval()(inputs(2))
        assert mixed.errors is not None
        parts = []
        for i, candidate in enumerate(candidates):
            single = MixedLayer(conv(), [candidate])
            single(inputs(1))
            single.errors = None
            bias = single.layer.bias
            assert bias is not None
            digital = single.eval()
            digital.candidates = (replace(candidate, macro=None),)
            gain, offset, _ = mixed.errors.line[:, i, :, None, None]
            parts.append((digital(inputs(2)) - bias[:, None, None]) * gain + offset)
        shares = mixed.probabilities()
        assert mixed.layer.bias is not None
        expected = sum(s * p for s, p in zip(shares, parts, strict=True)) + mixed.layer.bias[:, None, None]
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [LayerOptions(), LayerOptions("lsq"), LayerOptions(latent="own"),
                                     LayerOptions(learned_scales=True)])  # fmt: skip
def test_all_learn(options: LayerOptions) -> None:
    candidates = [*DIGITAL, *(in_memory(name, adc=3) for name in NAMES)]
    mixed = MixedLayer(conv(), candidates, options)
    mixed(inputs(1)).square().mean().backward()
    for parameter in mixed.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())
    assert mixed.alpha is not None and mixed.alpha.grad is not None and bool((mixed.alpha.grad != 0).all())
    mixed.sampled = (1, 10, 12)
    mixed(inputs(1)).square().mean().backward()
    mixed.fix(10)
    y = mixed.eval()(inputs(2))
    y.square().mean().backward()
    single = mixed.single(candidates[10])
    with torch.no_grad():
        torch.testing.assert_close(single(inputs(2)), y)


def test_the_state_restores_what_was_measured() -> None:
    mixed = MixedLayer(conv(), [in_memory("MF8", adc=3), in_memory("T4", adc=3)])
    for seed in range(11):
        mixed(inputs(seed))
    again = MixedLayer(conv(), mixed.candidates)
    again.load_state_dict(mixed.state_dict())
    for seed in range(11, 20):
        torch.manual_seed(seed)
        y = mixed(inputs(seed))
        torch.manual_seed(seed)
        assert torch.equal(again(inputs(seed)), y)


def test_a_checkpointed_layer_has_the_same_gradient() -> None:
    found = []
    for again in (False, True):
        mixed = MixedLayer(conv(), [in_memory("MF8", adc=3), in_memory("T4", adc=3)])
        for seed in range(9):
            torch.manual_seed(seed)
            x = inputs(seed).requires_grad_()
            y = checkpoint(mixed, x, use_reentrant=False) if again else mixed(x)
            y.square().sum().backward()
        assert mixed.alpha is not None and mixed.alpha.grad is not None
        found.append(mixed.alpha.grad)
    torch.testing.assert_close(*found)


def test_what_an_array_cannot_compute_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="DS4@cim: deep_shift is not computed in memory"):
        MixedLayer(conv(), [in_memory("DS4")])
    with pytest.raises(InputError, match=r"dorefa.*T4@cim"):
        MixedLayer(conv(), [in_memory("T4")], LayerOptions("dorefa"))
    with pytest.raises(InputError, match="T4@cim"):
        MixedProduct([in_memory("T4")])


@pytest.mark.parametrize("layer", [nn.Linear(8, 5), nn.Conv2d(8, 4, 3)])
def test_a_batch_may_be_empty(layer: Any) -> None:
    mixed = MixedLayer(layer, [in_memory("MF8")])
    shape = (8,) if isinstance(layer, nn.Linear) else (8, 6, 6)
    mixed(torch.randn(4, *shape))
    assert mixed(torch.randn(0, *shape)).shape[0] == 0
    with torch.no_grad():
        assert mixed.eval()(torch.randn(0, *shape)).shape == layer(torch.randn(0, *shape)).shape
        assert mixed(torch.randn(*shape)).shape == layer(torch.randn(*shape)).shape


def test_a_cuda_graph_is_refused_while_it_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = MixedLayer(conv(), [in_memory("T4")])
    mixed(inputs(1))
    monkeypatch.setattr("search.layers.mixed_layer.captured", lambda x: True)
    with pytest.raises(RuntimeError, match="measure their conversions"):
        mixed(inputs(1))


def test_a_layer_without_conversions_has_the_state_that_it_had() -> None:
    assert not any(name.startswith("errors") for name in MixedLayer(conv(), DIGITAL).state_dict())
