"""The shapes of what ONNX's own inference leaves out: operators of other libraries, and operators on sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        shape: its sizes; None where they depend on the values of inputs.
        type: ONNX's number of the type of its elements; 0 if unknown.
        array: its values, where they are the same for all inputs, and few.
        parameters: names of the initializers and constants that it was computed from, if inputs have no part in it.
        data: whether inputs of the network have a part in it.
        producer: the number of the step whose result it is.
        items: the tensors of a sequence.
    """

    shape: Shape | None
    type: int = 0
    array: Any = None
    parameters: frozenset[str] = frozenset()
    data: bool = False
    producer: int | None = None
    items: tuple[Value, ...] | None = None


def attributes_of(node: Any) -> dict[str, Any]:
    """Name -> value of the attributes of a node.

    Example:
        >>> attributes_of(helper.make_node("Gemm", ["a", "b"], ["c"], transB=1))
        {'transB': 1}
    """
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def sequence(operator: str, node: Any, inputs: tuple[Value | None, ...]) -> tuple[Value, ...] | None:
    """The results of an operator on sequences; None where lengths or positions are unknown.

    Example:
        >>> parts = Value(None, items=(Value((2, 3), 1), Value((4, 3), 1)))
        >>> node = helper.make_node("ConcatFromSequence", ["parts"], ["whole"], axis=0)
        >>> sequence("ConcatFromSequence", node, (parts,))[0].shape
        (6, 3)
    """
    given = [v for v in inputs if v is not None]
    attributes = attributes_of(node)
    if operator == "SequenceEmpty":
        return (Value(None, items=()),)
    if operator == "SequenceConstruct":
        return (Value(None, items=tuple(given)),)
    if operator == "SplitToSequence":
        return _split(given, attributes)
    items = given[0].items
    if items is None:
        return None
    if operator == "SequenceLength":
        return (Value((), onnx.TensorProto.INT64, np.array(len(items), dtype=np.int64)),)
    if operator == "ConcatFromSequence":
        return _joined(items, attributes.get("axis", 0), bool(attributes.get("new_axis", 0)))
    has_position = operator == "SequenceAt" or len(given) > (2 if operator == "SequenceInsert" else 1)
    position = number(given[-1]) if has_position else None
    if position is None:
        if operator == "SequenceAt":
            return (items[0],) if len({v.shape for v in items}) == 1 else None
        position = len(items) if operator == "SequenceInsert" else -1
    if operator == "SequenceAt":
        return (items[position],) if -len(items) <= position < len(items) else None
    changed = list(items)
    if operator == "SequenceInsert":
        changed.insert(position, given[1])
    elif changed:
        changed.pop(position)
    return (Value(None, items=tuple(changed)),)


def _split(given: Sequence[Value], attributes: Mapping[str, Any]) -> tuple[Value, ...] | None:
    shape = given[0].shape
    if shape is None:
        return None
    axis = attributes.get("axis", 0) % len(shape)
    sizes: list[int]
    if len(given) < 2:
        sizes = [1] * shape[axis]
    elif given[1].array is None:
        return None
    elif given[1].shape == ():
        size = int(given[1].array)
        sizes = [min(size, shape[axis] - start) for start in range(0, shape[axis], size)]
    else:
        sizes = [int(n) for n in given[1].array]
    dropped = len(given) < 2 and not attributes.get("keepdims", 1)
    parts = [(*shape[:axis], *(() if dropped else (n,)), *shape[axis + 1 :]) for n in sizes]
    # Parts have the origin of the whole, so that what is taken out of the sequence has too.
    return (Value(None, items=tuple(replace(given[0], shape=p, array=None) for p in parts)),)


def _joined(items: tuple[Value, ...], axis: int, new: bool) -> tuple[Value, ...] | None:
    shapes = [v.shape for v in items]
    if not shapes or any(s is None for s in shapes):
        return None
    first = list(shapes[0] or ())
    if new:
        first.insert(axis % (len(first) + 1), len(items))
    else:
        first[axis] = sum((s or ())[axis] for s in shapes)
    return (Value(tuple(first), items[0].type),)


def number(value: Value) -> int | None:
    """The first element of a tensor whose values are known, as a whole number.

    Example:
        >>> number(Value((), 7, np.array(3))), number(Value((2,), 7))
        (3, None)
    """
    return None if value.array is None else int(np.asarray(value.array).reshape(-1)[0])


# Operators of other libraries, of which ONNX has no inference: the shape of the first result.

SAME_SHAPE = (
    "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization", "LayerNormalization", "BiasAdd", "BiasSoftmax", "BiasDropout", "QuantizeLinear",
    "DequantizeLinear", "RotaryEmbedding", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "GroupNorm",
    "SkipGroupNorm", "Quant", "IntQuant", "FloatQuant", "BipolarQuant", "Trunc", "MeanVarianceNormalization", "Affine",
    "QuantizeWithOrder", "DequantizeWithOrder", "GroupQueryAttention",
)  # fmt: skip
"""Operators of other libraries whose result has the shape of their first input."""


