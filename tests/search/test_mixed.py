"""The fused layer against the sum it stands for: each candidate computed by itself, then weighted (Eq. 1)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.candidates import load_candidates
from search.mixed import MixedLayer
from search.operators import Weights, operator, view
from search.quantize import quantise_weight, weight_rms

CANDIDATES = load_candidates()


def naive(mixed: MixedLayer, x: Tensor) -> Tensor:
    """One convolution for each view of each candidate, no sharing of anything."""
    rms, layer = mixed.scale(x), mixed.layer
    total = torch.zeros(())
    for share, c in zip(mixed.probabilities(), mixed.candidates, strict=True):
        w_rms = weight_rms(layer.weight)
        unit = w_rms.reshape(-1, *[1] * (layer.weight.dim() - 1))
        kind = operator(c.operator)
        parts = kind.weights(Weights(quantise_weight(layer.weight, c.weight_bits, w_rms), unit), rms)
        for name, weight in zip(kind.views, parts, strict=True):
            visible = name if mixed.scale.signed or name != "magnitude" else "value"
            seen = view(mixed.scale.quantise(x, rms, c.act_bits), visible, rms)
            if isinstance(layer, nn.Linear):
                y = nn.functional.linear(seen, weight)
            else:
                y = layer._conv_forward(seen, weight, None)
            total = total + share * y
    if layer.bias is None:
        return total
    return total + (layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None])


def layers() -> st.SearchStrategy[nn.Module]:
    convolutions = st.builds(
        lambda groups, c, m, kernel, stride, padding, dilation, bias, mode: nn.Conv2d(
            groups * c, groups * m, kernel, stride, padding, dilation, groups, bias, mode
        ),
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2),
        st.integers(0, 2), st.integers(1, 2), st.booleans(), st.sampled_from(["zeros", "reflect", "circular"]),
    )  # fmt: skip
    linears = st.builds(nn.Linear, st.integers(1, 6), st.integers(1, 6), st.booleans())
    return st.one_of(convolutions, linears)


@settings(deadline=None, max_examples=60)
@given(
    layers(),
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=9, unique=True),
    st.booleans(),
    st.integers(0, 999),
)
def test_fused_equals_naive_in_values_and_gradients(layer, candidates, signed, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    fused = MixedLayer(layer, candidates).double()
    if fused.alpha is not None:
        nn.init.normal_(fused.alpha)
    reference = copy.deepcopy(fused)
    shape = (2, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 7, 7)
    x = torch.randn(shape, dtype=torch.float64)
    x = x if signed else x.abs()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [fused(inputs[0]), naive(reference, inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(outputs[0])
    for y in outputs:
        (y * direction).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-9)
    for a, b in zip(fused.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
def test_one_candidate_has_no_operator_weights_and_learns(candidate) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layer = MixedLayer(nn.Conv2d(4, 8, 3), [candidate])
    x = torch.randn(16, 4, 6, 6).relu()
    layer(x).square().mean().backward()
    assert layer.alpha is None
    gradient = layer.layer.weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_a_large_operator_weight_leaves_that_candidate_alone() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 5, 3), torch.randn(4, 3, 8, 8)
    for i, candidate in enumerate(CANDIDATES):
        mixed, single = MixedLayer(conv, CANDIDATES), MixedLayer(conv, [candidate])
        with torch.no_grad():
            mixed.alpha[i] = 200.0
        torch.testing.assert_close(mixed(x), single(x), rtol=1e-4, atol=1e-5)
        assert mixed.choice() == candidate


def test_an_unbatched_image_is_accepted_as_torch_does() -> None:
    conv = MixedLayer(nn.Conv2d(4, 6, 3, groups=2), CANDIDATES)
    x = torch.randn(4, 5, 5)
    torch.testing.assert_close(conv(x), conv.eval()(x[None])[0], rtol=1e-4, atol=1e-5)


def test_moving_a_mixed_layer_to_another_type_moves_everything() -> None:
    layer = MixedLayer(nn.Linear(3, 2), CANDIDATES).double()
    assert layer(torch.randn(4, 3, dtype=torch.float64)).dtype == torch.float64
