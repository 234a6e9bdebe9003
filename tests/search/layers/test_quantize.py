import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import InputError
from search.layers.quantisers import input_quantiser, scaled_gradient, weight_quantiser
from search.layers.quantize import (
    ActivationScale,
    binarise,
    clip_ratio,
    levels,
    to_words,
)

BITS = st.integers(1, 8)


def fake_quantise(x: torch.Tensor, step: torch.Tensor, bits: int, signed: bool) -> torch.Tensor:
    """A quantiser's words times their step, as layers compute them."""
    words = binarise(x) if signed and bits == 1 else to_words(x, step, *levels(bits, signed))
    return words * step


def quantise_weight(weight: torch.Tensor, bits: int) -> torch.Tensor:
    words, step = weight_quantiser("rms", weight, {bits})(weight, bits)
    return words * step


def quantise_input(scale: ActivationScale, x: torch.Tensor, bits: int) -> torch.Tensor:
    step = scale.step(scale(x), bits)
    return fake_quantise(x, step, bits, bool(scale.signed))


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
    small = quantise_weight(w, bits)
    large = quantise_weight(1000 * w, bits)
    torch.testing.assert_close(large, 1000 * small, rtol=1e-3, atol=1e-3)
    assert all(len(channel.unique()) <= 2**bits for channel in small)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_all_zero_weights_give_no_nan(bits: int) -> None:
    w = torch.zeros(2, 3, requires_grad=True)
    q = quantise_weight(w, bits)
    q.sum().backward()
    assert torch.isfinite(q).all() and torch.isfinite(w.grad).all()
    assert (q.abs() <= 1e-7).all()  # a word of one bit has no zero, so its step is as small as steps may be


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
    positive = quantise_input(unsigned, x.relu(), 2)
    both = quantise_input(signed, x, 2)
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
        assert not quantise_input(scale, x, bits).any()
    assert math.isfinite(float(scale.rms))


@given(st.integers(2, 8), st.booleans(), SEEDS, st.integers(-6, 3))
def test_values_and_gradients_are_those_of_torchs_fake_quantisation(
    bits: int, signed: bool, seed: int, log_step: int
) -> None:
    low, high = levels(bits, signed)
    step = 2.0**log_step  # torch multiplies by 1/step where we divide: the same only for powers of two
    ours, theirs = ((tensor(seed, 300) * 60 * step).requires_grad_() for _ in range(2))
    expected = torch.fake_quantize_per_tensor_affine(theirs, step, 0, low, high)
    words = to_words(ours, torch.tensor(step), low, high)
    assert torch.equal(words * step, expected) and torch.equal(
        fake_quantise(ours, torch.tensor(step), bits, signed), expected
    )
    direction = tensor(seed + 1, 300)
    (words * step * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@given(st.integers(2, 8), SEEDS)
def test_a_step_for_each_channel_is_torchs_fake_quantisation_per_channel(bits: int, seed: int) -> None:
    low, high = levels(bits, signed=True)
    steps = 2.0 ** torch.randint(-6, 3, (5,), generator=torch.Generator().manual_seed(seed))
    ours, theirs = ((tensor(seed, 5, 40) * 30 * steps[:, None]).requires_grad_() for _ in range(2))
    expected = torch.fake_quantize_per_channel_affine(theirs, steps, torch.zeros(5, dtype=torch.int32), 0, low, high)
    q = to_words(ours, steps[:, None], low, high) * steps[:, None]
    assert torch.equal(q, expected)
    q.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@given(st.integers(2, 8), st.booleans(), SEEDS, st.integers(-6, 3), st.integers(1, 400))
def test_lsq_is_torchs_learnable_fake_quantisation(
    bits: int, signed: bool, seed: int, log_step: int, numel: int
) -> None:
    low, high = levels(bits, signed)
    x, step = tensor(seed, 300) * 60 * 2.0**log_step, torch.tensor([2.0**log_step])
    ours, theirs = ((x.clone().requires_grad_(), step.clone().requires_grad_()) for _ in range(2))
    unit = scaled_gradient(ours[1], numel, high)
    q = to_words(ours[0], unit, low, high) * unit
    expected = torch._fake_quantize_learnable_per_tensor_affine(
        theirs[0], theirs[1], torch.zeros(1), low, high, 1 / math.sqrt(numel * high)
    )
    torch.testing.assert_close(q, expected)
    direction = tensor(seed + 1, 300)
    (q * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    torch.testing.assert_close(ours[1].grad, theirs[1].grad, rtol=1e-3, atol=1e-3)


@given(st.integers(2, 8), SEEDS)
def test_lsq_steps_start_at_the_published_value_and_are_learned(bits: int, seed: int) -> None:
    w = tensor(seed, 6, 20)
    quantiser = weight_quantiser("lsq", w, {bits, 1})
    words, step = quantiser(w, bits)
    high = levels(bits, signed=True)[1]
    assert step.item() == pytest.approx(2 * w.abs().mean().item() / math.sqrt(high), rel=1e-5)
    (words * step - w).square().sum().backward()
    assert [p.grad.abs().item() > 0 for p in quantiser.parameters()] == [True]
    inputs = input_quantiser("lsq", {bits})
    x = w.relu()
    expected = 2 * x.abs().mean().item() / math.sqrt(levels(bits, signed=False)[1])
    assert inputs.step(inputs(x), bits).item() == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 8), SEEDS)
def test_dorefa_is_its_formula_over_torchs_fake_quantisation(bits: int, seed: int) -> None:
    ours, theirs = (tensor(seed, 6, 20).requires_grad_() for _ in range(2))
    words, step = weight_quantiser("dorefa", ours, {bits})(ours, bits)
    top = 2**bits - 1
    assert (words % 2 == 1).all() and words.abs().max() == top
    largest = theirs.detach().tanh().abs().max()
    within = theirs.tanh() / (2 * theirs.tanh().abs().max()) + 0.5
    expected = 2 * torch.fake_quantize_per_tensor_affine(within, 1 / top, 0, 0, top) - 1
    near_a_half = ((within.detach() * top) % 1 - 0.5).abs() < 1e-4
    torch.testing.assert_close((words * step / largest)[~near_a_half], expected[~near_a_half])
    (words * step).square().sum().backward()
    (expected * largest).square().sum().backward()
    if not near_a_half.any():
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)


@given(st.integers(1, 8), SEEDS)
def test_dorefa_inputs_are_clipped_to_one(bits: int, seed: int) -> None:
    scale, x = input_quantiser("dorefa", {bits}), tensor(seed, 200).relu() + 0.01
    step = scale.step(scale(x), bits)
    expected = torch.fake_quantize_per_tensor_affine(x.clamp(0, 1), 1 / (2**bits - 1), 0, 0, 2**bits - 1)
    close = ((x / step % 1) - 0.5).abs() > 1e-4
    torch.testing.assert_close(fake_quantise(x, step, bits, signed=False)[close], expected[close])


@pytest.mark.parametrize("name", ["rms", "lsq", "dorefa"])
def test_one_bit_weights_are_signs_times_the_channels_mean_magnitude(name: str) -> None:
    w = tensor(0, 4, 9)
    words, step = weight_quantiser(name, w, {1})(w, 1)
    assert words.unique().tolist() == [-1, 1]
    torch.testing.assert_close(step.flatten(), w.abs().mean(1))


def test_an_unknown_quantiser_is_refused() -> None:
    with pytest.raises(InputError, match=r"quantiser: unknown quantiser 'pact' \(allowed: rms, lsq, dorefa\)"):
        input_quantiser("pact", {8})
