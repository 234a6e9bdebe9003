"""Short tasks are sent together, long ones alone, and what a group leaves is done by another."""

from __future__ import annotations

import pytest

from dse.cluster.groups import MOST, GroupSize, do_group
from dse.core.errors import InputError


class Clock:
    """Time that passes only where a task takes some."""

    def __init__(self) -> None:
        self.now = 0.0

    def take(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dse.cluster.groups.time.monotonic", lambda: clock.now)
    return clock


def test_a_group_says_what_it_took(clock: Clock) -> None:
    done = do_group((clock.take, [0.25, 0.5], 10.0))
    assert (done.answers, done.seconds, done.error) == ([0.25, 0.5], 0.75, None)


def test_a_group_ends_when_its_time_is_over_but_does_one_task(clock: Clock) -> None:
    assert do_group((clock.take, [1.0, 1.5, 1.0], 2.0)).answers == [1.0, 1.5]
    assert do_group((clock.take, [9.0, 1.0], 2.0)).answers == [9.0]


def test_what_a_task_refuses_comes_with_the_answers_before_it() -> None:
    def refuse(task: int) -> int:
        if task == 2:
            raise InputError("layer", "found 2")
        return task

    done = do_group((refuse, [0, 1, 2, 3], 10.0))
    assert done.answers == [0, 1]
    assert str(done.error) == "layer: found 2"


def test_a_defect_is_not_an_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        do_group((lambda task: 1 // task, [1, 0], 10.0))


def test_a_first_task_that_also_loads_programs_does_not_count() -> None:
    size = GroupSize(1.0)
    for seconds in (5.0, 0.1, 0.1):
        size.learn(1, seconds)
    assert size.of(10_000, 8) == 10


def test_tasks_that_take_longer_are_sent_alone_again() -> None:
    size = GroupSize(1.0)
    for _ in range(20):
        size.learn(10, 1.0)
    assert size.of(10_000, 8) == 10
    for _ in range(5):
        size.learn(1, 3.0)
    assert size.of(10_000, 8) == 1


@pytest.mark.parametrize(("seconds", "wanted"), [(0.0, MOST), (1e-9, MOST), (0.5, 2), (2.0, 1)])
def test_groups_have_a_most_and_a_least(seconds: float, wanted: int) -> None:
    size = GroupSize(1.0)
    size.learn(1, seconds)
    assert size.of(10_000, 8) == wanted


def test_the_last_tasks_are_spread_over_all_workers() -> None:
    size = GroupSize(1.0)
    size.learn(1, 0.001)
    left, groups = 100, []
    while left:
        groups.append(size.of(left, 8))
        left -= groups[-1]
    assert groups == sorted(groups, reverse=True)
    assert groups[0] == 7 and groups[-16:] == [1] * 16


def test_nothing_is_grouped_where_that_is_not_wanted() -> None:
    size = GroupSize(0.0)
    size.learn(1, 0.001)
    assert size.of(10_000, 8) == 1
