"""Tables of components in Accelergy's CSV forms, and how Accelergy chooses a row.

There are two forms. Both have a column for each attribute, and ``action``, ``energy`` (pJ) and ``area`` (um^2):

- Library: a table of one component is named like it; a file of several names each in a line ``COMPONENT: name`` above
  its header. Cells hold alternatives (``read|add``), headers too (``width|datawidth``); ``*`` fits every value. Of all
  rows of the component and action the one with most equal attributes is taken, the first of several; its value is
  scaled by every attribute that differs (`dse.hardware.energy.scaling`). A row that cannot be scaled is left out.
- Set of tables: a file ``*.table.yaml`` gives ``name``, ``technology``, ``accuracy`` and ``path_to_data_dir``, a folder
  with a table ``CLASS.csv`` for each class. The first row is taken whose cells are the attributes' values as text. The
  set of the largest accuracy answers; the accuracy of the Library is 90.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.documents import read_text, read_yaml
from dse.core.errors import InputError
from dse.hardware.energy.scaling import AREA, ENERGY, LEAK, scale

LIBRARY_ACCURACY = 90
SET_SUFFIX = "table.yaml"
POINTERS = "_pointers.txt"

_SET_FIELDS = ("name", "technology", "accuracy", "path_to_data_dir")
_ACTION = "action"
_COMPONENT = "COMPONENT"
_ANY = "*"
_NAME = re.compile(r"[\w.-]+|\*")
_NOT_NUMERIC = "[^0-9eE.+-]+"
_COMPUTES = frozenset(("compute", "mac", "mac_random", "mult", "mult_random"))


@dataclass(frozen=True)
class Row:
    """A line of a table: what it says of one component, for some of its actions."""

    component: str
    actions: tuple[str, ...]
    cells: Mapping[str, str]
    energy: float | None
    area: float | None
    where: str

    def cell(self, attribute: str) -> str | None:
        """The column for an attribute, whose name may be one of several in a header; None if there is none."""
        name = attribute.lower()
        return next((c for c in self.cells if name == c.lower() or name in c.lower().split("|")), None)

    def value(self, quantity: str) -> float | None:
        return self.area if quantity == AREA else self.energy


@dataclass(frozen=True)
class TableSet:
    """A set of tables for one technology, whose cells have to agree as text."""

    name: str
    technology: str
    accuracy: float
    rows: Mapping[str, tuple[Row, ...]]  # by class

    def find(self, component: str, action: str | None, query: Mapping[str, Any]) -> Row | None:
        """The first row that agrees with a query, for an area (without an action) the first of any action."""
        if text_of(query.get("technology", "")) != self.technology:
            return None
        for row in self.rows.get(component, ()):
            if all(row.cells.get(name, text_of(value)) == text_of(value) for name, value in query.items()) and (
                action is None or action in row.actions
            ):
                return row
        return None


@dataclass(frozen=True)
class ComponentTables:
    """The rows of all files of Accelergy's forms, by component in lower case, and sets of tables."""

    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    sets: tuple[TableSet, ...] = ()

    def has(self, component: str) -> bool:
        return bool(self._all(component))

    def actions(self, component: str) -> tuple[str, ...] | None:
        """The actions of a component; None if no table has it.

        Example:
            >>> ComponentTables().actions("adc") is None
            True
        """
        found = dict.fromkeys(action for row in self._all(component) for action in row.actions if action != _ANY)
        return tuple(found) if self.has(component) else None

    def computes(self, component: str) -> bool:
        """Whether a component has an action of a compute unit."""
        return not _COMPUTES.isdisjoint(self.actions(component) or ())

    def attributes(self, component: str) -> tuple[str, ...]:
        """The attributes that a component's rows depend on."""
        headers = (name for row in self._all(component) for header in row.cells for name in header.split("|"))
        return tuple(dict.fromkeys(name.strip() for name in headers if name.strip() != "comment"))

    def energy(
        self, component: str, action: str, attributes: Mapping[str, Any], arguments: Mapping[str, Any], where: str
    ) -> float:
        """Energy in pJ of an action (of ``leak`` per cycle).

        An update without a row of its own costs as much as a write, leakage without a row is 0.

        Raises:
            InputError: no row has the action, or none fits the attributes.
        """
        actions = self.actions(component) or ()
        if action not in actions:
            if action == "update" and "write" in actions:
                action = "write"
            elif action == LEAK:
                return 0.0
            else:
                raise InputError(f"{where}: {component}", f"its table has no action {action!r}", actions)
        quantity = LEAK if action == LEAK else ENERGY
        found = self._value(component, action, {**attributes, **arguments}, quantity)
        if found is None:
            raise self._unfit(component, action, attributes, where)
        return found

    def area(self, component: str, attributes: Mapping[str, Any]) -> float | None:
        """Area in um^2; None if no row that fits gives one."""
        return self._value(component, None, attributes, AREA)

    def _value(self, component: str, action: str | None, query: Mapping[str, Any], quantity: str) -> float | None:
        answers = [(s.accuracy, row.value(quantity)) for s in self.sets if (row := s.find(component, action, query))]
        own = [row for row in self.rows.get(component.lower(), ()) if action is None or action in row.actions]
        answers.insert(0, (LIBRARY_ACCURACY, _best(own, query, quantity)))
        known = [(accuracy, value) for accuracy, value in answers if value is not None]
        return max(known, key=lambda answer: answer[0])[1] if known else None

    def _all(self, component: str) -> tuple[Row, ...]:
        in_sets = (row for s in self.sets for row in s.rows.get(component, ()))
        return (*self.rows.get(component.lower(), ()), *in_sets)

    def _unfit(self, component: str, action: str, attributes: Mapping[str, Any], where: str) -> InputError:
        rows = [row for row in self._all(component) if action in row.actions]
        scaled = self.rows.get(component.lower(), ())
        quantity = LEAK if action == LEAK else ENERGY
        differ = {
            f"{name} {text_of(attributes[name])} (the row: {row.cells[cell]})": None
            for row in rows
            for name in attributes
            if (cell := row.cell(name))
            and not _agrees(row.cells[cell], attributes[name])
            and not (row in scaled and _factor(name, row.cells[cell], attributes[name], quantity) is not None)
        }
        first = rows[0].where
        return InputError(
            f"{where}: {component}",
            f"no row of {action!r} in {first.rpartition(': line')[0]} fits: {'; '.join(differ) or 'no value'}",
            hint="add a row for these attributes to the table",
        )


