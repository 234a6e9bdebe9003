"""Products that are written by broadcasting: multiplications whose results are then added up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dse.core.errors import InputError
from dse.workload.names import some
from dse.workload.products import Product, contraction, summed_product
from dse.workload.record import Call, Operand, Recording

_MULTIPLY = ("mul", "mul_", "addcmul", "addcmul_")
_SUM = ("sum", "mean", "nansum")
_POOL = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
_PARTS = ("cumsum", "cumsum_")
_SCALED = ("neg", "_to_copy", "clone", "mul", "mul_", "div", "div_", "masked_fill", "masked_fill_")
_SHIFTED = ("add", "add_", "sub", "sub_", "rsub")


@dataclass(frozen=True)
class _Sum:
    """A multiplication whose result is summed.

    Attributes:
        factors: what is multiplied.
        sizes: of the result.
        axes: along which it is summed; all of them where it was brought into another shape before.
        reshaped: whether it was.
        whole: whether each sum is over the whole of its axes, not over windows or beginnings of them.
        alone: whether nothing else reads what is summed: else it is a value of its own, such as a normalised one.
    """

    factors: tuple[Operand, Operand]
    sizes: tuple[int, ...]
    axes: frozenset[int]
    reshaped: bool
    whole: bool
    alone: bool


def by_broadcasting(recording: Recording, call: Call, where: str) -> Product | None:
    """The product of a sum of a multiplication that broadcasts, such as ``(x[:, None] * weight).sum(-1)``.

    Raises:
        InputError: parameters are multiplied and summed in a form that cannot be read.

    Example:
        >>> import torch
        >>> from dse.workload.networks import Network
        >>> from dse.workload.record import record
        >>> class Layer(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(6, 4))
        ...     def forward(self, x):
        ...         return (x[:, None] * self.weight).sum(-1)
        >>> recording = record(Network("net", Layer(), (3, 4)))
        >>> by_broadcasting(recording, recording.calls[-1], "net").instance["M"]
        6
    """
    found = _summed(recording, call)
    if found is None:
        return None
    product = summed_product(*found.factors, found.sizes, found.axes)
    if product is None or not found.alone:
        return None
    if found.whole and not found.reshaped:
        return product
    if product.weights is None:
        return None
    # In another shape, what has one value for each channel is taken for a scale; with more axes it may be weights.
    if found.reshaped and sum(n > 1 for n in product.weights.shape) < 2:
        return None
    problem = f"multiplies by {some(product.weights.parameters)} and sums in another shape"
    raise InputError(f"{where}: {call.where}", problem, hint="write it as a product of matrices")


def _summed(recording: Recording, call: Call) -> _Sum | None:
    """The multiplication whose result a call sums up; other numbers may have been added to it before."""
    if call.operation not in (*_SUM, *_PARTS, *_POOL) or not call.operands or call.operands[0].producer is None:
        return None
    at, reshaped = call.operands[0].producer, False
    alone = recording.readers[at] == 1
    source = recording.calls[at]
    while (step := _before(source)) is not None:
        reshaped = reshaped or source.view or source.operation == "_unsafe_view"
        alone = alone and recording.readers[step] == 1
        source = recording.calls[step]
    factors = source.operands[1:] if source.operation in ("addcmul", "addcmul_") else source.operands
    if source.operation not in _MULTIPLY or len(factors) != 2 or source.output is None:
        return None
    rank = len(source.output)
    axes: Iterable[int]
    if call.operation in _POOL:
        axes = range(rank - int(call.operation.rstrip("d")[-1]), rank)
    elif call.operation in _PARTS:
        axes = range(int(call.arguments[1]) % rank, int(call.arguments[1]) % rank + 1)
    else:
        given = call.arguments[1] if len(call.arguments) > 1 and call.arguments[1] else range(rank)
        axes = [int(a) % rank for a in given]
    summed = frozenset(range(rank) if reshaped else axes)
    return _Sum((factors[0], factors[1]), source.output, summed, reshaped, call.operation in _SUM, alone)


def sums_of_activations(recording: Recording) -> list[tuple[str, int]]:
    """Where products of two activations are added up one value at a time, and how many products.

    Example:
        >>> import torch
        >>> from dse.workload.networks import Network
        >>> from dse.workload.record import record
        >>> class Pooled(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(6, 4))
        ...     def forward(self, x):
        ...         return (x.softmax(-1) * x).sum(-1)
        >>> recording = record(Network("net", Pooled(), (3, 4)))
        >>> sums_of_activations(recording)
        [('', 12)]
    """
    found = []
    for call in recording.calls:
        if (summed := _summed(recording, call)) is not None and not summed.reshaped:
            n = contraction(*summed.factors, summed.sizes, summed.axes)
            if n and (not summed.whole or summed_product(*summed.factors, summed.sizes, summed.axes) is None):
                found.append((call.module, n))
    return found


def sums_of_values(recording: Recording) -> list[tuple[str, int]]:
    """Where products with parameters are added up that are read elsewhere too, and how many products.

    A gain before a mean over channels is such a sum, and also the product of each value with a weight: named, no layer.

    Example:
        >>> import torch
        >>> from dse.workload.networks import Network
        >>> from dse.workload.record import record
        >>> class Gain(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(4))
        ...     def forward(self, x):
        ...         y = x * self.weight
        ...         return y - y.mean(-1, keepdim=True)
        >>> sums_of_values(record(Network("net", Gain(), (3, 4))))
        [('', 12)]
    """
    found = []
    for call in recording.calls:
        summed = _summed(recording, call)
        if summed is not None and not summed.alone and not summed.reshaped:
            product = summed_product(*summed.factors, summed.sizes, summed.axes)
            if product is not None and product.weights is not None:
                found.append((call.module, math.prod(summed.sizes)))
    return found


def sums_one_by_one(recording: Recording) -> list[tuple[str, int]]:
    """Where products with several slices of one parameter are added in one operation each, and how many products.

    So a convolution is written by shifting its input. Whether a product is part of such a layer or scales a value alone
    (positions that are rotated, gains) is not to be told, so they are named but are no layer.

    Example:
        >>> import torch
        >>> from dse.workload.networks import Network
        >>> from dse.workload.record import record
        >>> class Shifted(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(6, 4))
        ...     def forward(self, x):
        ...         return x * self.weight[0] + x.roll(1) * self.weight[1]
        >>> recording = record(Network("net", Shifted(), (3, 4)))
        >>> sums_one_by_one(recording)
        [('', 24)]
    """
    terms: dict[int, dict[str, list[int]]] = {}  # call -> parameter -> numbers of products that its result adds up
    added: set[int | None] = set()
    for i, call in enumerate(recording.calls):
        if call.operation in _MULTIPLY and (name := _sliced(recording, call)) is not None:
            terms[i] = {name: [math.prod(call.output or ())]}
        elif call.operation in ("add", "add_", "sub", "sub_"):
            parts = [operand.producer for operand in call.operands if operand.producer in terms]
            merged: dict[str, list[int]] = {}
            for part in parts:
                for name, numbers in terms[part].items():
                    merged[name] = merged.get(name, []) + numbers
            if merged:
                terms[i] = merged
                added.update(parts)
    return [
        (recording.calls[i].module, sum(numbers))
        for i, of in terms.items()
        for numbers in of.values()
        if i not in added and len(numbers) > 1
    ]


def _sliced(recording: Recording, call: Call) -> str | None:
    """The parameter of which one factor of a multiplication is a slice, if the other factor is data."""
    constants = [operand for operand in call.operands if operand.constant]
    if len(call.operands) != 2 or len(constants) != 1 or len(constants[0].parameters) != 1:
        return None
    producer, sliced = constants[0].producer, False
    while producer is not None:
        view = recording.calls[producer]
        if not view.view:
            return None
        sliced = sliced or view.operation in ("select", "slice", "unbind", "split", "split_with_sizes")
        producer = view.operands[0].producer
    return next(iter(constants[0].parameters)) if sliced else None


def _before(call: Call) -> int | None:
    """The call whose result this one shows in another form: views, casts, a bias, multiples by constant numbers."""
    first = call.operands[0] if call.operands else None
    if first is None or first.producer is None:
        return None
    if call.view or call.operation == "_unsafe_view":
        return first.producer
    if call.operation in _SHIFTED:  # a bias
        data = [operand for operand in call.operands if operand.data]
        return data[0].producer if len(data) == 1 and data[0].shape == call.output else None
    if call.operation not in _SCALED or first.shape != call.output:
        return None
    scale = call.operands[1:]
    return first.producer if all(o.constant and not o.parameters for o in scale) else None
