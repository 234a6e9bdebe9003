"""A limit on the time that a run may take, which it keeps without losing what it has done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class OutOfTimeError(Exception):
    """The time for a run is up; all epochs that are over have been kept."""


class Limit:
    """Stops a run between two epochs, when the next would not end in time.

    Args:
        minutes: from now on; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[bool, float] = {}

    def check(self, searching: bool, entry: Mapping[str, Any]) -> None:
        """Is called when an entry of a stage has been kept, with whether the stage is a search.

        Raises:
            OutOfTimeError: less time is left than the longest epoch of a search, or of another stage, has taken so far.
        """
        self._longest[searching] = max(self._longest.get(searching, 0.0), float(entry.get("seconds", 0.0)))
        if self._end is not None and time.monotonic() + self._longest[searching] > self._end:
            raise OutOfTimeError