def read_csv(path: Path, component: str | None = None) -> list[Row]:
    """The rows of a table in Accelergy's form.

    Args:
        component: the class that all rows are of; None: the file's name, or what its lines ``COMPONENT:`` say.

    Raises:
        InputError: naming file, line and column.

    Example:
        >>> _ = Path("adc.csv").write_text("resolution,energy,area,action\\n8,0.5,100,convert|read\\n")
        >>> [(row.component, row.actions, row.energy) for row in read_csv(Path("adc.csv"))]
        [('adc', ('convert', 'read'), 0.5)]
    """
    name, header, rows = component or path.name.split(".")[0], None, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}: line {number}"
        content = line.split("#")[0].strip()
        if not content.replace(",", "").strip():
            continue
        if component is None and _COMPONENT in content:
            _, colon, text = content.partition(":")
            name, header = text.strip(" ,"), None
            if not colon or not name:
                raise InputError(where, f"found {fields.shown(content)}", "COMPONENT: name")
        elif header is None:
            header = _header(content, where)
        else:
            row = _row(name, header, [cell.strip() for cell in content.split(",")], where)
            if row is not None and component is None:  # the Library's rows are of one instance
                row = replace(row, cells=MappingProxyType({"n_instances": "1", **row.cells}))
            rows += [row] if row else []
    if not rows:
        raise InputError(path, "has no row of a component", "a header with action, energy and attributes, then rows")
    return rows


def _header(content: str, where: str) -> list[str]:
    columns = [column.strip() for column in content.split(",")]
    while columns and not columns[-1]:
        columns.pop()
    lower = [column.lower() for column in columns]
    for needed in (_ACTION, ENERGY):
        if not any(needed in column for column in lower):
            raise InputError(where, f"no column {needed!r}", "attributes, action, energy (pJ), area (um^2)")
    for column in lower:
        if column and lower.count(column) > 1:
            raise InputError(where, f"column {column!r} is there twice", "each column once")
    return columns


def _row(component: str, header: Sequence[str], cells: list[str], where: str) -> Row | None:
    """A row; None for a line that is a note: its cell of actions has no name that could be asked for."""
    # As in Accelergy, cells after the last column of the header are ignored, and a row may have fewer cells than it.
    found = dict(zip(header, cells, strict=False))
    energy, area, action = (
        next((c for c in header if quantity in c.lower()), "") for quantity in (ENERGY, AREA, _ACTION)
    )
    if not found.get(action):
        raise InputError(f"{where}: {action}", "is empty", "names of actions, such as read|write")
    actions = tuple(name.strip().lower() for name in found[action].split("|") if name.strip())
    if not all(_NAME.fullmatch(name) for name in actions):
        return None
    attributes = {name: cell for name, cell in found.items() if name and name not in (energy, area, action)}
    return Row(
        component,
        actions,
        MappingProxyType(attributes),
        _number(found.get(energy), f"{where}: {energy}", "pJ"),
        _number(found.get(area), f"{where}: {area}", "um^2") if area else None,
        where,
    )


def _number(text: str | None, where: str, unit: str) -> float | None:
    """The number of a cell; None for an empty one."""
    if text is None or text == "":
        return None
    try:
        value: object = float(text)
    except ValueError:
        value = text
    return fields.number(value, where, unit=unit)


