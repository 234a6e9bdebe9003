"""What all tests share: the command line as tests call it, a small workload, an engine that answers at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from dse.cli import main
from tests.dse.fakes import FakeEngine

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: on tiny tensors threads only wait

settings.register_profile("enos", deadline=None)  # first calls compile or load libraries, and machines are noisy
settings.load_profile("enos")

WORKLOAD = """
version: 1
name: net
input: [1, 4, 8, 8]
layers:
- {name: first, kind: conv, instance: {N: 1, G: 1, C: 4, M: 8, P: 6, Q: 6, R: 3, S: 3}}
- {name: second, kind: conv, instance: {N: 1, G: 1, C: 8, M: 8, P: 6, Q: 6, R: 1, S: 1, Hstride: 2}}
"""


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("ENOS_STORE", str(tmp_path / "store.sqlite"))
    return tmp_path / "store.sqlite"


@pytest.fixture
def workload(tmp_path: Path) -> Any:
    path = tmp_path / "net.yaml"
    path.write_text(WORKLOAD)
    return str(path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine called native answers at once."""
    monkeypatch.setattr("dse.engines.native.NativeEngine", FakeEngine)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: Any) -> Any:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call


def refused(result: Any) -> Any:
    """The one line of a refusal."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


LONG = (
    "tests/docs/test_pages.py",
    "tests/docs/test_commands.py",
    "tests/cli/test_search.py",
    "tests/search/reproduce/",
)
"""Tests of half a minute and more; they begin first, so that no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
