"""A specification's components and their classes as files of Accelergy 0.4.

Accelergy computes plain scalars as expressions and takes quoted ones as text; our readers keep no quotes. So text is
written quoted and expressions as literal blocks, by the rule of `dse.core.expressions`: what is not arithmetic, and no
name of something that has a value, is text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from dse.core.expressions import is_expression
from dse.core.shipped import data_dir
from dse.hardware.energy.classes import MUST_SPECIFY, ComponentClass, Use, read_classes
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.spec import Compute, Spec, Storage

SYSTEM = "system"


class _Text(str):
    """A string that Accelergy must not compute."""


class _Expression(str):
    """A string that Accelergy computes."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
_Dumper.add_representer(
    _Expression, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def architecture_file(spec: Spec, library: ComponentLibrary) -> str:
    """The components of a specification, each with its attributes' values: a flat ``architecture``."""
    local = []
    for component in components(spec):
        entry: dict[str, Any] = {"name": _Text(component.name), "class": _Text(component.component)}
        attributes = {**component.attributes, **handed_down(component, library)}
        if component.energy_scale != 1:
            entry["energy_scale"] = component.energy_scale
        entry["attributes"] = {key: _value(value) for key, value in attributes.items()}
        if component.component not in library.classes:
            entry["required_actions"] = list(library.actions(component.component) or ())
        local.append(entry)
    # Accelergy wants these at every node; each component has its own.
    top = {"name": SYSTEM, "attributes": {"global_cycle_seconds": 1, "technology": _Text("")}, "local": local}
    return _dump({"architecture": {"version": 0.4, "subtree": [top]}})


def components(spec: Spec) -> tuple[Storage | Compute, ...]:
    """What Accelergy estimates: every memory, and the compute unit."""
    return (*spec.storages, spec.compute)


def handed_down(component: Storage | Compute, library: ComponentLibrary) -> dict[str, Any]:
    """Attributes that Accelergy wants of every component and hands to all primitives in it, also as arguments.

    The technology is the component's own, else its class's default, else none (an empty text). Energies from tables
    need no times, which only have to be there.
    """
    component_class = library.classes.get(component.component)
    default = component_class.attributes.get("technology", MUST_SPECIFY) if component_class else MUST_SPECIFY
    given = component.attributes
    seconds = given.get("global_cycle_seconds", 1)
    return {
        "technology": given.get("technology", "" if default == MUST_SPECIFY else default),
        "global_cycle_seconds": seconds,
        "cycle_seconds": seconds,
        "action_latency_cycles": given.get("action_latency_cycles", 1),
        "n_instances": given.get("n_instances", 1),
    }


def class_files(spec: Spec, library: ComponentLibrary) -> dict[str, str]:
    """File name -> text of the compound classes: the shipped files as they are, and the library's other classes."""
    files: dict[str, str] = {}
    shipped: dict[str, ComponentClass] = {}
    for path in sorted((data_dir("arch_specs") / "components").glob("*.yaml")):
        classes = read_classes(path)
        if all(library.classes.get(name) == c for name, c in classes.items()):
            files[f"shipped_{path.name}"] = path.read_text(encoding="utf-8")
            shipped |= classes
    own = [c for name, c in library.classes.items() if name not in shipped]
    if own:
        names = {key for component in components(spec) for key in component.attributes}
        rendered = [_class(c, names) for c in own]
        files["own_classes.yaml"] = _dump({"compound_components": {"version": 0.4, "classes": rendered}})
    return files


def _class(component_class: ComponentClass, names: Collection[str]) -> dict[str, Any]:
    scope = {*names, *component_class.attributes}
    return {
        "name": _Text(component_class.name),
        "attributes": _values(component_class.attributes, scope),
        "subcomponents": [
            {
                "name": _Text(name),
                "class": _Text(part.component_class),
                "attributes": _values(part.attributes, {*scope, *part.attributes}),
                "energy_scale": _value(part.energy_scale, {*scope, *part.attributes}),
            }
            for name, part in component_class.subcomponents.items()
        ],
        "actions": [
            {
                "name": _Text(name),
                "arguments": {k: _Text(v) for k, v in action.arguments.items()},
                "subcomponents": _uses(action.uses, {*scope, *action.arguments}),
            }
            for name, action in component_class.actions.items()
        ],
    }


def _uses(uses: Iterable[Use], scope: Collection[str]) -> list[dict[str, Any]]:
    """The parts of an action, each once: of two entries with the same name Accelergy keeps the last."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for use in uses:
        name = use.subcomponent if use.index is None else f"{use.subcomponent}[{use.index}]"
        step = {
            "name": _Text(use.action),
            "arguments": _values(use.arguments, {*scope, *use.arguments}),
            "energy_scale": _value(use.energy_scale, scope),
        }
        parts.setdefault(name, []).append(step)
    return [{"name": _Text(name), "actions": steps} for name, steps in parts.items()]


def _values(mapping: Mapping[str, Any], scope: Collection[str]) -> dict[str, Any]:
    return {key: _value(value, scope) for key, value in mapping.items()}


def _value(value: Any, scope: Collection[str] = ()) -> Any:
    if isinstance(value, str):
        return _Expression(value.strip()) if value == MUST_SPECIFY or is_expression(value, scope) else _Text(value)
    if isinstance(value, (list, tuple)):
        return [_value(v, scope) for v in value]
    return value


def _dump(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=10_000)
