"""Changes of files for `fuzz.py`: of structure, types, keys, numbers, syntax, text and bytes."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dse.core.documents import parse_yaml

EVIL: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, -3, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), 2**31,
    2**53,
    2**63, 2**64 + 1, 10**30, -(10**40), "", " ", "no", "false", "abc", "8", "-1", "1e999", "nan", "inf", "a b",
    "a\nb", "\t",
    "\x1b[2J", "é", "٣", "𝟛", "x" * 300, "9" * 5000, "../x", "/", ".", "~", "*", "**", "[", "a=1", "C=0", "C<=-1",
    "9**9**9",
    "pow(9, 9**9)", "((9**1024)**1024)**1024", "'a'*10**11", "1/0", "sqrt(-1)", "__import__('os')", "1 if", "(" * 300,
    [],
    {}, [None], [[]], [{}], {"a": 1}, {"": None}, [1, 2, 3], ["a", "a"], {"a": {"b": {"c": []}}}, [[[[[[1]]]]]],
)  # fmt: skip

BOMB = (
    "[&c [x, x, x, x, x, x, x, x], "
    + "".join(f"&{new} [{', '.join([f'*{old}'] * 8)}], " for old, new in zip("cdefgh", "defghi", strict=True))
    + "*i]"
)

EVIL_YAML = (
    "!!int abc", "!!float x", "!!bool maybe", "!!timestamp x", "!!set {a, b}", "!!omap [a: 1]", "!!binary eA==",
    "!!null x", "!!str [a]", "!!map [a]", "!!seq {a: 1}", "!!python/none ''", "!Component x", "!Odd {a: 1}", "! x",
    "!<x> 1",
    "2001-99-99", "2001-01-01", "12:99:99", "0x", "0o9", "1_000", "=", "<<", "{? {a: 1} : 2}", "{? [a] : 2}", "{<<: 1}",
    "{<<: [1]}", "&a [*a]", "*unknown", "&b", "|", ">", "@x", "`x", "%x", "{a: 1, a: 2}", "{1: a, 1.0: b}", "{~: 1}",
    "{.nan: 1}", "[" * 900 + "]" * 900, "{a: " * 300 + "}" * 300, "0x" + "f" * 5000, "9" * 5000, "1" * 400, "{{ x }}",
    "&b0 [x, x, x, x, x, x, x, x]", BOMB,
    "NaN", "Infinity", "-Infinity", "1e999", '{"a": 1, "a": 2}', "'", '"', "\\ud800", '"\\ud800"', '"\\x00"', ", ,",
    ":", "-",
)  # fmt: skip

EVIL_KEYS: tuple[Any, ...] = ("", " ", "x" * 300, 1, 1.5, True, "a\nb", "\x1b", "!", "<<", "a.b", "é", "__class__", "=")


@dataclass(frozen=True)
class Change:
    """A changed file, what was changed, and whether no reader may accept it."""

    data: bytes
    about: str
    must_be_refused: bool = False


def changed(rng: random.Random, original: Path, free: frozenset[str]) -> Change:
    """One file made of another by one to three changes of a kind.

    Args:
        free: keys under which names stand that the author of a file chooses: there a misspelt key is another name.
    """
    data = original.read_bytes()
    if original.suffix in (".sqlite", ".parquet") or rng.random() < 0.15:
        return _bytes(rng, data)
    if rng.random() < 0.2:
        return _text(rng, data.decode())
    if original.suffix == ".csv":
        return _cells(rng, data.decode(), free)
    json_file = original.suffix == ".json"
    document = copy.deepcopy(json.loads(data) if json_file else parse_yaml(data.decode(), original))
    return _structure(rng, document, json_file, free)


def _bytes(rng: random.Random, data: bytes) -> Change:
    kind = rng.choice(
        ("flip", "flip", "flip", "cut", "insert", "utf-16", "bom", "crlf", "nul", "empty", "noise", "twice")
    )
    at = rng.randrange(len(data) + 1)
    made = bytearray(data)
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 4, 40))):
            made[rng.randrange(len(made))] = rng.randrange(256)
    return Change(
        {
            "flip": bytes(made), "cut": data[:at], "insert": data[:at] + rng.randbytes(8) + data[at:],
            "utf-16": data.decode("latin-1").encode("utf-16"), "bom": b"\xef\xbb\xbf" + data,
            "crlf": data.replace(b"\n", b"\r\n"), "nul": data[:at] + b"\0" + data[at:], "empty": b"",
            "noise": rng.randbytes(200), "twice": data + data,
        }[kind],
        f"bytes: {kind}",
    )  # fmt: skip


def _text(rng: random.Random, text: str) -> Change:
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    line = lines[at]
    kind = rng.choice(("drop", "repeat", "indent", "swap", "character", "evil", "evil", "value"))
    if kind == "drop":
        del lines[at]
    elif kind == "repeat":
        lines.insert(at, line)
    elif kind == "indent":
        lines[at] = rng.choice((" ", "\t", "  ", "- ")) + line
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], line
    elif kind == "character":
        column = rng.randrange(len(line) + 1)
        lines[at] = line[:column] + rng.choice("{}[]:,&*!|>'\"%@`#-?\0\x85\u2028\ufeff0 9.eE_") + line[column + 1 :]
    elif kind == "value" and ":" in line:
        lines[at] = f"{line.partition(':')[0]}: {rng.choice(EVIL_YAML)}\n"
    else:
        column = rng.randrange(len(line) + 1)
        lines[at] = line[:column] + rng.choice(EVIL_YAML) + line[column:]
    return Change("".join(lines).encode("utf-8", "surrogatepass"), f"text, line {at + 1}: {kind}")


def _cells(rng: random.Random, text: str, free: frozenset[str]) -> Change:
    rows = list(csv.reader(io.StringIO(text)))
    at, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    kind = rng.choice(("evil", "evil", "evil", "extra", "fewer", "column twice", "head", "number"))
    if kind == "evil":
        rows[at][column] = str(rng.choice(EVIL))
    elif kind == "extra":
        rows[at].append("1")
    elif kind == "fewer":
        rows[at].pop()
    elif kind == "column twice":
        rows = [[*row, row[column]] for row in rows]
    elif kind == "head":
        rows[0][column] = _misspelt(rng, rows[0][column])
    else:
        rows[at][column] = f"{rng.choice('-+ ')}{rows[at][column]}{rng.choice(('0', '.5', 'e9', '%', ' '))}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    wrong = kind in ("column twice", "extra", "fewer") or (
        kind == "head" and "*" not in free and "." not in rows[0][column]
    )
    return Change(out.getvalue().encode("utf-8", "surrogatepass"), f"cell {at + 1}, {column + 1}: {kind}", wrong)


def _structure(rng: random.Random, document: Any, json_file: bool, free: frozenset[str]) -> Change:
    places = list(_places(document, ()))
    about, wrong = [], False
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path, parent, key = rng.choice(places)
        kind = rng.choice(("evil", "evil", "evil", "drop", "repeat", "key", "misspelt", "misspelt", "move", "number"))
        value = parent.get(key) if isinstance(parent, dict) else parent[key] if key < len(parent) else None
        about.append(f"{'.'.join(map(str, path))}: {kind}")
        if kind == "drop" and key in (parent if isinstance(parent, dict) else range(len(parent))):
            del parent[key]
        elif kind == "repeat" and isinstance(parent, list):
            parent.insert(0, copy.deepcopy(value))
        elif kind in ("key", "misspelt") and isinstance(parent, dict) and key in parent:
            new = rng.choice(EVIL_KEYS) if kind == "key" else _misspelt(rng, str(key))
            items = [(new if k == key else k, v) for k, v in parent.items()]
            parent.clear()
            parent.update(items)
            own = key == "!" or (json_file and "." in str(key))  # a tag; a column of levels, which have any name
            wrong |= kind == "misspelt" and not own and not free & {*map(str, path[:-1]), "*"} and len(about) == 1
        elif kind == "move":
            parent[key if isinstance(parent, dict) or key < len(parent) else slice(0, 0)] = copy.deepcopy(
                rng.choice(places)[1]
            )
        elif kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
            parent[key] = rng.choice((-value, value * 10**9, value + 0.5, value * 1e-9, str(value), [value]))
        elif isinstance(parent, dict) or key < len(parent):
            parent[key] = rng.choice(EVIL)
    if json_file:
        return Change(json.dumps(document).encode(), "; ".join(about), wrong and len(about) == 1)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return Change(text.encode("utf-8", "surrogatepass"), "; ".join(about), wrong and len(about) == 1)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Path, parent and key of every value inside a document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key), value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner, (*path, key))


def _misspelt(rng: random.Random, key: str) -> str:
    at = rng.randrange(len(key) + 1)
    return rng.choice((key[:at] + "x" + key[at:], key[:at] + key[at + 1 :] + "q", key + key[-1:] + "z", f" {key}y"))
