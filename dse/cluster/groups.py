"""Short tasks in groups, for to send one costs the client and the scheduler milliseconds, however short it is."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from dse.core.errors import InputError

GROUP_S = 1.0
"""Seconds of work that are sent together: what is lost with a worker, and what Ctrl-C waits for on other machines."""

MOST = 32
"""Tasks of a group: what a scheduler holds stays small."""

_REMEMBERED = 9


@dataclass(frozen=True)
class Done:
    """What became of a group.

    Attributes:
        answers: of the tasks in their order, up to one that was refused, or until the time was over.
        seconds: that the worker took.
        error: what a task refused.
    """

    answers: list[Any]
    seconds: float
    error: InputError | None = None


def do_group(*arguments: Any) -> Done:
    """What a worker does with a group: at least one task, and no further ones when the time is over.

    So a worker that is killed loses little also where tasks take longer than those before.

    Args:
        arguments: what all tasks share, if anything; then a function, which is called with what is shared and a task,
            the tasks, and seconds.

    Example:
        >>> do_group(10, (max, [3, 30], 60.0)).answers, do_group((abs, [-1, -2], 0.0)).answers
        ([10, 30], [1])
    """
    *shared, (work, tasks, seconds) = arguments
    answers: list[Any] = []
    error, began = None, time.monotonic()
    for task in tasks:
        try:
            answers.append(work(*shared, task))
        except InputError as e:
            error = e
            break
        if time.monotonic() >= began + seconds:
            break
    return Done(answers, time.monotonic() - began, error)


class GroupSize:
    """How many tasks are sent together, from the times of those that are done.

    Args:
        seconds: of work that a group should take.

    Example:
        >>> size = GroupSize(1.0)
        >>> size.of(1000, 8)  # nothing is known yet
        1
        >>> size.learn(1, 0.1)
        >>> size.of(1000, 8), size.of(40, 8)  # the last groups are small, so that all workers end together
        (10, 3)
    """

    def __init__(self, seconds: float = GROUP_S) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=_REMEMBERED)

    def learn(self, tasks: int, seconds: float) -> None:
        """So many tasks took so many seconds."""
        if tasks:
            self._times.append(seconds / tasks)

    def of(self, waiting: int, under_way: int) -> int:
        """Tasks of the next group, at least 1.

        Args:
            waiting: tasks that are left.
            under_way: groups that are under way at once.
        """
        if not self._times or not self._seconds:
            return 1
        # The median: a worker's first task takes longer, for it also loads programs.
        fitting = self._seconds / max(1e-6, statistics.median(self._times))
        return max(1, min(int(fitting), math.ceil(waiting / (2 * under_way)), MOST))
