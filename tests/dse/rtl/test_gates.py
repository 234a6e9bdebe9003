"""Netlists: the reader of cell libraries, gate-level simulation against the reference, and energies by hand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from dse.core.errors import InputError
from dse.rtl.energy import energy
from dse.rtl.library import read_library
from dse.rtl.simulation import simulate
from dse.rtl.synthesis import Instance, Netlist, synthesise
from dse.rtl.timing import analyse
from tests.dse.rtl.programs import mixed_program

LIBERTY = Path(__file__).with_name("small.lib")
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog (iverilog)")
needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="needs Yosys")


def test_units_axes_and_functions_of_a_library_are_read() -> None:
    library = read_library(LIBERTY)
    cell = library.cell("ND")
    delay = cell.pins["Y"].delays[0].tables["cell_rise"]
    assert cell.pins["A"].capacitance_ff == pytest.approx(1)
    assert (cell.leakage_nw, library.cell("FLOP").leakage_nw) == (pytest.approx(2), pytest.approx(4))
    assert delay.at(0.010, 10.0) == pytest.approx(0.030)  # the axes are load, then transition
    assert delay.at(0.055, 1.0) == pytest.approx(0.015)
    assert cell.pins["Y"].powers[0].fall.at(0.010, 1.0) == pytest.approx(2)  # pF V^2 = 1000 fJ


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("nom_voltage : 1.0;", "", "lacks nom_voltage"),
        ('time_unit : "1ps";', "", "lacks time_unit"),
        ("capacitive_load_unit (1, pf);", "", "capacitive_load_unit"),
        ('function : "!A";', "", "cell NOT: pin Y: lacks function"),
        ("area : 1;", "", "cell NOT: lacks area"),
        ("cell_rise (by_load)", "cell_rise (other)", "names the template 'other'"),
        ("variable_1 : total_output_net_capacitance", "variable_1 : temperature", "has the axes temperature"),
        ("library (small) {", "library (small) {{", "found '{'"),
    ],
)
def test_what_a_library_lacks_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = LIBERTY.read_text("utf-8")
    assert old in text
    path = tmp_path / "bad.lib"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        read_library(path).cell("NOT")


@pytest.mark.rtl
@needs_icarus
def test_the_energy_of_a_small_netlist_is_that_computed_by_hand(tmp_path: Path) -> None:
    """A register and an exclusive or of its output with an input, which change in known cycles."""
    library = read_library(LIBERTY)
    netlist = Netlist(
        (Instance("r", "FLOP", {"DIN": 3, "PH": 2, "Q": 5}), Instance("x", "EO", {"A": 5, "B": 4, "Y": 6})),
        {"clk": 2, "d": 3, "e": 4}, {"acc": 6},
    )  # fmt: skip
    timing = analyse(netlist, library)
    d, e = np.array([0, 0, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    transitions, acc = simulate(netlist, library, timing, {"d": d, "e": e}, 1000, tmp_path)
    assert acc.tolist() == [0, 0, 0, 0, 0, 1]
    found = energy(netlist, library, timing, transitions, 1000)
    # Q rises at the start of cycle 3 (Y rises), e 20 ps later (Y falls), and Q falls in cycle 5 (Y rises).
    by = {(s.pin, s.related, s.when): s.count for s in found.slots if s.cell == "EO"}
    assert by["Y", "B", "!A"] == (0, 0) and by["Y", "B", "A"] == (0, 1)
    assert by["Y", "A", "!B"] == (1, 0) and by["Y", "A", "B"] == (1, 0)
    # Clock: 5 rises of 1 fJ and 5 falls of 2 fJ in the pin, and 10 transitions of 2 fF at 1 V.
    assert found.clock_fj == pytest.approx(5 * 1 + 5 * 2 + 10 * 2 / 2)
    # Nets d (2), e (1) and Q (2) have 1 fF each, the output none.
    assert found.switching_fj == pytest.approx((2 + 1 + 2) * 1 / 2)
    slots = [s for s in found.slots if s.part == "internal"]
    assert found.internal_fj == pytest.approx(sum(s.total_fj for s in slots)) and found.internal_fj > 5
    # Leakage: 2 nW of EO always; the register 3 nW while Q is 1, else 5 nW; 5 ns = 5e-18 J / nW.
    assert found.leakage_fj == pytest.approx((2 * 5 + 3 * 2 + 5 * 3) * 1e-3, rel=1e-3)  # Q is some ps late


@pytest.mark.rtl
@needs_icarus
@needs_yosys
@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("delays", [False, True])
def test_the_gates_add_what_the_reference_adds(saturate: int, delays: bool, tmp_path: Path) -> None:
    program = mixed_program(8, "saturate" if saturate else "wrap")
    long, short, expected = program.pop("long"), program.pop("short"), program.pop("expected")
    library = read_library(LIBERTY)
    netlist = synthesise("mac_core", {"SATURATE": saturate}, LIBERTY, tmp_path)
    timing = analyse(netlist, library)
    warm = {"valid": 1, "first": 1, "x": 1}
    inputs = {n: np.array([warm.get(n, 0)] * 4 + v) for n, v in program.items()}
    inputs["reset"] = (np.arange(len(inputs["x"])) < 2).astype(int)
    period = round(1200 * timing.critical_ns) if delays else 1000
    _, acc = simulate(netlist, library, timing if delays else None, inputs, period, tmp_path)
    masks = [(1 << (long if wide else short)) - 1 for wide in program["wide"]]
    # An operation that is given in cycle i is in the registers from cycle i + 1, its sum from i + 2.
    assert acc[6:].tolist() == [value & mask for value, mask in zip(expected, masks, strict=True)][: len(acc) - 6]
