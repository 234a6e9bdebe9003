"""The embedded component estimator: energies per action of Accelergy's compound and primitive classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.errors import InputError, unknown
from dse.core.expressions import evaluate
from dse.core.shipped import data_dir
from dse.hardware.energy.accelergy_tables import ComponentTables
from dse.hardware.energy.classes import MUST_SPECIFY, Action, ComponentClass, Subcomponent, instances, parse_classes
from dse.hardware.energy.table_files import TableFiles, read_table_files
from dse.hardware.energy.tables import (
    PRIMITIVE_CLASSES,
    Tables,
    primitive_actions,
    primitive_energy,
    selecting_attributes,
)

_HANDED_DOWN = ("technology", "global_cycle_seconds")
"""Attributes of a compound that Accelergy passes to its parts."""

_MAX_ARGUMENT_COMBINATIONS = 4096


@dataclass(frozen=True)
class ComponentLibrary:
    """Compound classes over tables of primitives.

    `own` are tables in Accelergy's CSV forms, which answer before `tables` for the components that they have.
    `energies_of` and `areas_of` are those of ERT and ART files, by the name of a component rather than by its class.
    """

    classes: Mapping[str, ComponentClass]
    tables: Tables
    own: ComponentTables = field(default_factory=ComponentTables)
    energies_of: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    areas_of: Mapping[str, float] = field(default_factory=dict)
    where: str = ""
    """The files that a user gave, for messages."""
    compute_leakage: bool = False
    """Whether leakage of compute units is charged, which Timeloop leaves out."""
    primitives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Default attributes of primitive classes."""

    @classmethod
    def load(cls, paths: Iterable[Path | str] | None = None) -> ComponentLibrary:
        """The shipped classes and tables, and those in `paths`; as `with_files`.

        Raises:
            InputError: as `dse.hardware.energy.table_files.read_table_files`.
        """
        shipped = data_dir("arch_specs")
        found = read_table_files(shipped / folder for folder in ("components", "tables"))
        library = cls(found.classes, found.tables)
        return library.with_files(read_table_files(paths)) if paths else library

    def with_files(self, files: TableFiles) -> ComponentLibrary:
        """This library and a user's tables.

        A class, a row of our form or a component of an ERT or ART replaces one of the same name or position.
        """
        rows = {key: dict(of) for key, of in self.tables.rows.items()}
        for key, of in files.tables.rows.items():
            rows[key] = rows.get(key, {}) | dict(of)
        return replace(
            self,
            classes=MappingProxyType({**self.classes, **files.classes}),
            tables=Tables(MappingProxyType(rows)),
            own=files.components,
            energies_of=files.energies,
            areas_of=files.areas,
            where=files.where,
            compute_leakage=files.compute_leakage,
            primitives=MappingProxyType({**self.primitives, **files.primitives}),
        )

    @staticmethod
    def shipped() -> ComponentLibrary:
        """The shipped classes and tables, read once."""
        return _shipped()

    def with_classes(self, document: Any, where: str) -> ComponentLibrary:
        """This library and the classes of a specification's own ``components: {version, classes}``."""
        return replace(self, classes=MappingProxyType({**self.classes, **parse_classes(document, where)}))

    def energies(self, component_class: str, attributes: Mapping[str, Any], where: object) -> dict[str, float]:
        """Energy in pJ of every action of a component.

        Storage has at least read, write, update and leak (pJ per cycle). If a class declares no update, it costs as
        much as a write, as in Timeloop. A compute unit has compute. Undeclared leakage is 0. The energy of an action
        with arguments is the largest over their ranges, as Timeloop takes it from an ERT.

        Args:
            component_class: a compound or a primitive class.
            attributes: numbers and text; attributes that the class does not declare are ignored.
            where: file and field, for errors.

        Raises:
            InputError: a class, action or subcomponent is unknown, a ``must_specify`` attribute is missing, a class
                contains itself, or a value is outside a table.
        """
        names = self.actions(component_class)
        if names is None:
            raise self._no_table(where, component_class)
        energies = {name: self._largest(component_class, attributes, name, str(where)) for name in names}
        if "write" in energies:
            energies.setdefault("update", energies["write"])
        energies.setdefault("leak", 0.0)
        return energies

    def actions(self, component_class: str) -> tuple[str, ...] | None:
        """The actions of a class; None if neither a class nor a table has this name.

        Example:
            >>> ComponentLibrary.shipped().actions("aladdin_adder")
            ('add', 'read', 'leak')
        """
        compound = self.classes.get(component_class)
        if compound is not None:
            return tuple(compound.actions)
        return self.own.actions(component_class) or primitive_actions(component_class)

    def attributes(self, component_class: str) -> tuple[str, ...] | None:
        """The attributes that a class declares or its table depends on; None if there is no such class or table."""
        compound = self.classes.get(component_class)
        if compound is not None:
            return tuple(compound.attributes)
        declared = tuple(self.primitives.get(component_class, ()))
        if self.own.has(component_class):
            return (*self.own.attributes(component_class), *declared)
        if primitive_actions(component_class) is None:
            return None
        return (*selecting_attributes(component_class), *declared)

    def area(self, component_class: str, attributes: Mapping[str, Any], where: object) -> float | None:
        """Area of one instance in um^2; None if the tables have none of it, or of a part of it.

        Of a compound class it is the sum over all parts, each with its number, as in Accelergy.

        Raises:
            InputError: as `energies`.
        """
        return self._area(component_class, attributes, str(where), ())

    def primitive(
        self, component_class: str, action: str, attributes: Mapping[str, Any], arguments: Mapping[str, Any], where: str
    ) -> float:
        """Energy in pJ of one action of a primitive; the shipped tables have the same for all arguments."""
        attributes = self._with_defaults(component_class, attributes, where)
        if self.own.has(component_class):
            return self.own.energy(component_class, action, attributes, arguments, where)
        return primitive_energy(self.tables, component_class, action, attributes, where)

    def _names(self) -> list[str]:
        return [*sorted(self.classes), *sorted(self.own.rows), *PRIMITIVE_CLASSES]

    def _no_table(self, where: object, component_class: str) -> InputError:
        error = unknown(where, "component class", component_class, self._names())
        hint = "give a table or a class of it by --tables FILE, or an ERT that has the component"
        return InputError(error.where, error.problem, error.allowed, hint)

    def _area(
        self, component_class: str, attributes: Mapping[str, Any], where: str, outer: tuple[str, ...]
    ) -> float | None:
        compound = self.classes.get(component_class)
        if compound is None:
            if self.actions(component_class) is None:
                raise self._no_table(where, component_class)
            if not self.own.has(component_class):
                return None
            return self.own.area(component_class, self._with_defaults(component_class, attributes, where))
        if component_class in outer:
            raise InputError(where, f"class {component_class} contains itself: {' > '.join((*outer, component_class))}")
        bindings = _bindings(compound, attributes, where)
        at = f"{where}: {component_class}"
        total = 0.0
        for name, part in compound.subcomponents.items():
            own = self._part_attributes(part, bindings, f"{at}: {name}")
            area = self._area(part.component_class, own, f"{at}: {name}", (*outer, component_class))
            if area is None:
                return None
            total += (
                area
                * _scale(part.area_scale, self._scope(part, bindings, own, at), at)
                * _number_of(name, part.index, bindings, at)
            )
        return total

    def _with_defaults(self, component_class: str, attributes: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The attributes of a primitive, with the defaults that its class declares."""
        defaults = self.primitives.get(component_class)
        if defaults is None:
            return attributes
        return _bindings(ComponentClass(component_class, defaults, {}, {}), attributes, where)

    def _part_attributes(self, part: Subcomponent, bindings: Mapping[str, Any], at: str) -> dict[str, Any]:
        """The values of a part's attributes, with those that a compound hands down."""
        values = _evaluate_all(part.attributes, bindings, at)
        for name in _HANDED_DOWN:
            if name in bindings:
                values.setdefault(name, bindings[name])
        return values

    def _scope(
        self, part: Subcomponent, bindings: Mapping[str, Any], own: Mapping[str, Any], at: str
    ) -> Mapping[str, Any]:
        """The names in a part's scale: the part's attribute before the compound's, as in Accelergy."""
        inner = self.classes.get(part.component_class)
        return {**bindings, **(_bindings(inner, own, at) if inner else own)}

    def _largest(self, component_class: str, attributes: Mapping[str, Any], action: str, where: str) -> float:
        """Energy of an action of the component itself: the largest over the ranges of its arguments."""
        compound = self.classes.get(component_class)
        if compound is None:
            return self.primitive(component_class, action, attributes, {}, where)
        bindings = _bindings(compound, attributes, where)
        combinations = _combinations(compound.actions[action], bindings, f"{where}: {component_class}.{action}")
        return max(self._energy(component_class, attributes, action, a, where, ()) for a in combinations)

    def _energy(
        self,
        component_class: str,
        attributes: Mapping[str, Any],
        action: str,
        arguments: Mapping[str, Any],
        where: str,
        outer: tuple[str, ...],
    ) -> float:
        """Energy of one action with its arguments bound; `outer` are the classes that contain this one."""
        compound = self.classes.get(component_class)
        if compound is None:
            if self.actions(component_class) is None:
                raise self._no_table(where, component_class)
            return self.primitive(component_class, action, attributes, arguments, where)
        if component_class in outer:
            raise InputError(where, f"class {component_class} contains itself: {' > '.join((*outer, component_class))}")
        if action not in compound.actions:
            raise InputError(where, f"{component_class} has no action {action!r}", compound.actions)
        bindings = _bindings(compound, attributes, where)  # names in attributes of parts
        acting = bindings | dict(arguments)  # names in their actions
        at = f"{where}: {component_class}.{action}"
        total = 0.0
        for use in compound.actions[action].uses:
            part = compound.subcomponents[use.subcomponent]
            part_attributes = self._part_attributes(part, bindings, f"{at}: {use.subcomponent}")
            step = self._energy(
                part.component_class,
                part_attributes,
                use.action,
                _evaluate_all(use.arguments, acting, at),
                f"{at}: {use.subcomponent}",
                (*outer, component_class),
            )
            own_scale = _scale(part.energy_scale, self._scope(part, bindings, part_attributes, at), at)
            scale = own_scale * _scale(use.energy_scale, acting, at)
            total += _number_of(use.subcomponent, use.index, acting, at) * scale * step
        return total


@lru_cache(maxsize=1)
def _shipped() -> ComponentLibrary:
    return ComponentLibrary.load()


def _bindings(compound: ComponentClass, attributes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The names that expressions of a class can use: given attributes and the class's defaults, evaluated."""
    bindings = dict(attributes)
    for name, default in compound.attributes.items():
        if bindings.get(name) is None:
            if default == MUST_SPECIFY:
                raise InputError(
                    where, f"attribute {name!r} of class {compound.name} is missing", f"{name}: a value, in attributes"
                )
            bindings[name] = default
    for name in compound.attributes:
        bindings[name] = evaluate(bindings[name], bindings, f"{where}: {compound.name}.{name}")
    return bindings


def _evaluate_all(expressions: Mapping[str, Any], bindings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of expressions over `bindings`; each may also use the ones before it."""
    values: dict[str, Any] = {}
    for name, expression in expressions.items():
        values[name] = evaluate(expression, {**bindings, **values}, f"{where}.{name}")
    return values


def _combinations(action: Action, bindings: Mapping[str, Any], where: str) -> list[dict[str, int]]:
    """Every combination of an action's arguments, which are declared as ranges ``first..last``."""
    ranges: list[range] = []
    for name, text in action.arguments.items():
        bounds = instances(str(text), f"{where}: argument {name}")
        if bounds is None:
            raise InputError(f"{where}: argument {name}", f"found {fields.shown(text)}", "a range first..last")
        first, last = (_whole(b, bindings, f"{where}: argument {name}") for b in bounds)
        ranges.append(range(first, last + 1))
    if not 1 <= math.prod(map(len, ranges)) <= _MAX_ARGUMENT_COMBINATIONS:
        raise InputError(where, "its arguments have no value or too many", f"1 to {_MAX_ARGUMENT_COMBINATIONS}")
    return [dict(zip(action.arguments, values, strict=True)) for values in itertools.product(*ranges)]


def _number_of(name: str, index: str | None, bindings: Mapping[str, Any], where: str) -> int:
    """Number of identical parts that an index in brackets stands for."""
    bounds = instances(index, where)
    if bounds is None:
        return 1
    first, last = (_whole(b, bindings, f"{where}: {name}[{index}]") for b in bounds)
    if last < first:
        raise InputError(where, f"{name}[{first}..{last}] is empty", "last >= first")
    return last - first + 1


def _whole(text: str, bindings: Mapping[str, Any], where: str) -> int:
    return int(_scale(text, bindings, where))


def _scale(expression: Any, bindings: Mapping[str, Any], where: str) -> float:
    value = evaluate(expression, bindings, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(where, f"{fields.shown(expression)} is {fields.shown(value)}", "a number, at least 0")
    return value
