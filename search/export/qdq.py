"""ONNX with the quantisation visible: QuantizeLinear and DequantizeLinear around all that was assigned."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.hardware.candidate import Candidate
from dse.workload.networks import reason
from search.export.flat_network import FlatNetwork, Inputs, call_of, shape_of
from search.export.integer_weights import InputWords, Term, as_words, operand_words
from search.layers.choice import Choice
from search.layers.foreign import move_hooks
from search.layers.fused import product
from search.layers.mixed_layer import MixedLayer, PlainLayer
from search.layers.mixed_product import Bilinear, MixedProduct
from search.layers.operators import View
from search.layers.stand_in import StandIn
from search.supernet import SearchableNetwork

OPSET = 21

ASSIGNMENT_KEY = "enos.assignment"
"""Metadata of the model: JSON of layer -> candidate."""

MACROS_KEY = "enos.macros"
"""Metadata of a model with layers in memory: JSON of module -> computing mode and macro. The file computes their sums
without conversions."""


class _Calls:
    """How often a module was called; not a list, for torch.export puts those back to what they were."""

    number = 0


class QdqLayer(StandIn, Choice):
    """A discretised layer in the operators of ONNX; it is for export only, for torch has no values for them.

    The input is clipped to its words' range, quantised to 8-bit words and dequantised. Each view of it (itself, its
    sign, its magnitude, its bit) is convolved with dequantised words, int8 or int16, and the results are added.
    """

    def __init__(self, mixed: MixedLayer, inputs: InputWords, terms: tuple[Term, ...]) -> None:
        super().__init__(mixed.candidates, mixed.like())
        self.layer, self.inputs, self.views = mixed.layer, inputs, tuple(term.view for term in terms)
        self.calls = _Calls()
        self.transposed = isinstance(self.layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
        # Where a scale for each output channel goes along an axis of the layer's own weights, they are stored so.
        self.swapped = self.transposed and self.layer.groups == 1
        for i, term in enumerate(terms):
            words = term.words.transpose(0, 1).contiguous() if self.swapped else term.words
            self.register_buffer(f"words{i}", words)
            self.register_buffer(f"scale{i}", term.scale)

    def like(self) -> Tensor:
        return self.layer.weight

    def single(self, candidate: Candidate) -> QdqLayer:
        self.candidates.index(candidate)
        return self

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        self.calls.number += 1
        words = _words(x, self.inputs)
        total: Tensor | None = None
        for i, view in enumerate(self.views):
            axis = 1 if self.swapped else 0
            weight = _dequantise(self.get_buffer(f"words{i}"), self.get_buffer(f"scale{i}"), axis=axis)
            part = self._product(self._view(view, x, words), weight, None, output_size)
            total = part if total is None else total + part
        assert total is not None
        bias = self.layer.bias
        if bias is None:
            return total
        # An operation of its own: onnxruntime would round the bias of a product of words to a multiple of their steps.
        return total + bias.reshape(
            -1, *[1] * (0 if isinstance(self.layer, nn.Linear) else self.layer.weight.dim() - 2)
        )

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, output_size: Sequence[int] | None) -> Tensor:
        if not self.transposed:
            return product(self.layer, x, weight, bias)
        of_layer: Any = self.layer
        added = of_layer.output_padding
        if output_size is not None:
            geometry = (list(values) for values in (of_layer.stride, of_layer.padding, of_layer.kernel_size))
            axes = len(of_layer.kernel_size)
            added = of_layer._output_padding(x, list(output_size), *geometry, axes, list(of_layer.dilation))
        if not self.swapped:  # (out, in / groups, ...) to (in, out / groups, ...), within each group
            groups = of_layer.groups
            first, second, *kernel = weight.shape
            weight = weight.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
            weight = weight.reshape(groups * second, first // groups, *kernel)
        compute: Any = functional.conv_transpose1d if weight.dim() == 3 else functional.conv_transpose2d
        y: Tensor = compute(x, weight, bias, of_layer.stride, of_layer.padding, added, of_layer.groups,
                            of_layer.dilation)  # fmt: skip
        return y

    def _view(self, view: View, x: Tensor, words: Tensor) -> Tensor:
        """What a term convolves, of the layer's input `x` and its words, always dequantised integers.

        For onnxruntime may compute a product of real numbers and dequantised weights in 8 bits of its own.
        """
        one = torch.ones(())
        if view == "binary":  # words of one bit: of what has a sign they are not multiples of a step
            positive = (x >= 0) if self.inputs.low < 0 else (words > 0)
            return _quantised(torch.where(positive, one, -one), InputWords(1.0, -1, 1))
        if view == "sign":
            return _dequantise(words.sign(), one)
        return _dequantise(words if view == "value" else words.abs(), torch.tensor(self.inputs.step))


class QdqProduct(MixedProduct):
    """A product of two activations in the operators of ONNX: both operands are quantised and dequantised before it.

    For export only, as `QdqLayer`.
    """

    def __init__(self, mixed: MixedProduct, first: InputWords, second: InputWords) -> None:
        super().__init__(mixed.candidates, mixed.options, mixed.like())
        self.operands = (first, second)
        self.calls = _Calls()
        self.factor = 1.0 if mixed.log_scale is None else float(mixed.log_scale.detach().exp())

    def forward(self, product: Bilinear, first: Tensor, second: Tensor) -> Tensor:
        self.calls.number += 1
        (candidate,) = self.candidates
        widths = (candidate.act_bits, candidate.weight_bits)
        y = product(*map(_operand, (first, second), self.operands, widths))
        return y if self.factor == 1 else y * self.factor


def _operand(x: Tensor, words: InputWords, bits: int) -> Tensor:
    if bits == 1 and words.low < 0:  # as `search.layers.mixed_product.words_of`
        step = torch.tensor(words.step)
        return _quantised(torch.where(x >= 0, step, -step), words)
    return _quantised(x, words)


def _words(x: Tensor, words: InputWords) -> Tensor:
    """The words of `x`, int8 or uint8."""
    step, low, high = words.step, words.low, words.high
    dtype = torch.int8 if low < 0 else torch.uint8
    if (low, high) != (0, 255):  # else the type itself clips
        x = x.clamp(low * step, high * step)
    scale, zero = torch.tensor(step), torch.tensor(0, dtype=dtype)
    return torch.onnx.ops.symbolic("QuantizeLinear", [x, scale, zero], dtype=dtype, shape=x.shape, version=OPSET)


def _quantised(x: Tensor, words: InputWords) -> Tensor:
    return _dequantise(_words(x, words), torch.tensor(words.step))


def _dequantise(words: Tensor, scale: Tensor, axis: int | None = None) -> Tensor:
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", [words, scale], attributes, dtype=torch.float32, shape=words.shape, version=OPSET
    )


def quantised_layers(network: nn.Module) -> nn.Module:
    """A copy of a discretised network, in evaluation mode on the CPU, in the operators of ONNX.

    It has a `QdqLayer` for every mixed layer and a `QdqProduct` for every mixed product.

    Raises:
        InputError: see `search.export.integer_weights.as_words`.
    """
    result = copy.deepcopy(network).cpu().eval()
    _replace(result, _forms(result))
    return result


def _forms(network: nn.Module) -> dict[int, nn.Module]:
    """The forms for ONNX of the layers and products of a network, by the id of the module."""
    found: dict[int, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, PlainLayer):
            found[id(module)] = module.layer
        elif isinstance(module, MixedLayer | MixedProduct):
            dtype = module.like().dtype
            if dtype != torch.float32:
                raise InputError(f"layer {name!r}", f"is of {dtype}", "torch.float32", hint="call .float() first")
            if isinstance(module, MixedLayer):
                found[id(module)] = QdqLayer(module, *as_words(module, f"layer {name!r}"))
            else:
                found[id(module)] = QdqProduct(module, *operand_words(module, f"layer {name!r}"))
    return found


def _replace(network: nn.Module, forms: Mapping[int, nn.Module]) -> None:
    """Puts each form in the place of its module, under all the names that it has."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in forms:
            parent, _, child = name.rpartition(".")
            form = forms[id(module)]
            setattr(network.get_submodule(parent), child, form)
            move_hooks(module, form)
    network.eval()


