"""The progress of a training stage in one file, which survives a kill at any moment.

It is written after each epoch, and in a long epoch also between two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dse.core.errors import InputError
from dse.core.files import write_atomically

Record = dict[str, Any]


class Stateful(Protocol):
    """Modules and optimisers."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """State of one training stage: after its last finished epoch, or in the middle of the next."""

    path: Path

    def save(self, history: list[Record], begun: Record | None = None, /, **parts: Stateful) -> None:
        """Keeps the records of all epochs so far and the state of `parts`.

        Args:
            begun: what is known of the next epoch, if a part of it is done.
        """
        state = {"history": history, "begun": begun,
                 "parts": {name: part.state_dict() for name, part in parts.items()}}  # fmt: skip
        try:
            write_atomically(self.path, lambda file: torch.save(state, file))
        except RuntimeError as e:  # torch's own words where the disk is full
            raise InputError(
                self.path, f"cannot be written: {str(e).splitlines()[0]}", hint="free disk space"
            ) from None

    def restore(self, **parts: Stateful) -> list[Record]:
        """Loads what `save` kept into `parts` and returns the history; empty where nothing was saved.

        Raises:
            InputError: a damaged file, or one of another network.
        """
        return self.resume(**parts)[0]

    def resume(self, **parts: Stateful) -> tuple[list[Record], Record | None]:
        """As `restore`, with what `save` was told of an epoch that had begun; None if there is none.

        Raises:
            InputError: a damaged file, or one of another network.
        """
        if not self.path.exists():
            return [], None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            history: list[Record] = state["history"]
        except Exception as e:  # torch raises RuntimeError, UnpicklingError, KeyError, EOFError, zip errors ...
            reason = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise InputError(
                self.path, f"cannot be restored: {reason}", hint="remove the file to repeat this stage"
            ) from None
        return history, state.get("begun")
