"""Energy reference tables: Accelergy's ERT files, read as Timeloop reads them.

The rules are those of `ParseAccelergyERT` and the operation maps of NVlabs/timeloop 4cf6d4c (`src/model/topology.cpp`,
`buffer.cpp`, `include/model/topology.hpp`). If Timeloop would silently use a built-in technology model for missing
energies, this module refuses the table.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.documents import read_yaml
from dse.core.errors import InputError
from dse.hardware.spec import Storage

# Timeloop takes the first of these actions that a table has. It calls a write into a level `fill`.
_STORAGE_ACTIONS = {
    "read": ("random_read", "read"),
    "write": ("random_fill", "random_write", "fill", "write"),
    "update": ("random_update", "random_write", "update", "write"),
}
_COMPUTE_ACTIONS = ("mac_random", "mult_random", "mac", "mult", "compute")

_VERSIONS = ("0.3", "0.4")
_DOCUMENT_FIELDS = ("ERT", "ERT_summary", "ART", "ART_summary")  # keys that Accelergy writes; only the first is read
_RANGE = re.compile(r"\[[^\[\]]*\]")  # dots in it do not separate elements


@dataclass(frozen=True)
class Ert:
    """Energies in pJ: component name (without hierarchy) -> action -> energy.

    `lacks` gives the reason why a memory of another size would have no energies, "" if it would have them. It is None
    if other sizes are not known, as for a table from a file.
    """

    tables: Mapping[str, Mapping[str, float]]
    where: str = "energy reference table"
    lacks: Callable[[Storage], str] | None = field(default=None, compare=False)

    def storage(self, component: str) -> dict[str, float]:
        """Energies that Timeloop charges a storage level per vector access (read, write, update), and leak per cycle.

        An update without its own action costs as much as a write; leak without an entry is 0. For any other missing
        action Timeloop would silently charge the component's most expensive one.

        Raises:
            InputError: there is no table for the component, or the table has no action for reads or writes.
        """
        actions = self._actions(component)
        energies = {name: _first(actions, choices) for name, choices in _STORAGE_ACTIONS.items()}
        for name, energy in energies.items():
            if energy is None:
                found = ", ".join(actions)
                raise InputError(f"{self.where}: {component}", f"has {found}, no {name}", _STORAGE_ACTIONS[name])
        return {**{name: e for name, e in energies.items() if e is not None}, "leak": actions.get("leak", 0.0)}

    def compute(self, component: str) -> float:
        """The energy that Timeloop charges the arithmetic level per operation; it charges no leakage there.

        Raises:
            InputError: there is no table for the component, or the table has no action for an operation.
        """
        actions = self._actions(component)
        energy = _first(actions, _COMPUTE_ACTIONS)
        if energy is None:
            raise InputError(
                f"{self.where}: {component}", f"has {', '.join(actions)}, no action for an operation", _COMPUTE_ACTIONS
            )
        return energy

    def _actions(self, component: str) -> Mapping[str, float]:
        if component not in self.tables:
            raise InputError(self.where, f"has no table for {component!r}", sorted(self.tables))
        if not self.tables[component]:
            raise InputError(f"{self.where}: {component}", "has no action")
        return self.tables[component]


def read_ert(path: Path | str) -> Ert:
    """Reads an ERT file, version 0.3 or 0.4: ``ERT: {version, tables: [{name, actions: [{name, energy}]}]}``.

    The name of a component is the last element, without the range of its instances:
    ``system.PE[0..13].weights_spad[0..167]`` is ``weights_spad``. If an action is listed several times, with different
    arguments, the largest energy is taken.

    Raises:
        InputError: the file is not an ERT, a field is missing, an energy is not a number of at least 0, or two
            components have the same name (Timeloop would take either).

    Example:
        >>> write_ert(Ert({"buffer": {"read": 1.5, "write": 2.0}, "mac": {"compute": 0.25}}), "ERT.yaml")
        >>> read_ert("ERT.yaml").storage("buffer")
        {'read': 1.5, 'write': 2.0, 'update': 2.0, 'leak': 0.0}
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or "ERT" not in document:
        raise InputError(path, "not an energy reference table", "a mapping with ERT: {version, tables}")
    fields.mapping(document, path, _DOCUMENT_FIELDS)
    content = fields.mapping(document["ERT"], f"{path}: ERT", ("version", "tables"), required=("tables",))
    fields.version(content.get("version", "0.4"), f"{path}: ERT.version", _VERSIONS)
    tables: dict[str, Mapping[str, float]] = {}
    for name, actions, where in fields.sequence(content["tables"], f"{path}: ERT.tables", _table):
        if name in tables:
            raise InputError(f"{where}.name", f"a second component is named {name!r}")
        tables[name] = actions
    return Ert(MappingProxyType(tables), str(path))


def write_ert(ert: Ert, path: Path | str) -> None:
    """Writes an ERT in the format of Accelergy 0.4, which Timeloop reads; `read_ert` reads the same energies.

    Example:
        >>> write_ert(Ert({"mac": {"compute": 0.25}}), "ERT.yaml")
        >>> read_ert("ERT.yaml").compute("mac")
        0.25
    """
    lines = ["ERT:", "  version: '0.4'", "  tables:"]
    for component, actions in ert.tables.items():
        lines += [f"  - name: system.{component}[1..1]", "    actions:"]
        for action, energy in actions.items():
            lines += [f"    - name: {action}", "      arguments: {}", f"      energy: {_plain(energy)}"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def component_name(full_name: str) -> str:
    """The level that a name in an ERT refers to: its last element, without a range of instances.

    Example:
        >>> component_name("system.PE[0..13].weights_spad[0..167]")
        'weights_spad'
    """
    return _RANGE.sub("", full_name.strip()).rpartition(".")[2]


def _first(actions: Mapping[str, float], choices: tuple[str, ...]) -> float | None:
    return next((actions[name] for name in choices if name in actions), None)


def _table(entry: Any, where: str) -> tuple[str, Mapping[str, float], str]:
    """A component's name, the energies of its actions, and their place in the file."""
    fields.mapping(entry, where, ("name", "actions"), required=("name", "actions"))
    actions: dict[str, float] = {}
    for action, energy in fields.sequence(entry["actions"], f"{where}.actions", _entry):
        actions[action] = max(energy, actions.get(action, 0.0))
    return component_name(fields.name(entry["name"], f"{where}.name")), MappingProxyType(actions), where


def _entry(entry: Any, where: str) -> tuple[str, float]:
    """An action and its energy."""
    fields.mapping(entry, where, ("name", "arguments", "energy"), required=("name", "energy"))
    energy = entry["energy"]
    if isinstance(energy, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            energy = float(energy)
    return fields.name(entry["name"], f"{where}.name"), fields.number(energy, f"{where}.energy", unit="pJ")


def _plain(energy: float) -> str:
    """A number that every YAML reader reads as a number: with a decimal point, also before an exponent."""
    text = repr(float(energy))
    mantissa, e, exponent = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"
