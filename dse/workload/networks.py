"""Networks by name: registered ones, and any `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dse.core.errors import InputError, unknown
from dse.workload.inputs import Call, Example, InputTensor, check_shape, returned, tensors

ENTRY_POINTS = "enos.networks"


@dataclass(frozen=True)
class Network:
    """A network and what it is run with.

    `input_shape` includes the batch: ``(1, 3, 32, 32)``. A network that takes anything else than one tensor of real
    numbers has an `example` of its arguments instead, such as ``tensors([parse_input("1,128:int64")])``.

    Example:
        >>> from torch import nn
        >>> Network("tiny", nn.Linear(64, 10), (1, 64)).input_shape
        (1, 64)
    """

    name: str
    module: Any  # a torch.nn.Module
    input_shape: tuple[int, ...] = ()
    example: Example | None = None

    def arguments(self) -> Call:
        """The positional and the keyword arguments that the network is run with."""
        make = tensors([InputTensor(self.input_shape)]) if self.example is None else self.example
        return make(self.module)


def load_network(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    inputs: Sequence[InputTensor] | str | None = None,
    default_shape: tuple[int, ...] | None = None,
    where: str = "network",
) -> Network:
    """The network called `name`.

    Args:
        name: an entry point of the group ``enos.networks``, or ``package.module:factory``, whose factory returns a
            `Network` or a `torch.nn.Module`. Modules in the working directory can be imported.
        input_shape: shape of the input, batch included; replaces that of a `Network`.
        arguments: keyword arguments of the factory.
        inputs: the tensors that the network takes, or ``package.module:factory``, whose factory returns its arguments
            (see `dse.workload.inputs.returned`); in place of `input_shape`.
        default_shape: shape of the input if the factory returns a module and `input_shape` is None.
        where: the field that names the network, for errors.

    Raises:
        InputError: the name is unknown, the module or factory cannot be loaded, or the input shape is missing or wrong.

    Example:
        >>> load_network("squeezenet").input_shape
        (1, 3, 32, 32)
    """
    made = _call(name, dict(arguments or {}), where)
    example = example_of(inputs)
    where = f"{where} {name!r}"
    if not isinstance(made, Network):
        from torch import nn

        if not isinstance(made, nn.Module):
            raise InputError(where, f"its factory returned a {type(made).__name__}", "a torch.nn.Module or a Network")
        shape = input_shape or default_shape or ()
        if not shape and example is None:
            raise InputError(where, "no input shape is given", "batch, channels and size, such as 1,3,32,32")
        made = Network(name.rpartition(":")[2], made, shape)
    if example is not None:
        return replace(made, input_shape=(), example=example)
    network = replace(made, input_shape=tuple(input_shape or made.input_shape))
    if input_shape is not None:
        network = replace(network, example=None)
    if network.example is None:
        check_shape(network.input_shape, where)
    return network


def example_of(inputs: Sequence[InputTensor] | str | None) -> Example | None:
    """What makes the arguments of a network: tensors of these shapes, or ``package.module:factory``; None of nothing.

    Raises:
        InputError: the factory cannot be loaded.

    Example:
        >>> from torch import nn
        >>> example_of([InputTensor((1, 4), "int64")])(nn.Linear(4, 2))[0][0].dtype
        torch.int64
    """
    if not isinstance(inputs, str):
        return tensors(inputs) if inputs else None
    factory = _attribute(inputs, "inputs")
    return returned(lambda: _result(factory, inputs.rpartition(":")[2], {}, f"inputs {inputs!r}"), f"inputs {inputs!r}")


def _call(name: str, arguments: dict[str, Any], where: str) -> Any:
    """The result of the network's factory."""
    known = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
    place = known.get(name, name)
    if not all(place.partition(":")):
        raise unknown(where, "network", name, [*sorted(known), "package.module:factory"])
    return _result(_attribute(place, where, name), place.rpartition(":")[2], arguments, f"{where} {name!r}")


def _attribute(place: str, where: str, name: str | None = None) -> Callable[..., Any]:
    """The callable ``package.module:attribute``; `name` is what the user calls it."""
    name = place if name is None else name
    module_name, colon, attribute = place.partition(":")
    if not (colon and module_name and attribute):
        raise InputError(where, f"found {name!r}", "package.module:factory")
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
    return factory  # type: ignore[no-any-return]


def _result(factory: Callable[..., Any], attribute: str, arguments: dict[str, Any], where: str) -> Any:
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
