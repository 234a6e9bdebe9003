"""Energies of primitive components, from the tables in `arch_specs/tables`.

A table is a CSV file with the columns of `COLUMNS`. An empty cell means that the column does not apply to the
component, an empty technology that the row is for all technologies; lines that start with ``#`` are comments. Between
the rows:

- adder, comparator: linear in width.
- adc: one row for each number of bits, energy of a conversion; linear between them.
- multiplier: a power law of width (straight in log-log). Energy follows the product of the two widths, so an
  a x b multiplier is looked up at the geometric mean of a and b.
- register, dram, array_line: one row per bit; energy is proportional to width. The width of a line of a memory array is
  the number of cells that it runs past.
- core_*, wide_core_*: a MAC core that was measured (docs/rtl.md): a power law of the words' width (`width_bits`). Its
  accumulator has the widths `width_b_bits`, between which it can be switched; the smallest that is large enough counts.
  The rows of one core belong together: a later table of the same component replaces all of them.
- sram: a power law between adjacent rows in width, depth and n_banks. `depth` is the number of words of all banks
  together, as in CACTI: in a memory of 64 bit x 8192 words a read takes 25.9 pJ with one bank, and 18.2 pJ with sixteen
  banks of 512 words.

Nothing is extrapolated: a value outside the rows is an error that names the range. Only leakage (`leak`, pJ per cycle)
is 0 if no table gives it, or outside the rows that do; the shipped tables give it for registers only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.documents import read_text
from dse.core.errors import InputError, unknown

COLUMNS = (
    "component", "technology", "width_bits", "width_b_bits", "depth", "n_banks", "action", "energy_pj", "estimator",
)  # fmt: skip

Point = tuple[float, ...]


@dataclass(frozen=True)
class _Primitive:
    """How the rows of a primitive are read."""

    axes: tuple[str, ...]  # Accelergy's attributes that select a row
    law: str  # between rows: "linear", "power", or "per bit": a single row for a width of 1
    actions: Mapping[str, str]  # Accelergy's action -> the table's
    switched: bool = False  # the last axis is switched between the rows' values; the rows are those of one circuit


_LEAK = "leak"
_STORAGE = {"read": "read", "write": "write", "update": "write", _LEAK: _LEAK}
_PRIMITIVES = {
    "adder": _Primitive(("width",), "linear", {"add": "add", "read": "add", _LEAK: _LEAK}),
    "comparator": _Primitive(("n_bits",), "linear", {"compare": "compare", "read": "compare", _LEAK: _LEAK}),
    "multiplier": _Primitive(("width",), "power", {"multiply": "multiply", "read": "multiply", _LEAK: _LEAK}),
    "register": _Primitive(("width",), "per bit", _STORAGE),
    "adc": _Primitive(("n_bits",), "linear", {"convert": "convert", _LEAK: _LEAK}),
    "array_line": _Primitive(("width",), "per bit", {"charge": "charge", _LEAK: _LEAK}),
    "sram": _Primitive(("width", "depth", "n_banks"), "power", _STORAGE),
    "dram": _Primitive(("width",), "per bit", _STORAGE),
} | {
    f"{core}_{operator}": _Primitive(
        ("width", "accumulator_width"), "power", {"compute": "compute", _LEAK: _LEAK}, switched=True
    )
    for core in ("core", "wide_core")
    for operator in ("typical", "multiplication_free", "binary_connect")
}  # fmt: skip
_ALADDIN = ("adder", "comparator", "multiplier", "register")
PRIMITIVE_CLASSES = (*(f"aladdin_{name}" for name in _ALADDIN), "adc", "array_line", "SRAM", "DRAM")
"""Primitive classes by their names in Accelergy's own estimators."""


@dataclass(frozen=True)
class Tables:
    """Rows of all tables: (component, technology, action) -> position -> energy in pJ."""

    rows: Mapping[tuple[str, str, str], Mapping[Point, float]]


