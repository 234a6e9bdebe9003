"""A sweep as a file: what is mapped, on which accelerator, and what varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core import fields
from dse.core.documents import read_yaml
from dse.core.errors import InputError
from dse.sweep.axes import Axis, combine, parse_axis, parse_zip

FIELDS = ("workload", "arch", "operators", "candidates", "set", "zip", "objective", "imperfect")


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep file says; None and () where it says nothing. Paths are relative to the folder one is in."""

    workload: str | None = None
    arch: Path | None = None
    operators: Path | None = None
    candidates: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    objective: str | None = None
    imperfect: bool = False


def read_sweep(path: Path | str) -> SweepConfig:
    """Reads a sweep file.

    ```yaml
    workload: squeezenet                 # a file, or a shipped workload's name
    arch: my_arch.yaml                   # default: the shipped one
    operators: my_operators.yaml         # default: the shipped ones
    candidates: [T8, BC8]                # default: all of the operators file
    set:                                 # every combination of these
      glb_ifmap.depth: "1024:65536:x2"
      weights_spad.depth: [112, 224, 448]
    zip:                                 # and of these groups, each of which varies in step
    - {pe_column.meshX: [7, 14], pe_row.meshY: [24, 12]}
    objective: energy
    imperfect: true                      # also mappings with remainders; default: false
    ```

    Raises:
        InputError: an unknown or wrong field.
    """
    document = fields.mapping(read_yaml(path), path, FIELDS)
    settings, groups = document.get("set", {}), document.get("zip", [])
    if not isinstance(settings, dict):
        raise InputError(f"{path}: set", f"found {settings!r}", "a mapping of PATH: VALUES")
    if not isinstance(groups, list):
        raise InputError(f"{path}: zip", f"found {groups!r}", "a list of mappings of PATH: VALUES")
    arch, operators = _text(document, "arch", path), _text(document, "operators", path)
    crossed = axes_of(settings, f"{path}: set")
    zipped = tuple(parse_zip(group, f"{path}: zip[{i}]") for i, group in enumerate(groups))
    return SweepConfig(
        workload=_text(document, "workload", path),
        arch=Path(arch) if arch else None,
        operators=Path(operators) if operators else None,
        candidates=_names(document.get("candidates", []), f"{path}: candidates"),
        axes=combine(crossed + zipped),
        objective=_text(document, "objective", path),
        imperfect=_flag(document, "imperfect", path),
    )


def axes_of(settings: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """One axis for each entry of paths -> values, as `dse.sweep.axes.parse_axis` takes them."""
    return tuple(parse_axis(str(paths), values, where) for paths, values in settings.items())


def _text(document: dict[str, Any], key: str, path: Path | str) -> str | None:
    value = document.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(f"{path}: {key}", f"found {value!r}", "a text")
    return value


def _flag(document: dict[str, Any], key: str, path: Path | str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{path}: {key}", f"found {value!r}", "true or false")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(where, f"found {value!r}", "a list of candidates, such as [T8, BC4]")
    return tuple(value)
