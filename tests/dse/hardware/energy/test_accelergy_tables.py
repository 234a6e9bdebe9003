"""Tables in Accelergy's forms: rows as the real Library plug-in chose them, sets of tables, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.table_files import read_table_files

RECORDED = Path(__file__).parent / "accelergy_tables"
ANSWERS = json.loads((RECORDED / "library_answers.json").read_text())
"""Component, attributes, action (None: the area) and what accelergy-library-plug-in answered for chip.csv."""

CHIP = read_table_files([RECORDED / "chip.csv"]).components


def answer(component: str, attributes: dict[str, Any], action: str | None) -> float | None:
    if action is None:
        return CHIP.area(component, attributes)
    return CHIP.energy(component, action, attributes, {}, "arch.yaml: level")


def test_every_recorded_answer_of_the_library_plug_in() -> None:
    assert len(ANSWERS) > 100
    for component, attributes, action, value in ANSWERS:
        found = answer(component, attributes, action)
        assert found == pytest.approx(value, rel=1e-12), (component, attributes, action)


def test_actions_and_attributes_of_a_component() -> None:
    assert CHIP.actions("row_buffer") == ("read", "write", "update", "leak")
    assert set(CHIP.attributes("row_buffer")) == {
        "n_instances", "technology", "global_cycle_seconds", "width", "datawidth", "depth",
    }  # fmt: skip
    assert CHIP.actions("missing") is None
    assert CHIP.computes("dot_unit") and not CHIP.computes("row_buffer")


SET = {
    "mine.table.yaml": "{name: mine, technology: 45nm, accuracy: 95, path_to_data_dir: ./data}",
    "rough.table.yaml": "{name: rough, technology: 45nm, accuracy: 40, path_to_data_dir: ./rough}",
    "data/latch_file.csv": """technology,width,depth,action,data_delta,energy,area
45nm,8,16,read,0,0.03,70
45nm,8,16,read,1,0.11,70
45nm,8,16,write,0,0.05,70
45nm,16,16,read,0,0.07,130
""",
    "rough/latch_file.csv": "technology,width,depth,action,energy,area\n45nm,8,16,read,9,900\n45nm,8,64,read,12,990\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_set_of_tables_is_compared_as_text_and_the_most_accurate_answers(tmp_path: Path) -> None:
    tables = read_table_files([write(tmp_path, SET)]).components
    size = {"technology": "45nm", "width": 8, "depth": 16.0, "other": 3}
    assert tables.energy("latch_file", "read", size, {}, "x") == 0.03
    assert tables.energy("latch_file", "read", size, {"data_delta": 1}, "x") == 0.11
    assert tables.energy("latch_file", "update", size, {}, "x") == 0.05, "a write, as there is no row of an update"
    assert tables.energy("latch_file", "leak", size, {}, "x") == 0
    assert tables.area("latch_file", size | {"width": 16}) == 130
    assert tables.energy("latch_file", "read", size | {"depth": 64}, {}, "x") == 12, "only the rough set has it"
    with pytest.raises(InputError, match=r"no row of 'read' .* fits: width 9 \(the row: 8\)"):
        tables.energy("latch_file", "read", size | {"width": 9}, {}, "arch.yaml: l")
    with pytest.raises(InputError, match="technology 65nm"):
        tables.energy("latch_file", "read", size | {"technology": "65nm"}, {}, "arch.yaml: l")


def test_another_name_of_a_component_and_notes_between_the_rows(tmp_path: Path) -> None:
    notes = "action,energy\nread,2\nreference: {'A': 1.5, 'B': 2}\n"
    folder = write(tmp_path, {"cell.csv": notes, "_pointers.txt": "my_cell: cell\n"})
    tables = read_table_files([folder]).components
    assert tables.energy("my_cell", "read", {}, {}, "x") == 2
    assert tables.actions("cell") == ("read",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "width,energy\n8,1\n"}, r"a\.csv: line 1: no column 'action'"),
        ({"a.csv": "width,action\n8,read\n"}, r"a\.csv: line 1: no column 'energy'"),
        ({"a.csv": "width,action,energy\n8,read,cheap\n"}, r"a\.csv: line 2: energy: found 'cheap'"),
        ({"a.csv": "width,action,energy\n8,read,-1\n"}, r"a\.csv: line 2: energy: found -1"),
        ({"a.csv": "width,action,energy\n8,read,nan\n"}, r"a\.csv: line 2: energy: found nan"),
        ({"a.csv": "width,action,energy,area\n8,read,1,wide\n"}, r"a\.csv: line 2: area: found 'wide'"),
        ({"a.csv": "width,action,energy\n8,,1\n"}, r"a\.csv: line 2: action: is empty"),
        ({"a.csv": "width,width,action,energy\n8,8,read,1\n"}, r"a\.csv: line 1: column 'width' is there twice"),
        ({"a.csv": "width,action,energy\n"}, r"a\.csv: has no row"),
        ({"a.csv": "COMPONENT:\naction,energy\nread,1\n"}, r"a\.csv: line 1: found 'COMPONENT:'"),
        ({"_pointers.txt": "a: b\n", "c.csv": "action,energy\nread,1\n"}, r"_pointers\.txt: no table has .* 'b'"),
        ({"s.table.yaml": "{name: s, technology: 45nm, accuracy: 0, path_to_data_dir: .}"}, r"never takes such a set"),
        ({"s.table.yaml": "{name: s, technology: 45nm, accuracy: true, path_to_data_dir: .}"}, r"accuracy: found True"),
        ({"s.table.yaml": "{name: s, technology: 45nm, accuracy: 9}"}, r"'path_to_data_dir' is missing"),
        ({"s.table.yaml": "{name: s, technology: 45nm, accuracy: 9, path_to_data_dir: x}"}, r"an existing folder"),
        ({"a.yaml": "{mapping: []}"}, r"a\.yaml: is no file of tables: .* mapping"),
        ({"a.txt": ""}, r"has no file of tables"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_read(tmp_path: Path, files: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_table_files([write(tmp_path, files)])
    assert "\n" not in str(error.value)


def test_compound_classes_over_own_tables_leak_and_have_an_area(tmp_path: Path) -> None:
    classes = """
