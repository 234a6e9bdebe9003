from __future__ import annotations

import pytest

from search.runs.progress import Remaining, in_words
from search.runs.stages import Stage

SEARCH, TRAIN = Stage("search", 0, 1.0), Stage("baseline", 0, candidate="T8")


def test_epochs_of_searches_and_others_are_timed_apart() -> None:
    remaining = Remaining({SEARCH: 3, TRAIN: 10}, jobs=1)
    assert remaining.epochs == 13 and remaining.seconds() is None
    remaining.add(SEARCH, {"seconds": 6.0})
    assert remaining.seconds() == pytest.approx(12 * 6)  # nothing is known of the others yet
    for seconds in (1.0, 3.0):
        remaining.add(TRAIN, {"seconds": seconds})
    assert remaining.seconds() == pytest.approx(2 * 6 + 8 * 2)


def test_several_processes_share_what_is_left() -> None:
    remaining = Remaining({SEARCH: 5}, jobs=2)
    remaining.add(SEARCH, {"seconds": 3.0})
    assert remaining.seconds() == pytest.approx(6)


def test_durations_in_words() -> None:
    seconds = (None, 0.2, 45, 100, 1300, 9000, 90000)
    assert [in_words(s) for s in seconds] == [
        "unknown time", "about 0 s", "about 45 s", "about 1.7 min", "about 22 min", "about 2.5 h", "about 25 h",
    ]  # fmt: skip
