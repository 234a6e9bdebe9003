"""Which results of ONNX's operators cannot be negative, as `dse.workload.signs` for those of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dse.workload.onnx_run import Step
    from dse.workload.onnx_shapes import Value

_ALWAYS = frozenset((
    "Abs", "Exp", "HardSigmoid", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Relu", "Sigmoid", "Softmax", "Softplus",
    "Sqrt",
))  # fmt: skip
_FIRST = frozenset((
    "AveragePool", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalAveragePool",
    "GlobalMaxPool", "Identity", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Numbers beside the first input are positions or sizes."""
_WORDS = frozenset(("QuantizeLinear", "DequantizeLinear"))
"""A word has the sign of its value where zero has the word 0; scales are positive."""
_ALL = frozenset(("Add", "Concat", "Div", "Max", "Mean", "Min", "Mul", "Sum"))
_BRANCHES = frozenset(("If", "Loop", "Scan"))


def never_negative_steps(steps: Sequence[Step], operators: Sequence[str]) -> frozenset[int]:
    """Numbers of the steps whose results cannot be negative; none where the file has branches or loops.

    Args:
        operators: of all nodes of the graph.

    Example:
        >>> never_negative_steps([], [])
        frozenset()
    """
    found: set[int] = set()
    if _BRANCHES.intersection(operators):
        return frozenset()
    for i, step in enumerate(steps):
        if not step.domain and _proved(step, found):
            found.add(i)
    return frozenset(found)


def is_never_negative(value: Value | None, steps: frozenset[int] | set[int]) -> bool:
    """Whether a tensor cannot be negative: a result of one of these steps, or constants that are known.

    Example:
        >>> is_never_negative(None, frozenset())
        False
    """
    if value is None:
        return False
    if value.array is not None and not value.data:
        return bool(value.array.size) and value.array.dtype.kind in "fiu" and bool((value.array >= 0).all())
    return value.producer in steps


def _proved(step: Step, found: set[int]) -> bool:
    inputs = [value for value in step.inputs if value is not None]
    if step.operator in _ALWAYS:
        return True
    if not inputs:
        return False
    first = is_never_negative(inputs[0], found)
    if step.operator in _FIRST:
        return first
    if step.operator in _ALL:
        return all(is_never_negative(value, found) for value in inputs)
    if step.operator in _WORDS:
        zero = step.inputs[2] if len(step.inputs) > 2 else None
        return first and (zero is None or (zero.array is not None and not zero.data and not zero.array.any()))
    if step.operator == "Clip":
        return _clipped(step, first, found)
    if step.operator == "Pad":
        value = step.inputs[2] if len(step.inputs) > 2 else None
        return first and (value is None or is_never_negative(value, found)) and step.attributes.get("value", 0) >= 0
    return step.operator == "Resize" and first and step.attributes.get("mode", b"nearest") in (b"nearest", b"linear")


def _clipped(step: Step, first: bool, found: set[int]) -> bool:
    """Limits are inputs; in files of old versions attributes."""
    low, high = (step.inputs[i] if len(step.inputs) > i else None for i in (1, 2))
    of_file = step.attributes
    from_zero = is_never_negative(low, found) or of_file.get("min", -1.0) >= 0
    not_below = high is None or is_never_negative(high, found)
    return (first or from_zero) and not_below and of_file.get("max", 0.0) >= 0
