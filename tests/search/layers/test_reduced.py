"""Products in bfloat16: words are those of float32, and one candidate's sums are those of its integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.input_views import Views, side_by_side
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.operators import View
from search.layers.quantisers import QuantiserName

CANDIDATES = load_candidates()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=["compiled", "as on other devices"])
def views_computed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the CPU's compiled kernels, and by the operations that every other device computes."""
    if request.param != "compiled":
        monkeypatch.setattr("search.layers.input_views._in_one_pass", lambda x: False)


@pytest.mark.usefixtures("views_computed")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_words_in_bfloat16_are_those_of_float32(device: str, signed: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    kinds: tuple[View, ...] = ("value", "sign", "magnitude", "binary")
    names = tuple((bits, kind) for bits in (8, 4, 2, 1) for kind in kinds if kind != "binary" or bits == 1)
    views = Views(names, signed, LayerOptions().surrogates)
    x = (torch.randn(3, 4, 9, 9) if signed else torch.rand(3, 4, 9, 9) * 2).mul_(2).to(device)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    steps = [torch.tensor(v, device=device) for v in (0.0157, 0.3, 0.9, 1.0)]
    exact = side_by_side(x, steps, views).clone()
    assert exact.abs().max() == (127 if signed else 255)  # the widest words are there
    reduced = side_by_side(x, steps, views, torch.bfloat16)
    assert reduced.dtype == torch.bfloat16 and torch.equal(reduced.float(), exact)


def test_every_word_of_eight_bits_is_a_bfloat16_and_the_next_odd_one_above_is_not() -> None:
    words = torch.arange(-256.0, 257.0)
    assert torch.equal(words.bfloat16().float(), words)
    assert torch.tensor(257.0).bfloat16().float() != 257


@pytest.mark.usefixtures("views_computed")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
def test_one_candidates_sums_are_exact_up_to_the_rounding_of_the_result(
    candidate: Candidate, quantiser: QuantiserName, device: str
) -> None:
    torch.manual_seed(0)
    for module in (nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.Linear(6, 8)):
        x = torch.randn(2, 6, 5, 5) if isinstance(module, nn.Conv2d) else torch.randn(7, 6)
        layer = MixedLayer(module, [candidate], LayerOptions(quantiser)).to(device)
        exact, reduced = in_both(layer, x.to(device))
        bias = module.bias.reshape(-1, *[1] * (x.dim() - 2)).detach()
        # One rounding to 8 significant bits, of the sum: nothing that goes into it is rounded. DoReFa's weights of 8
        # bits are words of 9, whose odd ones bfloat16 lacks.
        wide = quantiser == "dorefa" and candidate.weight_bits == 8 and candidate.operator == "typical"
        allowed = (2**-6 if wide else 2**-8) * (exact - bias).abs() + 1e-5 * exact.abs().max()
        if wide:
            allowed = allowed + 2**-7 * exact.abs().mean()
        assert ((reduced - exact).abs() <= allowed).all()


def in_both(layer: MixedLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output in float32 and under autocast."""
    layer(x)  # decides the sign
    layer.eval()
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            reduced = layer(x)
    torch.backends.cudnn.allow_tf32 = allowed
    assert reduced.dtype == exact.dtype == torch.float32
    return exact, reduced


@pytest.mark.usefixtures("views_computed")
@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
def test_gradients_with_the_unit_behind_the_sum_are_near(candidate: Candidate) -> None:
    torch.manual_seed(0)
    layer = MixedLayer(nn.Conv2d(4, 6, 3, padding=1), [candidate], LayerOptions("lsq"))
    x = torch.randn(4, 4, 7, 7, requires_grad=True)
    layer(x)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = layer(x)
        torch.manual_seed(1)
        grads = torch.autograd.grad(y, [x, *layer.parameters()], torch.randn_like(y), allow_unused=True)
        found.append([g for g in grads if g is not None])
    for exact, reduced in zip(*found, strict=True):
        assert reduced.dtype == torch.float32 and reduced.shape == exact.shape
        share = 0.03 if exact.dim() else 0.3  # that of a step is a sum of both signs
        assert (reduced - exact).norm() <= share * exact.norm() + 1e-6


def test_layers_run_on_the_meta_device() -> None:
    """What a GPU's path does to shapes and types, without a GPU: no value is read back to the host."""
    layer = MixedLayer(nn.Conv2d(4, 6, 3, padding=1, groups=2), CANDIDATES)
    layer(torch.randn(2, 4, 5, 5))
    layer = layer.to("meta")
    x = torch.empty(2, 4, 5, 5, device="meta", requires_grad=True).contiguous(memory_format=torch.channels_last)
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == (2, 6, 5, 5) and grad.shape == x.shape and y.device.type == "meta"
