"""OpenSTA beside our timing and power, on a netlist of the small library."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from dse.core.errors import InputError
from dse.rtl.library import read_library
from dse.rtl.measure import Core, analysed
from dse.rtl.opensta import our_figures, run_opensta, write_inputs
from dse.rtl.synthesis import Instance, Netlist

LIBRARY = read_library(Path(__file__).with_name("small.lib"))


@pytest.fixture
def core(tmp_path: Path) -> Core:
    """A register, its value inverted, and an exclusive or with an input, which goes back to the register."""
    netlist = Netlist(
        (
            Instance("r", "FLOP", {"DIN": 6, "PH": 2, "Q": 4}),
            Instance("n", "NOT", {"A": 4, "Y": 5}),
            Instance("x", "EO", {"A": 5, "B": 3, "Y": 6}),
        ),
        {"clk": 2, "d": 3}, {"acc": 4},
    )  # fmt: skip
    return analysed("small", netlist, LIBRARY, 0.0, tmp_path, {})


def test_our_figures_by_hand(core: Core) -> None:
    found = our_figures(core, LIBRARY, 2.0)
    # Q drives NOT (1 fF), NOT drives A of EO, EO drives DIN; half of C V^2 each 2 ns, in fF V^2 / ns = uW.
    pins = [LIBRARY.cell("NOT").pins["A"], LIBRARY.cell("EO").pins["A"], LIBRARY.cell("FLOP").pins["DIN"]]
    assert found.switching_uw == pytest.approx(sum(pin.capacitance_ff for pin in pins) / 2 / 2.0)
    assert found.leakage_uw == pytest.approx(sum(LIBRARY.cell(name).leakage_nw for name in ("FLOP", "NOT", "EO")) / 1e3)


RECORDED = """\
             2.8483   data arrival time
   0.0000    5.0000   clock clk (rise edge)
  -0.0340    4.9660   library setup time
Group                    Internal    Switching      Leakage        Total
Sequential           2.285558e-04 7.239802e-05 3.480943e-06 3.044347e-04  13.0%
Total                1.753032e-03 5.594491e-04 3.321879e-05 2.345700e-03 100.0%
"""
"""Lines of a report of OpenSTA 2.0.17 for the core and the NanGate library; it refuses ours, without thresholds."""


def test_the_report_is_read_and_the_inputs_are_beside_the_script(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sta"
    (tmp_path / "report").write_text(RECORDED)
    program.write_text(f'#!/bin/sh\ntest "$3" = compare.tcl && test -f "$3" && cat {tmp_path / "report"}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    script = write_inputs(core, LIBRARY, 2.0, tmp_path / "sta")
    assert astuple(run_opensta(script)) == pytest.approx((2.8823, 33.21879, 559.4491))
    assert "create_clock -name clk -period 2 " in script.read_text()
    assert "FLOP i0 (.DIN(n6), .PH(n2), .Q(n4));" in (script.parent / "netlist.v").read_text()
    (tmp_path / "report").write_text("No paths found.")
    with pytest.raises(InputError, match="a report of timing and power"):
        run_opensta(script)
