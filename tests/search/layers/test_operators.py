import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.naive import input_words, naive_output
from search.layers.operators import Inputs, Surrogates, Weights, magnitude, operator, sign
from search.layers.operators.deep_shift import DeepShift, largest_shift
from search.layers.operators.multiplication_free import MultiplicationFree
from search.layers.quantisers import WeightQuantiser
from search.layers.quantize import ActivationScale, levels, weight_rms

CANDIDATES = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
FEWEST = {c.operator: c for c in CANDIDATES}


def output(candidate: Candidate, x: Tensor, w: Tensor) -> Tensor:
    """The candidate on vectors of inputs (N, in) and weights (out, in), with one convolution a view."""
    layer = MixedLayer(nn.Linear(w.shape[1], len(w), bias=False), [candidate])
    with torch.no_grad():
        layer.layer.weight.copy_(w)
    return naive_output(layer, x)


def words(x: Tensor, bits: int) -> Tensor:
    scale = ActivationScale()
    return input_words(x, Inputs(rms := scale(x), scale.step(rms, bits), scale.signed), bits)


def of_x(w: Tensor, x: Tensor, bits: int) -> Tensor:
    """Weights as words of the input's step."""
    scale, high = ActivationScale(), levels(bits, True)[1]
    return (w / scale.step(scale(x), bits)).round().clamp(-high, high)


def weight_words(w: Tensor, bits: int) -> Tensor:
    return WeightQuantiser()(w, bits)[0]


def assert_proportional(a: Tensor, b: Tensor) -> None:
    """Every column (output channel) of `a` is a multiple of that of `b`."""
    ratio = (a * b).sum(0) / (b * b).sum(0).clamp_min(1e-9)
    torch.testing.assert_close(a, b * ratio, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([8, 4, 2]))
def test_each_operator_is_its_equation_up_to_a_factor_an_output_channel(seed: int, signed: bool, bits: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(7, 5, generator=g), torch.randn(3, 5, generator=g)
    x = x if signed else x.relu()
    one = {c.operator: c for c in CANDIDATES if c.bits in (bits, 1)}
    i, q = words(x, bits), weight_words(w, bits)
    assert_proportional(output(one["typical"], x, w), i @ q.T)
    assert_proportional(
        output(one["multiplication_free"], x, w), i.sign() @ of_x(w, x, bits).abs().T + i.abs() @ w.sign().T
    )
    assert_proportional(output(one["binary_connect"], x, w), i @ torch.where(w >= 0, 1.0, -1.0).T)
    plus = x >= 0 if x.min() < 0 else words(x, 1) > 0
    assert_proportional(output(one["xnor"], x, w), torch.where(plus, 1.0, -1.0) @ torch.where(w >= 0, 1.0, -1.0).T)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_deep_shift_weights_are_the_nearest_powers_of_two_and_none_is_zero(bits: int) -> None:
    w = torch.randn(4, 500, generator=torch.Generator().manual_seed(bits))
    weights = Weights(w, bits, weight_rms(w)[:, None], WeightQuantiser())
    (q,) = DeepShift.words(weights, Inputs(torch.ones(()), torch.ones(()), True), Surrogates())
    unit = DeepShift.scale(weights, Inputs(torch.ones(()), torch.ones(()), True))
    powers = 2.0 ** torch.arange(largest_shift(bits) + 1)
    assert set(q.abs().unique().tolist()) <= set(powers.tolist())
    assert ((q < 0) == (w < 0)).all()
    distance = (torch.log2(w.abs() / unit)[..., None] - torch.log2(powers)).abs()
    torch.testing.assert_close(q.abs(), powers[distance.argmin(-1)])


@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(CANDIDATES))
def test_outputs_are_as_large_as_the_typical_operators(log_x: float, log_w: float, candidate: Candidate) -> None:
    g = torch.Generator().manual_seed(0)
    x = 10**log_x * torch.randn(200, 64, generator=g)
    w = 10**log_w * torch.randn(8, 64, generator=g)
    exact = (x @ w.T).std()
    assert 0.4 < output(candidate, x, w).std() / exact < 1.6


@given(st.integers(0, 100), st.floats(0.1, 3), st.floats(0.1, 3), st.floats(1, 20))
def test_surrogate_widths_are_options(seed: int, of_inputs: float, of_weights: float, steepness: float) -> None:
    torch.manual_seed(seed)
    options = LayerOptions(surrogates=Surrogates(of_inputs, of_weights, steepness))
    layer = MixedLayer(nn.Linear(1, 1, bias=False), [FEWEST["multiplication_free"]], options)
    x = (torch.tensor([[-1.0], [1.0]]) * torch.rand(2, 1)).requires_grad_()
    layer(x).sum().backward()
    rms, w = layer.scale.rms, layer.layer.weight.detach()
    step = layer.scale.step(rms, 2)
    weights = Weights(w, 2, weight_rms(w)[:, None], WeightQuantiser())
    i, q = words(x.detach(), 2), of_x(w, x.detach(), 2)
    inside = ((x / step).abs() < 1.5).float() / step
    slope = (
        gaussian(i.detach() * step / rms, of_inputs) * step / rms * q.abs()
        + torch.tanh(steepness * i * step / rms) * w.sign()
    )
    scale = MultiplicationFree.scale(weights, Inputs(rms, step, True))
    torch.testing.assert_close(x.grad, slope * inside * scale, rtol=1e-4, atol=1e-5)
    inside = ((w / step).abs() < 1.5).float() / step
    of_sign = gaussian(w / weights.rms, of_weights) / weights.rms * i.abs()
    of_magnitude = torch.tanh(steepness * q * step / weights.rms) * inside * i.sign()
    expected = ((of_sign + of_magnitude) * scale).sum(0, keepdim=True)
    torch.testing.assert_close(layer.layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


def gaussian(x: Tensor, width: float) -> Tensor:
    """Area 2, standard deviation `width`."""
    return 2 * torch.exp(-0.5 * (x / width) ** 2) / (width * math.sqrt(2 * math.pi))


def test_sign_of_zero_is_zero_and_its_gradient_is_a_gaussian_of_area_two() -> None:
    x = (torch.arange(-5000, 5001) / 1000).requires_grad_()
    y = sign(x, 0.5)
    y.sum().backward()
    assert y[5000] == 0 and y[0] == -1 and y[-1] == 1
    assert x.grad.sum() * 0.001 == pytest.approx(2, rel=1e-3)
    assert x.grad.argmax() == 5000
    assert x.grad[5500] / x.grad[5000] == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_the_gradient_of_the_magnitude_is_a_steep_tanh() -> None:
    x = torch.tensor([-1.0, -0.01, 0.0, 0.01, 1.0], requires_grad=True)
    magnitude(x, 10.0).sum().backward()
    torch.testing.assert_close(x.grad, torch.tanh(10.0 * x.detach()))


def test_every_declared_operator_has_a_class_and_another_is_refused() -> None:
    for candidate in CANDIDATES:
        assert operator(candidate.operator).views
    with pytest.raises(InputError, match=r"operator 'power': has no class.*allowed: typical, multiplication_free"):
        operator("power")
