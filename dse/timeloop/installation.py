"""Where the real Timeloop and Accelergy are on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dse.errors import InputError

INSTALLATION_PAGE = "https://timeloop.csail.mit.edu/"
_FRONT_ENDS = ("pytimeloop.timeloopfe", "timeloopfe")


@dataclass(frozen=True)
class Installation:
    """Programs on PATH and the module of the Python front end; None where missing."""

    model: Path | None
    mapper: Path | None
    accelergy: Path | None
    front_end: str | None  # such as "pytimeloop.timeloopfe.v4"


@cache
def find() -> Installation:
    """Looks for programs on PATH and for the front end among the modules that can be imported."""
    model, mapper, accelergy = (_program(name) for name in ("timeloop-model", "timeloop-mapper", "accelergy"))
    return Installation(model, mapper, accelergy, next((f"{n}.v4" for n in _FRONT_ENDS if _has_module(n)), None))


def require(where: str) -> Installation:
    """The installation; InputError that names what is missing."""
    found = find()
    missing = [
        name
        for name, there in (
            ("timeloop-mapper", found.mapper),
            ("timeloop-model", found.model),
            ("the Python module pytimeloop.timeloopfe or timeloopfe", found.front_end),
        )
        if there is None
    ]
    if missing:
        raise InputError(where, f"needs {', '.join(missing)}; see {INSTALLATION_PAGE}", "native")
    return found


def _program(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _has_module(name: str) -> bool:
    try:
        return find_spec(f"{name}.v4") is not None
    except ImportError:
        return False
