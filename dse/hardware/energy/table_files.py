"""What a user gives as tables of components: files of several forms, told apart by their content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dse.core import fields
from dse.core.documents import read_text, read_yaml, readable
from dse.core.errors import InputError
from dse.hardware.energy.accelergy_tables import (
    POINTERS,
    SET_SUFFIX,
    ComponentTables,
    Row,
    TableSet,
    component_tables,
    read_csv,
    read_pointers,
    read_set,
)
from dse.hardware.energy.classes import TOP_KEYS, ComponentClass, parse_primitives, read_classes
from dse.hardware.energy.ert import DOCUMENT_FIELDS, read_art, read_ert, run_files
from dse.hardware.energy.tables import COLUMNS, Tables, read_tables

FORMS = (
    "a table of components (.csv), a set of tables (*.table.yaml), component classes (.yaml), ERT.yaml, ART.yaml, or a "
    "folder of these"
)

_YAML = (".yaml", ".yml")
_KINDS = (*_YAML, ".csv")
_SEARCHED = re.compile(r".*\.oaves\.csv")  # a mapper's log of what it tried, in the folder of a run


@dataclass(frozen=True)
class TableFiles:
    """The content of files of tables: compound classes, rows of our form and of Accelergy's, energies and areas by
    component."""

    classes: Mapping[str, ComponentClass] = field(default_factory=dict)
    primitives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Default attributes of primitive classes."""
    tables: Tables = field(default_factory=lambda: Tables({}))
    components: ComponentTables = field(default_factory=ComponentTables)
    energies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    areas: Mapping[str, float] = field(default_factory=dict)
    where: str = ""
    """The files, for messages."""
    compute_leakage: bool = False
    """Whether leakage of compute units is charged, which Timeloop leaves out."""


def read_table_files(paths: Iterable[Path | str], *, compute_leakage: bool = False) -> TableFiles:
    """Reads files and folders of tables of any of the `FORMS`.

    A class, a row of our form or a component of an ERT or ART replaces an earlier one of the same name or position. Of
    the folder of a run of Accelergy or Timeloop only ERT and ART are read.

    Args:
        compute_leakage: leakage of compute units is to be charged, which Timeloop leaves out.

    Raises:
        InputError: a path does not exist, is of no such form, or a file cannot be read: file, line and field.

    Example:
        >>> _ = Path("ART.yaml").write_text("ART: {version: 0.4, tables: [{name: buffer, area: 5000}]}")
        >>> read_table_files(["ART.yaml"]).areas
        mappingproxy({'buffer': 5000.0})
    """
    given = [Path(path) for path in paths]
    files = _Files()
    for path in given:
        files.add(path)
    found = TableFiles(
        MappingProxyType(files.classes),
        MappingProxyType(files.primitives),
        read_tables(files.own_form),
        component_tables(files.rows, files.sets, files.pointers),
        MappingProxyType(files.energies),
        MappingProxyType(files.areas),
        ", ".join(map(str, given)),
        compute_leakage,
    )
    return found


class _Files:
    """Collects what files have."""

    def __init__(self) -> None:
        self.classes: dict[str, ComponentClass] = {}
        self.primitives: dict[str, Mapping[str, Any]] = {}
        self.own_form: list[Path] = []
        self.rows: list[Row] = []
        self.sets: list[TableSet] = []
        self.pointers: dict[str, tuple[str, str]] = {}
        self.energies: dict[str, Mapping[str, float]] = {}
        self.areas: dict[str, float] = {}

    def add(self, path: Path) -> None:
        if readable(path, Path.is_dir):
            self._folder(path)
        elif path.suffix == ".csv":
            self._csv(path)
        elif path.suffix in _YAML:
            self._yaml(path)
        else:
            raise InputError(path, "is no file of tables", FORMS)

    def _folder(self, folder: Path) -> None:
        run = run_files(folder)
        if run.ert or run.art:
            for file in filter(None, (run.ert, run.art)):
                self._yaml(file)
            return
        files = [file for file in sorted(folder.rglob("*")) if file.suffix in _KINDS and not _SEARCHED.match(file.name)]
        sets = [file for file in files if file.name.endswith(SET_SUFFIX)]
        for file in sets:
            self.sets.append(read_set(file))
        # Tables of a set are found again below the folder; they answer for their set alone.
        in_sets = {row.where.rpartition(": line")[0] for s in self.sets for rows in s.rows.values() for row in rows}
        for file in files:
            if file not in sets and not any(_same(file, other) for other in in_sets):
                self.add(file)
        for file in sorted(folder.rglob(f"*{POINTERS}")):
            self.pointers |= {new: (old, str(file)) for new, old in read_pointers(file).items()}
        if not files:
            raise InputError(folder, "has no file of tables", FORMS)

    def _csv(self, path: Path) -> None:
        lines = read_text(path).splitlines()
        first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
        if tuple(first.split(",")) == COLUMNS:
            self.own_form.append(path)
        else:
            self.rows += read_csv(path)

    def _yaml(self, path: Path) -> None:
        if path.name.endswith(SET_SUFFIX):
            self.sets.append(read_set(path))
            return
        document = read_yaml(path)
        keys = set(document) if isinstance(document, dict) else set()
        if not keys.isdisjoint(("ERT", "ERT_summary")):
            self.energies |= read_ert(path).tables
        if not keys.isdisjoint(("ART", "ART_summary")):
            self.areas |= read_art(path)
        if keys.isdisjoint(DOCUMENT_FIELDS):
            if keys <= {"version", "classes"} and "classes" in keys:
                self.primitives |= parse_primitives(document, path)
                return
            if keys.isdisjoint(TOP_KEYS):
                raise InputError(path, f"is no file of tables: it has {_listed(document)}", FORMS)
            self.classes |= read_classes(path)


def _same(file: Path, other: str) -> bool:
    return file.absolute() == Path(other).absolute()


def _listed(document: Any) -> str:
    if not isinstance(document, dict) or not document:
        return "no top-level keys"
    return (
        f"the top-level keys {', '.join(str(key) for key in document)}" if len(document) < 8 else fields.shown(document)
    )
