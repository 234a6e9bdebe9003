"""The multiply-accumulates of a recorded operation, as instances of the kinds of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dse.workload.record import Call, Operand
from dse.workload.shapes import Kind


@dataclass(frozen=True)
class Product:
    """A product that the array computes.

    `weights` is the operand that is the same for all inputs, or None in a product of two activations. `label` is what
    the product is called where no parameter can name it.
    """

    kind: Kind
    instance: dict[str, int]
    weights: Operand | None
    label: str
    image: dict[str, int] = field(default_factory=dict)
    """The size of a convolution's input without padding, and its padding on either side, where it has a window."""
    signed: bool = True
    """Whether its inputs, the factor beside the weights or the first activations, can be negative."""


# Operation -> positions of the two factors among its tensors.
_MATRICES = {
    "mm": (0, 1), "addmm": (1, 2), "_addmm_activation": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1),
    "addmv": (1, 2), "dot": (0, 1), "vdot": (0, 1), "addbmm": (1, 2), "_int_mm": (0, 1), "_scaled_mm": (0, 1),
    "linear": (0, 1), "matmul": (0, 1),
}  # fmt: skip
_TRANSPOSED = ("linear",)  # the second factor is stored with its columns first
_ATTENTION = "_scaled_dot_product_"
# Euclidean distances of all pairs of rows: |a|^2 + |b|^2 - 2 a.b
_DISTANCES: dict[str, Callable[[Sequence[Any]], bool]] = {
    "_euclidean_dist": lambda arguments: True,
    "_cdist_forward": lambda arguments: arguments[2] == 2.0,
}
_LOOKUPS = ("embedding", "_embedding_bag", "_embedding_bag_forward_only", "index_select", "index", "gather")


def products(call: Call) -> tuple[Product, ...]:
    """The products of a call, in the order in which they are computed; empty if it has none.

    Example:
        >>> from torch import nn
        >>> from dse.workload.networks import Network
        >>> from dse.workload.record import record
        >>> recording = record(Network("fc", nn.Sequential(nn.Linear(4, 2)), (3, 4)))
        >>> products(recording.calls[-1])[0].instance
        {'N': 3, 'G': 1, 'C': 4, 'M': 2, 'P': 1, 'Q': 1, 'R': 1, 'S': 1}
    """
    if call.operation in ("convolution", "_convolution"):  # the second in traced code
        return (_convolution(call),)
    if call.operation == "torchvision.deform_conv2d":
        return (_deformed(call),)
    if call.operation in _DISTANCES and _DISTANCES[call.operation](call.arguments):
        return (_matrices("linear", call.operands[0], call.operands[1]),)
    if call.operation in _MATRICES:
        first, second = (call.operands[i] for i in _MATRICES[call.operation])
        return (_matrices(call.operation, first, second, call.module),)
    if call.operation.startswith(_ATTENTION):
        return _attention(call)
    if call.operation == "_trilinear":
        return (_bilinear(call),)
    if call.operation in _LOOKUPS:
        return _lookup(call)
    return ()


def _convolution(call: Call) -> Product:
    """From ``convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    image, weight = call.operands[:2]
    stride, dilation, groups = (tuple(call.arguments[3]), tuple(call.arguments[5]), int(call.arguments[8]))
    transposed = bool(call.arguments[6])
    assert call.output is not None
    axes = len(weight.shape) - 2
    stride, dilation = (values * axes if len(values) == 1 else values for values in (stride, dilation))
    channels = (image.shape[1] // groups, call.output[1] // groups)
    positions = (image.shape if transposed else call.output)[2:]
    one = (1,) * (2 - axes)
    points, filters, letters = ("FPQ", "TRS", "DHW") if axes == 3 else ("PQ", "RS", "HW")
    instance = {
        "N": image.shape[0],
        "G": groups,
        "C": channels[0],
        "M": channels[1],
        **dict(zip(points, (*one, *positions), strict=True)),
        **dict(zip(filters, (*one, *weight.shape[2:]), strict=True)),
        **{f"{axis}stride": v for axis, v in zip(letters, (*one, *stride), strict=True) if v != 1},
        **{f"{axis}dilation": v for axis, v in zip(letters, (*one, *dilation), strict=True) if v != 1},
    }
    kind: Kind
    if transposed:
        kind = "transposed_conv3d" if axes == 3 else "transposed_conv"
    else:
        kind = "conv3d" if axes == 3 else "conv"
    image_sizes = _image(call, instance) if kind == "conv" else {}
    return Product(kind, instance, weight if weight.constant else None, "convolution", image_sizes, _signed(image))


def _image(call: Call, instance: dict[str, int]) -> dict[str, int]:
    """Size and padding of a convolution's input along each axis with a window; empty if padding is not known."""
    if call.arguments[4] is None:
        return {}
    image, padding = call.operands[0], tuple(call.arguments[4])
    axes = len(image.shape) - 2
    padding = padding * axes if len(padding) == 1 else padding
    found: dict[str, int] = {}
    for axis, size, pad in zip("HW"[2 - axes :], image.shape[2:], padding, strict=True):
        if instance["R" if axis == "H" else "S"] > 1 or pad:
            found |= {axis: size, f"{axis}pad": int(pad)}
    return found


