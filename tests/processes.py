"""Processes as tests look at them: who descends from whom, and waiting for an event instead of for a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PATIENCE_S = 180.0  # for what takes well under a second on a quiet machine

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds; an assertion where it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    return _state(pid)[0] not in ("", "Z")


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, and those that these have."""
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            children[_state(int(folder.name))[1]].append(int(folder.name))
    known: set[int] = set()
    unseen = [pid]
    while unseen:
        new = [child for child in children[unseen.pop()] if child not in known]
        known.update(new)
        unseen += new
    return known


def until_gone(pids: Iterable[int]) -> None:
    until(lambda: not any(alive(pid) for pid in pids))


def _state(pid: int) -> tuple[str, int]:
    """A process's state and the id of its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])
