"""The store: what is written stays, what is damaged is not believed, and what is no store is not touched."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.table.result import Result
from dse.table.store import Store, canonical_json, content_key, default_path, key_of_parts


@pytest.fixture
def path(tmp_path: Path) -> Any:
    return tmp_path / "store.sqlite"


def test_what_is_written_is_read_by_the_next_process(path: Any) -> None:
    payload = {"energy_pj": 0.1 + 0.2, "levels": {"glb": [1, 2]}, "reason": "é"}
    with Store(path) as store:
        store.write("a", payload)
        store.write("b", None)
    with Store(path) as store:
        assert store.read(["a", "b", "c"]) == {"a": payload, "b": None}
        assert len(store) == 2


def test_a_second_write_replaces_the_first(path: Any) -> None:
    with Store(path) as store:
        store.write("a", 1)
        store.write("a", 2)
        assert store.read(["a"]) == {"a": 2}


def test_many_keys(path: Any) -> None:
    with Store(path) as store:
        for i in range(1201):
            store.write(str(i), i)
        assert len(store.read(map(str, range(1300)))) == 1201


def test_keys_follow_content_and_not_order() -> None:
    assert content_key({"a": 1, "b": [1.5, "x"]}) == content_key({"b": [1.5, "x"], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert content_key({"a": 1}) != content_key({"a": 1.5})


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE results SET payload = replace(payload, '1', '2')",
        "UPDATE results SET payload = substr(payload, 1, 5)",
        "UPDATE results SET payload = x'ff00fe'",
        "UPDATE results SET checksum = ''",
        "UPDATE results SET payload = 17",
    ],
)
def test_a_damaged_row_is_not_returned(path: Any, damage: Any) -> None:
    with Store(path) as store:
        store.write("a", {"energy_pj": 1.0})
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    with Store(path) as store:
        assert store.read(["a"]) == {}
        store.write("a", {"energy_pj": 1.0})
        assert store.read(["a"]) == {"a": {"energy_pj": 1.0}}


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\1" * 3000, b"x"])
def test_a_file_that_is_no_store_is_refused_and_kept(path: Any, content: Any) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a store of enos"):
        Store(path)
    assert path.read_bytes() == content


def test_a_half_written_store_is_refused(path: Any) -> None:
    with Store(path) as store:
        for i in range(500):
            store.write(str(i), "x" * 200)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for rest in ("-wal", "-shm"):
        Path(f"{path}{rest}").unlink(missing_ok=True)
    with pytest.raises(InputError, match="damaged"), Store(path) as store:
        store.read(map(str, range(500)))


def test_another_programs_database_and_another_version(path: Any) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE results (key TEXT)")
    with pytest.raises(InputError, match="another program"):
        Store(path)
    path.unlink()
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="version 99"):
        Store(path)


@pytest.mark.parametrize("change", ["DROP TABLE results", "ALTER TABLE results RENAME COLUMN payload TO load"])
def test_a_store_whose_table_is_another(path: Any, change: Any) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    with pytest.raises(InputError, match="damaged store"):
        Store(path)


def test_a_result_of_another_form_is_computed_again() -> None:
    sound = Result("ok", levels={"glb": {"W": dict.fromkeys(("reads", "fills", "updates", "instances"), 1)}}).payload
    assert Result.from_payload(sound) is None  # a level without an energy
    sound["levels"]["glb"]["W"]["energy_pj"] = 2.0
    assert Result.from_payload(sound) is not None
    for name, value in (("status", "OK"), ("cycles", "7"), ("energy_pj", None), ("optimal", 1), ("levels", {"a": 1})):
        assert Result.from_payload({**sound, name: value}) is None


def test_an_empty_file_becomes_a_store(path: Any) -> None:
    path.touch()
    with Store(path) as store:
        assert len(store) == 0


def test_a_missing_store_is_empty_and_not_made_where_it_is_only_read(path: Any) -> None:
    with Store(path, create=False) as store:
        assert store.read(["a"]) == {}
        assert len(store) == 0
    assert not path.exists()


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Store(tmp_path)


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENOS_STORE", str(tmp_path / "mine.sqlite"))
    assert default_path() == tmp_path / "mine.sqlite"
    monkeypatch.delenv("ENOS_STORE")
    assert default_path().parts[-2:] == ("enos", "store.sqlite")


_WRITER = """
import sys
from dse.table.store import Store
path, first = sys.argv[1], int(sys.argv[2])
with Store(path) as store:
    for i in range(first, first + 150):
        store.write(str(i), {"i": i})
    print(len(store.read(map(str, range(first, first + 150)))))
"""


def test_processes_that_make_and_fill_one_store_at_once(path: Any) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, path, str(start)], stdout=subprocess.PIPE, env=os.environ)
        for start in (0, 100, 200)  # they overlap: two may write the same key
    ]
    assert [(writer.communicate()[0].strip(), writer.returncode) for writer in writers] == [(b"150", 0)] * 3
    with Store(path) as store:
        assert store.read(map(str, range(350))) == {str(i): {"i": i} for i in range(350)}


@pytest.mark.parametrize("statement", range(6))
def test_a_store_that_is_made_while_it_is_opened(path: Any, statement: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another process made it between any two statements of the one that opens it."""
    monkeypatch.setattr("dse.table.store._BUSY_SECONDS", 0.05)  # the other one, which waits for this one, gives up

    class Watched(sqlite3.Connection):
        count = 0

        def execute(self, *arguments: Any) -> Any:
            if Watched.count == statement:
                Watched.count += 1  # first, for the other one's statements are not counted
                with contextlib.closing(sqlite3.connect(path, timeout=0.01, isolation_level=None)) as other:
                    other.text_factory = bytes
                    with contextlib.suppress(sqlite3.OperationalError):  # it has to wait where the first has begun
                        Store.__new__(Store)._open(other)
            else:
                Watched.count += 1
            return super().execute(*arguments)

    with contextlib.closing(sqlite3.connect(path, isolation_level=None, factory=Watched)) as connection:
        connection.text_factory = bytes
        store = Store.__new__(Store)
        store.path = path
        store._open(connection)
    with Store(path) as again:
        again.write("a", 1)
        assert again.read(["a"]) == {"a": 1}


def test_a_key_from_parts_is_that_of_the_whole_document() -> None:
    """Stores that were filled before keys were made from parts stay valid."""
    document = {"spec": {"b": [1.5, None], "a": "Ü\n"}, "problem": ["x", 10**20], 'with "quotes"': True, "a": {}}
    parts = {name: canonical_json(value) for name, value in document.items()}
    assert key_of_parts(parts) == content_key(document)
    assert key_of_parts({**parts, "a": "[]"}) != content_key(document)