def write_onnx(network: nn.Module, assignment: Mapping[str, str], inputs: Inputs, path: Path | str) -> None:
    """Writes a discretised network as ONNX, with int8 weights and quantisers around every layer and product.

    docs/data.md describes the file. A shape stands for one tensor of float32: the file's input is called ``images``,
    its output ``scores``. Other inputs have the names of the arguments, outputs those of the result's keys or fields
    (``output`` for one tensor, ``output.0`` for the first of a tuple). Arguments that are no tensors become constants.

    The batch, which is the first axis of the first tensor and of those of the same length, is free where the network
    can be traced so; else that of the tensors of another length; else a warning says why not, and all sizes are those
    of `inputs`.

    Args:
        network: what `SearchableNetwork.discretise` made, after it has seen data; a `SearchableNetwork` is discretised
            with `assignment`.
        assignment: layer -> candidate, kept in the file's metadata.
        inputs: what the network is called with: the shape of one tensor with its batch, a tensor, a tuple of arguments,
            a dict of keyword arguments, or a pair of a tuple and a dict.
        path: of the file.

    Raises:
        InputError: a network that is not discretised or cannot be traced; onnx or onnxscript is not installed; the file
            cannot be written; see also `search.export.integer_weights.as_words`.

    Example:
        >>> from dse import Network, export_network, map_workload
        >>> from search import searchable, write_onnx
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> model = searchable(network, map_workload(export_network(Network("small", network, (1, 1, 4, 4)))))
        >>> fixed = model.discretise({"1": "T4"})
        >>> _ = fixed(torch.randn(8, 1, 4, 4))  # the range of the input decides its quantiser
        >>> try:
        ...     write_onnx(fixed, {"1": "T4"}, (1, 1, 4, 4), "small.onnx")
        ... except InputError as e:  # without pip install 'enos-dse[onnx]'
        ...     assert e.where == "ONNX export"
    """
    if not any(isinstance(module, MixedLayer | MixedProduct) for module in network.modules()):
        raise InputError("network", "has no layer with a candidate", "what SearchableNetwork.discretise returns")
    try:
        import onnx  # noqa: F401 (what torch.onnx needs, asked for before any work)
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise InputError("ONNX export", f"needs the package {e.name}", hint="pip install 'enos-dse[onnx]'") from None
    if isinstance(network, SearchableNetwork):
        network = network.discretise(assignment)
    layers = copy.deepcopy(network).cpu().eval()
    macros = _macros(layers)
    forms = _forms(layers)  # before the network runs, so that no quantiser begins with the example
    flat = FlatNetwork(layers, call_of(inputs))
    with _quiet():
        program, why = _exported(flat, forms)
    if why is not None:
        warnings.warn(f"the ONNX file has a fixed batch, that of the inputs: {why}", stacklevel=2)
    model = program.model
    model.metadata_props[ASSIGNMENT_KEY] = json.dumps(dict(assignment))
    if macros:
        model.metadata_props[MACROS_KEY] = json.dumps(macros)
    shaped = shape_of(inputs) is not None
    outputs = ["scores"] if shaped and flat.outputs == ["output"] else flat.outputs
    _rename(model, ["images"] if shaped else flat.inputs, outputs, _names_of_weights(layers))
    _rescope(model, {name for name, m in layers.named_modules() if isinstance(m, QdqProduct)})
    with system_errors(Path(path)):
        program.save(path)