def _deformed(call: Call) -> Product:
    """From ``deform_conv2d(input, weight, offset, mask, bias, 2 strides, 2 paddings, 2 dilations, groups, ...)``.

    The sampling between the inputs, four products for each value that a filter reads, is not part of it.
    """
    image, weight = call.operands[:2]
    assert call.output is not None
    stride, dilation, groups = call.arguments[5:7], call.arguments[9:11], int(call.arguments[11])
    instance = {
        "N": image.shape[0], "G": groups, "C": image.shape[1] // groups, "M": weight.shape[0] // groups,
        "P": call.output[2], "Q": call.output[3], "R": weight.shape[2], "S": weight.shape[3],
        **{f"{axis}stride": v for axis, v in zip("HW", stride, strict=True) if v != 1},
        **{f"{axis}dilation": v for axis, v in zip("HW", dilation, strict=True) if v != 1},
    }  # fmt: skip
    return Product("conv", instance, weight if weight.constant else None, "convolution")


def _matrices(operation: str, first: Operand, second: Operand, module: str = "") -> Product:
    """A batch of products of (n, k) and (k, m) matrices; vectors are matrices of one row or column."""
    left = first.shape if len(first.shape) > 1 else (1, *first.shape)
    right = second.shape if len(second.shape) > 1 else (*second.shape, 1)
    if operation in _TRANSPOSED:
        right = (*right[:-2], right[-1], right[-2])
    rows, inner, columns = left[-2], left[-1], right[-1]
    batch = max(math.prod(left[:-2]), math.prod(right[:-2]))
    if len(right) == 2:
        rows, batch = rows * math.prod(left[:-2]), 1
    if first.complex or second.complex:  # (a + bi)(c + di) as real matrices: [a b] [[c d] [-d c]]
        inner, columns = 2 * inner, 2 * columns
    if operation == "addbmm":  # sums over the batch
        batch, inner = 1, inner * batch
    held = [(_held(operand), _held(operand) > 0 and _belongs(operand, module)) for operand in (first, second)]
    if held[1] > held[0]:
        if second.shared:
            rows, batch = rows * batch, 1
        return linear(rows, inner, columns, second, groups=batch, signed=_signed(first))
    if held[0] > held[1]:
        if first.shared:
            columns, batch = columns * batch, 1
        return linear(columns, inner, rows, first, groups=batch, signed=_signed(second))
    instance = {"N": rows, "G": batch, "C": inner, "M": columns}
    return Product("matmul", instance, None, "matmul", signed=_signed(first))


def _signed(operand: Operand) -> bool:
    """Whether a factor can be negative; complex numbers can, in the matrices that stand for them."""
    return operand.complex or not operand.never_negative


def _held(operand: Operand) -> int:
    """What of two factors is the weights: parameters rather than other constants, and these rather than data."""
    return 0 if operand.data else 2 if operand.parameters else 1


def _belongs(operand: Operand, module: str) -> bool:
    """Whether all parameters are those of a module: its weights, as told from inputs that are parameters too."""
    return bool(operand.parameters) and all(name.startswith(f"{module}.") for name in operand.parameters)


def linear(rows: int, inner: int, columns: int, weights: Operand, *, groups: int = 1, signed: bool = True) -> Product:
    """`rows` inputs of `inner` values times weights with `columns` outputs, in each of the groups.

    Args:
        signed: whether the inputs can be negative.

    Example:
        >>> weights = Operand((10, 64), frozenset(["fc.weight"]), False, False, None)
        >>> linear(8, 64, 10, weights).instance["C"]
        64
    """
    sizes = {"N": rows, "G": groups, "C": inner, "M": columns, "P": 1, "Q": 1, "R": 1, "S": 1}
    return Product("linear", sizes, weights, "linear", signed=signed)


