"""Reference tables of energies and areas: Accelergy's ERT and ART files, read as Timeloop reads them.

The rules are those of `ParseAccelergyERT` and the operation maps of NVlabs/timeloop 4cf6d4c (`src/model/topology.cpp`,
`buffer.cpp`, `include/model/topology.hpp`). If Timeloop would silently use a built-in technology model for missing
energies, this module refuses the table.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from dse.core import fields
from dse.core.documents import read_yaml, readable
from dse.core.errors import InputError
from dse.hardware.spec import Spec, Storage

# Timeloop takes the first of these actions that a table has. It calls a write into a level `fill`.
_STORAGE_ACTIONS = {
    "read": ("random_read", "read"),
    "write": ("random_fill", "random_write", "fill", "write"),
    "update": ("random_update", "random_write", "update", "write"),
}
_COMPUTE_ACTIONS = ("mac_random", "mult_random", "mac", "mult", "compute")

T = TypeVar("T")

_TIMELOOP = "timeloop-"
_VERSIONS = ("0.3", "0.4")
DOCUMENT_FIELDS = ("ERT", "ERT_summary", "ART", "ART_summary")
"""Keys of the files that Accelergy writes."""

_ERT_FORMS = {"ERT": "tables", "ERT_summary": "table_summary"}  # key -> its list of components
_ART_FORMS = {"ART": "tables", "ART_summary": "table_summary"}
_RANGE_FIELDS = ("max_energy", "min_energy", "average_energy")  # of a summary, where energies depend on arguments
_ESTIMATORS = ("primitive_estimation(s)", "primitive_estimations")  # of summaries; not read
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

        `compute_leakage` has what it leaves out.

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

    def compute_leakage(self, component: str) -> float:
        """Leakage of a compute unit in pJ per cycle, which Timeloop does not charge; 0 where the table has none."""
        return self.tables.get(component, {}).get("leak", 0.0)

    def with_compute_leakage(self, spec: Spec) -> Ert:
        """This table with the leakage of the compute units charged: to the innermost memory, whose units leak with it.

        As of memories, only instances that a mapping uses leak: of a memory that is used all units that it feeds.

        Example:
            >>> from dse.hardware.spec import Compute, LoopConstraint
            >>> memory = Storage("buffer", "SRAM", {}, 8, 1, None, {}, LoopConstraint())
            >>> table = {"buffer": {"read": 1.0, "write": 1.0}, "mac": {"compute": 1.0, "leak": 0.25}}
            >>> Ert(table).with_compute_leakage(Spec((memory,), Compute("mac", "intmac", {}))).storage("buffer")["leak"]
            0.25
        """
        leak = self.compute_leakage(spec.compute.name)
        if not leak:
            return self
        memory = spec.storages[-1].name
        units = spec.pe_count // spec.instances[memory]
        actions = self._actions(memory)
        unit = {name: e for name, e in self.tables[spec.compute.name].items() if name != "leak"}
        own = {**actions, "leak": actions.get("leak", 0.0) + units * leak}
        return replace(self, tables=MappingProxyType({**self.tables, memory: own, spec.compute.name: unit}))

    def with_leakage_times(self, cycles: float) -> Ert:
        """This table with the leakage of an operation that takes this many cycles, in place of one.

        Example:
            >>> table = Ert({"buffer": {"read": 1.0, "write": 1.0, "leak": 0.5}})
            >>> table.with_leakage_times(6).storage("buffer")["leak"]
            3.0
        """
        if cycles == 1:
            return self

        def scaled(actions: Mapping[str, float]) -> Mapping[str, float]:
            return {name: energy * cycles if name == "leak" else energy for name, energy in actions.items()}

        return replace(self, tables=MappingProxyType({name: scaled(of) for name, of in self.tables.items()}))

    def _actions(self, component: str) -> Mapping[str, float]:
        if component not in self.tables:
            raise InputError(self.where, f"has no table for {component!r}", sorted(self.tables))
        if not self.tables[component]:
            raise InputError(f"{self.where}: {component}", "has no action")
        return self.tables[component]


def read_ert(path: Path | str) -> Ert:
    """Reads an ERT file, version 0.3 or 0.4: ``ERT: {version, tables: [{name, actions: [{name, energy}]}]}``.

    Also an ``ERT_summary``, or the folder of a run of Accelergy or Timeloop that has one of both. The name of a
    component is the last element, without the range of its instances:
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
    path = _in_folder(path, "ert", "energy reference table")
    tables = _by_component(read_yaml(path), path, _ERT_FORMS, "an energy", _table)
    return Ert(MappingProxyType(tables), str(path))


