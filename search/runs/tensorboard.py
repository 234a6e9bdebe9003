"""Metrics as event files for TensorBoard, in a folder a stage."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dse.core.errors import InputError


def check_installed() -> None:
    """Raises an InputError that names the extra to install where TensorBoard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("tensorboard", "the package tensorboard is not installed",
                         hint="pip install 'enos-dse[tensorboard]', or set tensorboard: false")  # fmt: skip


class Write(Protocol):
    """Writes one entry of a stage's metrics: its numbers."""

    def __call__(self, stage: str, entry: Mapping[str, Any], /) -> None: ...


@contextmanager
def event_files(folder: Path, wanted: bool) -> Iterator[Write]:
    """What to call with a stage's name and each entry of its metrics: all epochs, the result last; writes if `wanted`.

    An earlier process's files of that stage are replaced.
    """
    writers: dict[str, Any] = {}

    def write(stage: str, entry: Mapping[str, Any]) -> None:
        if not wanted:
            return
        from torch.utils.tensorboard import SummaryWriter

        if stage not in writers:
            shutil.rmtree(folder / stage, ignore_errors=True)
            writers[stage] = SummaryWriter(str(folder / stage))
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "epoch":
                writers[stage].add_scalar(name if "epoch" in entry else f"result/{name}", value, entry.get("epoch", 0))
        if "epoch" in entry:
            writers[stage].flush()
        else:
            writers.pop(stage).close()

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()
