"""Lookups in the shipped tables against rows read by eye and interpolations worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.energy.tables import COLUMNS, Tables, primitive_energy, read_tables

TABLES = read_tables(sorted((data_dir("arch_specs") / "tables").glob("*.csv")))


def energy(name: str, action: str, /, tables: Tables = TABLES, **attributes: object) -> float:
    return primitive_energy(tables, name, action, attributes, "arch.yaml: nodes[1]")


def test_rows_are_returned_exactly() -> None:
    assert energy("aladdin_adder", "add", width=20) == 0.16606288343041334
    assert energy("adder", "read", width=12, technology="45nm") == 0.099637730058248
    assert energy("intadder", "add", width=12) == 0.099637730058248
    assert energy("aladdin_multiplier", "multiply", width_a=8, width_b=8) == 1.0027035056655433
    assert energy("aladdin_comparator", "compare", n_bits=4) == 0.037286652759575475
    assert energy("SRAM", "read", width=64, depth=8192, n_banks=16) == 18.2045
    assert energy("SRAM", "write", width=8, depth=64) == 0.524941


def test_between_rows() -> None:
    adder, next_adder = energy("adder", "add", width=12), energy("adder", "add", width=16)
    assert energy("adder", "add", width=13) == pytest.approx(adder + (next_adder - adder) / 4)
    # a quarter of the way from 8 to 16 in the logarithm is 8 * 2**0.25
    e8, e16 = 1.0027035056655433, 4.010814022662173
    assert energy("multiplier", "multiply", width=8 * 2**0.25) == pytest.approx(e8**0.75 * e16**0.25)
    assert energy("multiplier", "multiply", width_a=4, width_b=16) == pytest.approx(e8)


def test_energies_per_bit() -> None:
    assert energy("aladdin_register", "read", width=16) == 16 * 0.011387169149514056
    assert energy("aladdin_register", "read") == 0.011387169149514056
    assert energy("aladdin_register", "leak", width=16) == 0
    assert energy("DRAM", "update", width=64, type="LPDDR4", technology="45nm") == 512
    assert energy("dram", "read", width=64) == 512
    assert energy("DRAM", "read", width=64, type="HBM2") == pytest.approx(249.6)
    assert energy("DRAM", "leak", width=64) == 0


def test_weights_scratchpad_of_eyeriss() -> None:
    # 16 bit x 224 words between the rows of 128 and 256 words
    share = math.log(224 / 128) / math.log(256 / 128)
    by_hand = 0.550105 ** (1 - share) * 0.860424**share
    assert energy("SRAM", "read", width=16, depth=224) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.79, abs=0.005)


def test_banks_divide_a_memory() -> None:
    one, sixteen = (energy("SRAM", "read", width=64, depth=8192, n_banks=n) for n in (1, 16))
    bank = energy("SRAM", "read", width=64, depth=512)
    assert bank < sixteen < one


@given(
    width=st.floats(8, 256),
    depth=st.floats(64, 65536),
    banks=st.floats(1, 32),
    action=st.sampled_from(["read", "write"]),
)
def test_interpolation_stays_between_its_corners(width: Any, depth: Any, banks: Any, action: Any) -> None:
    def around(x: float) -> tuple[float, float]:
        return 2.0 ** math.floor(math.log2(x)), 2.0 ** math.ceil(math.log2(x))

    corners = [
        energy("SRAM", action, width=w, depth=d, n_banks=n)
        for w in around(width)
        for d in around(depth)
        for n in around(banks)
    ]
    value = energy("SRAM", action, width=width, depth=depth, n_banks=banks)
    assert min(corners) * (1 - 1e-9) <= value <= max(corners) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "action", "attributes", "message"),
    [
        (
            "SRAM",
            "read",
            {"width": 64, "depth": 100000},
            "SRAM.depth: 100000 is outside the table (allowed: 64 to 65536)",
        ),
        ("SRAM", "read", {"width": 4, "depth": 64}, "SRAM.width: 4 is outside the table (allowed: 8 to 256)"),
        ("SRAM", "read", {"width": 64, "depth": 64, "n_banks": 64}, "SRAM.n_banks: 64 is outside"),
        ("SRAM", "read", {"width": 64}, "SRAM: attribute 'depth' is missing"),
        ("SRAM", "read", {"width": "wide", "depth": 64}, "SRAM.width: found 'wide'"),
        ("SRAM", "read", {"width": 64, "depth": 64, "technology": "7nm"}, "no table has '7nm' (allowed: 45nm)"),
        ("SRAM", "erase", {"width": 64, "depth": 64}, "no action 'erase' (allowed: read, write, update, leak)"),
        ("DRAM", "read", {"width": 64, "type": "tape"}, "no table has 'tape' (allowed: DDR3, GDDR5, HBM2"),
        ("aladdin_adder", "add", {"width": 64}, "aladdin_adder.width: 64 is outside the table (allowed: 1 to 32)"),
        ("flux", "read", {}, "unknown component class 'flux' (allowed: aladdin_adder"),
    ],
)
def test_what_no_table_has(name: Any, action: Any, attributes: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        energy(name, action, **attributes)
    assert str(e.value).startswith("arch.yaml: nodes[1]") and message in str(e.value)


HEADER = ",".join(COLUMNS)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return path


def test_a_later_table_replaces_rows_and_adds_a_technology(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", "adder,45nm,8,,,,add,1,x", "adder,45nm,16,,,,add,2,x")
    second = write(tmp_path / "b.csv", "# measured", "adder,45,8,,,,add,3,x", "adder,22nm,8,,,,add,0.5,x")
    tables = read_tables([first, second])
    assert energy("adder", "add", tables=tables, width=8, technology="45nm") == 3
    assert energy("adder", "add", tables=tables, width=16, technology=45) == 2
    assert energy("adder", "add", tables=tables, width=8, technology="22nm") == 0.5
    with pytest.raises(InputError, match=r"technology: is missing \(allowed: 22nm, 45nm\)"):
        energy("adder", "add", tables=tables, width=8)
    with pytest.raises(InputError, match="no table has action 'read' of sram"):
        energy("SRAM", "read", tables=tables, width=8, depth=64)


def test_a_core_uses_the_smallest_of_its_accumulators_that_is_enough(tmp_path: Path) -> None:
    rows = [f"core_typical,45nm,{bits},{width},,,compute,{bits * width},x" for bits in (4, 8) for width in (12, 20)]
    tables = read_tables([write(tmp_path / "a.csv", *rows)])
    for width, form in ((5, 12), (12, 12), (13, 20), (20, 20)):
        assert energy("core_typical", "compute", tables=tables, width=8, accumulator_width=width) == 8 * form
        assert energy("core_typical", "leak", tables=tables, width=8, accumulator_width=width) == 0
    between = energy("core_typical", "compute", tables=tables, width=4 * 2**0.5, accumulator_width=12)
    assert between == pytest.approx(12 * 4 * 2**0.5)
    with pytest.raises(InputError, match=r"accumulator_width: 21 is outside the table \(allowed: up to 20\)"):
        energy("core_typical", "compute", tables=tables, width=8, accumulator_width=21)
    with pytest.raises(InputError, match="attribute 'accumulator_width' is missing"):
        energy("core_typical", "compute", tables=tables, width=8)


def test_a_later_table_of_a_core_replaces_all_rows_of_an_earlier_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", *(f"core_typical,45nm,{bits},12,,,compute,1,x" for bits in (4, 8)))
    second = write(tmp_path / "b.csv", *(f"core_typical,45nm,{bits},26,,,compute,2,x" for bits in (4, 8)))
    tables = read_tables([first, second])
    assert energy("core_typical", "compute", tables=tables, width=8, accumulator_width=12) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("adder,45nm,8,,,,add,one,x", "line 2: energy_pj: found 'one'"),
        ("adder,45nm,8,,,,add,-1,x", "line 2: energy_pj: found '-1'"),
        ("adder,45nm,,,,,add,1,x", "line 2: width_bits: found ''"),
        ("adder,45nm,0,,,,add,1,x", "line 2: width_bits: found 0"),
        ("flux,45nm,8,,,,add,1,x", "line 2: component: found 'flux'"),
        ("register,45nm,8,,,,read,1,x", "line 2: width_bits: found 8 (allowed: 1, as register energies are per bit)"),
        ("sram,45nm,8,,64,1,read,0,x", "line 2: energy_pj: found 0"),
        ("adder,45nm,8", "line 2: has 3 cells (allowed: 9)"),
        ("adder,45nm,8,,,,add,1,x\nadder,45nm,8,,,,add,2,x", "line 3: repeats an earlier row"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, line: Any, message: Any) -> None:
    path = write(tmp_path / "t.csv", line)
    with pytest.raises(InputError) as e:
        read_tables([path])
    assert str(e.value).startswith(str(path)) and message in str(e.value)


def test_other_files_and_holes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a table of component energies"):
        read_tables([tmp_path / "t.csv"])
    rows = [f"sram,45nm,{w},,{d},1,read,1,x" for w, d in ((8, 64), (8, 128), (16, 128))]
    tables = read_tables([write(tmp_path / "holes.csv", *rows)])
    with pytest.raises(InputError, match="the table has no row at"):
        energy("SRAM", "read", tables=tables, width=12, depth=96)
