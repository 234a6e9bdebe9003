"""What a worker of a cluster does with a task: checks that it may, then works, one task at a time in a process."""

from __future__ import annotations

import importlib
import socket
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dse.cluster.versions import Versions, versions
from dse.core.errors import InputError
from dse.core.processes import log_level, log_to_stderr

_ALONE = threading.Lock()
"""Held by the task at work: random states and numbers of threads are those of a process, not of a task."""


class SupersededError(Exception):
    """Another worker has begun the same task since; what this one does is not wanted any more."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its value, an InputError, a defect's traceback, or none of these where it is to be done
    once more."""

    value: Any = None
    error: InputError | None = None
    defect: str = ""
    lost: bool = False


def packed(work: Callable[..., Any], argument: Any) -> bytes:
    """A function and its argument as bytes, functions and classes of scripts as well."""
    data: bytes = cloudpickle().dumps((work, argument))
    return data


def cloudpickle() -> Any:
    """What joblib pickles with, functions and classes of scripts as well; older versions have it inside."""
    try:
        return importlib.import_module("joblib.externals.cloudpickle")
    except ImportError:
        return importlib.import_module("cloudpickle")


def do_task(task: bytes, wanted: Versions, level: int, *shared: Any) -> Outcome:
    """The outcome of a packed function; never an exception, which Dask would take for its own.

    Args:
        task: what `packed` gave.
        wanted: those of the client.
        level: what the client logs.
        shared: further arguments of the function.
    """
    different = versions().differences(wanted)
    if different:
        return Outcome(error=InputError(f"--cluster: worker {here()}", different, hint="install the same on all"))
    if level and not log_level():
        log_to_stderr(level)
    with _ALONE:
        try:
            work, argument = cloudpickle().loads(task)
            return Outcome(work(*shared, argument))
        except InputError as e:
            return Outcome(error=e)
        except SupersededError:
            return Outcome(lost=True)
        except Exception:
            return Outcome(defect=traceback.format_exc())


def here() -> str:
    """The name of this worker, for messages: its address, or its machine outside of one."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return socket.gethostname()
