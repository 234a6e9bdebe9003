from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from search.runs.tensorboard import check_installed, event_files


def write(folder: Path, epochs: int) -> None:
    with event_files(folder, wanted=True) as write_event:
        for epoch in range(1, epochs + 1):
            write_event("a", {"epoch": epoch, "loss": 1 / epoch, "assigned": {"layer": "x"}})
        write_event("a", {"test_accuracy": 0.5, "assignments": []})


def test_event_files_hold_every_number_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 2)
    write(tmp_path, 3)  # a run that goes on writes a stage's entries again
    found: Any = EventAccumulator(str(tmp_path / "a"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "result/test_accuracy"}
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [
        (1, 1), (2, 0.5), (3, pytest.approx(1 / 3)),
    ]  # fmt: skip


def test_nothing_is_written_where_nobody_asks(tmp_path: Path) -> None:
    with event_files(tmp_path / "x", wanted=False) as write_event:
        write_event("a", {"epoch": 1, "loss": 1.0})
    assert not (tmp_path / "x").exists()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tensorboard: the package tensorboard is not installed; pip inst"):
        check_installed()
