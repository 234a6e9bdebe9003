"""A process of the command line that waits at a line of its metrics, so that it can be stopped there on any machine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dse.cli import main
from search.runs import run as runs


def main_until(line: int) -> None:
    """`enos` with the arguments of the process; it waits for a signal as soon as its metrics have so many lines."""
    original = runs.event_files  # type: ignore[attr-defined]

    @contextmanager
    def waiting(folder: Path, wanted: bool) -> Iterator[Callable[[str, Any], None]]:
        written = 0
        with original(folder, wanted) as write:

            def write_and_wait(stage: str, entry: Any) -> None:
                nonlocal written
                write(stage, entry)
                written += 1
                while written >= line:
                    signal.pause()

            yield write_and_wait

    runs.event_files = waiting  # type: ignore[attr-defined]
    main()