def primitive_actions(component_class: str) -> tuple[str, ...] | None:
    """Actions of a primitive class; None if there is no such class.

    Example:
        >>> primitive_actions("aladdin_adder"), primitive_actions("systolic_array")
        (('add', 'read', 'leak'), None)
    """
    primitive = _PRIMITIVES.get(_short(component_class))
    return tuple(primitive.actions) if primitive else None


def selecting_attributes(component_class: str) -> tuple[str, ...]:
    """The attributes of a primitive class that its energies depend on, except the technology.

    Example:
        >>> selecting_attributes("SRAM")
        ('width', 'depth', 'n_banks')
    """
    name = _short(component_class)
    extra = {"multiplier": ("width_a", "width_b"), "dram": ("type",)}
    return (*_PRIMITIVES[name].axes, *extra.get(name, ()))


def primitive_energy(
    tables: Tables, component_class: str, action: str, attributes: Mapping[str, Any], where: object
) -> float:
    """Energy in pJ of one action of a primitive.

    Args:
        component_class: one of `PRIMITIVE_CLASSES`, with or without ``aladdin_``, or ``intadder``, ``intmultiplier``.
        attributes: ``width`` (multiplier: ``width_a`` and ``width_b``, or ``width``; register: default 1), comparator
            ``n_bits``, SRAM also ``depth`` and ``n_banks`` (default 1), DRAM also ``type`` (default LPDDR4);
            ``technology`` (default: the technology of the tables, if there is only one).

    Raises:
        InputError: a class or action is unknown, an attribute is missing, or a value is outside the table.

    Example:
        >>> from dse.core.shipped import data_dir
        >>> tables = read_tables(sorted((data_dir("arch_specs") / "tables").glob("*.csv")))
        >>> primitive_energy(tables, "DRAM", "read", {"width": 64, "type": "LPDDR4"}, "mine.yaml")  # pJ for 64 bits
        512.0
    """
    name = _short(component_class)
    if name not in _PRIMITIVES:
        raise unknown(where, "component class", component_class, PRIMITIVE_CLASSES)
    primitive = _PRIMITIVES[name]
    if action not in primitive.actions:
        raise InputError(where, f"{component_class} has no action {action!r}", primitive.actions)
    where = f"{where}: {component_class}"
    position = [_position(name, axis, attributes, where) for axis in primitive.axes]
    if action == _LEAK and not _has_leakage(tables, name, attributes, position, where):
        return 0.0
    rows = _rows(tables, name, primitive.actions[action], attributes, where)
    if primitive.law == "per bit":
        return position[0] * rows[(1.0,)]
    if primitive.switched:
        position[-1] = _switched(rows, position[-1], f"{where}.{primitive.axes[-1]}")
    return _interpolate(rows, position, primitive.axes, primitive.law == "power", where)


def _has_leakage(
    tables: Tables, name: str, attributes: Mapping[str, Any], position: Sequence[float], where: str
) -> bool:
    """Whether a table gives a primitive's leakage at this position."""
    kind = _dram_type(attributes, where) if name == "dram" else name
    technologies = [t for component, t, action in tables.rows if (component, action) == (kind, _LEAK)]
    default = technologies[0] if len(technologies) == 1 else ""
    wanted = _technology(attributes.get("technology", default), f"{where}.technology")
    rows = next((tables.rows[kind, t, _LEAK] for t in technologies if t in ("", wanted)), None)
    if rows is None or _PRIMITIVES[name].law == "per bit":
        return rows is not None
    axes = [*zip(position, zip(*rows, strict=True), strict=True)][: -1 if _PRIMITIVES[name].switched else None]
    return all(min(values) <= x <= max(values) for x, values in axes)


