"""What an ONNX graph computes: its nodes in order, with the shape of every tensor, without computing the values.

Shapes are ONNX's own inference, node by node, from the shapes of the inputs. What decides shapes is computed: small
tensors that are the same for all inputs. So a file that takes its shapes apart and puts them together again has a shape
everywhere, loops have their number of steps, and branches are chosen. Weights are not read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from dse.core.errors import InputError
from dse.workload.onnx_shapes import SAME_SHAPE, Shape, Value, attributes_of, contributed, number, sequence

SMALL = 2**14
"""Values of a constant tensor that is computed, at most: sizes and positions, not weights."""

MOST_STEPS = 2**12
"""Steps of a loop that are followed, at most."""


@dataclass(frozen=True)
class Step:
    """A node that was executed.

    Attributes:
        node: as it stands in the file.
        domain: of its operator; empty for ONNX's own.
        module: the torch module in which it runs, if the file says so, and None else.
        call: how often this module had been called before.
        inputs: what it reads; None for those that are left out.
        outputs: what it computes.
    """

    node: Any
    domain: str
    module: str | None
    call: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]

    @property
    def operator(self) -> str:
        return str(self.node.op_type)

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    @property
    def name(self) -> str:
        """The node's name, or that of its first result."""
        return str(self.node.name or next((name for name in self.node.output if name), self.operator))


