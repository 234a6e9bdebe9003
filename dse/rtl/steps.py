"""Steps with files as their results, which are done once: killed and started again, what is done is not done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dse.core.files import system_errors, write_json


def digest(*parts: object) -> str:
    """SHA-256 of what a step depends on: contents of paths, values of arrays, the text of anything else.

    Example:
        >>> digest("cells", 1)[:8], digest("cells", 1) == digest("cells", 2)
        ('e27820fd', False)
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            content = part.read_bytes()
        elif isinstance(part, np.ndarray):
            content = f"{part.shape}{part.dtype}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            content = repr(part).encode()
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()


@cache
def code_digest() -> str:
    """Of the modules that compute what the steps record, so that a changed one does all steps again."""
    return digest(*sorted(Path(__file__).parent.glob("*.py")))


def once(record: Path, key: str, outputs: Sequence[Path], work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON; it is called unless `record` says that it was done.

    Args:
        record: file that gets what was returned, written when all outputs are complete.
        key: digest of all that the result depends on.
        outputs: files that `work` writes. If one of them is gone or was changed, it is called again.

    Raises:
        InputError: the record cannot be written.

    Example:
        >>> calls = []
        >>> for _ in range(2):
        ...     _ = once(Path("step.json"), digest(1), [], lambda: calls.append(1))
        >>> calls
        [1]
    """
    try:
        known = json.loads(record.read_text("utf-8"))
        if known["key"] == key and known["outputs"] == {path.name: digest(path) for path in outputs}:
            return known["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or what is no record
    with system_errors(record.parent):
        record.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)  # while the outputs change, there is none
    result = work()
    write_json(record, {"key": key, "outputs": {path.name: digest(path) for path in outputs}, "result": result})
    return result
