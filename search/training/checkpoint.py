"""Files that survive a kill at any moment, and the progress of a training stage in one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dse.core.errors import InputError

Record = dict[str, Any]


class Stateful(Protocol):
    """Modules and optimisers."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it: readers see the old file or the whole new."""
    temporary = path.with_name(f".{path.name}")  # a killed process's is overwritten by the next
    write(temporary)
    temporary.replace(path)


def write_json(path: Path, document: Any) -> None:
    """Writes JSON atomically."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


@dataclass(frozen=True)
class Checkpoint:
    """State of one training stage after its last finished epoch."""

    path: Path

    def save(self, history: list[Record], **parts: Stateful) -> None:
        """Keeps the records of all epochs so far and the state of `parts`."""
        state = {"history": history, "parts": {name: part.state_dict() for name, part in parts.items()}}
        write_atomically(self.path, lambda file: torch.save(state, file))

    def restore(self, **parts: Stateful) -> list[Record]:
        """Loads what `save` kept into `parts` and returns the history; empty where nothing was saved.

        Raises:
            InputError: a damaged file, or one of another network.
        """
        if not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            history: list[Record] = state["history"]
        except Exception as e:  # torch raises RuntimeError, UnpicklingError, KeyError, EOFError, zip errors ...
            reason = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise InputError(
                self.path, f"cannot be restored: {reason}", "remove the file to repeat this stage"
            ) from None
        return history
