"""The weights that are summed in one pass against the operators' own words and scales."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from search.layers.mixed_layer import LayerOptions, MixedLayer
from search.layers.operators import Inputs, Surrogates
from search.layers.weight_kernels import covers, sum_of
from search.layers.weight_sums import summed_by_products

SHIPPED = load_candidates()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(SHIPPED), min_size=1, max_size=9, unique=True),
    st.sampled_from([nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(3, 5, (1, 2)), nn.Linear(5, 3)]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 999),
)
def test_one_pass_gives_what_the_operators_give(
    candidates: Any, module: Any, signed: bool, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = MixedLayer(copy.deepcopy(module), candidates).to(dtype)
    if layer.alpha is not None:
        nn.init.normal_(layer.alpha)
    with torch.no_grad():
        layer.layer.weight[0] *= 40  # rows that MF's words clip
        layer.layer.weight[1] = 0
    shape = (3, module.in_features) if isinstance(module, nn.Linear) else (2, module.in_channels, 6, 6)
    x = torch.randn(shape, dtype=dtype) if signed else torch.rand(shape, dtype=dtype)
    layer(x)
    layer.eval()
    assert layer._in_one_pass() and covers(candidates)
    found = []
    for how in ("operators", "kernel", "products"):
        with pytest.MonkeyPatch.context() as patch:
            if how == "operators":
                patch.setattr(MixedLayer, "_in_one_pass", lambda self: False)
            elif how == "products":  # as on a GPU
                patch.setattr("search.layers.mixed_layer.summed_weights", summed_by_products)
            layer.zero_grad()
            y = layer(x)
            torch.manual_seed(seed)
            (y * torch.randn_like(y)).sum().backward()
            found.append([y.detach(), *(p.grad for p in layer.parameters())])
    for b, *others in zip(*found, strict=True):
        tolerance = 1e-9 if dtype == torch.float64 else 2e-4
        for a in others:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max() + 1))


class Operations(TorchDispatchMode):
    """Counts what is computed, views and empty tensors apart."""

    number = 0
    apart = ("view", "unbind", "expand", "permute", "transpose", "slice", "select", "detach", "alias", "empty",
             "squeeze", "split", "_strided", "aten.t.")  # fmt: skip

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not any(name in str(func) for name in self.apart)
        return func(*args, **(kwargs or {}))


def test_on_a_gpu_a_layer_takes_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.layers.input_views._in_one_pass", lambda x: False)
    monkeypatch.setattr("search.layers.mixed_layer.summed_weights", summed_by_products)
    numbers = []
    for composed in (False, True):
        layer, x = MixedLayer(nn.Conv2d(4, 6, 3), SHIPPED), torch.rand(2, 4, 6, 6, requires_grad=True)
        if composed:
            monkeypatch.setattr(MixedLayer, "_in_one_pass", lambda self: False)
        layer(x).sum().backward()
        with Operations() as counted:
            layer(x).sum().backward()
        numbers.append(counted.number)
    assert numbers[0] < 0.6 * numbers[1], numbers


def test_only_what_it_covers_is_computed_in_one_pass() -> None:
    extended = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
    assert covers(SHIPPED) and not covers(extended)
    options = [
        LayerOptions("lsq"),
        LayerOptions("dorefa"),
        LayerOptions(latent="own"),
        LayerOptions(learned_scales=True),
    ]
    assert not any(MixedLayer(nn.Linear(3, 2), SHIPPED, o)._in_one_pass() for o in options)
    assert not MixedLayer(nn.Linear(3, 2).half(), SHIPPED)._in_one_pass()


def test_frozen_weights_get_no_gradient_and_operator_weights_do() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3)
    module.weight.requires_grad_(False)
    layer = MixedLayer(module, SHIPPED)
    layer(torch.rand(2, 3, 6, 6)).square().sum().backward()
    assert module.weight.grad is None and layer.alpha.grad.abs().max() > 0


def test_a_trace_leaves_no_stand_in_behind_for_the_next_network() -> None:
    of = sum_of(tuple(load_candidates()[:7]), True)  # a sum that no other test has
    latent, shares = torch.tensor([[0.4, -0.3, 0.1]]), torch.full((7,), 1 / 7)
    inputs = {bits: Inputs(torch.tensor(1.0), torch.tensor(0.5), True) for bits in of.widths}
    arguments = (latent, shares, torch.tensor(1.0), inputs, of, Surrogates())
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(summed_by_products(*arguments), FakeTensor)
    found = summed_by_products(*arguments)
    assert not isinstance(found, FakeTensor) and bool(found.isfinite().all())
