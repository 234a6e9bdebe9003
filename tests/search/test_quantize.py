import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from search.quantize import (
    ActivationScale,
    binarise,
    clip_ratio,
    fake_quantise,
    levels,
    quantise_weight,
    weight_rms,
)

BITS = st.integers(1, 8)
SEEDS = st.integers(0, 10_000)


def tensor(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(BITS, st.booleans(), SEEDS, st.floats(1e-3, 1e3))
def test_values_lie_on_at_most_two_to_the_bits_levels_and_stay_there(
    bits: int, signed: bool, seed: int, step: float
) -> None:
    x, step_ = tensor(seed, 500) * 4 * step, torch.tensor(step)
    q = fake_quantise(x, step_, bits, signed)
    assert len(q.unique()) <= 2**bits
    torch.testing.assert_close(fake_quantise(q, step_, bits, signed), q)
    if not signed:
        assert q.min() >= 0


@given(st.integers(2, 8), st.booleans(), SEEDS)
def test_error_is_half_a_step_inside_and_the_clipped_rest_outside(bits: int, signed: bool, seed: int) -> None:
    x, step = tensor(seed, 500), torch.tensor(0.1)
    low, high = (float(n) * 0.1 for n in levels(bits, signed))
    assert ((fake_quantise(x, step, bits, signed) - x.clamp(low, high)).abs() <= 0.05 + 1e-6).all()


@given(st.integers(2, 8), st.booleans(), SEEDS)
def test_gradient_passes_inside_the_range_and_is_cut_outside(bits: int, signed: bool, seed: int) -> None:
    x = (tensor(seed, 500) * 10).requires_grad_()
    fake_quantise(x, torch.tensor(0.1), bits, signed).sum().backward()
    low, high = levels(bits, signed)
    codes = (x.detach() / 0.1).round()
    assert torch.equal(x.grad, ((codes >= low) & (codes <= high)).float())


def test_binarise_has_no_zero_and_a_straight_through_gradient() -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], requires_grad=True)
    y = binarise(x)
    y.sum().backward()
    assert y.tolist() == [-1, 1, 1, 1]
    assert x.grad.tolist() == [1, 1, 1, 1]


@given(BITS, SEEDS)
def test_weights_scale_with_their_unit(bits: int, seed: int) -> None:
    w = tensor(seed, 4, 3, 3, 3)
    small = quantise_weight(w, bits, weight_rms(w))
    large = quantise_weight(1000 * w, bits, weight_rms(1000 * w))
    torch.testing.assert_close(large, 1000 * small, rtol=1e-3, atol=1e-3)
    assert all(len(channel.unique()) <= 2**bits for channel in small)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_all_zero_weights_give_no_nan(bits: int) -> None:
    w = torch.zeros(2, 3, requires_grad=True)
    q = quantise_weight(w, bits, weight_rms(w))
    q.sum().backward()
    assert torch.isfinite(q).all() and torch.isfinite(w.grad).all()
    assert (q == 0).all()


@pytest.mark.parametrize("steps", [1, 3, 7, 15, 127])
def test_the_clip_is_near_the_one_of_least_mean_square_error(steps: int) -> None:
    x = tensor(0, 100_000)

    def error(clip: float) -> float:
        step = clip / steps
        return float(((x / step).round().clamp(-steps, steps) * step - x).square().mean())

    best = min(error(0.1 * i) for i in range(3, 60))
    assert error(clip_ratio(steps)) <= 1.15 * best


def test_inputs_behind_a_relu_use_every_code_and_others_are_symmetric() -> None:
    x = tensor(0, 10_000)
    unsigned, signed = ActivationScale(), ActivationScale()
    positive = unsigned.quantise(x.relu(), unsigned(x.relu()), 2)
    both = signed.quantise(x, signed(x), 2)
    assert len(positive.unique()) == 4 and positive.min() == 0
    assert len(both.unique()) == 3 and both.min() == -both.max()


def test_the_scale_follows_training_batches_only() -> None:
    scale = ActivationScale(momentum=0.5)
    assert float(scale(torch.full((4,), 2.0))) == 2
    assert float(scale(torch.full((4,), 4.0))) == 3
    scale.eval()
    assert float(scale(torch.full((4,), 100.0))) == 3


def test_the_scale_survives_its_state_dict() -> None:
    scale, other = ActivationScale(), ActivationScale()
    scale(tensor(0, 100))
    other.load_state_dict(scale.state_dict())
    assert other.signed is True and torch.equal(other.rms, scale.rms)


def test_inputs_of_zeros_give_zeros() -> None:
    scale, x = ActivationScale(), torch.zeros(8)
    for bits in (1, 2, 8):
        assert not scale.quantise(x, scale(x), bits).any()
    assert math.isfinite(float(scale.rms))
