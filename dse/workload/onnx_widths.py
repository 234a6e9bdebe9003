"""The widths of a quantised ONNX file: bits of the weights and of the activations of each layer.

Read are the operators on integers (QLinearConv, MatMulInteger, MatMulNBits and their like), layers between
DequantizeLinear nodes (the QDQ form, int4 and int2 included), and the quantisers of QONNX, as Brevitas writes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.workload.onnx_import import OnnxLayer, OnnxNetwork
from dse.workload.onnx_run import Step
from dse.workload.onnx_shapes import Value

# Numbers of ONNX's types -> bits. Floats are absent, and int32 and int64, which are sums and ids.
_BITS = {2: 8, 3: 8, 4: 16, 5: 16, 21: 4, 22: 4, 25: 2, 26: 2}

_PASSING = frozenset((
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Gather", "Concat", "Pad",
    "MaxPool", "Relu", "Expand", "Tile", "Cast", "Clip", "Sign", "Abs", "Dropout", "DepthToSpace", "SpaceToDepth",
))  # fmt: skip


@dataclass(frozen=True)
class Widths:
    """Bits of the words of a layer; None for what is not quantised.

    In a product of two activations, `weights` are those of the second one.
    """

    weights: int | None
    activations: int | None

    @property
    def text(self) -> str:
        """Such as ``w4 a8``; ``w4 a-`` where activations are not quantised."""
        return f"w{self.weights or '-'} a{self.activations or '-'}"


def widths(network: OnnxNetwork) -> dict[str, Widths]:
    """Layer -> widths, in execution order.

    Example:
        >>> import onnx
        >>> from dse.workload.onnx_import import read_onnx
        >>> small = onnx.parser.parse_model('''
        ... <ir_version: 10, opset_import: ["": 21]> net (float[1, 2] x) => (float[1, 2] logits)
        ... <int4[2, 2] words = {1, 2, 3, 4}, float s = {0.5}, uint8 z = {0}> {
        ...   q = QuantizeLinear(x, s, z)
        ...   a = DequantizeLinear(q, s, z)
        ...   w = DequantizeLinear(words, s)
        ...   logits = MatMul(a, w)
        ... }''')
        >>> onnx.save(small, "small.onnx")
        >>> widths(read_onnx("small.onnx"))
        {'logits': Widths(weights=4, activations=8)}
    """
    return {found.layer.name: _of_layer(found, network.steps) for found in network.layers}


def _of_layer(found: OnnxLayer, steps: Sequence[Step]) -> Widths:
    step, factors = found.step, found.factors
    if step.operator == "MatMulNBits":
        return Widths(int(step.attributes.get("bits", 4)), _width(factors.data, steps))
    second = factors.weights if found.layer.kind != "embedding" else None
    if found.layer.kind == "embedding":  # a lookup computes nothing: the words are those of the table
        bits = _width(factors.weights, steps)
        return Widths(bits, bits)
    result = Widths(_width(second, steps), _width(factors.data, steps))
    if step.operator == "DynamicQuantizeMatMul":  # it quantises its input itself
        return Widths(result.weights, 8)
    return result


def _width(value: Value | None, steps: Sequence[Step]) -> int | None:
    """Bits of the words that a tensor consists of: of its type, or of the quantiser that it came from."""
    while value is not None:
        if value.type in _BITS:
            return _words(value, steps)
        if value.producer is None:
            return None
        step = steps[value.producer]
        if step.operator == "DequantizeLinear":
            return _words(step.inputs[0], steps)
        if step.operator in ("Quant", "IntQuant"):
            bits = step.inputs[3].array if len(step.inputs) > 3 and step.inputs[3] is not None else None
            return None if bits is None else math.ceil(float(bits.max()))  # of channels, the widest
        if step.operator == "BipolarQuant":
            return 1
        if step.operator == "Concat":
            widths = [_width(part, steps) for part in step.inputs]
            known = [width for width in widths if width is not None]
            return max(known) if known and len(known) == len(widths) else None
        if step.operator not in _PASSING:
            return None
        value = step.inputs[0]
    return None


def _words(value: Value | None, steps: Sequence[Step]) -> int | None:
    """Bits of words: of their type, or of the range to which Brevitas clips words of less than 8 bits."""
    if value is None:
        return None
    bits = _BITS.get(value.type)
    step = None if value.producer is None else steps[value.producer]
    if bits is None or step is None or step.operator != "Clip" or len(step.inputs) < 3:
        return bits
    low, high = (None if v is None or v.array is None else int(v.array) for v in step.inputs[1:3])
    return bits if low is None or high is None else min(bits, max(1, (high - low).bit_length()))
