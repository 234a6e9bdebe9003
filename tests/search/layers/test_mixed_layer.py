"""The fused layer against the sum it stands for: each candidate computed by itself, then weighted (Eq. 1)."""

from __future__ import annotations

import copy
import os
import signal
import time
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from search.layers.input_views import Views, side_by_side, view_gradients
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.naive import naive_output
from search.layers.operators import View

SHIPPED = load_candidates()
CANDIDATES = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
OPTIONS = st.builds(
    LayerOptions, st.sampled_from(["rms", "lsq", "dorefa"]), st.sampled_from(["shared", "own"]), st.booleans()
)


def layers() -> st.SearchStrategy[nn.Module]:
    convolutions = st.builds(
        lambda kind, groups, c, m, kernel, stride, padding, dilation, bias, mode: kind(
            groups * c, groups * m, kernel, stride, padding, dilation, groups, bias, mode
        ),
        st.sampled_from([nn.Conv1d, nn.Conv2d, nn.Conv2d]),
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2),
        st.integers(0, 2), st.integers(1, 2), st.booleans(), st.sampled_from(["zeros", "reflect", "circular"]),
    )  # fmt: skip
    transposed = st.builds(
        lambda kind, groups, c, m, kernel, stride, padding, dilation, bias: kind(
            groups * c, groups * m, kernel, stride, padding, min(stride, dilation) - 1, groups, bias, dilation
        ),
        st.sampled_from([nn.ConvTranspose1d, nn.ConvTranspose2d]), st.integers(1, 3), st.integers(1, 3),
        st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.booleans(),
    )  # fmt: skip
    linears = st.builds(nn.Linear, st.integers(1, 6), st.integers(1, 6), st.booleans())
    return st.one_of(convolutions, transposed, linears)


@settings(deadline=None, max_examples=60)
@given(
    layers(),
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=13, unique=True),
    OPTIONS,
    st.booleans(),
    st.integers(0, 999),
)
def test_fused_equals_naive_in_values_and_gradients(
    layer: Any, candidates: Any, options: Any, signed: Any, seed: Any
) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    fused = MixedLayer(layer, candidates, options).double()
    for p in (fused.alpha, fused.log_scale, *fused.latents):
        if p is not None:
            nn.init.normal_(p)
    reference = copy.deepcopy(fused)
    axes = layer.weight.dim() - 2
    shape = (2, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, *[7] * axes)
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
def test_one_candidate_has_no_operator_weights_and_learns(candidate: Any) -> None:  # type: ignore[no-untyped-def]
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


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_a_transposed_convolution_takes_the_size_of_its_output(kind: Any) -> None:
    layer = kind(4, 6, 3, stride=2, groups=2)
    axes = layer.weight.dim() - 2
    x, size = torch.randn(2, 4, *[5] * axes), [12] * axes
    mixed = MixedLayer(layer, CANDIDATES[:1])
    assert mixed(x).shape == (2, 6, *[11] * axes)
    assert mixed(x, size).shape == layer(x, size).shape == (2, 6, *size)
    torch.testing.assert_close(mixed(x[0], size), mixed.eval()(x, size)[0], rtol=1e-4, atol=1e-5)


def test_candidates_of_eight_bits_are_near_every_kind_of_layer() -> None:
    torch.manual_seed(0)
    kinds = [nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d]
    for kind in kinds:
        layer = kind(8, 6, 3, stride=2, groups=2)
        x = torch.randn(4, 8, *[9] * (layer.weight.dim() - 2))
        y = layer(x)
        error = (MixedLayer(layer, [c for c in SHIPPED if c.name == "T8"])(x) - y).norm() / y.norm()
        assert error < 0.03


