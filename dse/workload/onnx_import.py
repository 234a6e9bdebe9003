"""An ONNX file as a workload: every product that its nodes compute is a layer."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.core.documents import readable
from dse.core.errors import InputError, did_you_mean
from dse.workload.layers import Layer, Workload
from dse.workload.names import listed, unused

# onnx is imported inside the functions: it is an optional dependency.
if TYPE_CHECKING:
    from dse.workload.onnx_products import Factors
    from dse.workload.onnx_run import Step


@dataclass(frozen=True)
class OnnxLayer:
    """A layer of an ONNX file, with the node that computes it and its factors."""

    layer: Layer
    step: Step
    factors: Factors


@dataclass(frozen=True)
class OnnxNetwork:
    """What was read from a file: the layers in execution order, every node that ran, and the model itself."""

    name: str
    layers: tuple[OnnxLayer, ...]
    steps: tuple[Step, ...]
    input_shape: tuple[int, ...]
    model: Any

    @property
    def workload(self) -> Workload:
        """The layers, and what was passed over: operator -> reason and places."""
        return Workload(self.name, tuple(found.layer for found in self.layers), self.input_shape, _passed_over(self))


def import_onnx(path: Path | str, inputs: Sequence[str] = ()) -> Workload:
    """The layers of an ONNX file that the MAC array computes, in execution order.

    Shapes follow from those of the inputs, node by node; weights are not read, also not from files of external data.
    The count of each layer is compared with a second formula, from the sizes of the node's tensors.

    A layer has the name of its weights, without ``.weight``, if that is a name as torch writes it; else that of the
    torch module which the file names; else the node's. Products of two activations are named after their module
    (``attention.matmul_1``). What has the same name again is ``name#2``. A layer whose inputs cannot be negative by the
    operators before it is not `signed`; in a file with branches or loops all are.

    Args:
        path: of the file.
        inputs: shapes of inputs with free axes, ``NAME=1,3,224,224``; without a name, in the order of the file.

    Raises:
        InputError: the package onnx is missing; no ONNX file; an input has a free axis that `inputs` does not fix; an
            operator that may have products is unknown here; a shape depends on the values of inputs; no layer.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> images = torch.zeros(1, 1, 8, 8)
        >>> try:
        ...     _ = torch.onnx.export(network.eval(), (images,), "small.onnx", dynamo=True, verbose=False)
        ...     layers = import_onnx("small.onnx").layers
        ... except ImportError:  # without pip install 'enos-dse[onnx]'
        ...     layers = ()
        >>> all(layer.macs == 1296 for layer in layers)
        True
    """
    return read_onnx(path, inputs).workload


def read_onnx(path: Path | str, inputs: Sequence[str] = ()) -> OnnxNetwork:
    """The layers of an ONNX file with their nodes; see `import_onnx`.

    Example:
        >>> try:
        ...     network = read_onnx("missing.onnx")
        ... except InputError as e:
        ...     assert e.where == "missing.onnx"
    """
    path = Path(path)
    model = load_onnx(path)
    from dse.workload.onnx_products import computes, factors
    from dse.workload.onnx_run import Run
    from dse.workload.onnx_shapes import Value
    from dse.workload.onnx_signs import is_never_negative, never_negative_steps

    model = _inlined(model, path)
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    run = Run(str(path), path.parent, opsets, computes)
    own = {t.name for t in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}
    entries = [entry for entry in model.graph.input if entry.name not in own]
    shapes = _input_shapes(entries, inputs, path)
    values = {entry.name: Value(shapes[entry.name], entry.type.tensor_type.elem_type, data=True) for entry in entries}
    run.graph(model.graph, values)
    names: set[str] = set()
    namer = _Namer(run.steps, model.producer_name)
    proved = never_negative_steps(run.steps, [node.op_type for node in model.graph.node])
    layers: list[OnnxLayer] = []
    of_names: list[str] = []
    signed: set[str] = set()  # all calls of a layer have one form of words
    for i, step in enumerate(run.steps):
        place = run.place(step.node)
        found = factors(step, run.steps, place)
        if all(value is None or not value.data for value in step.inputs):
            continue  # the same for all inputs: it prepares weights
        for name, one in namer.named(i, found):
            unique = unused(name, names)
            names.add(unique)
            layer = Layer(unique, one.product.kind, one.product.instance, image=one.product.image)
            _check(layer, one, place)
            layers.append(OnnxLayer(layer, step, one))
            of_names.append(name)
            if not is_never_negative(one.data, proved):
                signed.add(name)
    if not layers:
        raise InputError(path, "has no layer for the MAC array", hint="a layer multiplies by weights or activations")
    layers = [
        replace(found, layer=replace(found.layer, signed=name in signed))
        for name, found in zip(of_names, layers, strict=True)
    ]
    first = next(iter(shapes.values()), ())
    return OnnxNetwork(path.stem, tuple(layers), tuple(run.steps), first, model)


_LATEST = 2**15
"""Versions of operator sets beyond this are damage."""


def load_onnx(path: Path) -> Any:
    """The model of a file, without the values of weights in other files.

    Raises:
        InputError: the package onnx is missing, or the file is none of its.

    Example:
        >>> try:
        ...     model = load_onnx(Path("missing.onnx"))
        ... except InputError as e:
        ...     assert e.where == "missing.onnx"
    """
    try:
        import onnx
    except ImportError:
        raise InputError(path, "needs the package onnx to be read", hint="pip install 'enos-dse[onnx]'") from None
    if not readable(path, Path.exists) or path.is_dir():
        raise InputError(path, "no such ONNX file")
    try:
        model = readable(path, lambda file: onnx.load(file, load_external_data=False))
    except InputError:
        raise
    except Exception:  # of protobuf and of onnx, by many names
        raise InputError(path, "is no ONNX file") from None
    if wrong := [o.version for o in model.opset_import if not 1 <= o.version <= _LATEST]:
        raise InputError(path, f"declares version {wrong[0]} of its operators", f"1 to {_LATEST}")
    if not model.graph.node or not model.opset_import:
        raise InputError(path, "is no ONNX file of a network: it has no nodes")
    return model


def _inlined(model: Any, path: Path) -> Any:
    """The model with its own functions taken apart."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as e:  # of the C++ library, by many names
        raise InputError(path, f"its functions cannot be taken apart: {' '.join(str(e).split())}") from None


