"""Energy of a netlist from the transitions of its nets and the tables of its library.

Every transition of a net takes half of its capacitance times the voltage squared. Every transition of an output takes
the internal energy of the arc from the input that changed last before it, in the state of the cell's pins. Pins with
internal energy of their own (of registers: clock and data) take it for every transition in a state where it applies.
Leakage is that of the states in which the cells were.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dse.core.errors import InputError
from dse.rtl.functions import truth_table
from dse.rtl.library import Arc, Cell, Library
from dse.rtl.simulation import Transitions
from dse.rtl.synthesis import Netlist
from dse.rtl.timing import Timing

Part = Literal["internal", "switching", "clock", "leakage"]


@dataclass(frozen=True)
class Slot:
    """An arc of an instance, or a net: what one transition takes, and how many there were, for rise and fall."""

    instance: str
    cell: str
    pin: str
    related: str
    when: str
    part: Part
    load_ff: float
    transition_ns: float
    energy_fj: tuple[float, float]
    count: tuple[int, int]

    @property
    def total_fj(self) -> float:
        return self.energy_fj[0] * self.count[0] + self.energy_fj[1] * self.count[1]


@dataclass(frozen=True)
class Energy:
    """What a simulation took, in fJ; `toggles` counts transitions of all nets."""

    internal_fj: float
    switching_fj: float
    clock_fj: float
    leakage_fj: float
    toggles: int
    slots: tuple[Slot, ...]


class _Kind:
    """A cell's arcs as arrays: which one applies to (output, cause, state)."""

    def __init__(self, cell: Cell, where: str) -> None:
        self.cell = cell
        self.names = [*cell.pins]
        states = 1 << len(self.names)
        self.arcs: list[tuple[str, Arc]] = []
        count = len(self.names)
        self.of_output = np.full((count, count, states), -1, np.int64)
        self.of_input = np.full((count, states), -1, np.int64)
        for p, pin in enumerate(cell.pins.values()):
            for arc in pin.powers:
                slot = len(self.arcs)
                self.arcs.append((pin.name, arc))
                place = f"{where}: cell {cell.name}: pin {pin.name}: internal_power"
                holds = np.array(truth_table(arc.when, self.names, place) if arc.when else [True] * states)
                if pin.output:
                    if arc.related is None or arc.related not in cell.pins:
                        raise InputError(place, f"related_pin: found {arc.related!r}", cell.pins)
                    row: NDArray[np.int64] = self.of_output[p][self.names.index(arc.related)]
                else:
                    row = self.of_input[p]
                row[holds & (row < 0)] = slot
            if pin.output:  # a cause without arc of its own, in this state or at all, takes the first of the output
                for related in self.of_output[p]:
                    fitting = related[related >= 0]
                    anything = self.of_output[p][self.of_output[p] >= 0]
                    if len(anything):
                        related[related < 0] = fitting[0] if len(fitting) else anything[0]
        leakage = np.full(states, cell.leakage_nw)
        for when, nw in cell.leakages:
            if when is not None:
                leakage[np.array(truth_table(when, self.names, f"{where}: cell {cell.name}: leakage_power"))] = nw
        self.leakage = leakage


