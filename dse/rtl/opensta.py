"""The same netlist in OpenSTA, another program for timing and power, and what it finds beside what we find.

OpenSTA reads the library and the netlist. The library's copy has no default wire load, for our nets have no wires. It
is asked for the critical path, and for the power where every output of a cell has one transition in a cycle. Activities
of single nets are not compared: the version that Debian has (2.0.17) replaces those of nets inside a netlist by its own
estimate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dse.core.errors import InputError
from dse.core.files import system_errors, write_text
from dse.core.programs import run_program
from dse.rtl.gates import netlist_verilog
from dse.rtl.library import Library
from dse.rtl.measure import Core
from dse.rtl.synthesis import programs_needed
from dse.rtl.timing import INPUT_TRANSITION_NS

_TOTAL = re.compile(r"^Total\s+(\S+)\s+(\S+)\s+(\S+)\s+\S+", re.M)
_ARRIVAL = re.compile(r"^\s+(-?[\d.]+)\s+data arrival time", re.M)
_SETUP = re.compile(r"^\s+(-?[\d.]+)\s+-?[\d.]+\s+library setup time", re.M)

SCRIPT = "compare.tcl"


@dataclass(frozen=True)
class Figures:
    """Critical path with setup time; leakage; power of the nets that cells drive, at one transition in a cycle."""

    critical_ns: float
    leakage_uw: float
    switching_uw: float


def our_figures(core: Core, library: Library, period_ns: float) -> Figures:
    """What we find; leakage is that of the cells without regard of their states, as OpenSTA's."""
    driven = {
        net for i in core.netlist.instances for pin in library.cell(i.cell).outputs
        if (net := i.nets.get(pin.name)) is not None
    }  # fmt: skip
    load_ff = sum(core.timing.load_ff[net] for net in driven)
    leakage_nw = sum(library.cell(i.cell).leakage_nw for i in core.netlist.instances)
    return Figures(
        core.timing.critical_ns, leakage_nw / 1000, load_ff * library.voltage**2 / 2 / period_ns
    )  # fF V^2 / ns = uW


def write_inputs(core: Core, library: Library, period_ns: float, folder: Path, clock: str = "clk") -> Path:
    """The library, the netlist and the script for OpenSTA; returns the script (`sta -exit compare.tcl`).

    Raises:
        InputError: the folder cannot be written.
    """
    with system_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = library.path.read_text("utf-8", errors="replace")
    write_text(folder / "cells.lib", re.sub(r"^\s*default_wire_load\w*\s*:.*$", "", text, flags=re.M))
    write_text(folder / "netlist.v", netlist_verilog(core.netlist, library))
    lines = [
        "read_liberty cells.lib",
        "read_verilog netlist.v",
        "link_design core",
        "set_cmd_units -time ns",
        f"create_clock -name {clock} -period {period_ns:g} [get_ports {clock}]",
        f"set_clock_transition {INPUT_TRANSITION_NS} [get_clocks {clock}]",
        f"set_input_transition {INPUT_TRANSITION_NS} [all_inputs]",
        "report_checks -path_delay max -digits 4",
        "set_power_activity -global -activity 1 -duty 0.5",
        "report_power -digits 6",
        "exit",
    ]
    write_text(folder / SCRIPT, "\n".join([*lines, ""]))
    return folder / SCRIPT


def run_opensta(script: Path) -> Figures:
    """What OpenSTA finds.

    Raises:
        InputError: it is not installed, or its report is not understood.
    """
    programs_needed("sta")
    log = script.with_suffix(".log")
    code, text = run_program(["sta", "-no_splash", "-exit", script.name], script.parent, log)
    arrival, setup, total = _ARRIVAL.search(text), _SETUP.search(text), _TOTAL.search(text)
    if code or not arrival or not setup or not total:
        raise InputError(log, f"OpenSTA ends with code {code}", "a report of timing and power")
    return Figures(float(arrival[1]) - float(setup[1]), float(total[3]) * 1e6, float(total[2]) * 1e6)
