"""What a network is called with: tensors described by shape and type, or whatever a factory returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.core.errors import InputError

# torch is imported inside the functions: `dse` must start fast, and only exporting needs it.

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""

Example = Callable[[Any], Call]
"""Makes the arguments of a network (given as module, whose device and type of numbers they follow)."""

MAX_INPUT = 2**27
"""Largest number of values of an input (512 MiB); memory for the layers comes in addition."""


@dataclass(frozen=True)
class InputTensor:
    """A tensor that a network takes: shape with its batch, torch's name of a type, and the argument's name.

    Without a type it has that of the network's parameters; without a name it is the next positional argument.
    """

    shape: tuple[int, ...]
    dtype: str | None = None
    name: str | None = None


def parse_input(text: str, where: object = "--input") -> InputTensor:
    """Reads ``[NAME=]SHAPE[:DTYPE]``.

    Raises:
        InputError: naming what is wrong.

    Example:
        >>> parse_input("1,3,224,224").shape
        (1, 3, 224, 224)
        >>> parse_input("attention_mask=1,16:int64")
        InputTensor(shape=(1, 16), dtype='int64', name='attention_mask')
    """
    name, equals, rest = text.rpartition("=")
    shape_text, colon, dtype = rest.partition(":")
    if equals and not name.isidentifier():
        raise InputError(f"{where} {text}", f"found the name {name!r}", "the name of an argument")
    try:
        shape = tuple(int(part) for part in shape_text.split(","))
    except ValueError:
        hint = "[NAME=]SHAPE[:DTYPE], such as 1,3,32,32 or input_ids=1,128:int64"
        raise InputError(where, f"found {text!r}", hint) from None
    check_shape(shape, where)
    if colon:
        _dtype(dtype, f"{where} {text}")
    return InputTensor(shape, dtype if colon else None, name if equals else None)


def check_shape(shape: Sequence[int], where: object) -> None:
    """Raises an InputError if a tensor of this shape cannot be made.

    Example:
        >>> try:
        ...     check_shape((1, 0), "--input")
        ... except InputError as e:
        ...     print(e)
        --input: input shape: found (1, 0) (allowed: whole numbers, at least 1)
    """
    if not shape or not all(type(n) is int and n >= 1 for n in shape):
        raise InputError(f"{where}: input shape", f"found {tuple(shape)}", "whole numbers, at least 1")
    if math.prod(shape) > MAX_INPUT:
        raise InputError(f"{where}: input shape", f"{tuple(shape)} has too many values", f"at most {MAX_INPUT:,}")


def tensors(inputs: Sequence[InputTensor]) -> Example:
    """Arguments of these shapes: random numbers of 0 to 1, the whole number 0 (an id of every vocabulary), true.

    The numbers are the same at every call, so that control flow that depends on them is too. Rounded down they are 0.

    Raises:
        InputError: a positional tensor after a named one, or two of the same name.

    Example:
        >>> from torch import nn
        >>> make = tensors([parse_input("1,16:int64"), parse_input("scale=1")])
        >>> arguments, keywords = make(nn.Embedding(100, 8))
        >>> arguments[0].dtype, list(keywords)
        (torch.int64, ['scale'])
    """
    names = [tensor.name for tensor in inputs if tensor.name is not None]
    if any(tensor.name is None for tensor in inputs[len(inputs) - len(names) :]):
        raise InputError(
            "--input", "has a tensor without a name after one with a name", hint="name it, or put it first"
        )
    if len(set(names)) < len(names):
        raise InputError("--input", f"{next(n for n in names if names.count(n) > 1)!r} is given twice")

    def make(module: Any) -> Call:
        made = [(tensor.name, _made(tensor, module)) for tensor in inputs]
        return tuple(t for name, t in made if name is None), {name: t for name, t in made if name is not None}

    return make


def returned(factory: Callable[[], Any], where: str) -> Example:
    """Arguments that a user's factory returns: a tensor, a sequence of arguments, or a mapping of keyword arguments.

    A pair of a sequence and a mapping gives both kinds.

    Raises:
        InputError: the factory returned no arguments; raised when the arguments are made.

    Example:
        >>> returned(lambda: {"ids": [1, 2]}, "inputs")(None)
        ((), {'ids': [1, 2]})
    """

    def make(_module: Any) -> Call:
        result = factory()
        if isinstance(result, Mapping):
            return (), {str(key): value for key, value in result.items()}
        if not isinstance(result, (tuple, list)):
            return (result,), {}
        if len(result) == 2 and isinstance(result[0], (tuple, list)) and isinstance(result[1], Mapping):
            return tuple(result[0]), dict(result[1])
        if not result:
            raise InputError(where, "returned no arguments", "a tensor, a tuple of arguments, or a dict of keywords")
        return tuple(result), {}

    return make


def _made(tensor: InputTensor, module: Any) -> Any:
    import torch

    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = like.dtype if tensor.dtype is None else _dtype(tensor.dtype, "input")
    if dtype == torch.bool:
        return torch.ones(tensor.shape, dtype=dtype, device=like.device)
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.zeros(tensor.shape, dtype=dtype, device=like.device)
    if like.device.type == "meta":
        return torch.empty(tensor.shape, dtype=dtype, device=like.device)
    numbers = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0))
    return numbers.to(device=like.device, dtype=dtype)


def _dtype(name: str, where: object) -> Any:
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise InputError(where, f"found the type {name!r}", "one of torch's, such as float32, int64, bool")
    return found