def read_tables(paths: Iterable[Path]) -> Tables:
    """Reads tables; a row of a later file replaces the same row of an earlier one.

    Raises:
        InputError: naming the file and line.

    Example:
        >>> from dse.core.shipped import data_dir
        >>> tables = read_tables(sorted((data_dir("arch_specs") / "tables").glob("*.csv")))
        >>> sorted({component for component, _, _ in tables.rows if not component.startswith("dram")})
        ['adc', 'adder', 'array_line', 'comparator', 'core_binary_connect',
         'core_multiplication_free', 'core_typical', 'multiplier', 'register', 'sram',
         'wide_core_binary_connect', 'wide_core_multiplication_free', 'wide_core_typical']
    """
    rows: dict[tuple[str, str, str], dict[Point, float]] = {}
    for path in paths:
        seen: set[tuple[tuple[str, str, str], Point]] = set()
        lines = read_text(path).splitlines()
        numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
        if not numbered or tuple(numbered[0][1].split(",")) != COLUMNS:
            raise InputError(path, "not a table of component energies", f"the first line {','.join(COLUMNS)}")
        for number, line in numbered[1:]:
            key, position, energy = _parse(_cells(line, f"{path}: line {number}"), f"{path}: line {number}")
            if (key, position) in seen:
                raise InputError(f"{path}: line {number}", "repeats an earlier row")
            if key[0] in _PRIMITIVES and _PRIMITIVES[key[0]].switched and key not in {of for of, _ in seen}:
                rows.pop(key, None)
            seen.add((key, position))
            rows.setdefault(key, {})[position] = energy
    return Tables(MappingProxyType(rows))


