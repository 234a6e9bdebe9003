from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates, resolved_operators

EXTENDED = data_dir("arch_specs") / "operators_extended.yaml"


def test_the_shipped_space_is_three_operators_at_three_precisions() -> None:
    assert [c.name for c in load_candidates()] == ["T8", "T4", "T2", "MF8", "MF4", "MF2", "BC8", "BC4", "BC2"]


def test_the_extended_space_begins_with_the_shipped_one() -> None:
    extended = load_candidates(EXTENDED)
    assert extended[:9] == load_candidates()
    assert [c.name for c in extended[9:]] == ["DS8", "DS4", "DS2", "XN1"]


def test_an_operator_may_list_its_own_precisions() -> None:
    (xnor,) = [c for c in load_candidates(EXTENDED) if c.operator == "xnor"]
    assert (xnor.bits, xnor.act_bits, xnor.weight_bits, xnor.accumulator_bits(2047)) == (1, 1, 1, 12)


def test_a_shift_needs_a_sign_and_the_bits_of_its_distance() -> None:
    widths = {c.bits: c.weight_bits for c in load_candidates(EXTENDED) if c.operator == "deep_shift"}
    assert widths == {8: 4, 4: 4, 2: 2}


def test_a_shipped_file_has_a_name(tmp_path: Path) -> None:
    assert load_candidates("operators") == load_candidates()
    assert load_candidates("operators_extended") == load_candidates(EXTENDED)
    with pytest.raises(
        InputError,
        match=r"^operators: unknown file or shipped name '.*none.yaml' \(allowed: .*operators_extended.*, a path",
    ):
        load_candidates(tmp_path / "none.yaml")


@pytest.mark.parametrize("bits", ["8", [0], [8, "x"], [33], [True]])
def test_precisions_of_an_operator_are_checked(bits: object, tmp_path: Path) -> None:
    document = yaml.safe_load(EXTENDED.read_text())
    document["operators"]["xnor"]["bits"] = bits
    path = tmp_path / "operators.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(
        InputError, match=r"operators.xnor.bits(\[\d\])?: found .*allowed: a (list|whole number from 1 to 32)"
    ):
        load_candidates(path)


def test_an_operator_says_what_its_accumulator_does_with_large_sums(tmp_path: Path) -> None:
    narrow, exact = load_candidates("operators_published_widths"), load_candidates("operators_published_energies")
    assert {c.overflow for c in narrow} == {"wrap"} and {c.psum_bits for c in narrow} == {20, 12}
    assert tuple(dataclasses.replace(c, overflow=None) for c in narrow) == exact
    assert all("overflow" not in c.identity for c in exact)  # so tables that are older keep their digest
    (tmp_path / "kept.yaml").write_text(resolved_operators(narrow))
    assert load_candidates(tmp_path / "kept.yaml") == narrow
    text = (data_dir("arch_specs") / "operators_published_widths.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("overflow: wrap", "overflow: clip", 1))
    with pytest.raises(InputError, match=r"operators.typical.overflow: .*'clip'.*wrap.*saturate"):
        load_candidates(tmp_path / "own.yaml")
    text = (data_dir("arch_specs") / "operators_cim.yaml").read_text()
    (tmp_path / "cim.yaml").write_text(text.replace("    variables:", "    overflow: wrap\n    variables:", 1))
    with pytest.raises(InputError, match=r"operators.typical.overflow: is of an operator in memory"):
        load_candidates(tmp_path / "cim.yaml")


def test_an_accumulator_may_be_as_wide_as_the_sums_of_a_layer_need(tmp_path: Path) -> None:
    text = (data_dir("arch_specs") / "operators_published_energies.yaml").read_text()
    wide = text.replace("psum_bits: 12", "psum_bits: bits + ceil(log2(reduction)) + extra")
    wide = wide.replace("adder_width: 12", "adder_width: psum_bits + 1")
    (tmp_path / "own.yaml").write_text(wide)
    found = {c.name: c for c in load_candidates(tmp_path / "own.yaml", {"extra": 2})}
    assert found["BC4"].psum_bits == "4 + ceil(log2(reduction)) + 2"
    assert [found["BC4"].accumulator_bits(n) for n in (1, 9, 576)] == [6, 10, 16]
    assert found["BC4"].at(9).psum_bits == 10 and found["BC4"].at(9).compute_attributes == (("adder_width", 11),)
    assert found["T8"].at(9) is found["T8"]  # nothing of it depends on the layer
    (tmp_path / "kept.yaml").write_text(resolved_operators(found.values()))
    assert load_candidates(tmp_path / "kept.yaml") == tuple(found.values())


@pytest.mark.parametrize("width, problem", [
    ("reductions + 1", r"psum_bits: unknown name reductions in .*allowed: bits, reduction\)"),
    ("reduction + wide", r"psum_bits: unknown name wide in .*allowed: bits, reduction\)"),
    ("reduction - 1", r"psum_bits: found 0"),
    ("reduction / 2", r"psum_bits: found 0.5"),
    ("wide", r"psum_bits: found 'wide'"),
])  # fmt: skip
def test_a_width_that_is_none_is_refused(width: str, problem: str, tmp_path: Path) -> None:
    text = (data_dir("arch_specs") / "operators_published_energies.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("psum_bits: 20", f"psum_bits: {width}"))
    with pytest.raises(InputError, match=problem):
        load_candidates(tmp_path / "own.yaml")
