import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dse.candidates import load_candidates
from dse.errors import InputError
from search.operators import ABS_STEEPNESS, Weights, magnitude, operator, sign, view
from search.quantize import quantise_weight, weight_rms


def output(name: str, x: Tensor, w: Tensor, bits: int) -> Tensor:
    """The operator on a vector of inputs (N, in) and weights (out, in), unfused."""
    rms, input_rms = weight_rms(w), x.square().mean().sqrt()
    kind = operator(name)
    parts = kind.weights(Weights(quantise_weight(w, bits, rms), rms[:, None]), input_rms)
    return sum(view(x, v, input_rms) @ part.T for v, part in zip(kind.views, parts, strict=True))


def assert_proportional(a: Tensor, b: Tensor) -> None:
    """Every column (output channel) of `a` is a multiple of that of `b`."""
    ratio = (a * b).sum(0) / (b * b).sum(0)
    torch.testing.assert_close(a, b * ratio, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 1000))
def test_each_operator_is_its_equation_up_to_a_factor_an_output_channel(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(7, 5, generator=g), torch.randn(3, 5, generator=g)
    q = quantise_weight(w, 4, weight_rms(w))
    assert_proportional(output("typical", x, w, 4), x @ q.T)
    assert_proportional(output("multiplication_free", x, w, 4), x.sign() @ q.abs().T + x.abs() @ q.sign().T)
    assert_proportional(output("binary_connect", x, w, 1), x @ torch.where(w >= 0, 1.0, -1.0).T)


@given(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(load_candidates()))
def test_outputs_are_as_large_as_the_typical_operators(log_x: float, log_w: float, candidate) -> None:  # type: ignore[no-untyped-def]
    g = torch.Generator().manual_seed(0)
    x = 10**log_x * torch.randn(200, 64, generator=g)
    w = 10**log_w * torch.randn(8, 64, generator=g)
    exact = (x @ w.T).std()
    assert 0.4 < output(candidate.operator, x, w, candidate.weight_bits).std() / exact < 1.6


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
    magnitude(x, ABS_STEEPNESS).sum().backward()
    torch.testing.assert_close(x.grad, torch.tanh(ABS_STEEPNESS * x.detach()))


def test_every_declared_operator_has_a_class_and_another_is_refused() -> None:
    for candidate in load_candidates():
        assert operator(candidate.operator).views
    with pytest.raises(InputError, match=r"operator 'shift': has no class.*allowed: typical, multiplication_free"):
        operator("shift")