@dataclass
class Run:
    """Follows the nodes of a graph; `steps` grows.

    `computing` decides whether a node, by operator and domain, may have products: such nodes are not allowed where
    nobody knows whether or how often they run.
    """

    where: str
    folder: Path
    opsets: Mapping[str, int]
    computing: Any
    steps: list[Step] = field(default_factory=list)

    def graph(self, graph: Any, values: dict[str, Value]) -> list[Value]:
        """Executes all nodes of a graph, in which `values` are known; its outputs."""
        known = dict(values)
        for tensor in graph.initializer:
            known.setdefault(tensor.name, self._initializer(tensor))
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            known[name] = Value(tuple(sparse.dims), sparse.values.data_type, parameters=frozenset([name]))
        declared = {v.name: _declared(v.type) for v in (*graph.value_info, *graph.output)}
        for node in graph.node:
            inputs = tuple(self._known(known, name, node) if name else None for name in node.input)
            outputs = self._node(node, inputs, known)
            for name, value in zip(node.output, outputs, strict=False):
                if value.shape is None and value.items is None and declared.get(name) is not None:
                    value = replace(value, shape=declared[name])
                known[name] = value
        return [self._known(known, output.name, None) for output in graph.output]

    def _known(self, known: Mapping[str, Value], name: str, node: Any) -> Value:
        if name not in known:
            reader = f"node {node.name or node.op_type!r} reads" if node is not None else "has the output"
            raise InputError(self.where, f"{reader} {name!r}, which nothing computes", hint="the file is damaged")
        return known[name]

    def _initializer(self, tensor: Any) -> Value:
        shape = tuple(tensor.dims)
        array = None
        if int(np.prod(shape)) <= SMALL:
            try:
                array = numpy_helper.to_array(tensor, str(self.folder))
            except Exception:  # without the file of its data, the shape is enough for weights
                array = None
        return Value(shape, tensor.data_type, array, frozenset([tensor.name]))

    def _node(self, node: Any, inputs: tuple[Value | None, ...], known: dict[str, Value]) -> tuple[Value, ...]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == "" and node.op_type in ("If", "Loop", "Scan"):
            outputs = getattr(self, f"_{node.op_type.lower()}")(node, inputs, known)
            return tuple(outputs)
        given = [value for value in inputs if value is not None]
        data = any(value.data for value in given)
        parameters = frozenset() if data else frozenset().union(*(value.parameters for value in given))
        found = self._outputs(node, domain, inputs)
        if domain == "" and node.op_type in ("Shape", "Size"):
            data, parameters = data and found[0].array is None, frozenset()
        if domain == "" and node.op_type == "Constant":
            parameters = frozenset(node.output)
        number = len(self.steps)
        found = tuple(replace(v, data=data, parameters=parameters, producer=number) for v in found)
        module, call = module_of(node)
        self.steps.append(Step(node, domain, module, call, inputs, found))
        return found

    def _outputs(self, node: Any, domain: str, inputs: tuple[Value | None, ...]) -> tuple[Value, ...]:
        operator = node.op_type if domain == "" else f"{domain}.{node.op_type}"
        if operator == "Constant":
            return (_constant(node),)
        first = inputs[0] if inputs else None
        if operator == "Shape" and first is not None and first.shape is not None:
            a = attributes_of(node)
            sizes = first.shape[a.get("start", 0) : a.get("end", len(first.shape))]
            return (Value((len(sizes),), onnx.TensorProto.INT64, np.array(sizes, dtype=np.int64)),)
        if operator == "Size" and first is not None and first.shape is not None:
            return (Value((), onnx.TensorProto.INT64, np.array(np.prod(first.shape), dtype=np.int64)),)
        if operator in _SEQUENCES and (found := sequence(operator, node, inputs)) is not None:
            return found
        if operator == "Identity" and first is not None:
            return (first,)
        foreign = bool(domain) or operator in _OLD
        found = tuple(contributed(node, inputs)) if foreign else self._inferred(node, inputs)
        return self._computed(node, inputs, found)

    def _inferred(self, node: Any, inputs: tuple[Value | None, ...]) -> tuple[Value, ...]:
        """Shapes and types of the results by ONNX's own inference."""
        version = self.opsets.get("", 1)
        try:
            schema = defs.get_schema(node.op_type, version, "")
        except defs.SchemaError:
            return tuple(contributed(node, inputs))
        types, arrays = {}, {}
        for name, value in zip(node.input, inputs, strict=True):
            if value is None:
                continue
            types[name] = _type(value)
            if value.array is not None:
                arrays[name] = numpy_helper.from_array(np.asarray(value.array), name)
        opsets = [helper.make_opsetid(domain, v) for domain, v in self.opsets.items()]
        try:
            found = shape_inference.infer_node_outputs(schema, node, types, arrays, opset_imports=opsets)
        except Exception as e:  # of the C++ library, by many names
            ready = inputs and all(v is None or v.array is not None for v in inputs)  # the reference is not as strict
            if not ready and any(v is None or v.shape is not None for v in inputs):
                text = " ".join(str(e).split()).replace("[ShapeInferenceError] ", "")
                raise InputError(self.place(node), f"its shapes do not fit: {text}") from None
            found = {}
        results = [found.get(name) for name in node.output]
        values = [Value(None) if t is None else Value(_declared(t), t.tensor_type.elem_type) for t in results]
        if all(v.shape is None for v in values) and node.op_type in SAME_SHAPE:
            return tuple(contributed(node, inputs))
        return tuple(values)

    def _computed(self, node: Any, inputs: tuple[Value | None, ...], found: tuple[Value, ...]) -> tuple[Value, ...]:
        """The results with their values, if those are the same for all inputs and few."""
        ready = all(v is None or v.array is not None for v in inputs)
        few = all(v.shape is None or int(np.prod(v.shape)) <= SMALL for v in found)
        if not (ready and few and inputs) or node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
            return found
        feeds = {n: np.asarray(v.array) for n, v in zip(node.input, inputs, strict=True) if v is not None}
        alone = helper.make_graph(
            [node], "alone",
            [helper.make_value_info(n, _type(v)) for n, v in zip(node.input, inputs, strict=True) if v is not None],
            [helper.make_value_info(n, onnx.TypeProto()) for n in node.output if n],
        )  # fmt: skip
        opsets = [helper.make_opsetid(d, v) for d, v in self.opsets.items() if d in ("", "ai.onnx")]
        try:
            results = ReferenceEvaluator(helper.make_model(alone, opset_imports=opsets)).run(None, feeds)
        except Exception:  # what the reference lacks has a shape all the same
            return found
        arrays = iter(results)
        return tuple(
            replace(value, array=array, shape=tuple(array.shape))
            if name and isinstance(array := next(arrays), np.ndarray | np.generic)
            else value
            for name, value in zip(node.output, found, strict=True)
        )

    # Branches and loops: each execution of a body has steps of its own.

    def _if(self, node: Any, inputs: Sequence[Value], known: dict[str, Value]) -> list[Value]:
        branches = attributes_of(node)
        then, otherwise = branches["then_branch"], branches["else_branch"]
        chosen = inputs[0].array
        if chosen is not None:
            return self.graph(then if bool(np.asarray(chosen).reshape(-1)[0]) else otherwise, known)
        self._refuse(node, (then, otherwise), "nobody knows which branch runs")
        first, second = self.graph(then, known), self.graph(otherwise, known)
        return [
            replace(a, array=None, data=True, parameters=frozenset(), shape=a.shape if a.shape == b.shape else None)
            for a, b in zip(first, second, strict=True)
        ]

    def _loop(self, node: Any, inputs: Sequence[Value | None], known: dict[str, Value]) -> list[Value]:
        body = attributes_of(node)["body"]
        names = [v.name for v in body.input]
        states: list[Value] = [v for v in inputs[2:] if v is not None]
        most, going = inputs[0], inputs[1] if len(inputs) > 1 else None
        limit = None if most is None else number(most)
        counted = limit is not None and limit <= MOST_STEPS
        kept: list[list[Value]] = []
        goes = 1 if going is None else number(going)
        i = 0
        while goes and (most is None or counted) and i < MOST_STEPS and (limit is None or i < limit):
            first = Value((), onnx.TensorProto.INT64, np.array(i, dtype=np.int64))
            condition = going or Value((), onnx.TensorProto.BOOL, np.array(True))
            before = len(self.steps)
            results = self.graph(body, {**known, **dict(zip(names, [first, condition, *states], strict=True))})
            goes = number(results[0])
            if goes is None:
                self._refuse(node, (body,), "nobody knows how often its body runs")
                del self.steps[before:]
                return self._unknown(node, body)
            states = results[1 : 1 + len(states)]
            kept.append(results[1 + len(states) :])
            i += 1
        if goes is None or (most is not None and not counted) or (i >= MOST_STEPS and goes):
            self._refuse(node, (body,), "nobody knows how often its body runs")
            return self._unknown(node, body)
        scanned = len(body.output) - 1 - len(states)
        return [*states, *(self._stacked([row[j] for row in kept], 0) for j in range(scanned))]

    def _scan(self, node: Any, inputs: Sequence[Value | None], known: dict[str, Value]) -> list[Value]:
        attributes = attributes_of(node)
        body, n = attributes["body"], attributes["num_scan_inputs"]
        given = [v for v in inputs if v is not None]
        states, scanned = list(given[: len(given) - n]), given[len(given) - n :]
        axes = attributes.get("scan_input_axes", [0] * n)
        sizes = {v.shape[axis] for v, axis in zip(scanned, axes, strict=True) if v.shape is not None}
        if len(sizes) != 1 or next(iter(sizes)) > MOST_STEPS or self.opsets.get("", 1) < 9:
            self._refuse(node, (body,), "nobody knows how often its body runs")
            return self._unknown(node, body)
        parts = [
            replace(
                v, array=None, shape=tuple(s for k, s in enumerate(v.shape or ()) if k != axis % len(v.shape or ()))
            )
            for v, axis in zip(scanned, axes, strict=True)
        ]
        names, kept = [v.name for v in body.input], []
        for _ in range(next(iter(sizes))):
            results = self.graph(body, {**known, **dict(zip(names, [*states, *parts], strict=True))})
            states = results[: len(states)]
            kept.append(results[len(states) :])
        places = attributes.get("scan_output_axes", [0] * (len(body.output) - len(states)))
        return [*states, *(self._stacked([row[j] for row in kept], axis) for j, axis in enumerate(places))]

    def _stacked(self, values: list[Value], axis: int) -> Value:
        if not values or len({v.shape for v in values}) > 1 or values[0].shape is None:
            return Value(None, values[0].type if values else 0, data=True)
        shape = list(values[0].shape)
        shape.insert(axis % (len(shape) + 1), len(values))
        data = any(v.data for v in values)
        array = None
        if all(v.array is not None for v in values) and int(np.prod(shape)) <= SMALL:
            array = np.stack([np.asarray(v.array) for v in values], axis)
        parameters = frozenset() if data else frozenset().union(*(v.parameters for v in values))
        return Value(tuple(shape), values[0].type, array, parameters, data)

    def _unknown(self, node: Any, body: Any) -> list[Value]:
        """Results of a body that has no products, of which nobody knows how often it runs."""
        scalars = [v.type.tensor_type.elem_type for v in body.output]
        return [Value(None, scalars[-1] if scalars else 0, data=True) for _ in node.output]

    def _refuse(self, node: Any, graphs: Iterable[Any], problem: str) -> None:
        """An error that names a node which may have products, if there is one in a body that may run or not."""
        for inner in (n for graph in graphs for n in nodes_of(graph)):
            if self.computing(inner.op_type, "" if inner.domain == "ai.onnx" else inner.domain):
                raise InputError(
                    self.place(node),
                    f"{problem}, and it has {inner.op_type} {inner.name or inner.output[0]!r}",
                    hint="export the network for fixed sizes, or simplify the file",
                )

    def place(self, node: Any) -> str:
        """A node for people."""
        return f"{self.where}: {node.op_type} {(node.name or next(iter(node.output), ''))!r}"


