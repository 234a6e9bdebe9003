"""Circuits as registers and logic between them, read from Yosys or from a netlist of a library's cells."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dse.core.errors import InputError
from dse.rtl.functions import truth_table
from dse.rtl.library import Library
from dse.rtl.synthesis import Netlist, names_of_nets

Node = str


@dataclass(frozen=True)
class Gate:
    """A node of logic; bit i of a state of the inputs is the value of input i."""

    output: Node
    inputs: tuple[Node, ...]
    table: tuple[bool, ...]


@dataclass(frozen=True)
class Register:
    """A bit of state: the node with its value, that with its value after the next rising edge, and its names."""

    value: Node
    following: Node
    names: frozenset[str]


@dataclass(frozen=True)
class Machine:
    """Registers of one clock and the logic between them; bits of ports are named as in a `Netlist`."""

    inputs: Mapping[str, Node]
    outputs: Mapping[str, Node]
    registers: tuple[Register, ...]
    gates: tuple[Gate, ...]


_YOSYS = {"$_AND_": (("A", "B"), (False, False, False, True)), "$_NOT_": (("A",), (True, False))}


def read_machine(path: Path, top: str, clock: str = "clk") -> Machine:
    """A module of gates that Yosys wrote as JSON: AND, NOT and registers with a rising clock.

    Raises:
        InputError: it has other cells, or a register with another clock.
    """
    module = json.loads(path.read_text("utf-8"))["modules"][top]
    names = names_of_nets(module)
    inputs, outputs = _ports(module)
    gates, registers = [], []
    for name, cell in module["cells"].items():
        nets = {pin: _node(bits[0]) for pin, bits in cell["connections"].items()}
        if cell["type"] in _YOSYS:
            pins, table = _YOSYS[cell["type"]]
            gates.append(Gate(nets["Y"], tuple(nets[pin] for pin in pins), table))
        elif cell["type"] == "$_DFF_P_" and nets["C"] == inputs.get(clock):
            known = names[cell["connections"]["Q"][0]]
            registers.append(Register(nets["Q"], nets["D"], frozenset(known)))
        else:
            raise InputError(path, f"cell {name} of type {cell['type']}", f"gates and registers of the clock {clock}")
    return Machine(inputs, outputs, tuple(registers), tuple(gates))


def netlist_machine(netlist: Netlist, library: Library, clock: str = "clk") -> Machine:
    """A netlist with the functions of the library's cells.

    Raises:
        InputError: a cell's function cannot be read, or a register has another clock.
    """
    where, gates, registers = str(library.path), [], []
    positive = _inverted_names(netlist, library)
    for number, instance in enumerate(netlist.instances):
        cell = library.cell(instance.cell)
        pins = {pin.name: _node(instance.nets[pin.name]) for pin in cell.inputs}
        nodes = dict(pins)
        place = f"{where}: cell {cell.name}"
        if cell.register:
            ff = cell.register
            value, following, inverse = (f"{kind}{number}" for kind in ("state", "next", "inverse"))
            clocked = [pin for pin in pins if truth_table(ff.clocked_on, [*pins], place)
                       == tuple(bool(s >> [*pins].index(pin) & 1) for s in range(1 << len(pins)))]  # fmt: skip
            if not clocked or pins[clocked[0]] != _node(netlist.inputs[clock]):
                raise InputError(place, f"clocked_on {ff.clocked_on!r} is no rising edge of {clock}")
            nodes |= {ff.state: value, ff.inverse: inverse}
            gates.append(Gate(inverse, (value,), (True, False)))
            gates.append(_gate(following, ff.next_state, nodes, place))
            registers.append(Register(value, following, positive[instance.name]))
        for pin in cell.outputs:
            if pin.name in instance.nets:
                gates.append(_gate(_node(instance.nets[pin.name]), str(pin.function), nodes, place))
    inputs = {name: _node(net) for name, net in netlist.inputs.items()}
    outputs = {name: _node(net) for name, net in netlist.outputs.items()}
    return Machine(inputs, outputs, tuple(registers), tuple(gates))


def _gate(output: Node, function: str, nodes: Mapping[str, Node], where: str) -> Gate:
    used = [name for name in nodes if name in function]
    return Gate(output, tuple(nodes[name] for name in used), truth_table(function, used, where))


def _inverted_names(netlist: Netlist, library: Library) -> dict[str, frozenset[str]]:
    """Instance of a register -> names of the nets that have its value: outputs, and inverters of inverted outputs."""
    inverters: dict[int, list[int]] = defaultdict(list)
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        if len(cell.inputs) == 1 and not cell.register:
            for pin in cell.outputs:
                if truth_table(str(pin.function), [cell.inputs[0].name], cell.name) == (True, False):
                    inverters[instance.nets[cell.inputs[0].name]].append(instance.nets[pin.name])
    found = {}
    for instance in netlist.instances:
        ff = library.cell(instance.cell).register
        if ff:
            values: list[int] = []
            for pin in library.cell(instance.cell).outputs:
                net = instance.nets.get(pin.name)
                if net is not None and pin.function == ff.state:
                    values.append(net)
                elif net is not None and pin.function == ff.inverse:
                    values += inverters[net]
            found[instance.name] = frozenset(name for net in values for name in netlist.names.get(net, ()))
    return found


def write_blif(
    machine: Machine, state_of: Sequence[int], following: Sequence[int], clock: str, path: Path,
    fixed: Mapping[int, bool] = MappingProxyType({}),
) -> None:  # fmt: skip
    """The logic between registers as BLIF, with inputs ``state_K`` and outputs ``next_I`` in place of the registers.

    Args:
        state_of: for each register the number K of the input that is its value.
        following: the registers whose next values are the outputs ``next_0``, ``next_1`` and so on.
        fixed: numbers K whose value is this constant; the input is not used.
    """
    inputs = {name: node for name, node in machine.inputs.items() if name != clock}
    states = [f"state_{k}" for k in range(max(state_of, default=-1) + 1)]
    lines = [".model logic", f".inputs {' '.join([*inputs, *states])}"]
    next_values = [f"next_{i}" for i in range(len(following))]
    lines.append(f".outputs {' '.join([*(f'out_{name}' for name in machine.outputs), *next_values])}")
    lines += [".names zero", ".names one", "1"]
    lines += [line for name, node in inputs.items() for line in _same(name, node)]
    constant = {False: "zero", True: "one"}
    values = [constant[fixed[k]] if k in fixed else states[k] for k in state_of]
    lines += [line for value, r in zip(values, machine.registers, strict=True) for line in _same(value, r.value)]
    for gate in machine.gates:
        lines.append(f".names {' '.join([*gate.inputs, gate.output])}")
        for state, value in enumerate(gate.table):
            if value:
                lines.append(f"{''.join(str(state >> i & 1) for i in range(len(gate.inputs)))} 1")
    for i, number in enumerate(following):
        lines += _same(machine.registers[number].following, f"next_{i}")
    lines += [line for name, node in machine.outputs.items() for line in _same(node, f"out_{name}")]
    path.write_text("\n".join([*lines, ".end", ""]), "utf-8")


def _same(source: Node, target: Node) -> list[str]:
    return [f".names {source} {target}", "1 1"]


def _ports(module: Mapping[str, object]) -> tuple[dict[str, Node], dict[str, Node]]:
    """Bits of the inputs and of the outputs."""
    found: dict[str, dict[str, Node]] = {"input": {}, "output": {}}
    ports = module["ports"]
    assert isinstance(ports, dict)
    for name, port in ports.items():
        bits = port["bits"]
        for i, bit in enumerate(bits):
            found[port["direction"]][f"{name}[{i}]" if len(bits) > 1 else name] = _node(bit)
    return found["input"], found["output"]


def _node(bit: int | str) -> Node:
    """The node of a net; nets 0 and 1 and the texts are constants, an undefined bit counts as 0."""
    if isinstance(bit, int) and bit > 1:
        return f"n{bit}"
    return "one" if str(bit) == "1" else "zero"