def contributed(node: Any, inputs: tuple[Value | None, ...]) -> list[Value]:
    """The results of an operator of another library, as far as their shapes are known.

    Example:
        >>> node = helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
        >>> contributed(node, (Value((2, 3), 1),))[0].shape
        (2, 3)
    """
    shape, kind = _first_shape(node, inputs), inputs[0].type if inputs and inputs[0] is not None else 0
    if node.op_type == "QuantizeLinear" and len(inputs) > 2 and inputs[2] is not None:
        kind = inputs[2].type
    elif node.op_type in ("DequantizeLinear", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
        kind = onnx.TensorProto.FLOAT
    return [Value(shape if i == 0 else None, kind) for i in range(len(node.output))]


def _first_shape(node: Any, inputs: tuple[Value | None, ...]) -> Shape | None:
    shapes = [None if v is None else v.shape for v in inputs]
    first = shapes[0] if shapes else None
    attributes = attributes_of(node)
    if first is None:
        return None
    operator = node.op_type
    if operator in SAME_SHAPE:
        return first
    if operator in ("QLinearAdd", "QLinearMul") and shapes[3] is not None:
        return tuple(np.broadcast_shapes(first, shapes[3]))
    if operator == "QLinearGlobalAveragePool" and not attributes.get("channels_last", 0):
        return (*first[:2], *(1 for _ in first[2:]))
    if operator in MATRICES and (second := shapes[MATRICES[operator][1]]) is not None:
        left, right = transposed(attributes, first, second)
        return product_shape(left, right)
    if operator == "MatMulNBits":
        return (*first[:-1], attributes["N"])
    if operator in ("FusedConv", "QLinearConv") and not attributes.get("channels_last", 0):
        weight = shapes[3 if operator == "QLinearConv" else 1]
        return None if weight is None else _convolved(first, weight, attributes)
    if operator in ("Attention", "QAttention") and shapes[1] is not None:
        hidden = attributes.get("qkv_hidden_sizes")
        return (*first[:2], hidden[2] if hidden else shapes[1][1] // 3)
    if operator == "MultiHeadAttention" and len(shapes) > 2 and shapes[2] is not None and len(first) == 3:
        value = shapes[2]
        return (*first[:2], value[2] if len(value) == 3 else value[1] * value[3])
    if operator in ("EmbedLayerNormalization", "QEmbedLayerNormalization") and shapes[2] is not None:
        return (*first[:2], shapes[2][1])
    return None


MATRICES = {
    "MatMul": (0, 1), "Gemm": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3), "QGemm": (0, 3),
    "FusedMatMul": (0, 1), "FusedGemm": (0, 1), "TransposeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1), "MatMulInteger16": (0, 1), "GemmFloat8": (0, 1),
}  # fmt: skip
"""Operator -> positions of the two factors of a product of matrices."""


def transposed(attributes: Mapping[str, Any], left: Shape, right: Shape) -> tuple[Shape, Shape]:
    """The shapes of two factors as they are multiplied.

    Example:
        >>> transposed({"transB": 1}, (3, 8), (4, 8))
        ((3, 8), (8, 4))
    """
    if attributes.get("transA", 0) and len(left) > 1:
        left = (*left[:-2], left[-1], left[-2])
    if attributes.get("transB", 0) and len(right) > 1:
        right = (*right[:-2], right[-1], right[-2])
    return left, right


def product_shape(left: Shape, right: Shape) -> Shape:
    """The shape of numpy's ``matmul`` of two shapes.

    Example:
        >>> product_shape((2, 1, 3, 4), (7, 4, 5)), product_shape((4,), (4, 5))
        ((2, 7, 3, 5), (5,))
    """
    first = left if len(left) > 1 else (1, *left)
    second = right if len(right) > 1 else (*right, 1)
    shape = (*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1])
    shape = shape if len(right) > 1 else shape[:-1]
    return shape if len(left) > 1 else (*shape[:-2], shape[-1]) if len(right) > 1 else shape[:-1]


def _convolved(image: Shape, weight: Shape, attributes: Mapping[str, Any]) -> Shape:
    """Output of a convolution by its definition."""
    axes = len(image) - 2
    strides, dilations = attributes.get("strides", [1] * axes), attributes.get("dilations", [1] * axes)
    pads, auto = attributes.get("pads", [0] * 2 * axes), attributes.get("auto_pad", b"NOTSET").decode()
    sizes = []
    for i in range(axes):
        n, window = image[2 + i], dilations[i] * (weight[2 + i] - 1) + 1
        if auto.startswith("SAME"):
            sizes.append(-(-n // strides[i]))
        else:
            padded = n + (0 if auto == "VALID" else pads[i] + pads[i + axes])
            sizes.append((padded - window) // strides[i] + 1)
    return (image[0], weight[0], *sizes)