compound_components:
  version: 0.4
  classes:
  - name: double_buffer
    attributes: {technology: must_specify, width: must_specify, depth: must_specify, global_cycle_seconds: 1e-9}
    subcomponents:
    - {name: "half[0..1]", class: row_buffer, area_scale: 1.5, attributes: {width: width, depth: depth / 2}}
    - {name: unit, class: dot_unit, attributes: {resolution: 8}}
    actions:
    - {name: read, subcomponents: [{name: "half[0]", actions: [{name: read}]}]}
    - {name: write, subcomponents: [{name: "half[0]", actions: [{name: write}]}]}
    - {name: leak, subcomponents: [{name: "half[0..1]", actions: [{name: leak}]}]}
"""
    (tmp_path / "double.yaml").write_text(classes)
    library = ComponentLibrary.load([RECORDED / "chip.csv", tmp_path / "double.yaml"])
    size = {"technology": "65nm", "width": 64, "depth": 1024, "global_cycle_seconds": 2e-9}
    energies = library.energies("double_buffer", size, "a.yaml")
    assert energies == pytest.approx({"read": 4.0, "write": 5.0, "update": 5.0, "leak": 2 * 0.02 * 2})
    unit = CHIP.area("dot_unit", {"technology": "65nm", "resolution": 8})
    assert unit is not None
    assert library.area("double_buffer", size, "a.yaml") == pytest.approx(2 * 1.5 * 21000 + unit)
    assert library.area("SRAM_spad", size, "a.yaml") is None, "the shipped tables have no areas"


def test_a_primitive_class_gives_defaults_to_its_table(tmp_path: Path) -> None:
    (tmp_path / "primitive.lib.yaml").write_text(
        "version: 0.4\nclasses:\n- name: row_buffer\n"
        "  attributes: {technology: 65nm, width: must_specify, depth: 8 * width}\n  actions: [{name: read}]\n"
    )
    library = ComponentLibrary.load([RECORDED / "chip.csv", tmp_path / "primitive.lib.yaml"])
    whole = {"technology": "65nm", "width": 64, "depth": 512}
    assert library.energies("row_buffer", {"width": 64}, "x") == library.energies("row_buffer", whole, "x")
    assert library.area("row_buffer", {"width": 64}, "x") == 21000
    with pytest.raises(InputError, match="attribute 'width' of class row_buffer is missing"):
        library.energies("row_buffer", {}, "x")
    assert "depth" in (library.attributes("row_buffer") or ())
