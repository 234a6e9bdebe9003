"""The embedded component estimator: energies per action of Accelergy's compound and primitive classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.errors import InputError, unknown
from dse.core.expressions import evaluate
from dse.core.shipped import data_dir
from dse.hardware.energy.classes import (
    MUST_SPECIFY,
    Action,
    ComponentClass,
    Use,
    instances,
    parse_classes,
    read_classes,
)
from dse.hardware.energy.tables import PRIMITIVE_CLASSES, Tables, primitive_actions, primitive_energy, read_tables

_MAX_ARGUMENT_COMBINATIONS = 4096


@dataclass(frozen=True)
class ComponentLibrary:
    """Compound classes over tables of primitives."""

    classes: Mapping[str, ComponentClass]
    tables: Tables

    @classmethod
    def load(cls, paths: Iterable[Path | str] | None = None) -> ComponentLibrary:
        """The shipped classes and tables, and those in `paths`.

        Args:
            paths: component files (``.yaml``), tables (``.csv``) and folders of both. A class or a row of a table
                replaces an earlier one of the same name or position.

        Raises:
            InputError: a path does not exist or is of another kind, or a file cannot be read.
        """
        shipped = data_dir("arch_specs")
        files = [f for path in (shipped / "components", shipped / "tables", *(paths or ())) for f in _files(Path(path))]
        classes: dict[str, ComponentClass] = {}
        for file in files:
            if file.suffix != ".csv":
                classes |= read_classes(file)
        return cls(MappingProxyType(classes), read_tables(f for f in files if f.suffix == ".csv"))

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
        compound = self.classes.get(component_class)
        names = compound.actions if compound else primitive_actions(component_class)
        if names is None:
            raise unknown(where, "component class", component_class, self._names())
        energies = {name: self._largest(component_class, attributes, name, str(where)) for name in names}
        if "write" in energies:
            energies.setdefault("update", energies["write"])
        energies.setdefault("leak", 0.0)
        return energies

    def primitive(
        self, component_class: str, action: str, attributes: Mapping[str, Any], arguments: Mapping[str, Any], where: str
    ) -> float:
        """Energy in pJ of one action of a primitive; the tables have the same for all arguments."""
        return primitive_energy(self.tables, component_class, action, attributes, where)

    def _names(self) -> list[str]:
        return [*sorted(self.classes), *PRIMITIVE_CLASSES]

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
            if primitive_actions(component_class) is None:
                raise unknown(where, "component class", component_class, self._names())
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
            part_attributes = _evaluate_all(part.attributes, bindings, f"{at}: {use.subcomponent}")
            if "technology" in bindings:  # the only attribute that Accelergy passes to parts
                part_attributes.setdefault("technology", bindings["technology"])
            step = self._energy(
                part.component_class,
                part_attributes,
                use.action,
                _evaluate_all(use.arguments, acting, at),
                f"{at}: {use.subcomponent}",
                (*outer, component_class),
            )
            inner = self.classes.get(part.component_class)
            # In a part's scale a name refers to the part's attribute before the compound's, as in Accelergy.
            own = _bindings(inner, part_attributes, at) if inner else part_attributes
            scale = _scale(part.energy_scale, {**bindings, **own}, at) * _scale(use.energy_scale, acting, at)
            total += _count(use, acting, at) * scale * step
        return total


@lru_cache(maxsize=1)
def _shipped() -> ComponentLibrary:
    return ComponentLibrary.load()


def _files(path: Path) -> Iterator[Path]:
    """The component files and tables of a path, in the order of their names."""
    kinds = (".yaml", ".yml", ".csv")
    if path.is_dir():
        yield from sorted(f for f in path.iterdir() if f.suffix in kinds)
    elif path.suffix not in kinds:
        raise InputError(path, "is neither a component file nor a table", "a folder, or *.yaml, *.csv")
    else:
        yield path


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


def _count(use: Use, bindings: Mapping[str, Any], where: str) -> int:
    """Number of identical parts that act."""
    bounds = instances(use.index, where)
    if bounds is None:
        return 1
    first, last = (_whole(b, bindings, f"{where}: {use.subcomponent}[{use.index}]") for b in bounds)
    if last < first:
        raise InputError(where, f"{use.subcomponent}[{first}..{last}] is empty", "last >= first")
    return last - first + 1


def _whole(text: str, bindings: Mapping[str, Any], where: str) -> int:
    return int(_scale(text, bindings, where))


def _scale(expression: Any, bindings: Mapping[str, Any], where: str) -> float:
    value = evaluate(expression, bindings, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(where, f"{fields.shown(expression)} is {fields.shown(value)}", "a number, at least 0")
    return value
