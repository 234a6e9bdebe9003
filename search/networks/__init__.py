"""Networks to search, written as plain torch modules, and the loading of anybody else's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.workload.trace import ENTRY_POINTS, Network


def make_network(factory: str, args: Mapping[str, Any], input_shape: tuple[int, ...]) -> Network:
    """Calls a network's factory with a configuration's arguments.

    Args:
        factory: an entry point of the group ``enos.networks``, or ``package.module:factory``; modules of the working
            directory are found. It returns a `torch.nn.Module` or a `Network`.
        input_shape: the shape of one batch of one image, for factories that return a bare module.

    Raises:
        InputError: an unknown name, a factory that fails, or one that returns something else or nothing that learns.

    Examples:
        >>> network = make_network("squeezenet", {"width": 0.25, "image": 64}, (1, 3, 64, 64))
        >>> network.name, network.input_shape
        ('squeezenet_64', (1, 3, 64, 64))
    """
    from torch import nn

    known = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
    module_name, colon, attribute = known.get(factory, factory).partition(":")
    if not (colon and module_name and attribute):
        raise InputError(f"network.factory {factory!r}", "no such network", [*sorted(known), "package.module:factory"])
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_name), attribute)(**args)
    except InputError as e:
        raise InputError(f"network.factory {factory!r}", str(e)) from e
    except Exception as e:  # whatever a user's module does
        reason = " ".join(str(e).split())
        raise InputError(f"network.factory {factory!r}", f"fails: {type(e).__name__}: {reason}") from e
    if isinstance(made, nn.Module):
        made = Network(attribute, made, input_shape)
    if not isinstance(made, Network):
        raise InputError(
            f"network.factory {factory!r}", f"returned a {type(made).__name__}", "a torch.nn.Module, Network"
        )
    if not any(weight.requires_grad for weight in made.module.parameters()):
        raise InputError(f"network.factory {factory!r}", "has no weight that learns (requires_grad)")
    return made
