"""Compound component classes, read from Accelergy 0.4 files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from dse.core import fields
from dse.core.errors import InputError
from dse.core.templates import read_template

T = TypeVar("T")

_OLD_NAMES = {"action_share": "energy_scale", "energy_share": "energy_scale", "area_share": "area_scale"}

_log = logging.getLogger(__name__)

MUST_SPECIFY = "must_specify"
TOP_KEYS = ("compound_components", "components")  # the names of Accelergy and of Timeloop's front end
_VERSIONS = ("0.3", "0.4")
_INDEXED = re.compile(r"(?P<name>[A-Za-z_]\w*)(\[(?P<index>[^\[\]]+)\])?$")


@dataclass(frozen=True)
class Subcomponent:
    """A part of a compound component; attributes and scale are expressions over the compound's attributes."""

    component_class: str
    attributes: Mapping[str, Any]
    energy_scale: Any
    area_scale: Any = 1
    index: str | None = None
    """The text in the brackets of ``name[first..last]``: so many identical parts take up area."""


@dataclass(frozen=True)
class Use:
    """One action of one part, as a step of a compound action.

    `index` is the text in the brackets of ``name[first..last]``, which means that so many identical parts act.
    """

    subcomponent: str
    index: str | None
    action: str
    arguments: Mapping[str, Any]
    energy_scale: Any


@dataclass(frozen=True)
class Action:
    """A compound action: the ranges of its arguments, and the actions of its parts."""

    arguments: Mapping[str, Any]
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class ComponentClass:
    """A compound component class; ``must_specify`` means that an attribute has no default."""

    name: str
    attributes: Mapping[str, Any]
    subcomponents: Mapping[str, Subcomponent]
    actions: Mapping[str, Action]


def read_classes(path: Path | str) -> dict[str, ComponentClass]:
    """The compound classes of a component file, by name.

    Raises:
        InputError: naming file and field.

    Example:
        >>> from dse.core.shipped import data_dir
        >>> sorted(read_classes(data_dir("arch_specs") / "components" / "storage.yaml"))
        ['SRAM_buffer', 'SRAM_spad', 'regfile_spad']
    """
    document = read_template(path)
    key = next((k for k in TOP_KEYS if isinstance(document, dict) and k in document), None)
    if key is None:
        raise InputError(path, "not a component file", f"a mapping with {' or '.join(TOP_KEYS)}")
    return parse_classes(fields.mapping(document, path, (key,))[key], f"{path}: {key}")


def parse_classes(document: Any, where: str) -> dict[str, ComponentClass]:
    """The compound classes of a ``compound_components`` or ``components`` mapping: ``{version, classes}``.

    Example:
        >>> adder = {"name": "adder", "class": "aladdin_adder", "attributes": {"width": "width"}}
        >>> use = {"name": "adder", "actions": [{"name": "add"}]}
        >>> document = {
        ...     "version": 0.4,
        ...     "classes": [
        ...         {"name": "accumulator", "attributes": {"width": 20}, "subcomponents": [adder],
        ...          "actions": [{"name": "compute", "subcomponents": [use]}]},
        ...     ],
        ... }
        >>> list(parse_classes(document, "mine.yaml")["accumulator"].actions)
        ['compute']
    """
    fields.mapping(document, where, ("version", "classes"))
    fields.version(document.get("version", "0.4"), f"{where}.version", _VERSIONS)
    classes = fields.optional_sequence(document.get("classes"), f"{where}.classes", _class)
    return _by_name([(c.name, c) for c in classes], f"{where}.classes", "class")


def parse_primitives(document: Any, where: object) -> dict[str, Mapping[str, Any]]:
    """The default attributes of the primitive classes of a file ``{version, classes: [{name, attributes, actions}]}``.

    What they cost comes from a table; the actions that a file lists are not read.

    Example:
        >>> parse_primitives({"classes": [{"name": "fifo", "attributes": {"width": 8}}]}, "mine.yaml")
        {'fifo': mappingproxy({'width': 8})}
    """
    fields.mapping(document, where, ("version", "classes"), required=("classes",))
    fields.version(document.get("version", "0.4"), f"{where}: version", _VERSIONS)
    entries = fields.sequence(document["classes"], f"{where}: classes", _primitive)
    return _by_name(entries, f"{where}: classes", "class")


def _primitive(entry: Any, where: str) -> tuple[str, Mapping[str, Any]]:
    fields.mapping(entry, where, ("name", "attributes", "actions", "primitive_type"), required=("name",))
    attributes = fields.optional_mapping(entry.get("attributes"), f"{where}.attributes")
    return fields.name(entry["name"], f"{where}.name"), MappingProxyType(attributes)


def instances(index: str | None, where: str) -> tuple[str, str] | None:
    """The two bounds of an index ``first..last``, as text; None for a single part.

    Example:
        >>> instances("0..n-1", "mine.yaml"), instances(None, "mine.yaml")
        (('0', 'n-1'), None)
    """
    if index is None or ".." not in index:
        return None
    first, _, last = index.partition("..")
    if not first.strip() or not last.strip():
        raise InputError(where, f"found [{index}]", "[first..last]")
    return first, last


