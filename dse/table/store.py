"""The store: results by content, in one SQLite file that survives kills and that several processes may share."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from dse.core.documents import parse_json
from dse.core.errors import InputError
from dse.core.files import system_errors

SCHEMA = 1
"""Form of the file and of the payloads, kept in SQLite's `user_version`; raise it when either changes."""

_HEADER = b"SQLite format 3\0"
_APPLICATION = 0x454E4F53  # "ENOS", in SQLite's `application_id`
_BUSY_SECONDS = 60.0
_COLUMNS = [b"key", b"payload", b"checksum", b"created"]
_CHUNK = 500  # keys asked for in one statement


def content_key(document: Any) -> str:
    """SHA-256 of the canonical JSON of everything that decides an answer."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def key_of_parts(parts: Mapping[str, str]) -> str:
    """The `content_key` of a mapping whose values are given as canonical JSON: many keys have most parts in common.

    >>> key_of_parts({"a": canonical_json([1, 2]), "b": "null"}) == content_key({"b": None, "a": [1, 2]})
    True
    """
    text = ",".join(f"{json.dumps(name)}:{parts[name]}" for name in sorted(parts))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def canonical_json(document: Any) -> str:
    """JSON text that is the same for equal documents, whatever the order of their keys."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def default_path() -> Path:
    """`$ENOS_STORE`, else ``enos/store.sqlite`` in the user's cache folder."""
    if named := os.environ.get("ENOS_STORE"):
        return Path(named)
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "enos" / "store.sqlite"


class Store:
    """An open store; a context manager.

    A result that was written is on the disk's side of a `kill -9`. Rows that fail their checksum are not returned,
    so that they are computed again and replaced.

    Args:
        path: the SQLite file, which is made if it does not exist; None takes `default_path()`.
        create: False reads a missing file as an empty store and makes none.

    Raises:
        InputError: the file is not a store, or one of another version. It is never deleted or overwritten.
    """

    def __init__(self, path: Path | str | None = None, *, create: bool = True) -> None:
        self.path = Path(path) if path is not None else default_path()
        self._connection: sqlite3.Connection | None = None
        if not create and not self.path.exists():
            return
        with system_errors(self.path, "cannot make its folder"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._check_header()
        with self._errors():
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.text_factory = bytes  # a damaged text must not fail before its checksum is looked at
            try:
                self._open(self._connection)
            except BaseException:
                self.close()  # else its lock stays as long as the exception does
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        if self._connection is None:
            return 0
        with self._errors():
            return int(self._connection.execute("SELECT count(*) FROM results").fetchone()[0])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        """The payloads of those keys that are stored and sound."""
        found: dict[str, Any] = {}
        if self._connection is None:
            return found
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            with self._errors():
                rows = self._connection.execute(
                    f"SELECT key, payload, checksum FROM results WHERE key IN ({marks})", chunk
                ).fetchall()
            for key, text, checksum in rows:
                if isinstance(text, bytes) and _checksum(text) == checksum:
                    try:
                        found[key.decode()] = parse_json(text.decode(), self.path)
                    except ValueError:  # InputError is one
                        continue
        return found

    def write(self, key: str, payload: Any) -> None:
        """Stores a payload (JSON data) under a key, in place of what was there; it is safe when this returns."""
        assert self._connection is not None
        text = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
        with self._errors():
            self._connection.execute(
                "INSERT INTO results (key, payload, checksum, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET "
                "payload = excluded.payload, checksum = excluded.checksum, created = excluded.created",
                (key, text.decode(), _checksum(text).decode(), time.time()),
            )

    def _check_header(self) -> None:
        """Refuses a file that SQLite would take for empty and overwrite."""
        if not self.path.exists():
            return
        with system_errors(self.path, "cannot be used"), self.path.open("rb") as file:
            start = file.read(len(_HEADER))
        if start and start != _HEADER:
            raise InputError(self.path, "is not a store of enos", hint="name another file")

    def _open(self, connection: sqlite3.Connection) -> None:
        """Checks that the file is a store, or makes an empty file into one."""
        if self._version(connection) is None:
            _use_wal(connection)
            connection.execute("BEGIN IMMEDIATE")
            if self._version(connection) is None:  # no other process was faster
                connection.execute(
                    "CREATE TABLE results "
                    "(key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum TEXT NOT NULL, created REAL NOT NULL)"
                )
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")

    def _version(self, connection: sqlite3.Connection) -> int | None:
        """The version of the file, None if it is empty; InputError if it is not a store of this version."""
        began = not connection.in_transaction
        if began:  # another process may make the store meanwhile: half of it is read as a file of another program
            connection.execute("BEGIN")
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            if began:
                connection.execute("ROLLBACK")
        if not names and not application and not version:
            return None
        if application != _APPLICATION:
            raise InputError(self.path, "is a database of another program", hint="name another file")
        if version != SCHEMA:
            raise InputError(self.path, f"is a store of version {version}", f"version {SCHEMA}; name another file")
        if [name for _, name, *_ in connection.execute("PRAGMA table_info(results)")] != _COLUMNS:
            raise InputError(self.path, "is a damaged store: its table of results is another", hint="name another file")
        return version

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as e:
            raise InputError(self.path, f"cannot be used: {e}") from None
        except UnicodeDecodeError:  # of SQLite's own message, which quotes a damaged schema
            raise InputError(self.path, "is a damaged store", hint="name another file, or delete this one") from None
        except sqlite3.DatabaseError as e:
            problem = f"is not a store of enos, or a damaged one: {e}"
            raise InputError(self.path, problem, hint="name another file, or delete this one") from None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to write-ahead logging; SQLite does not wait by itself while another process does the same."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