def energy(
    netlist: Netlist, library: Library, timing: Timing, transitions: Transitions, start_ps: int, clock: str = "clk"
) -> Energy:
    """The energy from `start_ps` to the end of a simulation.

    Raises:
        InputError: the library's conditions cannot be read.
    """
    kinds = {name: _Kind(library.cell(name), str(library.path)) for name in {i.cell for i in netlist.instances}}
    index = {name: i for i, name in enumerate(transitions.names)}
    clock_net = netlist.inputs[clock]
    slots: list[Slot] = []
    pins_of: list[list[tuple[int, int]]] = [[] for _ in transitions.names]  # net -> (instance, pin)
    driven: list[tuple[int, int]] = [(-1, -1)] * len(transitions.names)
    first_slot, of = [], []
    for number, instance in enumerate(netlist.instances):
        kind = kinds[instance.cell]
        first_slot.append(len(slots))
        of.append(kind)
        for p, name in enumerate(kind.names):
            net = instance.nets.get(name)
            vcd = index.get(f"u{number}_{name}" if net is None else f"n{net}")
            if vcd is None:
                continue
            pins_of[vcd].append((number, p))
            if kind.cell.pins[name].output:
                driven[vcd] = (number, p)
        for name, arc in kind.arcs:
            net = instance.nets.get(name)
            source = instance.nets[name if arc.related is None else arc.related]
            load = timing.load_ff.get(net, 0.0) if net is not None and arc.related else 0.0
            slew = float(np.mean(timing.transition_ns[source]))
            energies = tuple(0.0 if table is None else table.at(slew, load) for table in (arc.rise, arc.fall))
            part: Part = "clock" if arc.related is None and net == clock_net else "internal"
            slots.append(Slot(instance.name, instance.cell, name, arc.related or "", arc.when or "", part, load, slew,
                              (energies[0], energies[1]), (0, 0)))  # fmt: skip
    counts = np.zeros((len(slots), 2), np.int64)
    toggles = np.zeros((len(transitions.names), 2), np.int64)
    leaked = _count(transitions, start_ps, pins_of, driven, of, first_slot, counts, toggles)
    found = [_counted(slot, c) for slot, c in zip(slots, counts.tolist(), strict=True)]
    nets = {f"n{net}": net for net in timing.load_ff}
    for vcd, name in enumerate(transitions.names):
        if name in nets:
            load = timing.load_ff[nets[name]]
            half = load * library.voltage**2 / 2
            part = "clock" if nets[name] == clock_net else "switching"
            number = driven[vcd][0]
            owner = netlist.instances[number] if number >= 0 else None
            found.append(
                Slot(owner.name if owner else "", owner.cell if owner else "", name, "", "", part, load, 0.0,
                     (half, half), (int(toggles[vcd, 0]), int(toggles[vcd, 1])))
            )  # fmt: skip
    sums: Counter[str] = Counter()
    for slot in found:
        sums[slot.part] += slot.total_fj  # type: ignore[assignment]
    return Energy(sums["internal"], sums["switching"], sums["clock"], leaked, int(toggles.sum()), tuple(found))


def _counted(slot: Slot, count: list[int]) -> Slot:
    from dataclasses import replace

    return replace(slot, count=(count[0], count[1]))


def _count(
    transitions: Transitions, start_ps: int, pins_of: list[list[tuple[int, int]]], driven: list[tuple[int, int]],
    of: list[_Kind], first_slot: list[int], counts: NDArray[Any], toggles: NDArray[Any],
) -> float:  # fmt: skip
    """Fills `counts` and `toggles`; returns what leaked, in fJ."""
    state = [0] * len(of)
    cause = [0] * len(of)
    since = [start_ps] * len(of)
    value = [0] * len(pins_of)
    leakage = [kind.leakage.tolist() for kind in of]
    of_input = [kind.of_input.tolist() for kind in of]
    of_output = [kind.of_output.tolist() for kind in of]
    leaked = 0.0
    at = zip(transitions.time_ps.tolist(), transitions.net.tolist(), transitions.value.tolist(), strict=True)
    for time, net, new in at:
        if value[net] == new:
            continue
        value[net] = new
        counted = time >= start_ps
        if counted:
            toggles[net, 1 - new] += 1
        driver = driven[net][0]
        for number, pin in pins_of[net]:
            if counted:
                if number == driver:
                    slot = of_output[number][pin][cause[number]][state[number]]
                else:
                    slot = of_input[number][pin][state[number]]
                if slot >= 0:
                    counts[first_slot[number] + slot, 1 - new] += 1
                leaked += leakage[number][state[number]] * (time - since[number])
                since[number] = time
            state[number] ^= 1 << pin
            if number != driver:
                cause[number] = pin
    for number, last in enumerate(state):
        leaked += leakage[number][last] * (transitions.end_ps - since[number])
    return leaked * 1e-6  # nW ps = 1e-21 J = 1e-6 fJ
