"""Operations of torch that are computed as a whole, written as the products that they consist of."""

from __future__ import annotations

from typing import Any

from dse.core.errors import InputError


def written_out(func: Any, place: str) -> Any:
    """A function that computes an operation by the products that it consists of; None for all others.

    Raises:
        InputError: an operator that calls functions of the user's and is not known here.

    Example:
        >>> import torch
        >>> written_out(torch.ops.aten.conv_tbc.default, "net").__name__, written_out(torch.ops.aten.mm.default, "net")
        ('_conv_tbc', None)
    """
    from torch._ops import HigherOrderOperator

    name = func.name() if callable(func.name) else func.name
    if isinstance(func, HigherOrderOperator):
        if name not in _HIGHER_ORDER:
            raise InputError(place, f"the operator {name} cannot be recorded", ", ".join(_HIGHER_ORDER))
        return _HIGHER_ORDER[name]
    return _WRITTEN_OUT.get(name.partition(".")[0])


def _cond(predicate: Any, true: Any, false: Any, operands: Any = ()) -> Any:
    return (true if predicate else false)(*operands)


def _while_loop(condition: Any, body: Any, carried: Any, others: Any = ()) -> Any:
    while condition(*carried, *others):
        carried = body(*carried, *others)
    return tuple(carried)


def _flex_attention(*args: Any, **kwargs: Any) -> Any:
    from torch._higher_order_ops.flex_attention import math_attention

    return math_attention(*args, **kwargs)


def _grouped_mm(a: Any, b: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    """Products of matrices, or of slices that end at `offs`: of rows of `a`, columns of `b`, or what is summed."""
    import torch

    if offs is None:
        return torch.bmm(a, b)
    ends = offs.tolist()
    slices = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    if a.dim() == 3:
        return torch.cat([a[i] @ b[:, s] for i, s in enumerate(slices)], 1)
    if b.dim() == 2:
        return torch.stack([a[:, s] @ b[s] for s in slices])
    rest = a.new_zeros(len(a) - ends[-1], b.shape[-1])
    return torch.cat([*(a[s] @ b[i] for i, s in enumerate(slices)), rest])


def _conv_tbc(x: Any, weight: Any, bias: Any, pad: int = 0) -> Any:
    import torch

    return torch.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


_HIGHER_ORDER = {"cond": _cond, "while_loop": _while_loop, "flex_attention": _flex_attention}
_WRITTEN_OUT = {"aten::_grouped_mm": _grouped_mm, "aten::conv_tbc": _conv_tbc}
