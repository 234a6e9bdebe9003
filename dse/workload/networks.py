"""Networks by name: registered ones, and any `package.module:factory`."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dse.core.errors import InputError, unknown

ENTRY_POINTS = "enos.networks"

MAX_INPUT = 2**27
"""Largest number of values of a traced input (512 MiB); memory for the layers comes in addition."""


@dataclass(frozen=True)
class Network:
    """A network and the input it is traced with; `input_shape` includes the batch: ``(1, 3, 32, 32)``.

    Example:
        >>> from torch import nn
        >>> Network("tiny", nn.Linear(64, 10), (1, 64)).input_shape
        (1, 64)
    """

    name: str
    module: Any  # a torch.nn.Module
    input_shape: tuple[int, ...]


def load_network(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    default_shape: tuple[int, ...] | None = None,
    where: str = "network",
) -> Network:
    """The network called `name`.

    Args:
        name: an entry point of the group ``enos.networks``, or ``package.module:factory``, whose factory returns a
            `Network` or a `torch.nn.Module`. Modules in the working directory can be imported.
        input_shape: shape of the input, batch included; replaces that of a `Network`.
        arguments: keyword arguments of the factory.
        default_shape: shape of the input if the factory returns a module and `input_shape` is None.
        where: the field that names the network, for errors.

    Raises:
        InputError: the name is unknown, the module or factory cannot be loaded, or the input shape is missing or wrong.

    Example:
        >>> load_network("squeezenet").input_shape
        (1, 3, 32, 32)
    """
    made = _call(name, dict(arguments or {}), where)
    where = f"{where} {name!r}"
    if not isinstance(made, Network):
        from torch import nn

        if not isinstance(made, nn.Module):
            raise InputError(where, f"its factory returned a {type(made).__name__}", "a torch.nn.Module or a Network")
        if (shape := input_shape or default_shape) is None:
            raise InputError(where, "no input shape is given", "batch, channels and size, such as 1,3,32,32")
        made = Network(name.rpartition(":")[2], made, shape)
    network = replace(made, input_shape=tuple(input_shape or made.input_shape))
    shape = network.input_shape
    if not shape or not all(type(n) is int and n >= 1 for n in shape):
        raise InputError(f"{where}: input shape", f"found {shape}", "whole numbers, at least 1")
    if math.prod(shape) > MAX_INPUT:
        raise InputError(f"{where}: input shape", f"{shape} has too many values", f"at most {MAX_INPUT:,}")
    return network


def _call(name: str, arguments: dict[str, Any], where: str) -> Any:
    """The result of the network's factory."""
    known = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
    module_name, colon, attribute = known.get(name, name).partition(":")
    if not (colon and module_name and attribute):
        raise unknown(where, "network", name, [*sorted(known), "package.module:factory"])
    where = f"{where} {name!r}"
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last: a file search.py of the user's must not hide the package of this name
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute)
    except AttributeError:
        raise InputError(where, f"module {module_name} ({module.__file__}) has no {attribute!r}") from None
    except Exception as e:  # whatever a user's module does while it is imported
        raise InputError(where, f"module {module_name} cannot be imported: {reason(e)}") from e
    if not callable(factory):
        raise InputError(where, f"{attribute} is a {type(factory).__name__}", "a callable")
    try:
        return factory(**arguments)
    except InputError as e:
        raise e.at(f"{where}: {e.where}") from None
    except Exception as e:  # whatever a user's factory does
        raise InputError(where, f"{attribute}() fails: {reason(e)}") from e


def reason(error: BaseException) -> str:
    """The type and first line of an exception of other code; in later lines torch gives advice and a stack.

    Example:
        >>> reason(ValueError("expected 3 channels"))
        'ValueError: expected 3 channels'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
