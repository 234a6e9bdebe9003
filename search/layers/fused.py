"""One convolution over several views of the same input; for its gradient it keeps only the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from search.layers.input_views import Views, side_by_side, traced_side_by_side, view_gradients
from search.layers.tracing import traced


def convolve_views(
    x: Tensor, steps: Mapping[int, Tensor], rms: Tensor, views: Views, layer: nn.Conv2d | nn.Linear, weight: Tensor,
    unit: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The layer's product of all views of `x` with `weight`, plus its bias.

    The views are computed again for the gradient, so the memory kept between the passes does not grow with their
    number. Second derivatives are refused. Under autocast, words are rounded in the type of `x`, products have
    autocast's type, and the result has the type of `x`, so that the next layer also rounds its words in this type.

    Args:
        x: the layer's input, with or without a batch dimension.
        steps: word width -> step of the input's words, a scalar; it may be learned.
        rms: root mean square of the input, in units of which the widths of the surrogates are given.
        weight: shape (out, views * in / groups, ...): within a group, the inputs of one view after the other.
        unit: factor of each output channel, shape (out,), if `weight` does not include it.
    """
    bias, dtype = layer.bias if unit is None else None, reduced_type(x) or x.dtype
    geometry = _geometry(layer)
    batched = isinstance(layer, nn.Linear) or x.dim() == 4
    if not batched:
        x = x[None]
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        x = functional.pad(x, layer._reversed_padding_repeated_twice, layer.padding_mode)
    if not (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    of_widths = [steps[bits] for bits in views.widths]
    y: Tensor
    if traced(x):
        y = _product(x, traced_side_by_side(x, of_widths, views, dtype), weight, bias, geometry, dtype)
    else:
        y = _ConvolveViews.apply(x, rms, weight, bias, views, geometry, dtype, *of_widths)  # type: ignore[no-untyped-call]
    if unit is not None:
        spread = [-1, *[1] * (weight.dim() - 2)]
        y = y * unit.reshape(spread)
        y = y if layer.bias is None else y + layer.bias.reshape(spread)
    return y if batched else y[0]


def reduced_type(x: Tensor) -> torch.dtype | None:
    """Autocast's type for products with `x`; None if they keep the type of `x`."""
    device_type = x.device.type
    if not (torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)):
        return None
    return torch.get_autocast_dtype(device_type)


@dataclass(frozen=True)
class _Geometry:
    """The geometry of a layer; a linear layer has no stride."""

    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    uneven: tuple[int, ...] = ()  # padding that differs between two sides, in the form of functional.pad
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def linear(self) -> bool:
        return not self.stride


def _geometry(layer: nn.Conv2d | nn.Linear) -> _Geometry:
    if isinstance(layer, nn.Linear):
        return _Geometry()
    padding: str | tuple[int, ...] = layer.padding
    uneven: tuple[int, ...] = ()
    if layer.padding_mode != "zeros":
        padding = (0, 0)
    elif isinstance(padding, str):
        padding, uneven = (0, 0), tuple(layer._reversed_padding_repeated_twice)
    return _Geometry(tuple(layer.stride), tuple(padding), uneven, tuple(layer.dilation), layer.groups)


class _ConvolveViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rms: Tensor, weight: Tensor, bias: Tensor | None, views: Views,
                geometry: _Geometry, dtype: torch.dtype, *steps: Tensor) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, rms, weight, *steps)
        ctx.views, ctx.geometry, ctx.bias_sizes = views, geometry, None if bias is None else list(bias.shape)
        ctx.dtype = dtype
        inputs = side_by_side(_laid_out(x, views), steps, views, dtype)
        y = _product(x, inputs, weight, bias, geometry, dtype)
        if geometry.linear:
            return y
        return y.contiguous() if x.is_contiguous() else y.contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, rms, weight, *steps = ctx.saved_tensors
        views, geometry, dtype = ctx.views, ctx.geometry, ctx.dtype
        x = _laid_out(x, views)
        inputs = side_by_side(x, steps, views, dtype)
        learned = any(ctx.needs_input_grad[7:])
        of_inputs, of_weight, of_bias = _product_gradients(
            _laid_out(grad, views).to(dtype),
            inputs,
            weight.to(dtype),
            ctx.bias_sizes,
            geometry,
            (ctx.needs_input_grad[0] or learned, *ctx.needs_input_grad[2:4]),
        )
        of_x: Tensor | None = None
        of_steps: list[Tensor | None] = [None] * len(steps)
        if of_inputs is not None:
            of_x, of_steps = view_gradients(x, rms, inputs, of_inputs, steps, views, learned)
        of_weight, of_bias = (None if g is None else g.to(weight.dtype) for g in (of_weight, of_bias))
        return of_x, None, of_weight, of_bias, None, None, None, *of_steps


def _product(
    x: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, dtype: torch.dtype
) -> Tensor:
    """The product of views `inputs` with `weight`, computed in `dtype`, in the type of `x`."""
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    if geometry.linear:
        return functional.linear(inputs, weight, bias).to(x.dtype)
    if geometry.uneven:
        inputs = functional.pad(inputs, geometry.uneven)
    g = geometry
    return functional.conv2d(inputs, weight, bias, g.stride, g.padding, g.dilation, g.groups).to(x.dtype)


def _laid_out(x: Tensor, views: Views) -> Tensor:
    """`x` in the order in which its products are computed: on a CPU the channels are innermost, if there is one group.

    The views are up to nine times as many channels as the layer has, and often few of them go in or out: there a
    convolution takes half as long with them innermost.
    """
    wide = x.dim() == 4 and views.groups == 1 and not views.linear and len(views.names) > 1
    if wide and x.device.type == "cpu":
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _product_gradients(
    grad: Tensor, inputs: Tensor, weight: Tensor, bias_sizes: list[int] | None, geometry: _Geometry,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of a convolution or a linear layer with respect to inputs, weights and bias; None if not `needed`."""
    if geometry.linear:
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ weight if needed[0] else None,
            rows.T @ inputs.reshape(-1, inputs.shape[-1]) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )
    g, pad = geometry, geometry.uneven
    if pad:
        inputs = functional.pad(inputs, pad)
    of_inputs, of_weight, of_bias = torch.ops.aten.convolution_backward(
        grad, inputs, weight, bias_sizes, g.stride, g.padding, g.dilation, False, (0, 0), g.groups, needed
    )
    if pad and of_inputs is not None:
        of_inputs = functional.pad(of_inputs, [-p for p in pad])
    return of_inputs, of_weight, of_bias
