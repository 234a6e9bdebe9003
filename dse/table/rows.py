"""Rows of a table as CSV, Parquet or JSON; what made the table goes into the same file.

CSV has it as comment lines before the head (``# workload: squeezenet``), JSON beside the rows, Parquet in its metadata.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dse.core.documents import parse_json, parse_yaml, read_json, read_text, readable
from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.table.columns import Row

SUFFIXES = (".csv", ".parquet", ".json")

_TITLE = "ENOS cost table"
_METADATA = b"enos"


@dataclass(frozen=True)
class File:
    """Rows, and what the file says of their making; None for a file without it. In CSV every value is text."""

    rows: list[Row]
    about: Any = None


def write_rows(
    rows: Sequence[Row], columns: Sequence[str], path: Path | str, about: Mapping[str, Any] | None = None
) -> None:
    """Writes rows as CSV, Parquet or JSON, by the file's suffix; a column that a row lacks is empty.

    Args:
        about: what made the table, as JSON data.

    Raises:
        InputError: another suffix, a package that is missing, or what the operating system refuses.
    """
    path = Path(path)
    writers = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise InputError(path, f"cannot write a table as {path.suffix!r}", SUFFIXES)
    with system_errors(path):
        writers[path.suffix](rows, columns, path, about)


def read_rows(path: Path | str) -> File:
    """Reads what `write_rows` wrote.

    Raises:
        InputError: a file of another form, or has no rows.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(path, f"cannot read a table from {path.suffix!r}", SUFFIXES)
    file = readers[path.suffix](path)
    if not file.rows:
        raise InputError(path, "the table is empty")
    return file


def _write_csv(rows: Sequence[Row], columns: Sequence[str], path: Path, about: Mapping[str, Any] | None) -> None:
    with path.open("w", newline="", encoding="utf-8") as f:
        if about is not None:
            text = yaml.safe_dump(dict(about), sort_keys=False, width=1000, default_flow_style=None)
            f.write("".join(f"# {line}\n" for line in (_TITLE, *text.splitlines())))
        writer = csv.DictWriter(f, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_csv(path: Path) -> File:
    """Each row has a cell for every column."""
    text = read_text(path).splitlines(keepends=True)
    comments = next((i for i, line in enumerate(text) if not line.startswith("#")), len(text))
    about = None
    if comments:
        if text[0].strip() != f"# {_TITLE}":  # else a damaged header would pass for none
            raise InputError(f"{path}: line 1", f"found {text[0].strip()[:80]!r}", f"# {_TITLE}, or no comment")
        about = parse_yaml("".join(line[2:] for line in text[1:comments]), f"{path}: header")
    rows = []
    try:
        lines = csv.reader(text[comments:], strict=True)
        head = next(lines, [])
        _no_duplicates(head, path)
        for cells in lines:
            where = f"{path}: line {lines.line_num + comments}"
            if cells and len(cells) != len(head):
                raise InputError(where, f"has {len(cells)} cells", f"{len(head)}, as its head")
            if cells:
                rows.append(dict(zip(head, cells, strict=True)))
    except csv.Error as e:
        raise InputError(path, f"not a table: {e}") from None
    return File(rows, about)


def _write_json(rows: Sequence[Row], columns: Sequence[str], path: Path, about: Mapping[str, Any] | None) -> None:
    document = list(rows) if about is None else {"about": about, "rows": list(rows)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> File:
    document = read_json(path)
    about = None
    if isinstance(document, dict) and set(document) == {"about", "rows"}:
        about, document = document["about"], document["rows"]
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise InputError(path, "not a table", "a list of rows, each a mapping of columns to values")
    return File(document, about)


def _write_parquet(rows: Sequence[Row], columns: Sequence[str], path: Path, about: Mapping[str, Any] | None) -> None:
    pa, parquet = _pyarrow(path)
    table = pa.table({c: [row.get(c) for row in rows] for c in columns})
    if about is not None:
        table = table.replace_schema_metadata({_METADATA: json.dumps(about).encode()})
    parquet.write_table(table, path)


def _read_parquet(path: Path) -> File:
    pa, parquet = _pyarrow(path)
    data = readable(path, Path.read_bytes)  # of a file alone: pyarrow takes a folder for a table in parts
    try:
        table = parquet.read_table(pa.BufferReader(data))
        _no_duplicates(table.column_names, path)
        about = (table.schema.metadata or {}).get(_METADATA)
        rows: list[Row] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as e:
        raise e if isinstance(e, InputError) else InputError(path, f"not a table: {e}") from None
    return File(rows, None if about is None else parse_json(about.decode(errors="replace"), f"{path}: metadata"))


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        hint = "pip install 'enos-dse[parquet]', or use .csv or .json"
        raise InputError(path, "Parquet needs the package pyarrow", hint=hint) from None
    return pyarrow, parquet


def _no_duplicates(columns: Sequence[str], path: Path) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(path, f"column {column!r} is there twice", "each column once")
