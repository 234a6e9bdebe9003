"""A cluster as a pool of workers for independent tasks, as those of tables are."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from dse.cluster.connection import Connection
from dse.cluster.groups import GROUP_S, GroupSize, do_group
from dse.cluster.tasks import Tasks

AHEAD = 4
"""Groups of tasks that are sent for each worker: enough that none waits for the next, few enough for the scheduler's
memory."""

SLOW_S = 15.0
SLOW_FACTOR = 3.0
"""A group is also given to another worker when nothing has come for so many seconds, and for so many times the longest
group; the first answer counts."""

_COUNT_S = 2.0  # between two looks at how many workers there are

T = TypeVar("T")
R = TypeVar("R")


class ClusterPool:
    """The workers of a cluster; see `dse.table.workers.Pool`.

    Args:
        group_s: seconds of work that are sent together where tasks are shorter; 0 sends each task alone.
    """

    def __init__(self, connection: Connection, group_s: float = GROUP_S) -> None:
        self.connection, self._group_s = connection, group_s

    def alone(self, tasks: int) -> bool:
        """Whether this process does so many tasks itself."""
        return not tasks

    def described(self, tasks: int) -> str:
        """Who does so many tasks."""
        return f"{len(self.connection.cluster.workers)} workers of {self.connection.cluster.name}" if tasks else "none"

    def answers(
        self, work: Callable[..., R], tasks: Sequence[T], shared: bytes | None = None
    ) -> Generator[R, None, None]:
        """What `work` answers to each task, in the order in which they are finished; close it where it is left early.

        Args:
            work: is called with the task, after `shared` where that is given.

        Raises:
            InputError: what a task refuses; the cluster is gone, or its workers end whenever they do a task.
        """
        waiting, left = deque(tasks), len(tasks)
        groups: dict[int, list[T]] = {}
        numbers = itertools.count()
        size = GroupSize(self._group_s)
        longest, latest = 0.0, time.monotonic()
        began: dict[tuple[int, bool], float] = {}
        counted, room = float("-inf"), AHEAD
        tasks_under_way: Tasks[tuple[int, bool]] = Tasks(self.connection.cluster)
        with tasks_under_way as under_way:
            common = () if shared is None else (under_way.share(shared),)

            def send(name: tuple[int, bool]) -> None:
                under_way.begin(name, do_group, (work, groups[name[0]], 2 * self._group_s), *common)
                began[name] = time.monotonic()

            while left:
                if time.monotonic() > counted + _COUNT_S:
                    counted, room = time.monotonic(), AHEAD * max(1, len(self.connection.cluster.workers))
                while waiting and len(under_way) < room:
                    number, together = next(numbers), size.of(len(waiting), room)
                    groups[number] = [waiting.popleft() for _ in range(together)]
                    send((number, False))
                found = under_way.wait(1.0)
                now = time.monotonic()
                if found is None:
                    if not waiting and now > latest + max(SLOW_S, SLOW_FACTOR * longest):
                        latest = now
                        for number, _ in [name for name in began if (name[0], True) not in began]:
                            send((number, True))
                    continue
                name, done = found
                assert name is not None
                longest, latest = max(longest, now - began[name]), now
                size.learn(len(done.answers), done.seconds)
                left -= len(done.answers)
                waiting.extendleft(reversed(groups.pop(name[0])[len(done.answers) :]))
                for copy in (False, True):
                    under_way.drop((name[0], copy))
                    began.pop((name[0], copy), None)
                yield from done.answers
                if done.error is not None:
                    raise done.error
