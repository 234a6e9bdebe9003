"""The fused layer against the sum it stands for: each candidate computed by itself, then weighted (Eq. 1)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.candidates import load_candidates
from dse.resources import data_dir
from search.mixed import LayerOptions, MixedLayer
from search.naive import naive_output

SHIPPED = load_candidates()
CANDIDATES = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
OPTIONS = st.builds(
    LayerOptions, st.sampled_from(["rms", "lsq", "dorefa"]), st.sampled_from(["shared", "own"]), st.booleans()
)


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
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=13, unique=True),
    OPTIONS,
    st.booleans(),
    st.integers(0, 999),
)
def test_fused_equals_naive_in_values_and_gradients(layer, candidates, options, signed, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    fused = MixedLayer(layer, candidates, options).double()
    for p in (fused.alpha, fused.log_scale, *fused.latents):
        if p is not None:
            nn.init.normal_(p)
    reference = copy.deepcopy(fused)
    shape = (2, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 7, 7)
    x = torch.randn(shape, dtype=torch.float64)
    x = x if signed else x.abs()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [fused(inputs[0]), naive_output(reference, inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(outputs[0])
    for y in outputs:
        (y * direction).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-9)
    for a, b in zip(fused.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-8)


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
