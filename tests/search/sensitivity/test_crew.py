"""Work in this process and in several."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import joblib
import pytest

from search.sensitivity.crew import Crew, default_processes


class Shared:
    """What tasks share; it is open from its first task on."""

    def __init__(self, factor: int) -> None:
        self.factor, self.opened, self.lock = factor, 0, None

    def __getstate__(self) -> dict[str, object]:
        assert not self.opened
        return vars(self)

    def close(self) -> None:
        self.opened = 0


class Locked(Shared):
    """Cannot be pickled."""

    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.lock = threading.Lock()  # type: ignore[assignment]


def times(shared: Shared, task: int) -> tuple[int, int, int]:
    """The product, where it was computed, and how often the state was used there."""
    if task == 13:
        raise LookupError("13")
    shared.opened += 1
    return shared.factor * task, os.getpid(), shared.opened


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)


def test_workers_answer_what_one_process_answers(tmp_path: Path) -> None:
    for processes, here in ((1, True), (2, False)):
        shared, crew = Shared(3), Crew(processes, tmp_path)
        for factor in (3, 5):  # of a state that has changed, workers have the new one
            shared.factor = factor
            found = dict(crew.do(times, shared, range(6)))
            assert {task: answer[0] for task, answer in found.items()} == {t: factor * t for t in range(6)}
            assert {answer[1] == os.getpid() for answer in found.values()} == {here}
        assert max(answer[2] for answer in found.values()) >= 3  # a state serves several tasks
    assert not list(tmp_path.iterdir())


def test_a_state_that_cannot_be_pickled_stays_in_this_process(tmp_path: Path) -> None:
    found = dict(Crew(2, tmp_path).do(times, Locked(2), range(3)))
    assert {answer[1] for answer in found.values()} == {os.getpid()} and found[2][0] == 4


def test_what_a_worker_raises_is_raised_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="13"):
        dict(Crew(2, tmp_path).do(times, Shared(1), [1, 13]))
    assert not list(tmp_path.iterdir())


def test_one_process_on_a_gpu_and_as_many_as_cores_elsewhere() -> None:
    assert default_processes("cuda:0") == 1
    assert default_processes() == 2 and default_processes("cpu", 1) == 1
