"""Whether a layer's input is signed: learnt from every batch in training, from none for good before it."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.quantisers import QuantiserName, input_quantiser
from search.layers.quantize import ActivationScale

CANDIDATES = load_candidates()
QUANTISERS: tuple[QuantiserName, ...] = ("rms", "lsq", "dorefa")
WIDENED = "words have a sign from now on"


def mixed(quantiser: QuantiserName = "rms") -> MixedLayer:
    torch.manual_seed(0)
    return MixedLayer(nn.Conv2d(3, 4, 3, padding=1), CANDIDATES, LayerOptions(quantiser))


def batch(seed: int) -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def same_state(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        if isinstance(x, Tensor):
            assert torch.equal(x, y), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dry", [torch.zeros, torch.ones, torch.rand])
@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_a_dry_run_decides_nothing_for_good(quantiser: QuantiserName, dry: Any, training: bool) -> None:
    layer, other = mixed(quantiser), mixed(quantiser)
    layer.train(training)(dry(4, 3, 6, 6))
    layer.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(150):
            layer(batch(seed)), other(batch(seed))
    assert layer.scale.signed is True and int(layer.scale.seen[1]) == 1
    if quantiser != "lsq" or not training or dry is torch.zeros:  # learned steps begin with the first batch
        torch.testing.assert_close(layer.eval()(batch(0)), other.eval()(batch(0)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_after_a_dry_run_in_evaluation_training_begins_as_if_there_had_been_none(quantiser: QuantiserName) -> None:
    layer, other = mixed(quantiser), mixed(quantiser)
    layer.eval()(batch(0))
    layer.train()
    for seed in range(1, 4):
        assert torch.equal(layer(batch(seed).abs()), other(batch(seed).abs()))
    same_state(layer, other)


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_a_widened_layer_is_one_that_was_signed_from_the_start(quantiser: QuantiserName) -> None:
    """The same magnitudes, so the same statistics: only the sign comes later."""
    late, early = mixed(quantiser), mixed(quantiser)
    late(batch(0).abs()), early(batch(0))
    with pytest.warns(UserWarning, match=WIDENED):
        late_output = late(batch(1))
    torch.testing.assert_close(late_output, early(batch(1)))
    for seed in range(2, 4):
        x, y = batch(seed).requires_grad_(), batch(seed).requires_grad_()
        a, b = late(x), early(y)
        torch.testing.assert_close(a, b)
        a.square().sum().backward(), b.square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    for p, q in zip(late.parameters(), early.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


def test_a_layer_says_once_that_it_is_widened() -> None:
    layer = mixed()
    layer(batch(0).abs())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in range(1, 4):
            layer(batch(seed))
        layer(batch(4).abs())
    assert [str(w.message) for w in said] == [
        "a layer's input of shape (4, 3, 6, 6) has negative values; words have a sign from now on: earlier batches of "
        "training had no negative value"
    ]
    assert layer.scale.signed is True  # also behind a batch without negative values


@pytest.mark.parametrize("signed", [True, False])
def test_nothing_is_said_where_the_first_batch_shows_the_sign(signed: bool) -> None:
    layer = mixed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            layer(batch(seed) if signed else batch(seed).relu())
        layer.eval()(batch(3) if signed else batch(3).relu())
    assert layer.scale.signed is signed


def test_evaluation_changes_nothing_but_says_that_negative_values_are_clipped() -> None:
    layer = mixed()
    layer(batch(0).relu())
    before = copy.deepcopy(layer.state_dict())
    layer.eval()
    with pytest.warns(UserWarning, match=r"shape \(4, 3, 6, 6\) has negative values.*clipped to 0"):
        y = layer(batch(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(layer(batch(1).relu()), y)
    for name, value in layer.state_dict().items():
        assert not isinstance(value, Tensor) or torch.equal(value, before[name])
    with pytest.warns(UserWarning, match=WIDENED):  # the warning of evaluation does not hide this one
        layer.train()(batch(1))


def test_a_layer_whose_inputs_are_zeros_stays_without_sign() -> None:
    layer = mixed()
    for _ in range(3):
        layer(torch.zeros(4, 3, 6, 6))
    assert layer.scale.signed is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(batch(0))  # the first batch that says something
    assert layer.scale.signed is True


def test_a_state_dict_brings_the_sign() -> None:
    late, other = mixed(), mixed()
    late(batch(0).relu())
    with pytest.warns(UserWarning, match=WIDENED):
        late(batch(1))
    other(batch(0).relu())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(late.state_dict())
    assert torch.equal(other.eval()(batch(2)), late.eval()(batch(2))) and other.scale.signed is True


@pytest.mark.parametrize("signed", [None, False, True])
def test_the_state_of_an_earlier_version_is_read(signed: bool | None) -> None:
    scale = ActivationScale()
    scale.load_state_dict({"rms": torch.tensor(2.0), "_extra_state": {"signed": signed}})
    assert scale.signed is signed and float(scale.rms) == 2
    if signed is not None:
        scale(torch.full((2, 3), 4.0))
        assert float(scale.rms) == pytest.approx(2.2)  # training goes on


def test_an_empty_batch_says_nothing() -> None:
    scale = ActivationScale()
    scale(torch.empty(0, 3))
    assert scale.signed is None and int(scale.seen[0]) == 0
    scale(batch(0))
    assert scale.signed is True


class Checkpointed(nn.Module):
    """Three mixed layers, one of them called twice, in checkpointed parts or not."""

    def __init__(self, quantiser: QuantiserName, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = LayerOptions(quantiser)
        self.first = MixedLayer(nn.Conv2d(3, 4, 3, padding=1), CANDIDATES, options)
        self.shared = MixedLayer(nn.Conv2d(4, 4, 3, padding=1), CANDIDATES, options)
        self.last = MixedLayer(nn.Conv2d(4, 2, 1), CANDIDATES, options)
        self.reentrant = reentrant

    def head(self, x: Tensor) -> Tensor:
        y: Tensor = self.shared(self.first(x).relu())
        return self.shared(y) + y  # the second call of `shared` has negative inputs

    def tail(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(x.relu())
        return result

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.head, self.tail):
            x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("quantiser", QUANTISERS)
@pytest.mark.filterwarnings("ignore:a layer's input")
def test_gradient_checkpointing_changes_no_step(quantiser: QuantiserName, reentrant: bool) -> None:
    """The shared layer is widened between its two calls, so the first is repeated without sign."""
    plain, other = Checkpointed(quantiser, None), Checkpointed(quantiser, reentrant)
    if quantiser == "lsq":  # where a layer is widened, learned steps are others from then on, in repetitions too
        plain(batch(99)), other(batch(99))
    for seed in range(3):
        for model in (plain, other):
            model.zero_grad()
            losses = [model(batch(10 * seed + i).requires_grad_()).square().sum() for i in range(2)]
            (losses[0] + losses[1]).backward()  # two batches before one backward pass
        for (name, p), q in zip(plain.named_parameters(), other.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None, name
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-6)
        same_state(plain, other)
    assert plain.shared.scale.signed is True


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_copies_hold_no_calls(quantiser: QuantiserName) -> None:
    scale = input_quantiser(quantiser, {8})
    scale(batch(0))
    assert len(scale._recent) == 1 and len(copy.deepcopy(scale)._recent) == 0