def test_moving_a_mixed_layer_to_another_type_moves_everything() -> None:
    layer = MixedLayer(nn.Linear(3, 2), CANDIDATES).double()
    assert layer(torch.randn(4, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name_is_padding_by_number(padding: str) -> None:
    torch.manual_seed(0)
    options = LayerOptions(learned_scales=True)
    layer = MixedLayer(nn.Conv2d(2, 3, (3, 2), padding=padding, dilation=(1, 3)), CANDIDATES, options).double()
    reference, x = copy.deepcopy(layer), torch.randn(2, 2, 7, 7, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(inputs[0]), naive_output(reference, inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1])
    for y in outputs:
        y.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for a, b in zip(layer.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["rms", "lsq", "dorefa"]), st.booleans(), st.booleans(), st.integers(1, 3))
def test_a_layer_in_channels_last_order_is_the_same(
    quantiser: Any, signed: Any, groups_equal: Any, channels: Any
) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(channels)
    groups = 2 if groups_equal else 1
    layer = MixedLayer(nn.Conv2d(2 * channels, 4, 3, groups=groups), CANDIDATES, LayerOptions(quantiser)).double()
    other = copy.deepcopy(layer).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 2 * channels, 6, 5, dtype=torch.float64)
    x = x if signed else x.abs()
    inputs = [x.clone().requires_grad_(), x.clone(memory_format=torch.channels_last).requires_grad_()]
    outputs = [layer(inputs[0]), other(inputs[1])]
    torch.testing.assert_close(outputs[0], outputs[1])
    for y in outputs:
        y.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=13, unique=True),
    st.sampled_from(["rms", "lsq"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_way_of_other_devices_gives_the_same(candidates: Any, quantiser: Any, signed: Any, seed: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    layer = MixedLayer(nn.Conv2d(4, 4, 3, groups=2), candidates, LayerOptions(quantiser)).double()
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    x = x if signed else x.abs()
    layer(x)
    found = []
    for on_cpu in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not on_cpu:
                patch.setattr("search.layers.input_views._in_one_pass", lambda _: False)
            layer.zero_grad()
            inputs = x.clone().requires_grad_()
            layer.eval()(inputs).square().sum().backward()
            found.append([inputs.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("module", [nn.Conv2d(3, 2, 3), nn.Linear(3, 2)])
def test_inputs_may_lie_in_memory_in_any_order_and_batches_may_be_empty(module: nn.Module) -> None:
    torch.manual_seed(0)
    layer = MixedLayer(module, CANDIDATES)
    x = (
        torch.randn(5, 4, 6, 3).permute(2, 3, 1, 0)
        if isinstance(module, nn.Conv2d)
        else torch.randn(3, 4, 6).permute(2, 1, 0)
    )
    torch.testing.assert_close(layer(x), layer.eval()(x.contiguous()))
    assert len(layer(x[:0])) == 0


@pytest.mark.parametrize("module", [nn.Conv2d(4, 6, 3), nn.Linear(4, 6)])
def test_half_precision_by_autocast_is_near_and_keeps_the_parameters_type(module: nn.Module) -> None:
    torch.manual_seed(0)
    layer = MixedLayer(module, CANDIDATES)
    x = torch.randn(4, 5, 5, 4) if isinstance(module, nn.Linear) else torch.randn(4, 4, 5, 5)
    full = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer.eval()(x)
    assert half.dtype == x.dtype  # only products are in bfloat16
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
    half.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


def saved_bytes(layer: MixedLayer, x: torch.Tensor) -> int:
    """Bytes that the graph of a forward pass keeps, each memory once, without parameters and the input."""
    known = {p.untyped_storage().data_ptr() for p in (*layer.parameters(), x)}
    kept: dict[int, int] = {}

    def keep(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in known:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = layer(x)
    assert y.requires_grad
    return sum(kept.values())


def test_no_view_of_the_input_is_kept_for_the_gradient() -> None:
    layer = MixedLayer(nn.Conv2d(4, 4, 3), CANDIDATES)
    small, large = (torch.randn(n, 4, 32, 32, requires_grad=True) for n in (1, 16))
    assert saved_bytes(layer, large) == saved_bytes(layer, small)


def test_a_second_derivative_is_refused() -> None:
    layer, x = MixedLayer(nn.Linear(3, 2), CANDIDATES), torch.randn(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("latent", ["shared", "own"])
@pytest.mark.parametrize("quantiser", ["rms", "lsq", "dorefa"])
def test_a_single_candidate_keeps_what_was_learned_for_it(quantiser: Any, latent: Any) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layer = MixedLayer(nn.Conv2d(3, 5, 3), CANDIDATES, LayerOptions(quantiser, latent, learned_scales=True))
    x = torch.randn(4, 3, 8, 8)
    layer(x)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.rand_like(p))
    layer.eval()
    for i, candidate in enumerate(CANDIDATES):
        with torch.no_grad():
            layer.alpha.zero_()[i] = 200.0
        single = layer.single(candidate)
        assert single.alpha is None and not single.training
        torch.testing.assert_close(single(x), layer(x), rtol=1e-4, atol=1e-5)


def test_own_latent_weights_learn_apart() -> None:
    torch.manual_seed(0)
    layer = MixedLayer(nn.Linear(6, 4), SHIPPED, LayerOptions(latent="own"))
    layer(torch.randn(8, 6)).square().sum().backward()
    gradients = [layer.latent(i).grad for i in range(len(SHIPPED))]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)
    assert len({id(layer.latent(i)) for i in range(len(SHIPPED))}) == len(SHIPPED)


@pytest.mark.parametrize(
    ("options", "message"), [({"latent": "both"}, "unknown value 'both'"), ({"quantiser": "lq"}, "'lq'")]
)
def test_unknown_options_are_refused(options: Any, message: Any) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        LayerOptions(**options)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("count", [1, 9])
def test_outputs_lie_in_memory_as_inputs_do(channels: int, count: int) -> None:
    torch.manual_seed(0)
    layer = MixedLayer(nn.Conv2d(channels, 6, 3, padding=1), SHIPPED[:count])
    x = torch.randn(2, channels, 5, 5)
    y = layer(x)
    assert y.is_contiguous()  # a network may call y.view(len(y), -1)
    if channels > 1:
        last = layer.eval()(x.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, y)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(1, 3))
def test_rows_of_any_number_of_channels_are_views_of_the_same_words(
    channels: int, groups: int, signed: bool, channels_last: bool, threads: int
) -> None:
    """Tiles hold several short rows or a part of a long one; threads share the rows."""
    torch.manual_seed(channels)
    names: tuple[tuple[int, View], ...] = tuple(
        (bits, kind) for bits in (8, 2) for kind in get_args(View) if kind != "binary"
    )
    views = Views(names, signed, LayerOptions().surrogates, groups)
    x = torch.randn(3, channels * groups, 7, 6) if signed else torch.rand(3, channels * groups, 7, 6)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    steps, rms = [torch.tensor(0.02), torch.tensor(0.5)], torch.tensor(0.7)
    found, before = [], torch.get_num_threads()
    for in_one_pass in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("search.layers.view_kernels._SHARE", 100)
            if not in_one_pass:
                patch.setattr("search.layers.input_views._in_one_pass", lambda _: False)
            torch.set_num_threads(threads)
            inputs = side_by_side(x, steps, views).clone(memory_format=torch.preserve_format)
            grad = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
            layout = torch.channels_last if inputs.is_contiguous(memory_format=torch.channels_last) else None
            grad = grad if layout is None else grad.contiguous(memory_format=layout)
            of_x, of_steps = view_gradients(x, rms, inputs, grad, steps, views, learned=True)
            torch.set_num_threads(before)
            found.append([inputs, of_x, *of_steps])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_threads_of_the_kernels_are_started_again_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.layers.view_kernels._SHARE", 1)
    views, step = Views(((4, "value"), (4, "sign")), False, LayerOptions().surrogates), [torch.tensor(0.1)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    x = torch.rand(4, 3, 5, 5)
    expected = side_by_side(x, step, views).clone()
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(side_by_side(x, step, views), expected) else 1)
    torch.set_num_threads(before)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended and os.waitstatus_to_exitcode(status) == 0
