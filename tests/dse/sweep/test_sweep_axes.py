"""What settings and sweep files mean, and which are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.sweep.axes import MAX_POINTS, Axis, combine, parse_axis, parse_set, parse_values, parse_zip, points_of
from dse.sweep.sweep_file import read_sweep


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3", [3]),
        ("4, 2,3", [4, 2, 3]),
        ("1024:65536:x2", [1024, 2048, 4096, 8192, 16384, 32768, 65536]),
        ("1000:9000:x2", [1000, 2000, 4000, 8000]),
        ("100:1000:x1.5", [100, 150, 225, 338, 506, 759]),
        ("1:4:x1.2", [1, 2, 3, 4]),
        ("0.5:4:x2", [0.5, 1, 2, 4]),
        ("0.1:0.5:+0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("8:8:x2", [8]),
        ("8:14:+3,20", [8, 11, 14, 20]),
        ("1e3", [1000]),
        ("-2:2:+2", [-2, 0, 2]),
    ],
)
def test_values(text: Any, values: Any) -> None:
    found = parse_values(text, "here")
    assert list(found) == values
    assert [type(v) for v in found] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found ''"),
        ("a", "found 'a'"),
        ("1,,2", "found ''"),
        ("1:2", "found '1:2'"),
        ("1:2:3", "found '1:2:3'"),
        ("1:2:x2:x2", "found '1:2:x2:x2'"),
        ("nan", "a finite number"),
        ("1e999", "a finite number"),
        ("4:2:x2", "starts above its stop"),
        ("1:2:x1", "a factor above 1"),
        ("0:2:x2", "a start above 0"),
        ("1:2:+0", "a step above 0"),
        ("1,2,1", "1 is given twice"),
        ("1:1e9:+1", "more than 10,000 values"),
        ("1:1e29:x1.0001", "more than 10,000 values"),
    ],
)
def test_wrong_values(text: Any, message: Any) -> None:
    with pytest.raises(InputError, match=r"^here: ") as refusal:
        parse_values(text, "here")
    assert message in str(refusal.value)


@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 500))
def test_an_arithmetic_range_includes_its_stop_where_it_is_hit(start: Any, step: Any, count: Any) -> None:
    assert parse_values(f"{start}:{start + step * count}:+{step}", "") == tuple(
        range(start, start + step * count + 1, step)
    )
    if step > 1:
        short = parse_values(f"{start}:{start + step * count - 1}:+{step}", "")
        assert short == tuple(range(start, start + step * count, step))


@given(st.integers(1, 1000), st.integers(2, 10), st.integers(0, 6))
def test_a_geometric_range_includes_its_stop_where_it_is_hit(start: Any, factor: Any, count: Any) -> None:
    whole = tuple(start * factor**i for i in range(count + 1))
    assert parse_values(f"{start}:{whole[-1]}:x{factor}", "") == whole
    assert parse_values(f"{start}:{whole[-1] * factor - 1}:x{factor}", "") == whole


@given(st.floats(0.01, 100), st.floats(1.05, 3), st.integers(1, 20))
def test_a_geometric_range_of_fractions(start: Any, factor: Any, count: Any) -> None:
    stop = start * factor**count  # rounded: it may lie a little below the last value
    values = parse_values(f"{start}:{stop}:x{factor}", "")
    assert len(values) == count + 1
    assert all(b / a == pytest.approx(factor) for a, b in itertools.pairwise(values))


def test_settings_and_points() -> None:
    depth = parse_set("glb_ifmap.depth , glb_psum.depth = 64,128")
    assert depth == Axis(("glb_ifmap.depth", "glb_psum.depth"), ((64, 64), (128, 128)))
    points = points_of([depth, parse_axis("pe_row.meshY", [6, 12], "")])
    assert [(p.number, p.steps) for p in points] == [(1, (0, 0)), (2, (0, 1)), (3, (1, 0)), (4, (1, 1))]
    assert points[2].settings == {"glb_ifmap.depth": 128, "glb_psum.depth": 128, "pe_row.meshY": 6}
    assert points[2].label == "glb_ifmap.depth=128 glb_psum.depth=128 pe_row.meshY=6"


def test_settings_that_vary_in_step_with_values_of_their_own() -> None:
    axis = parse_zip({"pe_column.meshX": [7, 14], "pe_row.meshY": "24,12", "a.b,c.d": "1:2:+1"}, "zip")
    assert axis.steps == ((7, 24, 1, 1), (14, 12, 2, 2))
    assert len(parse_zip({"a.b": [1, 1], "c.d": [1, 2]}, "zip").steps) == 2
    for group, message in [
        ({"a.b": [1, 2], "c.d": [1]}, "a.b has 2, c.d has 1"),
        ({"a.b": [1, 1], "c.d": [1, 1]}, "two steps are the same"),
        ({"a.b": 1, "a.b,c.d": 1}, "a.b is given twice"),
        ([], "a mapping of PATH: VALUES"),
        ({"a.b": {}}, "found {}"),
    ]:
        with pytest.raises(InputError, match="zip") as refusal:
            parse_zip(group, "zip")
        assert message in str(refusal.value)


@pytest.mark.parametrize("text", ["glb.depth", "depth=3", "a.b.c=3", ".depth=3", "glb.=3", "a.b,a.b=3", "=3", "a.b,=3"])
def test_wrong_settings(text: Any) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_set(text)


def test_later_settings_replace_those_of_the_same_paths() -> None:
    said = [parse_set("a.b=1,2"), parse_set("c.d=1")]
    assert combine(said, [parse_set("a.b=3"), parse_set("e.f=4")]) == (
        parse_set("a.b=3"),
        parse_set("c.d=1"),
        parse_set("e.f=4"),
    )
    with pytest.raises(InputError, match=r"a.b is set by a.b and by a.b,e.f"):
        combine(said, [parse_set("a.b,e.f=3")])
    with pytest.raises(InputError, match="set twice"):
        combine(said, [parse_set("a.b=3"), parse_set("a.b=4")])


def test_the_number_of_points_is_bounded() -> None:
    with pytest.raises(InputError, match=r"101 x 100 = 10,100 points \(allowed: at most 10,000\)"):
        points_of([parse_set("a.b=0:100:+1"), parse_set("c.d=1:100:+1")])
    with pytest.raises(InputError, match="nothing varies"):
        points_of([])
    assert len(points_of([parse_set(f"a.b=1:{MAX_POINTS}:+1")])) == MAX_POINTS


def test_a_sweep_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "workload: squeezenet\narch: my.yaml\ncandidates: [T8]\nobjective: energy\n"
        "set: {glb_ifmap.depth: '1024:4096:x2', weights_spad.depth: [112, 224], glb_psum.depth: 2457}\n"
        "zip: [{pe_column.meshX: [7, 14], pe_row.meshY: [24, 12]}]\n"
    )
    said = read_sweep(path)
    assert (said.workload, said.arch, said.operators, said.candidates) == ("squeezenet", Path("my.yaml"), None, ("T8",))
    assert [len(axis.steps) for axis in said.axes] == [3, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "remainders"),
    [
        ("", None),
        ("remainders: false", False),
        ("remainders: true", True),
        ("imperfect: false", False),
        ("imperfect: true", True),
    ],
)
def test_whether_a_sweep_looks_at_remainders(tmp_path: Path, text: str, remainders: bool | None) -> None:
    (tmp_path / "sweep.yaml").write_text(f"workload: squeezenet\n{text}\n")
    assert read_sweep(tmp_path / "sweep.yaml").remainders is remainders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sets: {}", "unknown field 'sets'; did you mean 'set'? (allowed: workload, arch,"),
        ("- 1", "found [1] (allowed: a mapping with workload, arch,"),
        ("set: [1]", "sweep.yaml: set: found [1]"),
        ("set: {a.b: {}}", "sweep.yaml: set a.b: found {}"),
        ("set: {a.b: true}", "found True"),
        ("set: {a.b: [1, null]}", "found [1, None]"),
        ("set: {a.b: []}", "has no values"),
        ("set: {a.b: 1}\nzip: [{a.b: 1, c.d: 2}]", "a.b is set by a.b and by a.b,c.d"),
        ("zip: {a.b: 1}", "sweep.yaml: zip: found"),
        ("candidates: T8", "found 'T8' (allowed: a list)"),
        ("workload: [x]", "sweep.yaml: workload: found ['x']"),
        ("set: {a.b: 1, a.b: 2}", "duplicate key 'a.b'"),
        ("remainders: 1", "sweep.yaml: remainders: found 1"),
        ("imperfect: true\nremainders: true", "sweep.yaml: imperfect: is the earlier name of remainders"),
    ],
)
def test_wrong_sweep_files(tmp_path: Path, text: Any, message: Any) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(InputError) as refusal:
        read_sweep(tmp_path / "sweep.yaml")
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
