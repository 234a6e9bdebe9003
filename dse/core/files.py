"""Files that survive a kill at any moment, and the operating system's refusals as one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dse.core.errors import InputError


@contextmanager
def system_errors(path: object, action: str = "cannot be written") -> Iterator[None]:
    """Turns what the operating system refuses inside into an InputError about `path`.

    Example:
        >>> with system_errors("runs/a", "cannot be made"):
        ...     raise PermissionError(13, "Permission denied")
        Traceback (most recent call last):
        dse.core.errors.InputError: runs/a: cannot be made: permission denied
    """
    try:
        yield
    except OSError as e:
        raise InputError(path, f"{action}: {reason(e)}") from None


def reason(error: OSError) -> str:
    """The operating system's words, without the path: "no space left on device"."""
    return (error.strerror or str(error)).lower()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, then renames it to `path`: readers see the old file or the whole new one.

    Raises:
        InputError: the operating system refuses it; the old file is still there.
    """
    if path.exists() and not path.is_file():  # a device or a pipe
        with system_errors(path):
            write(path)
        return
    temporary = path.with_name(f".{path.name}")  # what a killed process left is overwritten by the next
    with system_errors(path):
        write(temporary)
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(document, indent=1) + "\n")
