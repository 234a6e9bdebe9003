"""Verilog of a netlist with its delays, for a simulation in which glitches occur."""

from __future__ import annotations

import re

from dse.core.errors import InputError
from dse.rtl.functions import to_verilog
from dse.rtl.library import Cell, Library
from dse.rtl.synthesis import Netlist
from dse.rtl.timing import Timing


def cell_model(cell: Cell, where: str) -> str:
    """A module with the cell's pins; each output has the parameters RISE_pin and FALL_pin, delays in ps.

    Raises:
        InputError: a function cannot be read, or the cell is a latch or another kind that is not modelled.
    """
    inputs = [pin.name for pin in cell.inputs]
    internal = [] if cell.register is None else [cell.register.state, cell.register.inverse]
    place = f"{where}: cell {cell.name}"
    parameters = ", ".join(f"parameter RISE_{p.name} = 0, FALL_{p.name} = 0" for p in cell.outputs)
    ports = ", ".join([f"input {n}" for n in inputs] + [f"output {p.name}" for p in cell.outputs])
    lines = [f"module {cell.name} #({parameters}) ({ports});"]
    if cell.register:
        ff = cell.register
        lines.append(f"reg {ff.state}; wire {ff.inverse} = ~{ff.state};")
        clock = to_verilog(ff.clocked_on, inputs, place)
        lines.append(f"wire clocked = {clock};")
        lines.append(
            f"always @(posedge clocked) {ff.state} <= {to_verilog(ff.next_state, [*inputs, *internal], place)};"
        )
    for pin in cell.outputs:
        if pin.function is None or (set(re.findall(r"\w+", pin.function)) - {*inputs, *internal, "0", "1"}):
            raise InputError(place, f"pin {pin.name}: function {pin.function!r} is none of its inputs")
        function = to_verilog(pin.function, [*inputs, *internal], place)
        lines.append(f"assign #(RISE_{pin.name}, FALL_{pin.name}) {pin.name} = {function};")
    return "\n".join([*lines, "endmodule"])


def gate_verilog(netlist: Netlist, library: Library, timing: Timing | None = None, top: str = "core") -> str:
    """The netlist and models of its cells; nets are named n2, n3, ..., nets of unconnected outputs u_INSTANCE_PIN.

    Args:
        timing: delays, rounded to ps; None for none.
    """
    cells = {i.cell: library.cell(i.cell) for i in netlist.instances}
    text = ["`timescale 1ps/1ps", *(cell_model(cell, str(library.path)) for cell in cells.values())]
    return "\n".join([*text, netlist_verilog(netlist, library, timing, top)])


def netlist_verilog(netlist: Netlist, library: Library, timing: Timing | None = None, top: str = "core") -> str:
    """The module of `gate_verilog` alone, for programs that know the cells; instances are named i0, i1, ...

    Args:
        timing: delays as parameters of the cells; None for none.
    """
    cells = {i.cell: library.cell(i.cell) for i in netlist.instances}
    text = []
    buses = _buses([*netlist.inputs, *netlist.outputs])
    directions = dict.fromkeys(_buses([*netlist.inputs]), "input")
    ports = [f"{directions.get(n, 'output')} {f'[{w - 1}:0] ' if w else ''}{n}" for n, w in buses.items()]
    text.append(f"module {top}({', '.join(ports)});")
    nets = sorted({net for i in netlist.instances for net in i.nets.values()} | {*netlist.inputs.values()})
    text += [f"wire n{net};" for net in sorted({*nets, 0, 1})]
    text += ["assign n0 = 1'b0;", "assign n1 = 1'b1;"]
    text += [f"assign n{net} = {name};" for name, net in netlist.inputs.items()]
    text += [f"assign {name} = n{net};" for name, net in netlist.outputs.items()]
    for number, instance in enumerate(netlist.instances):
        cell = cells[instance.cell]
        values, pins = [], []
        for name, pin in cell.pins.items():
            net = instance.nets.get(name)
            if net is None:
                text.append(f"wire u{number}_{name};")
            pins.append(f".{name}({f'u{number}_{name}' if net is None else f'n{net}'})")
            if pin.output and timing:
                rise, fall = (max(1, round(1000 * d)) for d in timing.delay_ns[instance.name, name])
                values.append(f".RISE_{name}({rise}), .FALL_{name}({fall})")
        chosen = f" #({', '.join(values)})" if values else ""
        text.append(f"{instance.cell}{chosen} i{number} ({', '.join(pins)});")
    return "\n".join([*text, "endmodule", ""])


def _buses(names: list[str]) -> dict[str, int]:
    """Port -> its width, 0 for a port of one bit."""
    widths: dict[str, int] = {}
    for name in names:
        port, _, index = name.partition("[")
        widths[port] = max(widths.get(port, 0), int(index.rstrip("]")) + 1 if index else 0)
    return widths
