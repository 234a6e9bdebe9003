"""Loads of nets, transition times and delays of a netlist, by a walk from registers and inputs to their ends.

Worst cases: of all inputs of a cell the latest and the slowest counts. Wires have no delay, and no capacitance but what
`wire_ff` gives each pin.
"""

from __future__ import annotations

from dataclasses import dataclass

from dse.core.errors import InputError
from dse.rtl.library import Library
from dse.rtl.synthesis import Instance, Netlist

INPUT_TRANSITION_NS = 0.02
"""Of the clock and the operands, which come from registers outside."""


@dataclass(frozen=True)
class Timing:
    """By net: load, and for both edges (rise, fall) arrival and transition time; by instance and output its delays."""

    load_ff: dict[int, float]
    arrival_ns: dict[int, tuple[float, float]]
    transition_ns: dict[int, tuple[float, float]]
    delay_ns: dict[tuple[str, str], tuple[float, float]]
    critical_ns: float
    critical_path: tuple[str, ...]


def analyse(netlist: Netlist, library: Library, wire_ff: float = 0.0) -> Timing:
    """Static timing of a netlist.

    Args:
        wire_ff: capacitance of the wire to each pin, fF.

    Raises:
        InputError: the netlist has a loop, or an output's cell has no delay.
    """
    load: dict[int, float] = {}
    driver: dict[int, Instance] = {}
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        for name, net in instance.nets.items():
            if cell.pins[name].output:
                driver[net] = instance
                load.setdefault(net, 0.0)
            else:
                load[net] = load.get(net, 0.0) + cell.pins[name].capacitance_ff + wire_ff
    start = (0.0, 0.0), (INPUT_TRANSITION_NS, INPUT_TRANSITION_NS)
    arrival = dict.fromkeys((0, 1, *netlist.inputs.values()), start[0])
    transition = dict.fromkeys(arrival, start[1])
    delays: dict[tuple[str, str], tuple[float, float]] = {}
    before: dict[int, int] = {}
    for instance in _in_order(netlist, library, driver):
        cell = library.cell(instance.cell)
        for pin in cell.outputs:
            out = instance.nets.get(pin.name)
            at = 0.0 if out is None else load[out]
            worst = [
                (0.0, 0.0, 0.0, 0),
                (0.0, 0.0, 0.0, 0),
            ]  # arrival, transition, delay, net before; for rise and fall
            if not pin.delays:
                raise InputError(library.path, f"cell {cell.name}: pin {pin.name} lacks timing")
            for delay in pin.delays:
                source = instance.nets[delay.related]
                for edge, name in enumerate(("rise", "fall")):
                    for input_edge in (0, 1) if delay.inverting is None else (edge ^ delay.inverting,):
                        slew = transition[source][input_edge]
                        late = delay.tables[f"cell_{name}"].at(slew, at)
                        after = 0.0 if cell.register else arrival[source][input_edge]
                        slow = delay.tables[f"{name}_transition"].at(slew, at)
                        if after + late >= worst[edge][0]:
                            worst[edge] = (after + late, worst[edge][1], worst[edge][2], source)
                        a, t, d, n = worst[edge]
                        worst[edge] = (a, max(t, slow), max(d, late), n)
            delays[instance.name, pin.name] = (worst[0][2], worst[1][2])
            if out is not None:
                arrival[out] = (worst[0][0], worst[1][0])
                transition[out] = (worst[0][1], worst[1][1])
                before[out] = worst[0 if worst[0][0] > worst[1][0] else 1][3]
    critical, end = 0.0, 0
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        for pin in cell.inputs if cell.register else ():
            for tables in pin.setup or ({},):
                net = instance.nets[pin.name]
                for edge, name in enumerate(("rise_constraint", "fall_constraint")):
                    setup = tables[name].at(transition[net][edge], 0.0) if name in tables else 0.0
                    if arrival[net][edge] + setup > critical:
                        critical, end = arrival[net][edge] + setup, net
    return Timing(load, arrival, transition, delays, critical, _path(end, before, driver))


def _path(end: int, before: dict[int, int], driver: dict[int, Instance]) -> tuple[str, ...]:
    path = []
    while end in driver:
        path.append(driver[end].cell)
        register = end not in before
        end = before.get(end, -1)
        if register:
            break
    return tuple(reversed(path))


def _in_order(netlist: Netlist, library: Library, driver: dict[int, Instance]) -> list[Instance]:
    """Registers first, then each cell after those that drive it."""
    order = [i for i in netlist.instances if library.cell(i.cell).register]
    done = {i.name for i in order}
    waiting = [i for i in netlist.instances if i.name not in done]
    while waiting:
        later = []
        for instance in waiting:
            cell = library.cell(instance.cell)
            drivers = (driver.get(instance.nets[pin.name]) for pin in cell.inputs)
            if all(d is None or d.name in done for d in drivers):
                order.append(instance)
                done.add(instance.name)
            else:
                later.append(instance)
        if len(later) == len(waiting):
            raise InputError("netlist", f"has a loop of cells at {later[0].name}")
        waiting = later
    return order
