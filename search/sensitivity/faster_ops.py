"""Two operations of torch that take half of a measurement on a CPU, computed faster where no gradient is wanted.

Torch sums a batch's mean and variance one number at a time, and finds the place of each maximum of a pooling window.
Sums of whole rows, and maxima of whole shifted images, give the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from search.layers.function_mode import FunctionMode

_LONG_ROW = 16
"""With fewer pixels in a channel of an image, torch's loop over them is faster."""

_FAR_FROM_ZERO = 100.0
"""Squared mean over variance up to which E[x^2] - E[x]^2 in single precision has five digits of the variance."""


class FasterOps(FunctionMode):
    """Inside, batch normalisation by the batch's own statistics and maximum pooling are computed faster on a CPU.

    Maxima are those of torch; normalised values differ by rounding. Where gradients are recorded, and for what is not
    32-bit floats in the usual order of memory, or wrong, torch computes or refuses as ever.

    Example:
        >>> x = torch.rand(8, 4, 6, 6)
        >>> norm = torch.nn.BatchNorm2d(4)
        >>> expected = norm(x)
        >>> with torch.no_grad(), FasterOps():
        ...     found = norm(x)
        >>> bool((found - expected).abs().max() < 1e-5)
        True
    """

    def called(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        own = _OWN.get(func)
        if own is not None and not torch.is_grad_enabled():
            found = own(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _usual(x: Tensor) -> bool:
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype is torch.float32
    return plain and x.is_contiguous() and x.numel() > 0


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """As `functional.batch_norm`; None where that is to be asked."""
    if not training or not _usual(input) or input.dim() < 3 or not isinstance(momentum, float) or eps <= 0:
        return None
    images, channels = input.shape[:2]
    if any(kept is not None and kept.shape != (channels,) for kept in (running_mean, running_var)):
        return None
    rows = input.view(images * channels, -1)
    count = images * rows.shape[1]
    if rows.shape[1] < _LONG_ROW or count < 2:
        return None
    mean = rows.sum(1).view(images, channels).sum(0, dtype=torch.float64) / count
    squares = torch.linalg.vector_norm(rows, dim=1).double().square().view(images, channels).sum(0)
    variance = squares / count - mean.square()
    if not bool((mean.square() <= _FAR_FROM_ZERO * variance).all()):  # also where a value is not a number
        return None
    for kept, value in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
        if kept is not None:
            kept.lerp_(value.to(kept.dtype), momentum)
    return functional.batch_norm(input, mean.float(), variance.float(), weight, bias, False, 0.0, eps)


def _max_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    """As `functional.max_pool2d`; None where that is to be asked."""
    kernel, steps = _pair(kernel_size), _pair(kernel_size if stride is None or stride == [] else stride)
    if kernel is None or steps is None or _pair(padding) != (0, 0) or _pair(dilation) != (1, 1):
        return None
    if ceil_mode or return_indices or not _usual(input) or input.dim() not in (3, 4) or min(*kernel, *steps) < 1:
        return None
    if any(n < k for n, k in zip(input.shape[-2:], kernel, strict=True)):
        return None
    if max(kernel) == 1:  # would be the input itself, which a network may change in place behind the pooling
        return None
    for dim, size, step in zip((-2, -1), kernel, steps, strict=True):
        last = (input.shape[dim] - size) // step * step + 1
        shifted = [input.narrow(dim, i, last) for i in range(size)]
        first, *rest = [s[..., ::step] if dim == -1 else s[..., ::step, :] for s in shifted]
        input = first
        for other in rest:
            input = torch.maximum(input, other)
    return input.contiguous()


def _pair(value: Any) -> tuple[int, int] | None:
    """Height and width; None where they are not given as whole numbers of Python."""
    both = (value, value) if isinstance(value, int) else value
    if not isinstance(both, tuple | list) or len(both) != 2 or not all(isinstance(n, int) for n in both):
        return None
    return both[0], both[1]


_OWN: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    functional.batch_norm: _batch_norm,
    functional.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
}
