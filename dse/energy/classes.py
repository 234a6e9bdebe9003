"""Compound component classes, read from Accelergy 0.4 files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.documents import read_yaml
from dse.errors import InputError

MUST_SPECIFY = "must_specify"
TOP_KEYS = ("compound_components", "components")  # Accelergy's and the Timeloop front end's name for the same thing
_VERSIONS = ("0.3", "0.4")
_INDEXED = re.compile(r"(?P<name>[A-Za-z_]\w*)(\[(?P<index>[^\[\]]+)\])?$")


@dataclass(frozen=True)
class Subcomponent:
    """A part of a compound component; attributes and scale are expressions over the compound's attributes."""

    component_class: str
    attributes: Mapping[str, Any]
    energy_scale: Any


@dataclass(frozen=True)
class Use:
    """One action of one part, as a step of a compound action.

    `index` is the text between the brackets of ``name[first..last]``: that many identical parts act.
    """

    subcomponent: str
    index: str | None
    action: str
    arguments: Mapping[str, Any]
    energy_scale: Any


@dataclass(frozen=True)
class Action:
    """A compound action: the ranges of its arguments, and what its parts do."""

    arguments: Mapping[str, Any]
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class ComponentClass:
    """A compound component class; an attribute whose default is ``must_specify`` has none."""

    name: str
    attributes: Mapping[str, Any]
    subcomponents: Mapping[str, Subcomponent]
    actions: Mapping[str, Action]


def read_classes(path: Path | str) -> dict[str, ComponentClass]:
    """The compound classes of a component file, by name.

    Raises:
        InputError: naming file and field.
    """
    document = read_yaml(path)
    key = next((k for k in TOP_KEYS if isinstance(document, dict) and k in document), None)
    if key is None:
        raise InputError(path, "not a component file", f"a mapping with {' or '.join(TOP_KEYS)}")
    _mapping(document, f"{path}", (key,))
    return parse_classes(document[key], f"{path}: {key}")


def parse_classes(document: Any, where: str) -> dict[str, ComponentClass]:
    """The compound classes of a ``compound_components`` or ``components`` mapping: ``{version, classes}``."""
    _mapping(document, where, ("version", "classes"))
    version = str(document.get("version", "0.4"))
    if version not in _VERSIONS:
        raise InputError(f"{where}.version", f"found {version}", _VERSIONS)
    found: dict[str, ComponentClass] = {}
    for i, entry in enumerate(_list(document.get("classes"), f"{where}.classes")):
        component_class = _class(entry, f"{where}.classes[{i}]")
        if component_class.name in found:
            raise InputError(f"{where}.classes[{i}]", f"a second class is named {component_class.name!r}")
        found[component_class.name] = component_class
    return found


def instances(index: str | None, where: str) -> tuple[str, str] | None:
    """The two bounds of an index ``first..last``, as text; None where a single part is meant."""
    if index is None or ".." not in index:
        return None
    first, _, last = index.partition("..")
    if not first.strip() or not last.strip():
        raise InputError(where, f"found [{index}]", "[first..last]")
    return first, last


def _class(entry: Any, where: str) -> ComponentClass:
    _mapping(entry, where, ("name", "attributes", "subcomponents", "actions"), required=("name", "actions"))
    subcomponents: dict[str, Subcomponent] = {}
    for i, part in enumerate(_list(entry.get("subcomponents"), f"{where}.subcomponents")):
        at = f"{where}.subcomponents[{i}]"
        _mapping(part, at, ("name", "class", "attributes", "energy_scale", "area_scale"), required=("name", "class"))
        name, _ = _indexed(part["name"], f"{at}.name")
        if name in subcomponents:
            raise InputError(f"{at}.name", f"a second subcomponent is named {name!r}")
        attributes = _mapping(part.get("attributes") or {}, f"{at}.attributes")
        subcomponents[name] = Subcomponent(str(part["class"]), attributes, part.get("energy_scale", 1))
    actions: dict[str, Action] = {}
    for i, action in enumerate(_list(entry["actions"], f"{where}.actions")):
        at = f"{where}.actions[{i}]"
        _mapping(action, at, ("name", "arguments", "subcomponents"), required=("name",))
        if action["name"] in actions:
            raise InputError(f"{at}.name", f"a second action is named {action['name']!r}")
        actions[str(action["name"])] = _action(action, subcomponents, at)
    return ComponentClass(
        name=str(entry["name"]),
        attributes=_mapping(entry.get("attributes") or {}, f"{where}.attributes"),
        subcomponents=MappingProxyType(subcomponents),
        actions=MappingProxyType(actions),
    )


def _action(entry: Mapping[str, Any], subcomponents: Mapping[str, Subcomponent], where: str) -> Action:
    uses: list[Use] = []
    for i, part in enumerate(_list(entry.get("subcomponents"), f"{where}.subcomponents")):
        at = f"{where}.subcomponents[{i}]"
        _mapping(part, at, ("name", "actions"), required=("name", "actions"))
        name, index = _indexed(part["name"], f"{at}.name")
        if name not in subcomponents:
            raise InputError(f"{at}.name", f"there is no subcomponent {name!r}", subcomponents)
        if any((use.subcomponent, use.index) == (name, index) for use in uses):  # Accelergy keeps the last, silently
            raise InputError(
                f"{at}.name", f"a second entry for {part['name']!r}", "one entry that lists all its actions"
            )
        for j, step in enumerate(_list(part["actions"], f"{at}.actions")):
            # `action_share` of older versions is refused: Accelergy 0.4 ignores it, which loses energy silently.
            _mapping(step, f"{at}.actions[{j}]", ("name", "arguments", "energy_scale", "repeat"), required=("name",))
            uses.append(
                Use(
                    subcomponent=name,
                    index=index,
                    action=str(step["name"]),
                    arguments=_mapping(step.get("arguments") or {}, f"{at}.actions[{j}].arguments"),
                    energy_scale=step.get("repeat", step.get("energy_scale", 1)),
                )
            )
    return Action(_mapping(entry.get("arguments") or {}, f"{where}.arguments"), tuple(uses))


def _indexed(text: Any, where: str) -> tuple[str, str | None]:
    """``storage[1..width]`` as its name and the text between the brackets."""
    match = _INDEXED.fullmatch(str(text).strip())
    if not match:
        raise InputError(where, f"found {text!r}", "a name, or name[first..last]")
    instances(match["index"], where)
    return match["name"], match["index"]


def _mapping(
    value: Any, where: str, known: Iterable[str] | None = None, required: Iterable[str] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(where, f"found {value!r}", f"a mapping with {', '.join(known)}" if known else "a mapping")
    for key in value:
        if known is not None and key not in known:
            raise InputError(where, f"unknown field {key!r}", known)
    for key in required:
        if key not in value:
            raise InputError(where, f"field {key!r} is missing")
    return MappingProxyType(value)


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(where, f"found {value!r}", "a list")
    return value