def nodes_of(graph: Any) -> Iterator[Any]:
    """All nodes of a graph, those of its branches and loops included.

    Example:
        >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", [], [])
        >>> [node.op_type for node in nodes_of(graph)]
        ['Relu']
    """
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def module_of(node: Any) -> tuple[str | None, int]:
    """The torch module that a node belongs to, dotted, and which call of it; None where the file does not say.

    torch's exporters write it into the metadata of a node, or into its name.

    Example:
        >>> module_of(helper.make_node("Conv", ["x", "w"], ["y"], name="/layer1/layer1.0/conv1/Conv"))
        ('layer1.0.conv1', 0)
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                continue
            if isinstance(scopes, list) and scopes and all(isinstance(s, str) for s in scopes):
                module, _, call = (scopes[-2] if len(scopes) > 1 else "").partition("@")
                return module, int(call) if call.isdigit() else 0
    if not node.name.startswith("/"):
        return None, 0
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):  # of a child of nn.Sequential the name is whole
            path.pop()
        path.append(part)
    return ".".join(path), 0


_SEQUENCES = (
    "SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength",
    "SplitToSequence", "ConcatFromSequence",
)  # fmt: skip
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
_OLD = ("SimplifiedLayerNormalization",)  # onnxruntime writes it without a domain


def _constant(node: Any) -> Value:
    (attribute,) = [a for a in node.attribute if a.name.startswith(("value", "sparse_value"))]
    found = helper.get_attribute_value(attribute)
    if attribute.name == "sparse_value":
        return Value(tuple(found.dims), found.values.data_type)
    if attribute.name == "value":
        shape = tuple(found.dims)
        small = int(np.prod(shape)) <= SMALL and found.data_location != onnx.TensorProto.EXTERNAL
        return Value(shape, found.data_type, numpy_helper.to_array(found) if small else None)
    if attribute.name.startswith("value_string"):
        return Value((len(found),) if attribute.name.endswith("s") else (), onnx.TensorProto.STRING)
    array = np.array(found, dtype=np.int64 if "int" in attribute.name else np.float32)
    return Value(array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), array)


def _type(value: Value) -> Any:
    if value.items is not None:
        inner = value.items[0] if value.items else Value(None, onnx.TensorProto.FLOAT)
        return helper.make_sequence_type_proto(_type(inner))
    result = onnx.TypeProto()
    result.tensor_type.elem_type = value.type or onnx.TensorProto.FLOAT
    if value.shape is not None:
        result.tensor_type.shape.SetInParent()
        for size in value.shape:
            result.tensor_type.shape.dim.add().dim_value = size
    return result


def _declared(type_proto: Any) -> Shape | None:
    """The sizes of a type, if all are numbers."""
    if not type_proto.HasField("tensor_type") or not type_proto.tensor_type.HasField("shape"):
        return None
    dims = type_proto.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None
