"""The progress bar of all commands."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dse.core.processes import log_level

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from dse.table.fill import Progress, Report


class Bar:
    """A bar on standard error, drawn from the first update that comes `after` seconds or more from now.

    Nothing is drawn where standard error is no terminal, or where log lines go there.

    Args:
        unit: what is counted, such as ``epochs``; ``bytes`` are shown as a download.
        after: seconds.
        left: whether the time that is left is estimated.
    """

    def __init__(self, unit: str, *, after: float = 0.0, left: bool = False) -> None:
        self._unit, self._left = unit, left
        self._start = time.monotonic() + after
        self._drawn = sys.stderr.isatty() and log_level() == logging.NOTSET
        self._bar: RichProgress | None = None

    def update(self, **changes: Any) -> None:
        """Changes `total`, `completed` or `description`, or adds `advance` to what is completed."""
        if self._bar is None and self._drawn and time.monotonic() >= self._start:
            self._bar = self._begin()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], **changes)

    def stop(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _begin(self) -> RichProgress:
        from rich import progress
        from rich.console import Console

        columns: list[progress.ProgressColumn] = [progress.TextColumn("{task.description}"), progress.BarColumn()]
        if self._unit == "bytes":
            columns += [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        else:
            columns += [progress.MofNCompleteColumn(), progress.TextColumn(self._unit)]
        columns.append(progress.TimeRemainingColumn() if self._left else progress.TimeElapsedColumn())
        bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.add_task("", total=None)
        bar.start()
        return bar


@contextmanager
def progress_bar(unit: str, *, after: float = 0.0, left: bool = False) -> Iterator[Bar]:
    """A bar that is removed when the context is left; arguments as those of `Bar`."""
    bar = Bar(unit, after=after, left=left)
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def mapping_bar(what: str) -> Iterator[Progress]:
    """A bar for `map_workload`'s `progress`, once the work has lasted long enough for one to be missed."""
    with progress_bar("searches", after=2.0, left=True) as bar:

        def show(report: Report) -> None:
            bar.update(description=what, total=report.to_compute, completed=report.computed)

        yield show
