"""Workers keep what they hold: joblib ends those that have grown, where psutil is installed."""

from __future__ import annotations

import importlib.util
import os
import time
from contextlib import closing

import pytest

from dse.table.workers import in_workers

_held: list[bytearray] = []


def hold(megabytes: int) -> int:
    """Takes so much memory, and more than a second, after which joblib looks; who did it."""
    _held.append(bytearray(os.urandom(2**20)) * megabytes)
    time.sleep(1.1)
    return os.getpid()


@pytest.mark.skipif(importlib.util.find_spec("psutil") is None, reason="joblib looks at memory with psutil only")
def test_workers_that_grow_stay(recwarn: pytest.WarningsRecorder) -> None:
    with closing(in_workers(hold, [1, 1, 400, 400, 1, 1], 2)) as found:
        assert len(set(found)) <= 2
    assert not [w for w in recwarn if "worker stopped" in str(w.message)]
