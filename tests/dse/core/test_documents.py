"""YAML and JSON documents: what no reader can do with is one line, soon, and never a traceback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import MAX_DEPTH, parse_json, parse_yaml, read_text, read_yaml
from dse.core.errors import LONGEST, InputError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: !!int abc", "line 2.*'abc' is no int"),
        ("a: !!float x", "'x' is no float"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!map [1]", "a list is not a mapping"),
        ("a: !!timestamp x", "timestamp.*not known"),
        ("a: !!set {x, y}", "set.*not known"),
        ("a: !!binary eA==", "binary.*not known"),
        ("!!python/object:os.system {}", "not known"),
        ("{? {a: 1} : 2}", "key a mapping is neither text nor a number"),
        ("{? [a] : 2}", "key a list is neither text nor a number"),
        ("~: 2", "neither text nor a number"),
        (".nan: 2", "neither text nor a number"),
        ("{1: a, 0x1: b}", "duplicate key '0x1'"),
        ("a: " + "9" * 5000, "'999.*' is no int"),
        ("a: " + "9" * 400, "more than 77 digits"),
        ("a: 0x" + "f" * 5000, "more than 77 digits"),
        ("[" * 900 + "]" * 900, f"more than {MAX_DEPTH} deep"),
        ("[" * 90_000, "not readable as YAML"),
        ("a: &a [*a]", f"more than {MAX_DEPTH} deep"),
        (BOMB, "more than 200,000 values"),
        ("a: \x00", "not readable as YAML"),
        ("a: \ud800", "half of a UTF-16 pair"),
        ("%YAML 3.0\n--- a", "not readable as YAML"),
        ("a: 1\n---\nb: 1", "line 2"),
    ],
)
def test_yaml_that_no_reader_can_use(text: Any, message: Any) -> None:
    start = time.process_time()
    with pytest.raises(InputError, match=message) as e:
        parse_yaml(text, "file")
    assert "\n" not in str(e.value) and len(str(e.value)) <= LONGEST
    assert time.process_time() - start < 2


def test_a_date_is_text() -> None:
    assert parse_yaml("a: 2001-01-01\nb: 2001-99-99", "file") == {"a": "2001-01-01", "b": "2001-99-99"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "no finite number"),
        ("[" + "9" * 5000 + "]", "5000 digits"),
        ("[" * 900 + "]" * 900, f"more than {MAX_DEPTH} deep"),
        ("[" * 100_000, f"more than {MAX_DEPTH} deep"),
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ("[1,\n2", "line 2"),
        ("", "line 1"),
    ],
)
def test_json_that_no_reader_can_use(text: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(text, "file")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    with pytest.raises(InputError, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_text(path)
    with pytest.raises(InputError, match="null character"):
        read_text("a\0b")
    with pytest.raises(InputError, match="name too long"):
        read_text("a" * 300)
    with pytest.raises(InputError, match="too large"):
        read_text("/dev/zero")
    for data in ("a: 1".encode("utf-16"), b"\xff\xfe\x00", bytes(range(256))):
        path.write_bytes(data)
        with pytest.raises(InputError, match="UTF-8"):
            read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(path) == {"a": 1, "b": 2}
    path.write_bytes(b"")
    assert read_yaml(path) is None


def test_a_message_is_one_line_and_not_long() -> None:
    line = str(InputError("file\nname", "found " + "x" * 10_000 + "\x1b[2J\ud800", ["y" * 10_000]))
    assert line.startswith("file name: found xxx") and len(line) <= LONGEST + 40
    assert line.isprintable()
