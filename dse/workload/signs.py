"""Which results of torch's operations cannot be negative, whatever the data: a proof by following the operations.

A macro that computes in memory converts more sums for inputs that can be negative (docs/in_memory.md). The result of an
operation that is not listed here may be negative: if an operation is missing, a layer costs too much, never too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ALWAYS = frozenset((
    "relu", "sigmoid", "hardsigmoid", "_softmax", "_safe_softmax", "abs", "exp", "exp2", "sqrt", "rsqrt",
    "cosh", "norm", "linalg_vector_norm", "std", "var", "_euclidean_dist", "_cdist_forward", "_pdist_forward", "zeros",
    "ones", "zeros_like", "ones_like", "new_zeros", "new_ones", "zero", "rand", "rand_like", "bernoulli",
))  # fmt: skip
"""Never negative."""

_FIRST = frozenset((
    "view", "_unsafe_view", "_reshape_alias", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand",
    "slice", "select", "split", "split_with_sizes", "unsafe_split", "unbind", "detach", "alias", "unfold", "diagonal",
    "clone", "_to_copy", "lift_fresh_copy", "repeat", "flip", "roll", "tril", "triu", "index_select", "index", "gather",
    "sort", "topk", "max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "mean", "sum", "nansum", "amax", "amin", "max", "min", "cumsum",
    "prod", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "im2col", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "native_dropout", "round", "floor", "ceil", "trunc", "tanh", "erf", "log1p", "expm1", "leaky_relu", "gelu", "silu",
    "hardswish", "mish",
))  # fmt: skip
"""Not negative if their first operand is not: its values in another order, means, sums, functions that keep a sign."""

_WITH_NUMBERS = frozenset(("add", "mul", "div", "constant_pad_nd", "clamp_max", "masked_fill", "fill", "full",
                           "full_like", "new_full"))  # fmt: skip
"""Not negative if no operand is, nor a number among the arguments."""

_ALL = frozenset(("cat", "stack", "minimum", "where", "mm", "bmm", "index_put", "_index_put_impl"))
"""Not negative if no operand is; numbers among the arguments are axes."""

_ANY = frozenset(("maximum",))


def never_negative(
    operation: str,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    operands: Sequence[bool],
    known: bool = True,
) -> bool:
    """Whether no result of an operation can be negative.

    Args:
        operation: torch's name, also of the form that writes to its first operand (``add_``).
        arguments: all positional ones.
        keywords: the others.
        operands: of each tensor among them, in order, whether it cannot be negative.
        known: whether numbers among the arguments are the same for all data.

    Example:
        >>> never_negative("relu_", [None], {}, [False]), never_negative("hardtanh", [None, 0.0, 6.0], {}, [False])
        (True, True)
        >>> never_negative("add", [None, None], {"alpha": -1}, [True, True])  # a difference
        False
    """
    name = operation.rstrip("_")
    if name in _ALWAYS:
        return True
    if name in _FIRST:
        return bool(operands) and operands[0]
    if name in _ALL:
        return bool(operands) and all(operands)
    if name in _ANY:
        return any(operands)
    if name == "copy":
        return len(operands) > 1 and operands[1]
    if name in _SPECIAL:
        return known and _SPECIAL[name](list(arguments), keywords, operands)
    if name == "mul" and len(arguments) > 1 and arguments[0] is arguments[1] and arguments[0] is not None:
        return True  # a square
    if name in _WITH_NUMBERS:
        numbers = [a for a in (*arguments[_SIZES.get(name, 0) :], *keywords.values()) if _is_number(a)]
        return all(operands) and (known or not numbers) and all(number >= 0 for number in numbers)
    return False


_SIZES = {"constant_pad_nd": 2, "full": 1, "new_full": 2, "full_like": 1, "masked_fill": 1}
"""Arguments before the number."""


def _clamp(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    low, high = (_number(arguments, keywords, i, name) for i, name in ((1, "min"), (2, "max")))
    return (_first(operands) or (_is_number(low) and low >= 0)) and (high is None or (_is_number(high) and high >= 0))


def _clamp_min(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    low = _number(arguments, keywords, 1, "min")
    return _first(operands) or (_is_number(low) and low >= 0)


def _hardtanh(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    low, high = (_number(arguments, keywords, i, name) for i, name in ((1, "min_val"), (2, "max_val")))
    return (_first(operands) or (low is not None and low >= 0)) and (high is None or high >= 0)


def _threshold(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    least, value = (_number(arguments, keywords, i, name) for i, name in ((1, "threshold"), (2, "value")))
    return bool((_first(operands) or least >= 0) and value >= 0)


def _softplus(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    beta = _number(arguments, keywords, 1, "beta")
    return beta is None or beta > 0


def _power(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    base, exponent = (_number(arguments, keywords, i, name) for i, name in ((0, "self"), (1, "exponent")))
    if _is_number(base):
        return bool(base >= 0)
    return _first(operands) or (_is_number(exponent) and exponent % 2 == 0)


def _average(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    divisor = _number(arguments, keywords, 6, "divisor_override")
    return _first(operands) and (divisor is None or divisor > 0)


def _sum_with_product(arguments: list[Any], keywords: Mapping[str, Any], operands: Sequence[bool]) -> bool:
    return all(operands) and all(keywords.get(name, 1) >= 0 for name in ("alpha", "beta"))


def _first(operands: Sequence[bool]) -> bool:
    return bool(operands) and operands[0]


_SPECIAL = {"clamp": _clamp, "clamp_min": _clamp_min, "hardtanh": _hardtanh, "threshold": _threshold,
            "softplus": _softplus, "pow": _power, "avg_pool2d": _average, "avg_pool3d": _average,
            "baddbmm": _sum_with_product, "addmm": _sum_with_product}  # fmt: skip


def _number(arguments: list[Any], keywords: Mapping[str, Any], place: int, name: str) -> Any:
    return arguments[place] if len(arguments) > place else keywords.get(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def proved(
    func: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], operands: Sequence[bool], known: bool = True
) -> bool:
    """`never_negative` of a call that torch dispatches; operations of other libraries are unknown.

    Example:
        >>> import torch
        >>> proved(torch.ops.aten.relu.default, [None], {}, [False])
        True
    """
    if func.namespace not in ("aten", "prims") or func._overloadname == "dtype":  # the same bits as another type
        return False
    return never_negative(func.overloadpacket.__name__, arguments, keywords, operands, known)


def cannot_be_negative(tensor: Any, proof: bool) -> bool:
    """Whether a tensor has no negative value, by a proof or by its type.

    Example:
        >>> import torch
        >>> cannot_be_negative(torch.tensor([1], dtype=torch.uint8), proof=False)
        True
    """
    import torch

    return proof or tensor.dtype in (torch.bool, torch.uint8)


def keeps_signs(result: Any) -> bool:
    """Whether the type of a result cannot turn a sign around, as whole numbers that overflow do.

    Example:
        >>> import torch
        >>> keeps_signs(torch.zeros(1, dtype=torch.int8))
        False
    """
    return bool(result.is_floating_point())


def covers_its_memory(tensor: Any) -> bool:
    """Whether a tensor has all of its memory, so that nothing older is left there.

    Example:
        >>> import torch
        >>> covers_its_memory(torch.zeros(3)), covers_its_memory(torch.zeros(3)[1:])
        (True, False)
    """
    import torch

    try:
        dense = tensor.is_contiguous()
        if not dense and tensor.dim() == 4:
            dense = tensor.is_contiguous(memory_format=torch.channels_last)
        return bool(dense and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes())
    except (NotImplementedError, RuntimeError):  # a layout without strides
        return False