def _attention(call: Call) -> tuple[Product, ...]:
    """A fused attention of queries (batch, heads, n, e), keys (.., heads, m, e), values (.., heads, m, v)."""
    query, key, value = (operand.shape for operand in call.operands[:3])
    batch, rows, columns = math.prod(query[:-2]), query[-2], key[-2]
    first = {"N": rows, "G": batch, "C": query[-1], "M": columns}
    second = {"N": rows, "G": batch, "C": columns, "M": value[-1]}
    shares = Product("matmul", second, None, "matmul", signed=False)  # softmax gives them
    return Product("matmul", first, None, "matmul", signed=_signed(call.operands[0])), shares


def _bilinear(call: Call) -> Product:
    """``torch.nn.Bilinear``: the products of all pairs of values of two inputs, times weights (out, in1, in2)."""
    first, weights = call.operands[:2]
    outputs, left, right = weights.shape[-3:]
    return linear(first.shape[0], left * right, outputs, weights)


def _lookup(call: Call) -> tuple[Product, ...]:
    """Rows of a table of parameters, chosen by data."""
    table = call.operands[0]
    if not table.constant or not table.parameters or all(operand.constant for operand in call.operands[1:]):
        return ()
    if call.operation in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
        width, rows = math.prod(table.shape[1:]), math.prod(call.operands[1].shape)
    else:
        words = math.prod(call.output or ())
        width = math.prod(table.shape[1:]) if words % max(1, math.prod(table.shape[1:])) == 0 else 1
        rows = words // max(1, width)
    return (Product("embedding", {"N": rows, "M": width}, table, "embedding"),) if rows and width else ()


def summed_product(first: Operand, second: Operand, output: Sequence[int], axes: frozenset[int]) -> Product | None:
    """A product by broadcasting: ``(first * second).sum(axes)``; None if the sum is not one of products.

    With a factor that does not vary along the axes, the sum is that of the other factor, times a number for each
    result. The product of two activations counts only if each has an axis that the other lacks, as in a product of
    matrices: weights of single values (gates) are one operation per value.

    Example:
        >>> data = Operand((3, 1, 4), frozenset(), True, False, 0)
        >>> weights = Operand((6, 4), frozenset(["weight"]), False, False, None)
        >>> product = summed_product(data, weights, (3, 6, 4), frozenset([2]))
        >>> [product.instance[d] for d in "NCM"]
        [3, 4, 6]
    """
    sizes = tuple(output)
    varies = _varies(first, second, sizes)
    if first.constant == second.constant:
        if first.constant or not all(
            any(one and not other for one, other in zip(a, b, strict=True)) for a, b in (varies, varies[::-1])
        ):
            return None
        data, weights, constant = varies[0], varies[1], None
    else:
        constant = first if first.constant else second
        data, weights = varies if second.constant else varies[::-1]
        if not constant.parameters:
            return None
    if not any(data[i] and weights[i] for i in axes) and not (constant and any(weights[i] for i in axes)):
        return None
    found = {"N": 1, "G": 1, "C": 1, "M": 1}
    for i, size in enumerate(sizes):
        letter = "C" if i in axes else "G" if data[i] and weights[i] else "N" if data[i] else "M"
        found[letter] *= size
    if first.complex and second.complex:
        found["C"], found["M"] = 2 * found["C"], 2 * found["M"]
    elif first.complex or second.complex:
        found["N"] *= 2
    if constant is None:
        return Product("matmul", found, None, "product", signed=_signed(first))
    signed = _signed(first if constant is second else second)
    return linear(found["N"], found["C"], found["M"], constant, groups=found["G"], signed=signed)


def contraction(first: Operand, second: Operand, output: Sequence[int], axes: frozenset[int]) -> int:
    """Products of two activations that vary along one of the axes that are summed; 0 for all other sums.

    Example:
        >>> values = Operand((2, 5, 8), frozenset(), data=True, shared=False, producer=None)
        >>> shares = Operand((2, 5, 1), frozenset(), data=True, shared=False, producer=None)
        >>> [contraction(shares, values, (2, 5, 8), frozenset([axis])) for axis in (1, 2)]
        [80, 0]
    """
    one, other = _varies(first, second, tuple(output))
    return math.prod(output) if first.data and second.data and any(one[i] and other[i] for i in axes) else 0


def _varies(first: Operand, second: Operand, sizes: tuple[int, ...]) -> list[tuple[bool, ...]]:
    """Along which axes of what they are broadcast to the operands have several values."""
    return [
        tuple(n > 1 for n in (*(1,) * (len(sizes) - len(operand.shape)), *operand.shape)) for operand in (first, second)
    ]
