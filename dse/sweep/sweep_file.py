"""Sweep files: the network, the accelerator, and the settings that vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core.documents import read_yaml
from dse.core.errors import InputError
from dse.core.schema import CONFIG, Flag, Text, validated
from dse.sweep.axes import Axis, combine, parse_axis, parse_zip
from dse.table.provenance import Slack


@validated_dataclass(frozen=True, config=CONFIG)
class SweepFile:
    """The fields of a sweep file as they stand there."""

    workload: Text | None = None
    """A file, or the name of a shipped workload."""
    arch: Text | None = None
    """Timeloop v4 specification; default: the shipped one."""
    tables: tuple[Text, ...] = ()
    """Files of component tables, ERT and ART, that answer before the shipped tables."""
    operators: Text | None = None
    """Operators file; default: the shipped one."""
    candidates: tuple[Text, ...] = ()
    """Names such as T8; default: all of the operators file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """PATH: VALUES; every combination of these, such as ``glb_ifmap.depth: "1024:65536:x2"``."""
    zip: tuple[dict[str, Any], ...] = ()
    """Groups of PATH: VALUES, each of which varies in step."""
    objective: Text | None = None
    """energy, edp or delay; default: energy."""
    remainders: Flag | None = None
    """Look among mappings with remainders, too; default: true."""
    imperfect: Flag | None = None
    """The same under its earlier name."""
    slack: Slack = 0.0
    """Of mappings within this share of the least energy the fastest is taken; 0.01, or 1% as text."""


@dataclass(frozen=True)
class SweepConfig:
    """The content of a sweep file; None or () if not given. Paths are relative to the current folder."""

    workload: str | None = None
    arch: Path | None = None
    tables: tuple[Path, ...] = ()
    operators: Path | None = None
    candidates: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    objective: str | None = None
    remainders: bool | None = None
    slack: float = 0.0


def read_sweep(path: Path | str) -> SweepConfig:
    """Reads a sweep file.

    ```yaml
    workload: squeezenet                 # a file, or a shipped workload's name
    arch: my_arch.yaml                   # default: the shipped one
    tables: [my_tables.csv]              # default: the shipped ones alone
    operators: my_operators.yaml         # default: the shipped ones
    candidates: [T8, BC8]                # default: all of the operators file
    set:                                 # every combination of these
      glb_ifmap.depth: "1024:65536:x2"
      weights_spad.depth: [112, 224, 448]
    zip:                                 # and of these groups, whose settings vary together
    - {pe_column.meshX: [7, 14], pe_row.meshY: [24, 12]}
    objective: energy
    remainders: false                    # perfect factors only; default: true, also mappings with remainders
    slack: 1%                            # the fastest mapping within 1% of the least energy; default: 0
    ```

    Raises:
        InputError: a field is unknown or wrong.
    """
    file = validated(SweepFile, read_yaml(path), path)
    if file.remainders is not None and file.imperfect is not None:
        raise InputError(
            f"{path}: imperfect", "is the earlier name of remainders, which is there too", hint="remove it"
        )
    crossed = axes_of(file.set, f"{path}: set")
    zipped = tuple(parse_zip(group, f"{path}: zip[{i}]") for i, group in enumerate(file.zip))
    return SweepConfig(
        workload=file.workload,
        arch=Path(file.arch) if file.arch else None,
        tables=tuple(map(Path, file.tables)),
        operators=Path(file.operators) if file.operators else None,
        candidates=file.candidates,
        axes=combine(crossed + zipped),
        objective=file.objective,
        remainders=file.imperfect if file.remainders is None else file.remainders,
        slack=file.slack,
    )


def axes_of(settings: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """One axis for each entry of paths -> values, in the form of `dse.sweep.axes.parse_axis`."""
    return tuple(parse_axis(str(paths), values, where) for paths, values in settings.items())