def _class(entry: Any, where: str) -> ComponentClass:
    fields.mapping(entry, where, ("name", "attributes", "subcomponents", "actions"), required=("name", "actions"))
    parts = fields.optional_sequence(_listed(entry.get("subcomponents")), f"{where}.subcomponents", _subcomponent)
    subcomponents = _by_name(parts, f"{where}.subcomponents", "subcomponent")

    def action(found: Any, at: str) -> tuple[str, Action]:
        return _action(found, subcomponents, at)

    actions = fields.optional_sequence(entry["actions"], f"{where}.actions", action)
    return ComponentClass(
        name=fields.name(entry["name"], f"{where}.name"),
        attributes=MappingProxyType(fields.optional_mapping(entry.get("attributes"), f"{where}.attributes")),
        subcomponents=MappingProxyType(subcomponents),
        actions=MappingProxyType(dict(actions)),  # of two of the same name Accelergy takes the last
    )


def _listed(value: Any) -> Any:
    """A field that lists; an empty mapping is written for nothing, too."""
    return None if value == {} else value


def _with_new_names(entry: Any, where: str) -> Any:
    """An entry with the names that Accelergy has had for its scales since 2023, of which it ignores the old ones."""
    if not isinstance(entry, dict) or entry.keys().isdisjoint(_OLD_NAMES):
        return entry
    for old, new in _OLD_NAMES.items():
        if old in entry:
            if new in entry:
                raise InputError(f"{where}.{old}", f"is the old name of {new}, which is given too", new)
            _log.warning("%s.%s is read as %s, its new name; Accelergy 0.4 ignores the old one", where, old, new)
    return {_OLD_NAMES.get(key, key): value for key, value in entry.items()}


def _subcomponent(part: Any, where: str) -> tuple[str, Subcomponent]:
    part = _with_new_names(part, where)
    fields.mapping(part, where, ("name", "class", "attributes", "energy_scale", "area_scale"), ("name", "class"))
    name, index = _indexed(part["name"], f"{where}.name")
    attributes = fields.optional_mapping(part.get("attributes"), f"{where}.attributes")
    component_class = fields.name(part["class"], f"{where}.class")
    return name, Subcomponent(
        component_class, MappingProxyType(attributes), part.get("energy_scale", 1), part.get("area_scale", 1), index
    )


def _action(entry: Any, subcomponents: Mapping[str, Subcomponent], where: str) -> tuple[str, Action]:
    fields.mapping(entry, where, ("name", "arguments", "subcomponents"), required=("name",))
    uses: list[Use] = []

    def steps(part: Any, at: str) -> None:
        fields.mapping(part, at, ("name", "actions"), required=("name", "actions"))
        name, index = _indexed(part["name"], f"{at}.name")
        if name not in subcomponents:
            raise InputError(f"{at}.name", f"there is no subcomponent {name!r}", subcomponents or None)
        if any((use.subcomponent, use.index) == (name, index) for use in uses):
            _log.warning("%s.name: a second entry for %r; Accelergy counts the last one only", at, part["name"])
            uses[:] = [use for use in uses if (use.subcomponent, use.index) != (name, index)]

        def step(found: Any, here: str) -> Use:
            return _use(found, name, index, here)

        uses.extend(fields.optional_sequence(part["actions"], f"{at}.actions", step))

    fields.optional_sequence(_listed(entry.get("subcomponents")), f"{where}.subcomponents", steps)
    arguments = fields.optional_mapping(entry.get("arguments"), f"{where}.arguments")
    return fields.name(entry["name"], f"{where}.name"), Action(MappingProxyType(arguments), tuple(uses))


def _use(step: Any, subcomponent: str, index: str | None, where: str) -> Use:
    step = _with_new_names(step, where)
    fields.mapping(step, where, ("name", "arguments", "energy_scale", "repeat"), required=("name",))
    arguments = fields.optional_mapping(step.get("arguments"), f"{where}.arguments")
    action = fields.name(step["name"], f"{where}.name")
    scale = step.get("repeat", step.get("energy_scale", 1))
    return Use(subcomponent, index, action, MappingProxyType(arguments), scale)


def _by_name(entries: Iterable[tuple[str, T]], where: str, kind: str) -> dict[str, T]:
    found: dict[str, T] = {}
    for i, (name, value) in enumerate(entries):
        if name in found:
            raise InputError(f"{where}[{i}].name", f"a second {kind} is named {name!r}", "unique names")
        found[name] = value
    return found


def _indexed(text: Any, where: str) -> tuple[str, str | None]:
    """The name and the text in the brackets of ``storage[1..width]``."""
    match = _INDEXED.fullmatch(fields.name(text, where).strip())
    if not match:
        raise InputError(where, f"found {fields.shown(text)}", "a name, or name[first..last]")
    instances(match["index"], where)
    return match["name"], match["index"]
