"""ONNX with the quantisation visible: QuantizeLinear and DequantizeLinear around every layer that was assigned."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.core.files import system_errors
from search.export.integer_weights import InputWords, Term, as_words
from search.layers.fused import Layer, product
from search.layers.mixed_layer import MixedLayer, PlainLayer
from search.layers.operators import View

OPSET = 21

ASSIGNMENT_KEY = "enos.assignment"
"""Metadata of the model: JSON of layer -> candidate."""


class QdqLayer(nn.Module):
    """A discretised layer in the operators of ONNX; it is for export only, for torch has no values for them.

    The input is clipped to its words' range, quantised to 8-bit words and dequantised. Each view of it (itself, its
    sign, its magnitude, its bit) is convolved with dequantised words, int8 or int16, and the results are added.
    """

    def __init__(self, layer: Layer, inputs: InputWords, terms: tuple[Term, ...]) -> None:
        super().__init__()
        self.layer, self.inputs, self.views = layer, inputs, tuple(term.view for term in terms)
        for i, term in enumerate(terms):
            self.register_buffer(f"words{i}", term.words)
            self.register_buffer(f"scale{i}", term.scale)

    def forward(self, x: Tensor) -> Tensor:
        quantised = self._quantised(x)
        total: Tensor | None = None
        for i, view in enumerate(self.views):
            weight = _dequantise(self.get_buffer(f"words{i}"), self.get_buffer(f"scale{i}"), axis=0)
            part = product(self.layer, self._view(view, x, quantised), weight, self.layer.bias if i == 0 else None)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _view(self, view: View, x: Tensor, quantised: Tensor) -> Tensor:
        """What a term convolves, of the layer's input `x` and its quantised form."""
        if view == "binary":  # words of one bit: of what has a sign they are not multiples of a step
            one = torch.ones(())
            return torch.where((x >= 0) if self.inputs.low < 0 else (quantised > 0), one, -one)
        return {"value": quantised, "sign": quantised.sign(), "magnitude": quantised.abs()}[view]

    def _quantised(self, x: Tensor) -> Tensor:
        step, low, high = self.inputs.step, self.inputs.low, self.inputs.high
        dtype = torch.int8 if low < 0 else torch.uint8
        if (low, high) != (0, 255):  # else the type itself clips
            x = x.clamp(low * step, high * step)
        scale, zero = torch.tensor(step), torch.tensor(0, dtype=dtype)
        words = torch.onnx.ops.symbolic("QuantizeLinear", [x, scale, zero], dtype=dtype, shape=x.shape, version=OPSET)
        return _dequantise(words, scale)


def _dequantise(words: Tensor, scale: Tensor, axis: int | None = None) -> Tensor:
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", [words, scale], attributes, dtype=torch.float32, shape=words.shape, version=OPSET
    )


def quantised_layers(network: nn.Module) -> nn.Module:
    """A copy of a discretised network, in evaluation mode on the CPU, with a `QdqLayer` for every mixed layer.

    Raises:
        InputError: see `search.export.integer_weights.as_words`.
    """
    result = copy.deepcopy(network).cpu().eval()
    for name, module in list(result.named_modules()):
        if isinstance(module, PlainLayer):
            parent, _, child = name.rpartition(".")
            setattr(result.get_submodule(parent), child, module.layer)
        elif isinstance(module, MixedLayer):
            parent, _, child = name.rpartition(".")
            inputs, terms = as_words(module, f"layer {name!r}")
            setattr(result.get_submodule(parent), child, QdqLayer(module.layer, inputs, terms))
    return result


def write_onnx(
    network: nn.Module, assignment: Mapping[str, str], input_shape: tuple[int, ...], path: Path | str
) -> None:
    """Writes a discretised network as ONNX, with int8 weights and quantisers around every layer.

    docs/data.md describes the file. The batch size is free. Inputs are called ``images``, float32 as the network takes
    them, outputs ``scores``.

    Args:
        network: what `SearchableNetwork.discretise` made, after it has seen images.
        assignment: layer -> candidate, kept in the file's metadata.
        input_shape: of the network's input, the batch included.
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
    if not any(isinstance(module, MixedLayer) for module in network.modules()):
        raise InputError("network", "has no layer with a candidate", "what SearchableNetwork.discretise returns")
    try:
        import onnx  # noqa: F401 (what torch.onnx needs, asked for before any work)
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise InputError("ONNX export", f"needs the package {e.name}", hint="pip install 'enos-dse[onnx]'") from None
    layers = quantised_layers(network)
    example = torch.zeros(2, *input_shape[1:])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own parts
        program = torch.onnx.export(
            layers, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"], output_names=["scores"], opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[ASSIGNMENT_KEY] = json.dumps(dict(assignment))
    with system_errors(Path(path)):
        program.save(path)