def read_set(path: Path) -> TableSet:
    """A set of tables from its ``*.table.yaml``.

    Raises:
        InputError: a field is missing or wrong, a table cannot be read.

    Example:
        >>> Path("data").mkdir()
        >>> _ = Path("data/cell.csv").write_text("width,energy,action\\n8,0.5,read\\n")
        >>> text = "{name: mine, technology: 45nm, accuracy: 95, path_to_data_dir: data}"
        >>> _ = Path("mine.table.yaml").write_text(text)
        >>> "cell" in read_set(Path("mine.table.yaml")).rows
        True
    """
    document = fields.mapping(read_yaml(path), path, _SET_FIELDS, required=_SET_FIELDS)
    accuracy = fields.number(document["accuracy"], f"{path}: accuracy")
    if not 0 < accuracy <= 100:
        problem = f"found {accuracy:g}: Accelergy never takes such a set"
        raise InputError(f"{path}: accuracy", problem, "a number above 0, at most 100")
    folder = path.parent / fields.text(document["path_to_data_dir"], f"{path}: path_to_data_dir")
    if not folder.is_dir():
        raise InputError(f"{path}: path_to_data_dir", f"found {folder}", "an existing folder")
    tables = sorted(folder.rglob("*.csv"))
    if not tables:
        raise InputError(f"{path}: path_to_data_dir", f"{folder} has no table", "a folder with CLASS.csv")
    return TableSet(
        fields.name(document["name"], f"{path}: name"),
        text_of(fields.name(document["technology"], f"{path}: technology")),
        accuracy,
        MappingProxyType({table.stem: tuple(read_csv(table, table.stem)) for table in tables}),
    )


def read_pointers(path: Path) -> dict[str, str]:
    """Other names of components, ``new: old`` a line; both in lower case.

    Example:
        >>> _ = Path("_pointers.txt").write_text("My_ADC: adc")
        >>> read_pointers(Path("_pointers.txt"))
        {'my_adc': 'adc'}
    """
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        content = line.split("#")[0].strip()
        new, colon, old = (part.strip().lower() for part in content.partition(":"))
        if content and not (new and colon and old):
            raise InputError(f"{path}: line {number}", f"found {fields.shown(content)}", "name: name of a component")
        if content:
            found[new] = old
    return found


def component_tables(
    rows: Iterable[Row], sets: Iterable[TableSet] = (), pointers: Mapping[str, tuple[str, str]] | None = None
) -> ComponentTables:
    """Tables of rows, by component.

    Args:
        pointers: other name -> component and place of the pointer; both names in lower case.

    Example:
        >>> row = Row("adc", ("read",), {}, 0.5, None, "adc.csv: line 2")
        >>> component_tables([row], pointers={"my_adc": ("adc", "_pointers.txt")}).actions("my_adc")
        ('read',)
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.component.lower(), []).append(row)
    for new, (old, where) in (pointers or {}).items():
        if old not in found:
            raise InputError(where, f"no table has the component {old!r}", sorted(found))
        found.setdefault(new, []).extend(found[old])
    return ComponentTables(MappingProxyType({name: tuple(of) for name, of in found.items()}), tuple(sets))


def text_of(value: Any) -> str:
    """A value as it is compared: Accelergy makes whole numbers integers before it asks.

    Example:
        >>> text_of(8.0), text_of("45nm")
        ('8', '45nm')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _best(rows: Sequence[Row], query: Mapping[str, Any], quantity: str) -> float | None:
    """The value of the row that agrees in most attributes, scaled by the others."""
    best, most = None, -1
    for row in rows:
        value = row.value(quantity)
        fit = _fit(row, query, quantity)
        if value is not None and fit is not None and fit[0] > most:
            most, best = fit[0], value * fit[1]
    return best


def _fit(row: Row, query: Mapping[str, Any], quantity: str) -> tuple[int, float] | None:
    """How many attributes agree, and the factor of the others; None if one of them cannot be scaled."""
    agreeing, factor = 0, 1.0
    taken: set[str] = set()
    keep = query.get(f"no_scale_{quantity}", False)
    for attribute, wanted in query.items():
        column = row.cell(attribute)
        if column is None or column in taken:  # of two names of one column the first counts
            continue
        taken.add(column)
        if _agrees(row.cells[column], wanted):
            agreeing += 1
            continue
        if keep:
            continue
        by = _factor(attribute, row.cells[column], wanted, quantity)
        if by is None:
            return None
        agreeing += by == 1
        factor *= by
    return agreeing, factor


def _factor(attribute: str, cell: str, wanted: Any, quantity: str) -> float | None:
    """What an attribute that differs scales a value by; None if it cannot be scaled."""
    from_, to = _quantity(cell), _quantity(wanted)
    if from_ is None or to is None:
        return None
    try:
        return scale(attribute, from_, to, quantity)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None


def _agrees(cell: str, value: Any) -> bool:
    return cell == _ANY or cell.lower() == text_of(value).lower()


def _quantity(value: Any) -> float | None:
    """The number in a text such as ``45nm``; None if there is none."""
    text = re.sub(f"^{_NOT_NUMERIC}|{_NOT_NUMERIC}$", "", text_of(value))
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