def _input_shapes(entries: Sequence[Any], texts: Sequence[str], path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each input: the file's, with free axes as given."""
    given = _given([entry.name for entry in entries], texts)
    sizes: dict[str, int] = {}  # of axes by name: inputs may share one
    shapes: dict[str, tuple[int, ...]] = {}
    missing: list[str] = []
    for entry in sorted(entries, key=lambda e: e.name not in given):
        kind = entry.type.tensor_type
        if not entry.type.HasField("tensor_type"):
            raise InputError(f"{path}: input {entry.name!r}", "is no tensor")
        if not kind.HasField("shape"):
            if entry.name not in given:
                missing.append(f"--input {entry.name}=SHAPE")
            shapes[entry.name] = given.get(entry.name, ())
            continue
        axes = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
        if entry.name in given:
            shape = given[entry.name]
            fits = len(shape) == len(axes) and all(
                a == n or isinstance(a, str) for a, n in zip(axes, shape, strict=True)
            )
            if not fits:
                raise InputError(f"--input {entry.name}", f"found {_text(shape)}", f"what fits ({_text(axes)})")
            sizes.update((a, n) for a, n in zip(axes, shape, strict=True) if isinstance(a, str) and a != "?")
        else:
            shape = tuple(sizes.get(a, 0) if isinstance(a, str) else a for a in axes)
            if any(isinstance(a, str) and a not in sizes for a in axes):
                missing.append(f"--input {entry.name}={_text(axes)}")
        shapes[entry.name] = shape
    if missing:
        hint = f"give numbers for the names: {' '.join(missing)}"
        raise InputError(path, "has inputs with free axes", hint=hint)
    return {entry.name: shapes[entry.name] for entry in entries}


def _text(axes: Sequence[object]) -> str:
    return ",".join(map(str, axes))


def _given(names: Sequence[str], texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name -> shape as on the command line; the type of the elements is the file's."""
    from dse.workload.inputs import check_shape

    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, shape_text = text.rpartition("=")
        if not equals:
            name = next((n for n in names if n not in found), "")
            if not name:
                raise InputError(f"--input {text}", f"is one too many: the file has {len(names)} inputs", names)
        if name not in names:
            raise InputError(f"--input {text}", f"no input is named {name!r}{did_you_mean(name, names)}", names)
        if name in found:
            raise InputError("--input", f"{name!r} is given twice")
        try:
            shape = tuple(int(part) for part in shape_text.split(","))
        except ValueError:
            allowed = "[NAME=]SHAPE, such as 1,3,224,224; types are the file's"
            raise InputError(f"--input {name}", f"found the shape {shape_text!r}", allowed) from None
        check_shape(shape, f"--input {name}")
        found[name] = shape
    return found


def _check(layer: Layer, found: Factors, place: str) -> None:
    """Compares the count of a layer with that from the sizes of the tensors."""
    if min(layer.instance.values()) < 1:
        raise InputError(place, f"has a size of 0: {layer.instance}", hint="give it inputs that reach this node")
    if layer.macs != found.macs:
        problem = f"has {found.macs:,} multiply-accumulates by its tensors, of which {layer.macs:,} are read"
        raise InputError(place, problem, hint="this form is unknown here")


class _Namer:
    """Names layers, in order."""

    def __init__(self, steps: Sequence[Step], producer: str) -> None:
        self._steps, self._torch = steps, producer == "pytorch"
        self._numbers: dict[tuple[str, int, str], int] = {}
        self._recurrent: dict[str, int] = {}
        self._readers: dict[int, list[int]] = {}
        for i, step in enumerate(steps):
            for value in step.inputs:
                if value is not None and value.producer is not None:
                    self._readers.setdefault(value.producer, []).append(i)

    def named(self, i: int, found: Sequence[Factors]) -> Iterator[tuple[str, Factors]]:
        """The products of a step with the names of their layers, which may be equal."""
        step = self._steps[i]
        layer = self._recurrent_layer(step) if any(one.suffix for one in found) else ""
        for one in found:
            if one.suffix:
                yield self._of_recurrent(step, one, layer), one
            elif one.product.weights is not None:
                yield self._of_weights(i, one.product.weights.parameters), one
            else:
                yield self._of_activations(step, one.product.label, len(found)), one

    def _of_weights(self, i: int, parameters: Collection[str]) -> str:
        step = self._steps[i]
        for name in sorted(parameters, key=len):
            if (owner := torch_owner(name)) is not None:
                return owner
        if (bias := self._bias(i)) is not None:
            return bias
        if step.module:
            return step.module
        if (self._torch and step.module is None) or _NUMBERED.fullmatch(step.name):
            for name in sorted(parameters, key=lambda n: (len(n), n)):
                if not _made_up(name):
                    return _WEIGHT.sub("", name)
        return step.name

    def _bias(self, i: int) -> str | None:
        """The owner of the bias: exporters rename weights that they transpose, and leave its name."""
        step = self._steps[i]
        values = [v for v in step.inputs if v is not None]
        readers = self._readers.get(i, [])
        if len(readers) == 1 and self._steps[readers[0]].operator == "Add":
            values += [v for v in self._steps[readers[0]].inputs if v is not None]
        for name in (n for v in values for n in sorted(v.parameters)):
            owner, _, attribute = name.rpartition(".")
            if _TORCH_NAME.fullmatch(name) and (attribute == "bias" or attribute.endswith("_bias")):
                if attribute == "bias":
                    return owner or None
                return f"{owner}.{attribute.removesuffix('_bias')}".strip(".")
        return None

    def _of_activations(self, step: Step, label: str, several: int) -> str:
        if step.module is None and step.node.name:
            key = (step.name, 0, label)
            if several == 1:
                return step.name
        else:
            key = (step.module or "", step.call, label)
        self._numbers[key] = self._numbers.get(key, 0) + 1
        return f"{key[0]}.{label}_{self._numbers[key]}".lstrip(".")

    def _of_recurrent(self, step: Step, one: Factors, layer: str) -> str:
        if step.module is None:
            return f"{step.name}.{one.suffix}"
        part, _, reverse = one.suffix.partition("_reverse")
        end = "_reverse" if reverse or one.suffix.endswith("_reverse") else ""
        return f"{step.module}.{part}_l{layer}{end}".lstrip(".")

    def _recurrent_layer(self, step: Step) -> str:
        """The number of a torch layer: each has a node of its own."""
        key = step.module or ""
        self._recurrent[key] = self._recurrent.get(key, -1) + 1
        return str(self._recurrent[key])


_TORCH_NAME = re.compile(r"(?:[A-Za-z_]\w*|\d+)(?:\.\w+)*")
_NUMBERED = re.compile(r"[A-Za-z]*_?\d+")  # a node of which the name says nothing
_WEIGHT = re.compile(r"(?<=.)[._/]?(weights?|w|W|kernel)(_\d+)?(:0)?$")
_QUANTISED = re.compile(r"(_quantized|_scale|_zero_point|_DequantizeLinear_Output|_Q4|_q4|\.qweight)$")


def torch_owner(name: str) -> str | None:
    """The layer that a torch parameter is the weight of, as `dse.workload.export` names it; None for other names.

    Example:
        >>> torch_owner("layer1.0.conv1.weight"), torch_owner("attn.in_proj_weight"), torch_owner("onnx::MatMul_7")
        ('layer1.0.conv1', 'attn.in_proj', None)
    """
    name = _QUANTISED.sub("", name)
    name = re.sub(r"(^|\.)parametrizations\.", r"\1", name)
    name = re.sub(r"\.original[01]?$", "", name)
    if not _TORCH_NAME.fullmatch(name):
        return None
    owner, _, attribute = name.rpartition(".")
    if attribute in ("weight", "weight_orig", "weight_g", "weight_v"):
        return owner or None
    if "." in name and attribute.endswith("_weight"):
        return f"{owner}.{attribute.removesuffix('_weight')}"
    return None


def _made_up(name: str) -> bool:
    """Whether an exporter numbered it."""
    return "::" in name or re.fullmatch(r"(val_|_val_|t_|const_|[A-Za-z])?\d+", name) is not None


_MOVES = frozenset((
    "Cast", "CastLike", "Constant", "ConstantOfShape", "DequantizeLinear", "Dropout", "Expand", "Flatten",
    "Identity", "Quant", "QuantizeLinear", "Reshape", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "Shape", "Size", "Slice", "Split", "SplitToSequence",
    "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
_REASONS = ("has no weights", "prepares parameters", "no multiply-accumulate over its parameters")


def _passed_over(network: OnnxNetwork) -> dict[str, str]:
    """Operator -> why its nodes are no layers, and where."""
    computing = {id(found.step) for found in network.layers}
    reasons: dict[str, int] = {}
    places: dict[str, list[str]] = {}
    for step in network.steps:
        values = [value for value in step.inputs if value is not None]
        if id(step) in computing or step.operator in _MOVES or not any(v.data or v.parameters for v in values):
            continue
        data = any(value.data for value in values)
        if not data and not any(math.prod(v.shape or ()) > 1 for v in values):
            continue  # arithmetic of sizes
        reason = 1 if not data else 2 if any(v.parameters and not v.data for v in values) else 0
        reasons[step.operator] = max(reasons.get(step.operator, 0), reason)
        places.setdefault(step.operator, []).append(step.module or step.name)
    return {kind: f"{_REASONS[reasons[kind]]} ({listed(names)})" for kind, names in places.items()}