def _in_folder(path: Path | str, kind: str, name: str) -> Path:
    """A table's file; of a run's folder the table in it (`kind` of `RunFiles`)."""
    path = Path(path)
    if not readable(path, Path.is_dir):
        return path
    found: Path | None = getattr(run_files(path), kind)
    if not found:
        raise InputError(path, f"has no {name}", f"a folder with *{kind.upper()}.yaml, as a run leaves it")
    return found


def read_art(path: Path | str) -> dict[str, float]:
    """Reads an ART or ``ART_summary`` file, or that of a run's folder: area in um^2 of one instance, by component.

    Raises:
        InputError: the file is not an ART, or as `read_ert`.

    Example:
        >>> text = "ART: {version: 0.4, tables: [{name: 'system.PE[1..4].mac[1..4]', area: 191.82}]}"
        >>> _ = Path("ART.yaml").write_text(text)
        >>> read_art("ART.yaml")
        {'mac': 191.82}
    """
    path = _in_folder(path, "art", "area reference table")
    return _by_component(read_yaml(path), path, _ART_FORMS, "an area", _area)


@dataclass(frozen=True)
class RunFiles:
    """The reference tables that a run has left in a folder; None for one that it has not."""

    ert: Path | None
    art: Path | None


def run_files(folder: Path) -> RunFiles:
    """The tables of energies and areas of a run's folder, each whole rather than as a summary.

    Raises:
        InputError: two tables of the same kind.

    Example:
        >>> write_ert(Ert({"mac": {"compute": 0.25}}), "timeloop-model.ERT.yaml")
        >>> run_files(Path(".")).ert
        PosixPath('timeloop-model.ERT.yaml')
    """
    return RunFiles(_run_file(folder, "ERT"), _run_file(folder, "ART"))


def _run_file(folder: Path, kind: str) -> Path | None:
    for name in (kind, f"{kind}_summary"):
        every = sorted(f for f in folder.glob(f"*{name}.yaml") if re.fullmatch(rf"(.*[^A-Za-z])?{name}\.yaml", f.name))
        # Beside a table of Accelergy alone, that of Timeloop's run is the one that its results have.
        found = [f for f in every if f.name.startswith(_TIMELOOP)] or every
        if len(found) > 1:
            raise InputError(folder, f"has {len(found)} tables *{name}.yaml", [f.name for f in found], "name one file")
        if found:
            return found[0]
    return None


def _by_component(
    document: Any, path: Path, forms: Mapping[str, str], kind: str, read: Callable[[Any, str], tuple[str, T, str]]
) -> dict[str, T]:
    """What the first of some forms has, by component."""
    key = next((form for form in forms if isinstance(document, dict) and form in document), None)
    if key is None:
        raise InputError(
            path, f"not {kind} reference table", f"a mapping with {next(iter(forms))}: {{version, tables}}"
        )
    fields.mapping(document, path, DOCUMENT_FIELDS)
    entries = forms[key]
    content = fields.mapping(document[key], f"{path}: {key}", ("version", entries), required=(entries,))
    fields.version(content.get("version", "0.4"), f"{path}: {key}.version", _VERSIONS)
    found: dict[str, T] = {}

    def component(entry: Any, where: str) -> tuple[str, T, str]:
        if isinstance(entry, dict) and key.endswith("_summary"):
            entry = {name: value for name, value in entry.items() if name not in _ESTIMATORS}
        return read(entry, where)

    for name, value, where in fields.sequence(content[entries], f"{path}: {key}.{entries}", component):
        if name in found:
            raise InputError(f"{where}.name", f"a second component is named {name!r}")
        found[name] = value
    return found


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


def _area(entry: Any, where: str) -> tuple[str, float, str]:
    """A component's name, its area, and its place in the file."""
    fields.mapping(entry, where, ("name", "area"), required=("name", "area"))
    area = fields.number(_plain_number(entry["area"]), f"{where}.area", unit="um^2")
    return component_name(fields.name(entry["name"], f"{where}.name")), area, where


def _entry(entry: Any, where: str) -> tuple[str, float]:
    """An action and its energy, in a summary of several arguments the largest."""
    key = "max_energy" if isinstance(entry, dict) and "max_energy" in entry else "energy"
    more = _RANGE_FIELDS if key == "max_energy" else ()
    fields.mapping(entry, where, ("name", "arguments", "energy", *more), required=("name", key))
    energy = fields.number(_plain_number(entry[key]), f"{where}.{key}", unit="pJ")
    return fields.name(entry["name"], f"{where}.name"), energy


def _plain_number(value: Any) -> Any:
    """A number that YAML 1.1 reads as text, such as 1e-3."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _plain(energy: float) -> str:
    """A number that every YAML reader reads as a number: with a decimal point, also before an exponent."""
    text = repr(float(energy))
    mantissa, e, exponent = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"
