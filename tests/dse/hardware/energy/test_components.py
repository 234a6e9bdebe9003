"""The embedded estimator on small classes worked by hand, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.energy.classes import read_classes
from dse.hardware.energy.components import ComponentLibrary

ADD_1, ADD_8, ADD_16 = 0.008303144171520668, 0.06642515337216534, 0.13285030674433068
SHIPPED = ComponentLibrary.load()


def library(classes: str) -> ComponentLibrary:
    return SHIPPED.with_classes(parse_yaml("version: 0.4\nclasses:\n" + classes, "c.yaml"), "c.yaml: components")


NESTED = """
- name: lane
  attributes: {technology: "45nm", width: must_specify, half: width / 2}
  subcomponents:
  - {name: low, class: aladdin_adder, attributes: {width: half}}
  - {name: "high[0..n-1]", class: aladdin_adder, attributes: {width: half}, energy_scale: 2}
  actions:
  - name: go
    arguments: {n: 1..4}
    subcomponents:
    - {name: low, actions: [{name: add}]}
    - {name: "high[0..n-1]", actions: [{name: add, energy_scale: n / 2}]}
  - name: once
    subcomponents:
    - {name: low, actions: [{name: add, repeat: 3}]}
- name: pair
  attributes: {lanes: 2}
  subcomponents:
  - {name: "lane[1..lanes]", class: lane, attributes: {width: 16}}
  actions:
  - name: compute
    subcomponents:
    - {name: "lane[1..lanes]", actions: [{name: go, arguments: {n: lanes}}, {name: once}]}
  - name: write
    subcomponents:
    - {name: "lane[1]", actions: [{name: once}]}
