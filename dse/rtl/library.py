"""A cell library: pins, functions, energies, delays and leakage, in fF, ns, fJ, nW and V."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dse.core.errors import InputError
from dse.rtl.liberty import Group, read_liberty

Floats = NDArray[np.float64]

_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18, "k": 1e3}
_TRANSITIONS = ("input_net_transition", "input_transition_time", "related_pin_transition", "constrained_pin_transition")
_LOADS = ("total_output_net_capacitance", "related_out_total_output_net_capacitance")


@dataclass(frozen=True)
class Table:
    """A lookup table over the transition time of an input (ns) and the capacitance of an output (fF)."""

    transitions: Floats
    loads: Floats
    values: Floats  # shape (transitions, loads)

    def at(self, transition_ns: float, load_ff: float) -> float:
        """The value between the nearest points, or on the line through the last two beyond them.

        Example:
            >>> table = Table(np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.array([[0.0, 2.0], [1.0, 3.0]]))
            >>> table.at(0.5, 1.0)
            1.5
        """
        return float(_along(self.loads, _along(self.transitions, self.values, transition_ns), load_ff))


@dataclass(frozen=True)
class Arc:
    """What a transition of an output (or of the pin itself) takes: of one related pin, in states where `when` holds."""

    related: str | None
    when: str | None
    rise: Table | None
    fall: Table | None


@dataclass(frozen=True)
class Delay:
    """Delay and transition time of an output after a related pin (ns)."""

    related: str
    inverting: bool | None  # None where both may be
    tables: Mapping[str, Table]  # cell_rise, cell_fall, rise_transition, fall_transition


@dataclass(frozen=True)
class Pin:
    name: str
    output: bool
    capacitance_ff: float
    function: str | None
    powers: tuple[Arc, ...]
    delays: tuple[Delay, ...]
    setup: tuple[Mapping[str, Table], ...]


@dataclass(frozen=True)
class Register:
    """``ff (state, inverse)``."""

    state: str
    inverse: str
    next_state: str
    clocked_on: str


@dataclass(frozen=True)
class Cell:
    name: str
    area: float
    pins: Mapping[str, Pin]
    register: Register | None
    leakage_nw: float
    leakages: tuple[tuple[str | None, float], ...]  # (when, nW)

    @property
    def inputs(self) -> tuple[Pin, ...]:
        return tuple(pin for pin in self.pins.values() if not pin.output)

    @property
    def outputs(self) -> tuple[Pin, ...]:
        return tuple(pin for pin in self.pins.values() if pin.output)


@dataclass(frozen=True)
class Library:
    name: str
    path: Path
    voltage: float
    _groups: Mapping[str, Group]
    _reader: _Reader
    _cells: dict[str, Cell] = field(default_factory=dict)

    def cell(self, name: str) -> Cell:
        """A cell, read when it is first asked for, so that cells that are not used may be of any kind.

        Raises:
            InputError: there is no such cell, or it lacks an attribute that is needed.
        """
        if name not in self._cells:
            if name not in self._groups:
                raise InputError(self.path, f"has no cell {name!r}")
            self._cells[name] = self._reader.cell(self._groups[name])
        return self._cells[name]


def read_library(path: Path) -> Library:
    """A library from a Liberty file.

    Raises:
        InputError: the file is not Liberty, or lacks the voltage or a unit.

    Example:
        >>> header = 'time_unit : "1ns"; capacitive_load_unit (1, pf); leakage_power_unit : "1nW"; nom_voltage : 1.1;'
        >>> _ = Path("l.lib").write_text(f"library (l) {{ {header} cell (A) {{ area : 2.5; }} }}")
        >>> read_library(Path("l.lib")).cell("A").area
        2.5
    """
    group = read_liberty(path)
    reader = _Reader(group, str(path))
    voltage = reader.number(group, "nom_voltage")
    return Library(group.arguments[0], path, voltage, {c.arguments[0]: c for c in group.of("cell")}, reader)


class _Reader:
    def __init__(self, library: Group, where: str) -> None:
        self.where, self.library = where, library
        self.time_ns = self._unit("time_unit", "s") * 1e9
        self.power_nw = self._unit("leakage_power_unit", "W") * 1e9
        volt = self._unit("voltage_unit", "V") if "voltage_unit" in library.attributes else 1.0
        load = library.attributes.get("capacitive_load_unit")
        if not load or len(load) != 2 or load[1].lower() not in ("ff", "pf"):
            raise InputError(where, f"capacitive_load_unit: found {load}", "(NUMBER, ff) or (NUMBER, pf)")
        self.load_ff = float(load[0]) * (1e3 if load[1].lower() == "pf" else 1.0)
        self.energy_fj = self.load_ff * volt**2  # the unit of internal power: capacitance times voltage squared
        kinds = ("lu_table_template", "power_lut_template")
        self.templates = {g.arguments[0]: g for g in library.groups if g.kind in kinds}

    def _unit(self, name: str, unit: str) -> float:
        text = self.library.get(name) or ""
        match = re.fullmatch(rf"([\d.]+)\s*([munpfak]?){unit}", text, re.I)
        if not match:
            raise InputError(self.where, f"{name}: found {text!r}" if text else f"lacks {name}", f'such as "1n{unit}"')
        return float(match[1]) * _PREFIXES[match[2].lower()]

    def number(self, group: Group, name: str, default: float | None = None) -> float:
        text = group.get(name)
        place = f"{self.where}: line {group.line}: {group.kind} {' '.join(group.arguments)}".rstrip()
        if text is None:
            if default is None:
                raise InputError(place, f"lacks {name}")
            return default
        try:
            return float(text)
        except ValueError:
            raise InputError(place, f"{name}: found {text!r}", "a number") from None

    def cell(self, group: Group) -> Cell:
        leakages = tuple(
            (g.get("when"), self.number(g, "value") * self.power_nw) for g in group.of("leakage_power")
        )  # fmt: skip
        without = [nw for when, nw in leakages if when is None]
        mean = without[0] if without else float(np.mean([nw for _, nw in leakages])) if leakages else None
        default = None if mean is None else mean / self.power_nw
        if default is None and "default_cell_leakage_power" in self.library.attributes:
            default = self.number(self.library, "default_cell_leakage_power")
        register = None
        for ff in group.of("ff"):
            for name in ("next_state", "clocked_on"):
                if ff.get(name) is None:
                    raise InputError(f"{self.where}: line {ff.line}: cell {group.arguments[0]}: ff", f"lacks {name}")
            register = Register(ff.arguments[0], ff.arguments[1], str(ff.get("next_state")), str(ff.get("clocked_on")))
        leakage = self.number(group, "cell_leakage_power", 0.0 if default is None else default) * self.power_nw
        pins = {p.arguments[0]: self._pin(p, group) for p in group.of("pin") if p.get("direction") != "internal"}
        return Cell(group.arguments[0], self.number(group, "area"), pins, register, leakage, leakages)

    def _pin(self, group: Group, cell: Group) -> Pin:
        direction = group.get("direction")
        place = f"{self.where}: line {group.line}: cell {cell.arguments[0]}: pin {group.arguments[0]}"
        if direction not in ("input", "output"):
            raise InputError(place, f"direction: found {direction!r}", ("input", "output"))
        output = direction == "output"
        capacitance = 0.0
        if not output:
            default = self.library.get("default_input_pin_cap")
            capacitance = self.number(group, "capacitance", None if default is None else float(default)) * self.load_ff
        elif group.get("function") is None:
            raise InputError(place, "lacks function")
        powers = [arc for g in group.of("internal_power") for arc in self._power(g)]
        delays, setups = [], []
        for g in group.of("timing"):
            kind = g.get("timing_type") or "combinational"
            tables = {t.kind: self._table(t, self.time_ns) for t in g.groups if t.arguments}
            if kind.startswith("setup"):
                setups.append(tables)
            elif output and kind in ("combinational", "rising_edge", "falling_edge"):
                sense = {"positive_unate": False, "negative_unate": True}.get(g.get("timing_sense") or "")
                sense = None if kind != "combinational" else sense
                delays += [Delay(name, sense, tables) for name in (g.get("related_pin") or "").split()]
        function = group.get("function")
        return Pin(group.arguments[0], output, capacitance, function, tuple(powers), tuple(delays), tuple(setups))

    def _power(self, group: Group) -> list[Arc]:
        tables = {t.kind: self._table(t, self.energy_fj) for t in group.groups if t.arguments}
        rise = tables.get("rise_power", tables.get("power"))
        fall = tables.get("fall_power", tables.get("power"))
        names: list[str | None] = [*(group.get("related_pin") or "").split()] or [None]
        return [Arc(name, group.get("when"), rise, fall) for name in names]

    def _table(self, group: Group, unit: float) -> Table:
        place = f"{self.where}: line {group.line}: {group.kind}"
        if "values" not in group.attributes:
            raise InputError(place, "lacks values")
        values = np.array([_numbers(row, place) for row in group.attributes["values"]], float) * unit
        if group.arguments[0] == "scalar":
            return Table(np.zeros(1), np.zeros(1), values.reshape(1, 1))
        template = self.templates.get(group.arguments[0])
        if template is None:
            raise InputError(place, f"names the template {group.arguments[0]!r}, which is not there", self.templates)
        axes, kinds = [], []
        for i in (1, 2, 3):
            variable = template.get(f"variable_{i}")
            if variable is None:
                break
            index = group.attributes.get(f"index_{i}") or template.attributes.get(f"index_{i}")
            if not index:
                raise InputError(place, f"lacks index_{i}")
            kinds.append("load" if variable in _LOADS else "transition" if variable in _TRANSITIONS else variable)
            axes.append(_numbers(" ".join(index), place) * (self.load_ff if kinds[-1] == "load" else self.time_ns))
        values = values.reshape([len(a) for a in axes])
        if kinds == ["load", "transition"]:
            axes, values = axes[::-1], values.T
        elif kinds == ["transition"]:
            axes, values = [axes[0], np.zeros(1)], values[:, None]
        elif kinds == ["load"]:
            axes, values = [np.zeros(1), axes[0]], values[None]
        elif kinds == ["transition", "transition"]:  # a check of a register: of the data's and the clock's transition
            axes, values = [axes[0], np.zeros(1)], values.max(1, keepdims=True)
        elif kinds != ["transition", "load"]:
            raise InputError(place, f"has the axes {', '.join(kinds)}", "transition of an input and load of an output")
        return Table(axes[0], axes[1], values)


def _numbers(text: str, place: str) -> Floats:
    try:
        return np.array([float(v) for v in re.split(r"[\s,]+", text.strip(" \t\n,")) if v])
    except ValueError:
        raise InputError(place, f"found {text[:40]!r}", "numbers") from None


def _along(axis: Floats, values: Floats, at: float) -> Floats:
    if len(axis) == 1:
        return np.asarray(values[0])
    i = int(np.clip(np.searchsorted(axis, at) - 1, 0, len(axis) - 2))
    share = (at - axis[i]) / (axis[i + 1] - axis[i])
    return np.asarray(values[i] * (1 - share) + values[i + 1] * share)
