"""The multiply-accumulates of ONNX operators, as instances of the kinds of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.core.errors import InputError
from dse.workload.names import some
from dse.workload.onnx_run import Step
from dse.workload.onnx_shapes import MATRICES, Shape, Value, transposed
from dse.workload.products import Product, linear, products, summed_product
from dse.workload.record import Call, Operand


@dataclass(frozen=True)
class Factors:
    """A product of a node.

    Attributes:
        product: kind and instance; `product.weights` is None in a product of two activations.
        data: the tensor that varies with the input; in a product of two activations the first.
        weights: the other one; None in a lookup.
        macs: multiply-accumulates by a second formula, from the sizes of the tensors.
        suffix: what a part of a layer with several weights is called beside the layer's name.
    """

    product: Product
    data: Value | None
    weights: Value | None
    macs: int
    suffix: str = ""


# Operators without a sum of products over weights or two activations. Whatever is in neither list is refused.
_NO_PRODUCTS = frozenset((
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "BlackmanWindow", "Cast", "CastLike", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat",
    "ConcatFromSequence", "Constant", "ConstantOfShape", "Cos", "Cosh", "CumProd", "CumSum", "DFT", "DepthToSpace",
    "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Elu", "Equal", "Erf", "Exp", "Expand",
    "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization",
    "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization",
    "IsInf", "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization",
    "MelWeightMatrix", "Min", "Mish", "Mod", "Mul", "Multinomial", "Neg", "NonMaxSuppression", "NonZero", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "RMSNormalization", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT", "Scatter",
    "ScatterElements", "ScatterND", "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "Shape", "Shrink", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin",
    "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "SplitToSequence", "Sqrt",
    "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile", "TopK",
    "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample", "Where", "Xor",
))  # fmt: skip
_NO_PRODUCTS_ELSEWHERE = frozenset((
    "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BipolarQuant", "DequantizeLinear", "FastGelu",
    "FloatQuant", "Gelu", "GroupNorm", "IntQuant", "LayerNormalization", "NhwcMaxPool", "QLinearAdd",
    "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "Quant", "QuantizeLinear", "QuickGelu", "RotaryEmbedding",
    "SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "Trunc", "Unique",
))  # fmt: skip
_LIBRARIES = ("", "com.microsoft", "qonnx.custom_op.general", "onnx.brevitas", "qonnx", "brevitas")

# Operator -> position of its weights.
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1, "ConvTranspose": 1}
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}  # number of gates
_LOOKUPS = ("Gather", "GatherElements", "GatherND")
_EMBEDDINGS = {"EmbedLayerNormalization": ((0, 2), (1, 4)), "QEmbedLayerNormalization": ((0, 2), (1, 4))}
_ATTENTION = ("Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention")


def computes(operator: str, domain: str) -> bool:
    """Whether a node may have products: all but those that are known to have none.

    Example:
        >>> computes("Conv", ""), computes("Relu", ""), computes("Relu", "my.library")
        (True, False, True)
    """
    if domain == "":
        return operator not in _NO_PRODUCTS
    return not (domain in _LIBRARIES and operator in _NO_PRODUCTS_ELSEWHERE)


def factors(step: Step, steps: Sequence[Step], place: str) -> tuple[Factors, ...]:
    """The products of a node in the order in which they are computed; empty if it has none.

    Raises:
        InputError: an operator that is unknown here, or a tensor without a shape.

    Example:
        >>> from onnx import helper
        >>> x, w = Value((3, 8), data=True), Value((8, 4), parameters=frozenset(["w"]))
        >>> node = helper.make_node("MatMul", ["x", "w"], ["y"])
        >>> step = Step(node, "", None, 0, (x, w), (Value((3, 4), data=True),))
        >>> [found.macs for found in factors(step, [step], "net.onnx")]
        [96]
    """
    operator = step.operator
    if step.domain in ("", "com.microsoft"):
        if operator in _CONVOLUTIONS:
            return (_convolution(step, place),)
        if operator in MATRICES:
            return (_matrices(step, place),)
        if operator in _RECURRENT and step.domain == "":
            return _recurrent(step, place)
        if operator in _ATTENTION:
            return _attention(step, place)
        if operator in _EMBEDDINGS:
            pairs = _EMBEDDINGS[operator]
            found = [_lookup_rows(_value(step, t, place), step.inputs[i], place) for i, t in pairs if step.inputs[i]]
            return tuple(f for f in found if f is not None)
        if operator in _LOOKUPS and step.domain == "":
            lookup = _lookup(step, place)
            return () if lookup is None else (lookup,)
        if operator in ("ReduceSum", "ReduceMean"):
            summed = _by_broadcasting(step, steps, place)
            return () if summed is None else (summed,)
        if operator == "Einsum":
            return _einsum(step, place)
        if operator == "MatMulNBits":
            return (_packed(step, place),)
    if computes(operator, step.domain) and not all(v is None or not v.data for v in step.inputs):
        name = f"{step.domain}.{operator}" if step.domain else operator
        raise InputError(place, f"operator {name} is unknown here, and may have products", hint="export without it")
    return ()


def _value(step: Step, position: int, place: str) -> Value:
    value = step.inputs[position] if position < len(step.inputs) else None
    if value is None:
        raise InputError(place, f"has no input {position}", hint="the file is damaged")
    return value


def _shape(value: Value | None, what: str, place: str) -> Shape:
    if value is None or value.shape is None:
        problem = f"the shape of its {what} depends on the values of inputs"
        raise InputError(place, problem, hint="export the network for fixed sizes")
    return value.shape


def _operand(value: Value, shape: Shape) -> Operand:
    return Operand(shape, value.parameters, value.data, False, None)


def _convolution(step: Step, place: str) -> Factors:
    position = _CONVOLUTIONS[step.operator]
    attributes = step.attributes
    if attributes.get("channels_last", 0):
        raise InputError(place, "has its channels last", hint="export it with channels first")
    image, weight = _value(step, 0, place), _value(step, position, place)
    image_shape, weight_shape = _shape(image, "input", place), _shape(weight, "weights", place)
    output = _shape(step.outputs[0], "output", place)
    axes = len(weight_shape) - 2
    if axes not in (1, 2, 3) or len(image_shape) != axes + 2:
        raise InputError(place, f"has weights of shape {weight_shape}", "convolutions of 1, 2 or 3 axes")
    transposed_one = step.operator == "ConvTranspose"
    stride, dilation = (list(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    padding, groups = _padding(attributes, axes), attributes.get("group", 1)
    call = Call(
        operation="convolution",
        module="",
        module_call=0,
        operands=(_operand(image, image_shape), _operand(weight, weight_shape)),
        arguments=(None, None, None, stride, padding, dilation, transposed_one, None, groups),
        output=output,
        multiplications=0,
        view=False,
        pointwise=False,
    )
    (product,) = products(call)
    outer = image_shape if transposed_one else output
    return Factors(product, image, weight, math.prod(outer) * math.prod(weight_shape[1:]))


def _padding(attributes: Mapping[str, Any], axes: int) -> list[int] | None:
    """Zeros on either side along each axis; None where the sides differ, or shapes decide."""
    pads = list(attributes.get("pads") or [0] * 2 * axes)
    plain = attributes.get("auto_pad", "NOTSET") in ("NOTSET", b"NOTSET", "VALID", b"VALID")
    return pads[:axes] if plain and len(pads) == 2 * axes and pads[:axes] == pads[axes:] else None


def _matrices(step: Step, place: str) -> Factors:
    first, second = (_value(step, i, place) for i in MATRICES[step.operator])
    attributes = step.attributes
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0):
        raise InputError(place, "transposes its batch", "transA, transB")
    left, right = transposed(attributes, _shape(first, "first factor", place), _shape(second, "second factor", place))
    product = matrix_product(first, second, left, right)
    macs = math.prod(_shape(step.outputs[0], "output", place)) * left[-1]
    return _factors(product, first, second, macs)


def _factors(product: Product, first: Value, second: Value, macs: int, suffix: str = "") -> Factors:
    """With the weights in their place, whichever factor they are."""
    if product.weights is not None and _held(first) > _held(second):
        first, second = second, first
    return Factors(product, first, second, macs, suffix)


def _held(value: Value) -> int:
    return 0 if value.data else 2 if value.parameters else 1


def matrix_product(first: Value, second: Value, left: Shape, right: Shape) -> Product:
    """The product of two batches of matrices of these shapes, which may broadcast.

    Example:
        >>> activations = Value((2, 3, 4), data=True)
        >>> matrix_product(activations, activations, (2, 3, 4), (2, 4, 5)).instance
        {'N': 3, 'G': 2, 'C': 4, 'M': 5}
    """
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    rows, inner, columns = left[-2], left[-1], right[-1]
    batch = math.prod(max(a, b) for a, b in _aligned(left[:-2], right[:-2]))
    if _held(second) > _held(first):
        groups = math.prod(right[:-2])
        return linear(rows * batch // groups, inner, columns, _operand(second, right), groups=groups)
    if _held(first) > _held(second):
        groups = math.prod(left[:-2])
        return linear(columns * batch // groups, inner, rows, _operand(first, left), groups=groups)
    if len(right) == 2:
        rows, batch = rows * batch, 1
    return Product("matmul", {"N": rows, "G": batch, "C": inner, "M": columns}, None, "matmul")


def _aligned(left: Shape, right: Shape) -> list[tuple[int, int]]:
    length = max(len(left), len(right))
    padded = [(1,) * (length - len(shape)) + tuple(shape) for shape in (left, right)]
    return list(zip(*padded, strict=True))


def _packed(step: Step, place: str) -> Factors:
    """Weights of few bits in blocks: (N outputs, blocks, bytes)."""
    data, weights = _value(step, 0, place), _value(step, 1, place)
    shape, inner, columns = _shape(data, "input", place), step.attributes["K"], step.attributes["N"]
    product = linear(math.prod(shape[:-1]), inner, columns, _operand(weights, (columns, inner)))
    return Factors(product, data, weights, math.prod(shape) * columns)


def _einsum(step: Step, place: str) -> tuple[Factors, ...]:
    equation = step.attributes["equation"].decode().replace(" ", "")
    values = [_value(step, i, place) for i in range(len(step.inputs))]
    if len(values) == 1:
        return ()
    if len(values) > 2:
        raise InputError(place, f"multiplies {len(values)} tensors", "two", "write it as several products")
    shapes = [_shape(v, "input", place) for v in values]
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    terms = [_without_dots(term, len(shape)) for term, shape in zip(terms, shapes, strict=True)]
    if any(len(set(term)) < len(term) for term in terms):
        raise InputError(place, f"takes a diagonal: {equation}", hint="write it as a product of matrices")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    if not arrow:
        text = "".join(terms)
        output = "..." + "".join(sorted(c for c in set(text) if text.count(c) == 1 and c.isalpha()))
    dots = sorted({c for term in terms for c in term if not c.isalpha()})
    kept = set(output.replace("...", "")) | (set(dots) if "..." in output else set())
    first, second = (
        {c for c, size in zip(term, shape, strict=True) if size > 1 or sizes[c] == 1}
        for term, shape in zip(terms, shapes, strict=True)
    )
    summed = (first & second) - kept
    if not summed:
        return ()  # one operation per value
    bounds = {
        letter: math.prod(sizes[c] for c in names)
        for letter, names in (
            ("G", first & second & kept),
            ("C", summed),
            ("N", (first - second) & kept),
            ("M", (second - first) & kept),
        )
    }
    a, b = values
    if _held(b) > _held(a):
        product = linear(bounds["N"], bounds["C"], bounds["M"], _operand(b, shapes[1]), groups=bounds["G"])
    elif _held(a) > _held(b):
        product = linear(bounds["M"], bounds["C"], bounds["N"], _operand(a, shapes[0]), groups=bounds["G"])
    else:
        product = Product("matmul", {k: bounds[k] for k in "NGCM"}, None, "matmul")
    macs = math.prod(_shape(step.outputs[0], "output", place)) * bounds["C"]
    return (_factors(product, a, b, macs),)


def _without_dots(term: str, rank: int) -> str:
    """An ellipsis as digits, the last axis being 0."""
    if "..." not in term:
        return term
    missing = rank - len(term.replace("...", ""))
    return term.replace("...", "".join(str(i) for i in reversed(range(missing))))


def _recurrent(step: Step, place: str) -> tuple[Factors, ...]:
    """For each direction the products with the inputs of all steps at once, then those with the state, step by step."""
    data, weights, state = (_value(step, i, place) for i in range(3))
    shape = _shape(data, "input", place)
    length, batch = (shape[1], shape[0]) if step.attributes.get("layout", 0) else (shape[0], shape[1])
    directions, rows, width = _shape(weights, "weights", place)
    hidden = _shape(state, "weights", place)[2]
    if rows != _RECURRENT[step.operator] * hidden:
        raise InputError(place, f"has weights of shape {weights.shape}", f"{_RECURRENT[step.operator]} gates")
    found = []
    for direction in range(directions):
        end = "_reverse" if direction or step.attributes.get("direction") == b"reverse" else ""
        inputs = linear(length * batch, width, rows, _operand(weights, (rows, width)))
        numel = math.prod(_shape(weights, "weights", place)) // directions
        found.append(Factors(inputs, data, weights, length * batch * numel, f"weight_ih{end}"))
        numel = math.prod(_shape(state, "weights", place)) // directions
        one = linear(batch, hidden, rows, _operand(state, (rows, hidden)))
        found += [Factors(one, data, state, batch * numel, f"weight_hh{end}") for _ in range(length)]
    return tuple(found)


def _attention(step: Step, place: str) -> tuple[Factors, ...]:
    """A fused attention: a linear layer for queries, keys and values if it has weights; Q K^T; A V."""
    if step.operator in ("Attention", "QAttention") and step.domain:
        return _attention_with_weights(step, place)
    attributes = step.attributes
    query, key, value = (step.inputs[i] if i < len(step.inputs) else None for i in range(3))
    q = _shape(query, "queries", place)
    if key is None or value is None:
        raise InputError(place, "has queries, keys and values in one tensor", hint="export them as three")
    k, v = _shape(key, "keys", place), _shape(value, "values", place)
    heads = attributes.get("q_num_heads", attributes.get("num_heads", 0))
    key_heads = attributes.get("kv_num_heads", heads)
    if len(q) == 4:  # (batch, heads, n, e)
        batch, heads, rows, width = q
    else:
        batch, rows, total = q
        width = total // heads
    columns = k[2] if len(k) == 4 else k[1]
    value_width = v[3] if len(v) == 4 else v[2] // key_heads
    pasts = {"Attention": 4, "MultiHeadAttention": 6, "GroupQueryAttention": 3}[step.operator]
    if len(step.inputs) > pasts and (past := step.inputs[pasts]) is not None:
        columns += _shape(past, "past keys", place)[2]
    assert query is not None
    groups = batch * heads
    first = Product("matmul", {"N": rows, "G": groups, "C": width, "M": columns}, None, "matmul")
    second = Product("matmul", {"N": rows, "G": groups, "C": columns, "M": value_width}, None, "matmul")
    outputs = math.prod(_shape(step.outputs[0], "output", place))
    return (
        Factors(first, query, key, math.prod(q) * columns),
        Factors(second, None, value, outputs * columns),
    )


def _attention_with_weights(step: Step, place: str) -> tuple[Factors, ...]:
    """onnxruntime's: input (batch, n, width), weights (width, all of queries, keys and values)."""
    attributes = step.attributes
    data, weights = _value(step, 0, place), _value(step, 1, place)
    batch, rows, width = _shape(data, "input", place)
    total = _shape(weights, "weights", place)[1]
    heads = attributes["num_heads"]
    sizes = attributes.get("qkv_hidden_sizes") or [total // 3] * 3
    past = {"Attention": 4, "QAttention": 8}[step.operator]
    columns = rows
    if len(step.inputs) > past and (before := step.inputs[past]) is not None:
        columns += _shape(before, "past keys", place)[3]
    outputs = math.prod(_shape(step.outputs[0], "output", place))
    scores = {"N": rows, "G": batch * heads, "C": sizes[0] // heads, "M": columns}
    mixed = {"N": rows, "G": batch * heads, "C": columns, "M": sizes[2] // heads}
    return (
        Factors(linear(batch * rows, width, total, _operand(weights, (width, total))), data, weights,
                batch * rows * math.prod(_shape(weights, "weights", place))),
        Factors(Product("matmul", scores, None, "matmul"), None, None, batch * rows * sizes[0] * columns),
        Factors(Product("matmul", mixed, None, "matmul"), None, None, outputs * columns),
    )  # fmt: skip


def _lookup(step: Step, place: str) -> Factors | None:
    """Rows of a constant table, chosen by data."""
    table, ids = _value(step, 0, place), _value(step, 1, place)
    if table.data or not table.parameters or not ids.data:
        return None
    shape, words = _shape(table, "table", place), math.prod(_shape(step.outputs[0], "output", place))
    if step.operator == "Gather":
        axis = step.attributes.get("axis", 0) % len(shape)
        width = math.prod(shape) // shape[axis] if shape[axis] else 0
    else:
        width = math.prod(shape[1:])
        width = width if width and words % width == 0 else 1
    if not words or not width:
        return None
    return Factors(Product("embedding", {"N": words // width, "M": width}, _operand(table, shape), "embedding"),
                   None, table, 0)  # fmt: skip


def _lookup_rows(table: Value, ids: Value | None, place: str) -> Factors | None:
    if ids is None or not ids.data:
        return None
    shape, rows = _shape(table, "table", place), math.prod(_shape(ids, "ids", place))
    product = Product("embedding", {"N": rows, "M": shape[1]}, _operand(table, shape), "embedding")
    return Factors(product, None, table, 0)


_VIEWS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast")


def _by_broadcasting(step: Step, steps: Sequence[Step], place: str) -> Factors | None:
    """The product of a sum of a multiplication that broadcasts, such as ``(x * weights).sum(-1)``."""
    value = step.inputs[0]
    source, viewed = _producer(value, steps), False
    while source is not None and source.operator in _VIEWS:
        viewed = viewed or source.operator not in ("Identity", "Cast")
        source = _producer(source.inputs[0], steps)
    if source is None or source.operator != "Mul" or source.domain or value is None or not value.data:
        return None
    first, second = (_value(source, i, place) for i in range(2))
    shape = source.outputs[0].shape
    if shape is None or first.shape is None or second.shape is None:
        return None
    operands = _operand(first, first.shape), _operand(second, second.shape)
    if viewed:
        constant = next((o for o in operands if o.constant and o.parameters), None)
        # A factor of each channel is a scale; what has more axes may be the weights of a product.
        if constant is None or sum(n > 1 for n in constant.shape) < 2:
            return None
        problem = f"sums, in another shape, what {source.name!r} multiplied by {some(constant.parameters)}"
        raise InputError(place, problem, hint="write it as a product of matrices")
    axes = _axes(step, len(shape))
    if axes is None:
        if any(o.constant and o.parameters for o in operands):
            raise InputError(place, f"sums what {source.name!r} multiplied, along axes that are not known")
        return None
    product = summed_product(*operands, shape, axes)
    if product is None:
        return None
    return _factors(product, first, second, _broadcast_macs(product))


def _broadcast_macs(product: Product) -> int:
    return math.prod(product.instance.values())


def _axes(step: Step, rank: int) -> frozenset[int] | None:
    axes: Any = step.attributes.get("axes")
    if axes is None and len(step.inputs) > 1 and step.inputs[1] is not None:
        if step.inputs[1].array is None:
            return None
        axes = [int(a) for a in step.inputs[1].array.reshape(-1)]
    if not axes:
        return frozenset() if step.attributes.get("noop_with_empty_axes", 0) else frozenset(range(rank))
    return frozenset(int(a) % rank for a in axes)


def _producer(value: Value | None, steps: Sequence[Step]) -> Step | None:
    return None if value is None or value.producer is None else steps[value.producer]