def _macros(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Mode and macro of each layer in memory."""
    layers = {n: m.candidates[0] for n, m in network.named_modules() if isinstance(m, MixedLayer)}
    return {n: {"mode": c.mode, **asdict(c.macro)} for n, c in layers.items() if c.macro is not None}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says about its own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _calls(flat: FlatNetwork) -> dict[str, int]:
    """How often each layer and product with a candidate is called with the tensors that were given.

    Raises:
        InputError: the network does not run with them.
    """
    chosen = {n: m for n, m in flat.network.named_modules() if isinstance(m, MixedLayer | MixedProduct)}
    calls = dict.fromkeys((name for name, m in chosen.items() if not isinstance(m, PlainLayer)), 0)

    def count(name: str) -> None:
        calls[name] += 1

    handles = [
        chosen[name].register_forward_pre_hook(functools.partial(lambda name, *_: count(name), name)) for name in calls
    ]
    try:
        flat(*flat.tensors)
    except InputError:
        raise
    except Exception as e:  # whatever a user's network does
        raise InputError("network", f"fails with these inputs: {reason(e)}") from e
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _examples(flat: FlatNetwork) -> Iterator[tuple[tuple[Tensor, ...], list[int]]]:
    """Tensors to trace the network with, and those whose first axis may be the batch.

    Each length of a first axis is one try, in the order of the arguments. A batch of one is repeated, because a trace
    takes an axis of one for an axis that is never longer.
    """
    given = flat.tensors
    for size in dict.fromkeys(len(t) for t in given if t.dim()):
        batched = [i for i, t in enumerate(given) if t.dim() and len(t) == size]
        if size == 1:
            yield tuple(torch.cat([t, t]) if i in batched else t for i, t in enumerate(given)), batched
        else:
            yield given, batched


def _exported(flat: FlatNetwork, forms: Mapping[int, nn.Module]) -> tuple[Any, str | None]:
    """The ONNX program with a free batch, or with a fixed one and why it is; `flat` has the forms afterwards.

    Raises:
        InputError: the network cannot be traced, or ONNX has no form for one of its operations.
    """
    calls = _calls(flat)
    examples = []
    why = None
    for example, batched in _examples(flat):
        try:
            if example is not flat.tensors:
                flat(*example)
            examples.append((example, batched))
        except Exception as e:  # two images may be no input of this network
            why = why or f"with twice as many the network fails: {reason(e)}"
    _replace(flat.network, forms)
    for example, batched in examples:
        try:
            return _program(flat, example, batched, calls), None
        except InputError:
            raise
        except Exception as e:  # many types, of torch.export and torch.onnx
            why = why or _cause(e)
    try:
        return _program(flat, flat.tensors, (), calls), why
    except InputError:
        raise
    except Exception as e:
        raise InputError("ONNX export", f"cannot trace the network: {_cause(e)}") from e


def _program(flat: FlatNetwork, example: tuple[Tensor, ...], batched: Sequence[int], calls: Mapping[str, int]) -> Any:
    forms = {n: m for n, m in flat.network.named_modules() if isinstance(m, QdqLayer | QdqProduct)}
    for form in forms.values():
        form.calls.number = 0
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if i in batched else {} for i in range(len(example))) if batched else None
    traced = torch.export.export(flat, example, dynamic_shapes=None if shapes is None else (shapes,), strict=False)
    for name, form in forms.items():
        if form.calls.number != calls[name]:
            problem = f"is computed {calls[name]} times by the network, but {form.calls.number} times in its trace"
            raise InputError(f"layer {name!r}", problem)
    program = torch.onnx.export(traced, dynamo=True, opset_version=OPSET, verbose=False,
                                dynamic_shapes=None if shapes is None else (shapes,))  # fmt: skip
    assert program is not None
    return program


def _cause(error: BaseException) -> str:
    """What an exporter's error says; torch.onnx puts what happened below what it was doing."""
    while error.__cause__ is not None:
        error = error.__cause__
    if "specialized it to be a constant" in str(error):
        return "its code makes a number of the batch, as len(x) does; x.shape[0] does not"
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Constraints violated"):  # the line below says which
        return lines[1]
    return reason(error)


def _names_of_weights(network: nn.Module) -> dict[str, str]:
    """The names of parameters and buffers in a `FlatNetwork`, and what the file calls them.

    They are torch's names, of several the first. Words and bias of a layer are called as the weights of the plain one.
    """
    tensors = (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    found = {f"network.{name}": first.setdefault(id(tensor), name) for name, tensor in tensors}
    layers = {name for name, m in network.named_modules() if isinstance(m, QdqLayer)}
    for key, name in found.items():
        owner, _, attribute = name.rpartition(".")
        if owner in layers:
            term = attribute.removeprefix("words").removeprefix("scale")
            kind = "weight_scale" if attribute.startswith("scale") else "weight"
            found[key] = f"{owner}.{kind}" + ("" if term == "0" else f"_{term}")
        elif owner.removesuffix(".layer") in layers:
            found[key] = f"{owner.removesuffix('.layer')}.{attribute}"
    return found


def _rescope(model: Any, products: Collection[str]) -> None:
    """Makes the modules that the file names for each node those of the network: a product is its owner's.

    Also removes the lines of code that each node came from, which name folders of the machine.
    """
    for node in model.graph.all_nodes():
        data = node.metadata_props
        for key in ("pkg.torch.onnx.stack_trace", "namespace"):
            data.pop(key, None)
        scopes, classes = (data.get(f"pkg.torch.onnx.{key}") for key in ("name_scopes", "class_hierarchy"))
        if scopes is None or classes is None:
            continue
        kept = []
        for scope, kind in zip(ast.literal_eval(scopes), ast.literal_eval(classes), strict=True):
            own, _, call = scope.partition("@")
            name = "" if own == "network" else own.removeprefix("network.") + (f"@{call}" if call else "")
            if own and name.partition("@")[0] not in products:
                kept.append((name, kind))
        data["pkg.torch.onnx.name_scopes"] = repr([name for name, _ in kept])
        data["pkg.torch.onnx.class_hierarchy"] = repr([kind for _, kind in kept])


def _rename(model: Any, inputs: Sequence[str], outputs: Sequence[str], weights: Mapping[str, str]) -> None:
    """Gives the values of an ONNX program the names of the network's inputs, outputs, and weights."""
    graph = model.graph
    named = {id(v): n for v, n in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True)}
    taken = set(inputs)
    for value in graph.outputs:
        while named[id(value)] in taken:
            named[id(value)] += "_out"
        taken.add(named[id(value)])
    for value in graph.initializers.values():
        name = weights.get(value.name, value.name)
        if name != value.name and name not in taken:
            named[id(value)] = name
            taken.add(name)
    of_nodes = [value for node in model.graph.all_nodes() for value in node.outputs]
    values = {id(v): v for v in (*graph.inputs, *graph.initializers.values(), *of_nodes)}
    for i, (key, value) in enumerate(values.items()):  # out of the way first: no name is used twice at any time
        if key in named or value.name in taken:
            value.name = f"{value.name}:{i}"
    for key, name in named.items():
        values[key].name = name
