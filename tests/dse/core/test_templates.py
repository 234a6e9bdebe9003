"""Templates of Timeloop's front end, and mappings that merge others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.core.templates import MAX_INCLUDES, read_template


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_files_and_their_parts_are_included(write: Any) -> None:
    write("parts/a.yaml", "classes: [{name: a}]")
    write("parts/b.yaml", "classes: [{name: b}, {name: c}]")
    write("base.yaml", "base_ignore: &base {x: 1}")
    top = write(
        "top.yaml.jinja2",
        "{{add_to_path('parts')}}\n{{include_text('base.yaml')}}\none: {{include('a.yaml', 'classes')}}\n"
        "all: {{include_all('parts/*.yaml', 'classes')}}\nmerged: {<<<: *base, y: {{n}}}\n"
        "{% if path_exists('c.yaml') %}no: 1{% endif %}\nhere: \"{{find_path('b.yaml')}}\"\n",
    )
    found = read_template(top, {"n": 2})
    assert found["one"] == [{"name": "a"}]
    assert found["all"] == [[{"name": "a"}], [{"name": "b"}, {"name": "c"}]]
    assert found["merged"] == {"x": 1, "y": 2}
    assert "no" not in found and found["here"].endswith("parts/b.yaml")


def test_an_included_file_is_a_template_of_the_same_data(write: Any) -> None:
    write("inner/layer.yaml", "{{include_text('../base.yaml')}}\nproblem: {<<<: *base, C: {{c}}}\n")
    write("base.yaml", "base: &base {C: 1, M: 1}")
    top = write("top.yaml", "problem: {{include('inner/layer.yaml', 'problem')}}\n")
    assert read_template(top, {"c": 8}) == {"problem": {"C": 8, "M": 1}}


def test_included_text_keeps_what_it_includes_itself(write: Any) -> None:
    write("a.yaml", "x: 1")
    write("b.yaml", "x: 2")
    write("text.yaml", "inner: {{include('a.yaml')}}")
    top = write("top.yaml", "outer: {{include('b.yaml')}}\n{{include_text('text.yaml')}}\n")
    assert read_template(top) == {"outer": {"x": 2}, "inner": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {{ b }}", "top.yaml: line 1: 'b' is undefined; give its value with --jinja NAME=VALUE"),
        ("a: 1\nb: {% if %}", "top.yaml: line 2: not readable as a Jinja2 template"),
        ("{{ include('top.yaml') }}", "within one another (allowed: no file that includes itself)"),
        ("a: {{ include('gone.yaml') }}", "includes 'gone.yaml', which is in none of its folders"),
        ("a: {{ include('other.yaml', 'b.c') }}", "has no 'b.c', which another file includes (allowed: x)"),
        ("a: {{ include(3) }}", "found 3 (allowed: the name of a file)"),
        ("a: {{ ().__class__.__mro__ }}", "top.yaml: line 1"),
        ("a: {{ ''.join(['x'] * 10**9) }}", "is not computed"),
        ("a: {{ 'x' * 10**8 }}", "is not computed"),
        ("{% for i in range(10**9) %}{% endfor %}", "more than 100,000 values of range"),
        (
            "{% for i in range(400) %}{% for j in range(400) %}{% endfor %}{% endfor %}",
            "more than 100,000 values of range",
        ),
        (
            "{% for i in range(5000) %}{{ include_text('other.yaml') }}\n{% endfor %}",
            f"more than {MAX_INCLUDES:,} files",
        ),
        ("a: {{ cwd.__globals__ }}", "top.yaml: line 1"),
        ("a: {b: {{ 1 }}", ": not readable as YAML"),
    ],
)
def test_what_a_template_does_wrong_is_one_line(write: Any, text: str, message: str) -> None:
    write("other.yaml", "x: 1")
    top = write("top.yaml", text)
    with pytest.raises(InputError) as e:
        read_template(top)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_programs_of_all_files_are_named_by_whole_paths(write: Any) -> None:
    write("inner/functions.py", "")
    write("inner/variables.yaml", "globals: {expression_custom_functions: [functions.py, gone.py]}\nx: 1")
    top = write("top.yaml", "x: {{include('inner/variables.yaml', 'x')}}")
    found = read_template(top)["globals"]["expression_custom_functions"]
    assert found == [str(top.parent.resolve() / "inner" / "functions.py"), "gone.py"]


MERGED = """
a: &a
  key: one
  deep: {s: 1, t: 2, list: [x]}
  list: [d, e]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{<<<: *a, deep: {s: 3, list: [y]}}",
            {"key": "one", "deep": {"s": 3, "t": 2, "list": ["y", "x"]}, "list": ["d", "e"]},
        ),
        ("{<<: *a, deep: {s: 3}}", {"key": "one", "deep": {"s": 3}, "list": ["d", "e"]}),
        ("{list: [f], <<<: *a, deep: !nomerge {}}", {"key": "one", "deep": {}, "list": ["f", "d", "e"]}),
        # As Accelergy's loader, and unlike its documentation: a list after <<< is not continued.
        ("{<<<: *a, deep: {}, list: [f]}", {"key": "one", "deep": {"s": 1, "t": 2, "list": ["x"]}, "list": ["f"]}),
        ("{<<<: [{key: two, list: [z]}, *a], deep: !nomerge {}}", {"key": "two", "deep": {}, "list": ["z", "d", "e"]}),
        ("{<<: [*a, {list: [z], more: 1}], deep: 1}", {"key": "one", "deep": 1, "list": ["d", "e"], "more": 1}),
        ("{x: {<<<: {y: 1}, z: 2}}", {"x": {"y": 1, "z": 2}}),
        # << comes first everywhere: here it gives `deep` its `s`, which <<< then leaves as it is.
        (
            "{<<<: *a, deep: {<<: {s: 9, list: [z]}}}",
            {"key": "one", "deep": {"s": 9, "t": 2, "list": ["z", "x"]}, "list": ["d", "e"]},
        ),
    ],
)  # fmt: skip
def test_mappings_are_merged_as_accelergy_merges_them(text: str, expected: Any) -> None:
    assert parse_yaml(f"{MERGED}b: {text}\n", "m")["b"] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b: {<<<: 3}", "<< merges 3, which is not a mapping or a list of mappings"),
        ("b: {<<: 3}", "<< merges 3, which is not a mapping or a list of mappings"),
        ("b: {<<<: *a, <<<: *a}", "duplicate key '<<<'"),
        ("b: !include other.yaml", "the tag !include is of an old form; write {{ include('other.yaml') }}"),
    ],
)
def test_what_cannot_be_merged_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as e:
        parse_yaml(f"{MERGED}{text}\n", "m")
    assert message in str(e.value) and "\n" not in str(e.value)


def test_merges_that_grow_without_end_are_refused() -> None:
    lines = ["v0: &v0 {a: [1, 1, 1, 1, 1, 1, 1, 1]}"]
    lines += [f"v{i + 1}: &v{i + 1} {{a: [*v{i}, *v{i}], <<<: *v{i}}}" for i in range(30)]
    with pytest.raises(InputError, match="more than 200,000 values"):
        parse_yaml("\n".join(lines), "m")


def test_an_anchor_may_be_set_again() -> None:
    assert parse_yaml("a: &x 1\nb: *x\nc: &x 2\nd: *x\n", "m") == {"a": 1, "b": 1, "c": 2, "d": 2}
