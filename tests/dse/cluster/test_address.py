"""What `--cluster` takes, and how it refuses the rest."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from dse.cluster.address import parse_address
from dse.cluster.connection import Connection
from dse.core.errors import InputError


def test_processes_of_this_machine_and_schedulers() -> None:
    assert parse_address("local:3").workers == 3
    assert parse_address("node:8786").scheduler == "tcp://node:8786"
    assert parse_address("tls://[::1]:8786").scheduler == "tls://[::1]:8786"


def test_a_scheduler_file(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"type": "Scheduler", "address": "tcp://node:8786"}))
    assert parse_address(str(file)).file == file


@pytest.mark.parametrize(
    "text", ["", "local", "local:", "local:0", "local:-1", "local:2.5", "local:9999", "local:two", "node", "node:",
             "node:0", "node:99999", "node:8786/path", "a b:1", "http://node:8786", ":8786"],
)  # fmt: skip
def test_another_form_is_one_line_that_names_the_allowed_ones(text: str) -> None:
    with pytest.raises(InputError, match=rf"^--cluster: found {re.escape(repr(text))} \(allowed: .*local:N") as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "no json", "[]", "{}", '{"address": 3}'])
def test_a_scheduler_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=r"^--cluster: .*scheduler\.json"):
        parse_address(str(file))


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_without_dask_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=re.escape("pip install 'enos-dse[cluster]'")), Connection("local:1") as opened:
        _ = opened.cluster


def test_nobody_listens_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.cluster.connection.CONNECT_S", 0.3)
    with (
        pytest.raises(InputError, match=r"^--cluster: 127\.0\.0\.1:9 cannot be reached: .*start `dask scheduler`$"),
        Connection("127.0.0.1:9") as opened,
    ):
        _ = opened.cluster