def _cells(line: str, where: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as e:
        raise InputError(where, f"not readable as CSV: {e}") from None


def _parse(cells: list[str], where: str) -> tuple[tuple[str, str, str], Point, float]:
    """A line of a table: component, technology and action; position along the component's axes; energy."""
    if len(cells) != len(COLUMNS):
        raise InputError(where, f"has {len(cells)} cells", f"{len(COLUMNS)}")
    row = dict(zip(COLUMNS, (c.strip() for c in cells), strict=True))
    component = row["component"]
    kind = "dram" if component.startswith("dram_") else component
    if kind not in _PRIMITIVES or component == "dram":
        raise InputError(
            f"{where}: component",
            f"found {fields.shown(component)}",
            [*(name for name in _PRIMITIVES if name != "dram"), "dram_TYPE"],
        )
    fields.one_of(row["action"], f"{where}: action", sorted(set(_PRIMITIVES[kind].actions.values())), "action")
    columns = {"sram": ("width_bits", "depth", "n_banks"), "multiplier": ("width_bits", "width_b_bits")}
    default = ("width_bits", "width_b_bits") if _PRIMITIVES[kind].switched else ("width_bits",)
    values = []
    for column in columns.get(kind, default):
        values.append(_number(row[column], f"{where}: {column}"))
        if values[-1] == 0:
            raise InputError(f"{where}: {column}", "found 0", "a number above 0")
    if kind == "multiplier":
        values = [math.sqrt(values[0] * values[1])]
    elif _PRIMITIVES[kind].law == "per bit" and values != [1]:
        raise InputError(f"{where}: width_bits", f"found {values[0]:g}", f"1, as {kind} energies are per bit")
    energy = _number(row["energy_pj"], f"{where}: energy_pj")
    if energy == 0 and _PRIMITIVES[kind].law == "power":
        raise InputError(f"{where}: energy_pj", "found 0", "a number above 0")
    return (component, _technology(row["technology"]), row["action"]), tuple(values), energy


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise InputError(where, f"found {fields.shown(text)}", "a number, at least 0")
    return value


def _short(component_class: str) -> str:
    return component_class.lower().removeprefix("aladdin_").removeprefix("int")


def _technology(value: Any, where: str = "technology") -> str:
    """``45nm``, ``"45 nm"`` and 45 are the same technology; "" is that of rows for all technologies."""
    text = fields.name(value, where) if value != "" else ""
    return text.lower().replace(" ", "").removesuffix("nm")


def _dram_type(attributes: Mapping[str, Any], where: str) -> str:
    """The name of a DRAM in the tables."""
    return f"dram_{fields.name(attributes.get('type', 'LPDDR4'), f'{where}.type').lower()}"


def _rows(tables: Tables, name: str, action: str, attributes: Mapping[str, Any], where: str) -> Mapping[Point, float]:
    """The rows of one component, technology and action."""
    if name == "dram":
        name = _dram_type(attributes, where)
        types = sorted(
            {component.removeprefix("dram_").upper() for component, _, _ in tables.rows if "dram_" in component}
        )
        if name.removeprefix("dram_").upper() not in types:
            raise InputError(f"{where}.type", f"no table has {fields.shown(attributes.get('type', 'LPDDR4'))}", types)
    known = sorted({technology for component, technology, a in tables.rows if (component, a) == (name, action)})
    if not known:
        raise InputError(where, f"no table has action {action!r} of {name}")
    default = known[0] if len(known) == 1 else None
    technology = attributes.get("technology", default)
    if technology is None:
        raise InputError(f"{where}.technology", "is missing", [f"{t}nm" for t in known])
    wanted = "" if "" in known else _technology(technology, f"{where}.technology")
    if wanted not in known:
        raise InputError(f"{where}.technology", f"no table has {fields.shown(technology)}", [f"{t}nm" for t in known])
    return tables.rows[name, wanted, action]


def _position(name: str, axis: str, attributes: Mapping[str, Any], where: str) -> float:
    """The value of an attribute that selects a row."""
    if name == "multiplier" and "width_a" in attributes:
        return math.sqrt(math.prod(_positive(attributes, key, where) for key in ("width_a", "width_b")))
    if axis not in attributes and (axis == "n_banks" or name == "register"):
        return 1.0
    return _positive(attributes, axis, where)


def _positive(attributes: Mapping[str, Any], key: str, where: str) -> float:
    if key not in attributes:
        raise InputError(where, f"attribute {key!r} is missing", sorted(map(str, attributes)) or None)
    return fields.number(attributes[key], f"{where}.{key}", above=True)


def _switched(rows: Mapping[Point, float], least: float, where: str) -> float:
    """The smallest value of the last axis that is at least `least`."""
    values = sorted({point[-1] for point in rows})
    if least > values[-1]:
        raise InputError(where, f"{least:g} is outside the table", f"up to {values[-1]:g}")
    return min(value for value in values if value >= least)


def _interpolate(
    rows: Mapping[Point, float], position: Sequence[float], axes: Sequence[str], power: bool, where: str
) -> float:
    """Interpolates between the rows around `position`: linearly, or linearly in logarithms if `power`."""
    corners: list[tuple[Point, float]] = [((), 1.0)]
    for i, (axis, x) in enumerate(zip(axes, position, strict=True)):
        values = sorted({point[i] for point in rows})
        if not values[0] <= x <= values[-1]:
            raise InputError(f"{where}.{axis}", f"{x:g} is outside the table", f"{values[0]:g} to {values[-1]:g}")
        low = max(v for v in values if v <= x)
        high = min(v for v in values if v >= x)
        share = 0.0 if low == high else math.log(x / low, high / low) if power else (x - low) / (high - low)
        ends = [(low, 1.0 - share)] + ([(high, share)] if share else [])
        corners = [((*point, v), weight * w) for point, weight in corners for v, w in ends]
    missing = [point for point, _ in corners if point not in rows]
    if missing:
        raise InputError(where, f"the table has no row at {dict(zip(axes, missing[0], strict=True))}")
    if len(corners) == 1:
        return rows[corners[0][0]]
    if power:
        return math.exp(sum(weight * math.log(rows[point]) for point, weight in corners))
    return sum(weight * rows[point] for point, weight in corners)
