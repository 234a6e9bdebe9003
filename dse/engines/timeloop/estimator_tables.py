"""Our energies of primitives as folders that Accelergy's table-based plug-in reads.

The plug-in looks a query up in ``CLASS.csv``: it takes the first row whose action and whose cells agree with the
query's attributes and arguments, compared as text. It does not interpolate, so a folder holds exactly the queries of
one accelerator, each with the energy that `dse.hardware.energy.tables` has for it. What is summed, scaled and
multiplied above the primitives is left to Accelergy.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dse.engines.timeloop.component_files import components, handed_down
from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.spec import Spec

_ENERGY, _ACTION = "energy", "action"


@dataclass(frozen=True)
class Query:
    """One question that Accelergy asks about a primitive, with our answer; cells are text, by column."""

    component_class: str
    technology: str
    action: str
    cells: tuple[tuple[str, str], ...]
    energy_pj: float


@dataclass(frozen=True)
class _Recorder(ComponentLibrary):
    """A library that remembers what it was asked about primitives while it evaluates the classes above them."""

    handed_down: dict[str, Any] = field(default_factory=dict)
    queries: dict[Query, None] = field(default_factory=dict)

    def primitive(
        self, component_class: str, action: str, attributes: Mapping[str, Any], arguments: Mapping[str, Any], where: str
    ) -> float:
        energy = super().primitive(component_class, action, attributes, arguments, where)
        selecting = {a: attributes[a] for a in self.attributes(component_class) or () if a in attributes}
        technology = attributes.get("technology", self.handed_down["technology"])
        cells = {**self.handed_down, **arguments, **selecting, "technology": technology}
        texts = tuple((name, cell_text(value)) for name, value in cells.items())
        self.queries[Query(component_class, cell_text(technology), action, texts, energy)] = None
        return energy


def queries(spec: Spec, library: ComponentLibrary, where: object) -> list[Query]:
    """Every question about a primitive that the components of a specification lead to.

    Raises:
        InputError: as `ComponentLibrary.energies`.
    """
    inherited = {f.name: getattr(library, f.name) for f in fields(ComponentLibrary)}
    found: dict[Query, None] = {}
    for component in components(spec):
        recorder = _Recorder(**inherited, handed_down=handed_down(component, library), queries=found)
        recorder.energies(component.component, component.attributes, f"{where}: {component.name}")
    return list(found)


def table_files(asked: Iterable[Query]) -> dict[str, str]:
    """Relative path -> text of the files that answer the queries: a folder a technology, a table a class."""
    tables: dict[tuple[str, str], list[Query]] = {}
    for query in asked:
        tables.setdefault((query.technology, query.component_class), []).append(query)
    numbers = {technology: f"set{i}" for i, technology in enumerate(dict.fromkeys(t for t, _ in tables))}
    files = {
        f"{folder}/enos.table.yaml": f'name: enos_{folder}\ntechnology: "{technology}"\n'
        "accuracy: 100\npath_to_data_dir: ./data\n"
        for technology, folder in numbers.items()
    }
    for (technology, component_class), rows in tables.items():
        files[f"{numbers[technology]}/data/{component_class}.csv"] = _table(rows)
    return files


def cell_text(value: Any) -> str:
    """A value as the plug-in compares it: Accelergy makes whole numbers integers before it asks."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _table(rows: list[Query]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name, _ in row.cells))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, _ACTION, _ENERGY], restval="", lineterminator="\n")
    writer.writeheader()
    # A cell that the query has no attribute for is not compared, so rows with fewer cells must come first.
    for row in sorted(rows, key=lambda row: len(row.cells)):
        writer.writerow({**dict(row.cells), _ACTION: row.action, _ENERGY: repr(row.energy_pj)})
    return text.getvalue()
