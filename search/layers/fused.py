"""One convolution over several views of the same input; for its gradient it keeps only the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from search.layers.input_views import Views, side_by_side, traced_side_by_side, view_gradients
from search.layers.tracing import traced

Layer = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear
"""Layers whose products can be searched."""


def outputs_first(layer: Layer, weight: Tensor) -> Tensor:
    """A layer's weights with the output channels first, shape (out, in / groups, ...), as all but transposed ones are.

    A transposed convolution has (in, out / groups, ...).
    """
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return weight
    return _swapped(weight, layer.groups)


def _swapped(weight: Tensor, groups: int) -> Tensor:
    """The first two axes of convolution weights exchanged, within each of the groups."""
    first, second, *kernel = weight.shape
    apart = weight.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
    return apart.reshape(groups * second, first // groups, *kernel)


def convolve_views(
    x: Tensor, steps: Mapping[int, Tensor], rms: Tensor, views: Views, layer: Layer, weight: Tensor,
    unit: Tensor | None = None, output_size: Sequence[int] | None = None,
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
        output_size: what the forward pass of a transposed convolution was given.
    """
    bias, dtype = layer.bias if unit is None else None, reduced_type(x) or x.dtype
    geometry = _geometry(layer, x, output_size)
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.padding_mode != "zeros":
        x = functional.pad(x, layer._reversed_padding_repeated_twice, layer.padding_mode)
    flat = isinstance(layer, nn.Conv1d | nn.ConvTranspose1d)
    if flat:  # one of two axes, of which the other has the size 1
        x, weight = x.unsqueeze(-2), weight.unsqueeze(-2)
    batched = isinstance(layer, nn.Linear) or x.dim() == 4
    if not batched:
        x = x[None]
    if not (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    of_widths = [steps[bits] for bits in views.widths]
    y: Tensor
    leading = x.shape[:-1] if geometry.linear and x.dim() > 2 else None
    if leading is not None:  # torch lets nothing write into a result that is a view made inside
        x = x.flatten(0, -2)
    if traced(x):
        y = _product(x, traced_side_by_side(x, of_widths, views, dtype), weight, bias, geometry, dtype)
    else:
        y = _ConvolveViews.apply(x, rms, weight, bias, views, geometry, dtype, *of_widths)  # type: ignore[no-untyped-call]
    if unit is not None:
        spread = [-1, *[1] * (weight.dim() - 2)]
        y = y * unit.reshape(spread)
        y = y if layer.bias is None else y + layer.bias.reshape(spread)
    y = y.squeeze(-2) if flat else y
    y = y if leading is None else y.view(*leading, y.shape[-1])
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
    output_padding: tuple[int, ...] = (0, 0)
    transposed: bool = False

    @property
    def linear(self) -> bool:
        return not self.stride


def _geometry(layer: Layer, x: Tensor, output_size: Sequence[int] | None) -> _Geometry:
    if isinstance(layer, nn.Linear):
        return _Geometry()
    padding: str | tuple[int, ...] = layer.padding
    uneven: tuple[int, ...] = ()
    axes = len(layer.kernel_size)
    if layer.padding_mode != "zeros":
        padding = (0,) * axes
    elif isinstance(padding, str):
        padding, uneven = (0,) * axes, tuple(layer._reversed_padding_repeated_twice)
    assert not isinstance(padding, str)

    def two(values: Sequence[int], other: int) -> tuple[int, ...]:
        return (*(other,) * (2 - axes), *values)

    added: tuple[int, ...] = (0, 0)
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    if transposed:
        added = two(output_padding(layer, x, output_size), 0)
    return _Geometry(
        two(layer.stride, 1), two(padding, 0), uneven, two(layer.dilation, 1), layer.groups, added, transposed
    )


def output_padding(layer: Layer, x: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
    """What a transposed convolution adds at the end of each axis, so that its output has the size that is asked for."""
    of_layer: Any = layer
    if output_size is None:
        return tuple(of_layer.output_padding)
    axes = len(of_layer.kernel_size)
    geometry = (list(values) for values in (of_layer.stride, of_layer.padding, of_layer.kernel_size))
    return tuple(of_layer._output_padding(x, list(output_size), *geometry, axes, list(of_layer.dilation)))


def product(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of a layer with other weights, which have the output channels first (see `outputs_first`)."""
    of_layer: Any = layer
    result: Tensor
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        transposed: Any = functional.conv_transpose1d if weight.dim() == 3 else functional.conv_transpose2d
        result = transposed(x, _swapped(weight, layer.groups), bias, layer.stride, layer.padding, layer.output_padding,
                            layer.groups, layer.dilation)  # fmt: skip
    else:
        result = of_layer._conv_forward(x, weight, bias)
    return result


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
    if g.transposed:
        weight = _swapped(weight, g.groups)
        y = functional.conv_transpose2d(
            inputs, weight, bias, g.stride, g.padding, g.output_padding, g.groups, g.dilation
        )
    else:
        y = functional.conv2d(inputs, weight, bias, g.stride, g.padding, g.dilation, g.groups)
    return y.to(x.dtype)


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
    if g.transposed:
        weight = _swapped(weight, g.groups)
    of_inputs, of_weight, of_bias = torch.ops.aten.convolution_backward(
        grad, inputs, weight, bias_sizes, g.stride, g.padding, g.dilation, g.transposed, g.output_padding, g.groups,
        needed,
    )  # fmt: skip
    if g.transposed and of_weight is not None:
        of_weight = _swapped(of_weight, g.groups)
    if pad and of_inputs is not None:
        of_inputs = functional.pad(of_inputs, [-p for p in pad])
    return of_inputs, of_weight, of_bias