"""


def test_scales_ranges_arguments_and_nesting() -> None:
    energies = library(NESTED).energies("lane", {"width": 16}, "a.yaml")
    # at n = 4: the low adder once, four high adders (scale 2) half of n times each
    assert energies["go"] == pytest.approx(ADD_8 + 4 * 2 * (4 / 2) * ADD_8)
    assert energies["once"] == pytest.approx(3 * ADD_8)
    assert energies["leak"] == 0 and "update" not in energies
    energies = library(NESTED).energies("pair", {}, "a.yaml")
    # two lanes with n = 2: 1 + 2 * 2 * 1 adders for go, 3 for once
    assert energies["compute"] == pytest.approx(2 * (1 + 4 + 3) * ADD_8)
    assert energies["update"] == energies["write"] == pytest.approx(3 * ADD_8)


def test_primitive_classes_need_no_file() -> None:
    assert SHIPPED.energies("aladdin_adder", {"width": 1}, "a.yaml")["add"] == ADD_1
    dram = SHIPPED.energies("DRAM", {"width": 64, "type": "LPDDR4", "datawidth": 8}, "a.yaml")
    assert dram == {"read": 512, "write": 512, "update": 512, "leak": 0}


def test_attributes_given_win_over_defaults_and_none_does_not() -> None:
    buffer = {"width": 64, "depth": 8192}
    assert SHIPPED.energies("SRAM_buffer", {**buffer, "n_banks": 16}, "a.yaml")["read"] == 18.2045
    assert SHIPPED.energies("SRAM", {**buffer, "n_banks": 1}, "a.yaml")["read"] == 25.8695
    with pytest.raises(InputError, match="'n_banks' of class SRAM_buffer is missing"):
        SHIPPED.energies("SRAM_buffer", {**buffer, "n_banks": None}, "a.yaml")


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("flux", {}, "unknown component class 'flux' (allowed: SRAM_buffer, SRAM_cim_cells, SRAM_spad, binary_connect_mac"),
        ("SRAM_spad", {"width": 16}, "attribute 'depth' of class SRAM_spad is missing"),
        (
            "SRAM_spad",
            {"width": 16, "depth": 12},
            "SRAM_spad.read: memory: SRAM.depth: 12 is outside the table (allowed: 64",
        ),
        ("regfile_spad", {"width": 16, "depth": 300}, "comparator: aladdin_comparator.n_bits: 9 is outside the table"),
        ("typical_mac", {"multiplier_width": 8, "adder_width": 64}, "aladdin_adder.width: 64 is outside"),
        ("typical_mac", {"multiplier_width": 8, "adder_width": 20, "technology": "7nm"}, "no table has '7nm'"),
        ("typical_mac", {"multiplier_width": "b", "adder_width": 20}, "aladdin_multiplier.width_a: found 'b'"),
        ("typical_mac", {"multiplier_width": "2*b", "adder_width": 20}, "unknown name b in expression '2*b'"),
    ],
)
def test_components_that_have_no_energy(name: Any, attributes: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        SHIPPED.energies(name, attributes, "arch.yaml: architecture.nodes[3]")
    assert str(e.value).startswith("arch.yaml: architecture.nodes[3]") and message in str(e.value)


def test_a_parts_scale_takes_names_from_the_part_first() -> None:
    """As in Accelergy 0.4: `k` is the inner class's own default, not the outer class's."""
    mine = library(
        "- name: inner\n  attributes: {k: 2}\n"
        "  subcomponents: [{name: s, class: aladdin_adder, attributes: {width: 16}}]\n"
        "  actions: [{name: add, subcomponents: [{name: s, actions: [{name: add}]}]}]\n"
        "- name: outer\n  attributes: {k: 3, m: 5}\n  subcomponents: [{name: s, class: inner, energy_scale: k * m}]\n"
        "  actions: [{name: add, subcomponents: [{name: s, actions: [{name: add, repeat: k}]}]}]\n"
    )
    assert mine.energies("outer", {}, "a.yaml")["add"] == pytest.approx(2 * 5 * 3 * ADD_16)


def test_an_arguments_name_is_no_attribute_of_the_parts() -> None:
    """As in Accelergy 0.4: an argument counts for what the parts do, not for what they are."""
    mine = library(
        "- name: c\n  attributes: {n: 8}\n"
        "  subcomponents: [{name: s, class: aladdin_adder, attributes: {width: 2 * n}}]\n"
        "  actions: [{name: go, arguments: {n: 1..4}, subcomponents: [{name: s, actions: [{name: add, repeat: n}]}]}]\n"
    )
    assert mine.energies("c", {}, "a.yaml")["go"] == pytest.approx(4 * ADD_16)


ONE = "- name: c\n  subcomponents: [{{name: s, class: {cls}, attributes: {{width: 8}}}}]\n  actions: [{action}]\n"


@pytest.mark.parametrize(
    ("cls", "action", "message"),
    [
        ("flux", "{name: go, subcomponents: [{name: s, actions: [{name: go}]}]}", "unknown component class 'flux'"),
        ("c", "{name: go, subcomponents: [{name: s, actions: [{name: go}]}]}", "class c contains itself: c > c"),
        (
            "typical_mac",
            "{name: go, subcomponents: [{name: s, actions: [{name: compute}]}]}",
            "a.yaml: c.go: s: attribute 'multiplier_width' of class typical_mac is missing",
        ),
        (
            "SRAM_spad",
            "{name: go, subcomponents: [{name: s, actions: [{name: fly}]}]}",
            "SRAM_spad has no action 'fly'",
        ),
        (
            "aladdin_adder",
            "{name: go, subcomponents: [{name: s, actions: [{name: fly}]}]}",
            "no action 'fly' (allowed: add",
        ),
        ("aladdin_adder", "{name: go, subcomponents: [{name: 's[3..1]', actions: [{name: add}]}]}", "s[3..1] is empty"),
        ("aladdin_adder", "{name: go, subcomponents: [{name: s, actions: [{name: add, repeat: -1}]}]}", "-1 is -1"),
        ("aladdin_adder", "{name: go, arguments: {n: 3}}", "argument n: found 3 (allowed: a range first..last)"),
        ("aladdin_adder", "{name: go, arguments: {n: 1..9999}}", "its arguments have no value or too many"),
    ],
)
def test_classes_that_cannot_be_evaluated(cls: Any, action: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        library(ONE.format(cls=cls, action=action)).energies("c", {}, "a.yaml")
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: c", "c.yaml: components.classes[0]: field 'actions' is missing"),
        ("- {name: c, actions: [], primitive_type: SRAM}", "classes[0]: unknown field 'primitive_type'"),
        ("- {name: c, actions: []}\n- {name: c, actions: []}", "classes[1].name: a second class is named 'c'"),
        ("- {name: c, actions: {a: 1}}", "classes[0].actions: found {'a': 1} (allowed: a list)"),
        ("- 3", "classes[0]: found 3 (allowed: a mapping with name"),
        ("- {name: c, actions: [{name: a, subcomponents: [{name: x, actions: []}]}]}", "there is no subcomponent 'x'"),
        ("- {name: c, subcomponents: [{name: '1x', class: SRAM}], actions: []}", "found '1x' (allowed: a name, or"),
        ("- {name: c, subcomponents: [{name: 'x[..3]', class: SRAM}], actions: []}", "found [..3]"),
    ],
)
def test_component_files_that_cannot_be_read(text: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        library(text)
    assert message in str(e.value)


def test_files_and_folders_are_added_to_the_shipped_ones(tmp_path: Path) -> None:
    storage = (data_dir("arch_specs") / "components" / "storage.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(storage.replace("n_banks: 1}", "n_banks: 2}"))
    (tmp_path / "mine.csv").write_text(
        "component,technology,width_bits,width_b_bits,depth,n_banks,action,energy_pj,estimator\n"
        "adder,45nm,16,,,,add,7,measured\n"
    )
    (tmp_path / "notes.txt").write_text("not read")
    mine = ComponentLibrary.load([tmp_path])
    assert mine.energies("aladdin_adder", {"width": 16}, "a.yaml")["add"] == 7
    assert mine.energies("SRAM_spad", {"width": 16, "depth": 128}, "a.yaml")["read"] == 0.605952  # two banks
    assert SHIPPED.energies("aladdin_adder", {"width": 16}, "a.yaml")["add"] == ADD_16


@pytest.mark.parametrize("name", ["nowhere.yaml", "notes.txt"])
def test_paths_that_are_no_component_files(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InputError, match=name):
        ComponentLibrary.load([tmp_path / name])


@pytest.mark.parametrize("text", ["[1, 2]", "architecture: {}", "compound_components: {version: 0.2, classes: []}"])
def test_other_documents_are_refused(tmp_path: Path, text: Any) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        ComponentLibrary.load([tmp_path / "c.yaml"])


LEAKING = """component,technology,width_bits,width_b_bits,depth,n_banks,action,energy_pj,estimator
sram,45nm,64,,8192,16,leak,5,mine
register,45nm,1,,,,leak,0.25,mine
"""


def test_leakage_of_a_table_reaches_the_memories(tmp_path: Path) -> None:
    (tmp_path / "leak.csv").write_text(LEAKING)
    own = ComponentLibrary.load([tmp_path / "leak.csv"])

    def leak(component_class: Any, **attributes: Any) -> Any:
        return own.energies(component_class, attributes, "x")["leak"]

    assert leak("SRAM_buffer", width=64, depth=8192, n_banks=16) == 5
    assert leak("SRAM", width=64, depth=8192, n_banks=16) == 5
    assert leak("SRAM_buffer", width=64, depth=4096, n_banks=16) == 0  # no row says what this one leaks
    assert leak("regfile_spad", width=8, depth=12) == 8 * 12 * 0.25
    assert leak("DRAM", width=64) == leak("aladdin_adder", width=8) == 0
    assert ComponentLibrary.load().energies("SRAM", {"width": 64, "depth": 8192, "n_banks": 16}, "x")["leak"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sram,45nm,64,,8192,16,laek,5,mine", "line 2: action: unknown action 'laek'; did you mean 'leak'?"),
        ('sram,"45nm,64,,8192,16,leak,5,mine', "line 2: not readable as CSV"),
        ("sram,45nm,64,,8192,16,leak,5,mine,more", "line 2: has 10 cells"),
        ("sram,45nm,64,,8192,16,leak,-5,mine", "line 2: energy_pj: found '-5'"),
        ("sram,45nm,64,,8192,16,leak,nan,mine", "line 2: energy_pj: found 'nan'"),
    ],
)
def test_rows_of_a_table_that_are_wrong(tmp_path: Path, row: Any, message: Any) -> None:
    (tmp_path / "t.csv").write_text(LEAKING.partition("\n")[0] + "\n" + row + "\n" + LEAKING.partition("\n")[2])
    with pytest.raises(InputError) as e:
        ComponentLibrary.load([tmp_path / "t.csv"])
    assert message in str(e.value)


def test_of_two_actions_of_a_name_accelergy_takes_the_last() -> None:
    adder = "- {name: a, class: aladdin_adder, attributes: {width: 8}}"
    text = f"""
- name: c
  subcomponents: [{adder[2:]}]
  actions:
  - {{name: read, subcomponents: {{}}}}
  - {{name: read, subcomponents: [{{name: a, actions: [{{name: add}}]}}]}}
"""
    assert library(text).energies("c", {}, "x")["read"] == ADD_8


def test_old_names_of_scales_are_read_as_the_new_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
compound_components:
  version: 0.4
  classes:
  - name: c
    subcomponents: [{name: x, class: aladdin_adder, attributes: {width: 8}, %s: 3}]
    actions: [{name: a, subcomponents: [{name: x, actions: [{name: add, %s: 2}]}]}]
"""
    for name, names in (("old", ("area_share", "action_share")), ("new", ("area_scale", "energy_scale"))):
        (tmp_path / f"{name}.yaml").write_text(text % names)
    assert read_classes(tmp_path / "old.yaml") == read_classes(tmp_path / "new.yaml")
    assert "action_share is read as energy_scale, its new name" in caplog.text
    (tmp_path / "old.yaml").write_text(text % ("area_share", "energy_scale: 1, action_share"))
    with pytest.raises(InputError, match="action_share: is the old name of energy_scale, which is given too"):
        read_classes(tmp_path / "old.yaml")
