"""A network as a function of named tensors: what ONNX can express of any arguments and any result."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dse.core.errors import InputError
from dse.workload.inputs import Call, returned

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What a network is called with: the shape of one tensor, a tensor, a sequence of arguments, a mapping of keywords, or
a pair of a sequence and a mapping."""

_PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device)
"""Arguments that are no tensors: they are constants of the ONNX file."""


def shape_of(inputs: Inputs) -> tuple[int, ...] | None:
    """The shape, if `inputs` is the shape of one tensor; else None.

    Example:
        >>> shape_of((1, 3, 8, 8)), shape_of((torch.zeros(2),))
        ((1, 3, 8, 8), None)
    """
    if not isinstance(inputs, Sequence) or not inputs or not all(type(n) is int for n in inputs):
        return None
    return tuple(inputs)


def call_of(inputs: Inputs) -> Call:
    """Positional and keyword arguments, on the CPU; of a shape zeros of float32.

    Raises:
        InputError: no arguments, or a shape with an axis below 1.

    Example:
        >>> arguments, keywords = call_of({"ids": torch.zeros(1, 4, dtype=torch.int64), "causal": True})
        >>> arguments, list(keywords)
        ((), ['ids', 'causal'])
    """
    shape = shape_of(inputs)
    if shape is not None:
        if min(shape) < 1:
            raise InputError("inputs", f"found the shape {shape}", "whole numbers, at least 1")
        return (torch.zeros(shape),), {}
    arguments, keywords = returned(lambda: inputs, "inputs")(None)
    on_cpu: Call = pytree.tree_map_only(Tensor, lambda t: t.detach().cpu(), (arguments, keywords))
    return on_cpu


class FlatNetwork(nn.Module):
    """A network whose `forward` takes the tensors of its arguments, one after the other, and returns those of its
    result.

    Args:
        network: called by its `forward`.
        call: arguments; what is no tensor is the same in each call.

    Attributes:
        tensors: of the arguments.
        inputs: their names: those of the arguments of `forward`, with indices and keys behind a dot.
        outputs: names of the tensors that the last call returned, ``output.0`` where the result has none.

    Raises:
        InputError: an argument that is neither a tensor nor a constant, or no tensor at all; in a call, a result that
            has something else than tensors and constants.

    Example:
        >>> class Two(nn.Module):
        ...     def forward(self, images, extra):
        ...         return {"sum": images + extra["bias"], "nothing": None}
        >>> flat = FlatNetwork(Two(), ((torch.ones(2),), {"extra": {"bias": torch.ones(2)}}))
        >>> flat(*flat.tensors), flat.inputs, flat.outputs
        ((tensor([2., 2.]),), ('images', 'extra.bias'), ['sum'])
    """

    def __init__(self, network: nn.Module, call: Call) -> None:
        super().__init__()
        self.network = network
        leaves, self._form = pytree.tree_flatten_with_path(call)
        parameters = _positional(network)
        names = [_input_name(path, parameters) for path, _ in leaves]
        for name, (_, leaf) in zip(names, leaves, strict=True):
            if not isinstance(leaf, (Tensor, *_PLAIN)):
                allowed = "tensors, numbers and text, and tuples, lists and dicts of them"
                raise InputError(f"inputs: {name}", f"is a {type(leaf).__name__}", allowed)
        self._leaves = [None if isinstance(leaf, Tensor) else leaf for _, leaf in leaves]
        self._places = [i for i, (_, leaf) in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors: tuple[Tensor, ...] = tuple(leaves[i][1] for i in self._places)
        self.inputs = tuple(names[i] for i in self._places)
        self.outputs: list[str] = []
        if not self.tensors:
            raise InputError("inputs", "have no tensor", "at least one")

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        arguments, keywords = pytree.tree_unflatten(leaves, self._form)
        result = self.network(*arguments, **keywords)
        found = {"output": result} if isinstance(result, Tensor) else dict(_named_tensors(result, ""))
        if not found:
            raise InputError("network", f"returns a {type(result).__name__} without tensors", "at least one tensor")
        self.outputs[:] = found
        # ONNX has one name for a value: a tensor that is an input too, or two outputs, is copied.
        seen = set(map(id, tensors))
        values = []
        for value in found.values():
            values.append(value.clone() if id(value) in seen else value)
            seen.add(id(value))
        return tuple(values)


def _positional(network: nn.Module) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):  # of compiled code
        return []
    return [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


def _input_name(path: Sequence[Any], parameters: Sequence[inspect.Parameter]) -> str:
    """The name of a leaf of (arguments, keywords)."""
    of_keywords, first, *rest = (_key(entry) for entry in path)
    if of_keywords == 0:
        index = int(first)
        variable = next((i for i, p in enumerate(parameters) if p.kind == p.VAR_POSITIONAL), len(parameters))
        if index < variable:
            first = parameters[index].name
        else:
            name = parameters[variable].name if variable < len(parameters) else "input"
            first = f"{name}.{index - variable}"
    return ".".join(map(str, (first, *rest)))


def _key(entry: Any) -> Any:
    for attribute in ("idx", "key", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def _named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a result with their names; keys and fields first, then indices, joined by dots."""
    parts: Iterator[tuple[Any, Any]]
    if isinstance(value, Tensor):
        yield name, value
        return
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, Mapping):
        parts = iter(value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = iter(zip(value._fields, value, strict=True))
    elif isinstance(value, tuple | list):
        parts = ((i if name else f"output.{i}", part) for i, part in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    else:
        where = f"output {name!r}" if name else "output"
        allowed = "tensors, and tuples, lists, dicts and dataclasses of them"
        raise InputError(where, f"is a {type(value).__name__}, which ONNX has no form for", allowed)
    for key, part in parts:
        yield from _named_tensors(part, f"{name}.{key}" if name else str(key))
