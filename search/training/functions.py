"""Functions of a user's own, named as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dse.core.errors import InputError
from dse.workload.networks import reason


def own_function(name: str, where: str) -> Callable[..., Any]:
    """The function ``package.module:function``; modules in the working directory can be imported.

    Args:
        where: the field that names it, for errors.

    Raises:
        InputError: a name of another form, a module that cannot be imported, or no such function in it.

    Example:
        >>> own_function("math:sqrt", "loss")(4.0)
        2.0
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise InputError(where, f"found {name!r}", "package.module:function")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last: a user's file must not hide a package of the same name
    try:
        function: Any = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as e:  # whatever a user's module does while it is imported
        raise InputError(f"{where} {name!r}", f"module {module_name} cannot be imported: {reason(e)}") from e
    if not callable(function):
        problem = f"{attribute} is a {type(function).__name__}" if function is not None else f"has no {attribute!r}"
        raise InputError(f"{where} {name!r}", f"module {module_name}: {problem}", "a function")
    found: Callable[..., Any] = function
    return found
