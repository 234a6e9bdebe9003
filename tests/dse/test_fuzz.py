"""A short form of benchmarks/fuzz.py: no reader ends in a traceback or hangs, and no misspelt key is accepted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from fuzz import OUTCOMES, fuzz, outcome
from fuzz_inputs import Change
from fuzz_readers import READERS, Reader

from dse.core.errors import InputError


@pytest.mark.parametrize("name", READERS)
def test_every_changed_file_is_accepted_or_refused_in_one_line(name: Any, tmp_path: Path) -> None:
    wrong = []
    counts = fuzz(tmp_path, 25, 20, {name: READERS[name]}, lambda *found: wrong.append(found))
    assert not wrong
    assert counts[name]["refused"] >= 5  # the changes do change something


def test_what_is_wrong_is_told_apart(tmp_path: Path) -> None:
    def refuse(path: Any) -> None:
        raise InputError(path, "is wrong")

    def fail(path: Any) -> Any:
        return {}[path]

    def end_never(path: Any) -> None:
        while True:
            pass

    change = Change(b"", "nothing")

    def kind(read: Any, change: Any = change) -> Any:
        return outcome(Reader(read, list), tmp_path, change, seconds=0.2).kind

    assert [kind(read) for read in (str, refuse, fail, end_never)] == ["accepted", "refused", "traceback", "hang"]
    assert kind(str, Change(b"", "key", must_be_refused=True)) == "misspelt key accepted"
    assert {kind(read) for read in (str, refuse, fail, end_never)} <= set(OUTCOMES)
