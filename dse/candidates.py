"""Operators and precisions as data: what `arch_specs/operators.yaml` declares, as candidates of the search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.documents import read_yaml
from dse.errors import InputError
from dse.expressions import evaluate
from dse.resources import data_dir


@dataclass(frozen=True)
class Candidate:
    """One choice for a layer: an operator at a precision (`j, k` of the paper's Section III.B).

    `act_bits`, `weight_bits` and `psum_bits` are the word widths of the layer's three tensors;
    `compute_class`, `compute_attributes` and `compute_actions` describe the unit that executes one operation.
    """

    operator: str
    bits: int
    short: str
    act_bits: int
    weight_bits: int
    psum_bits: int
    compute_class: str
    compute_attributes: tuple[tuple[str, Any], ...]
    compute_actions: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """Short name such as ``T8``; unique within a candidate set."""
        return f"{self.short}{self.bits}"

    @property
    def variables(self) -> dict[str, int]:
        """What makes an architecture specification an instance for this candidate."""
        return {"act_bits": self.act_bits, "weight_bits": self.weight_bits, "psum_bits": self.psum_bits}


_FIELDS = ("short", "act_bits", "weight_bits", "psum_bits", "component")


SHIPPED = "operators"
"""Name of the operators file that is read where none is named."""


def shipped_operators() -> dict[str, Path]:
    """The operators files in `arch_specs`, by name."""
    return {path.stem: path for path in sorted(data_dir("arch_specs").glob(f"{SHIPPED}*.yaml"))}


def find_operators(name: Path | str, where: str = "operators") -> Path:
    """An operators file that is named by its path, or by the name of a shipped one (`operators_extended`).

    Raises:
        InputError: at `where`, for neither.
    """
    shipped = shipped_operators()
    path = shipped.get(str(name), Path(name))
    if not path.is_file():
        raise InputError(where, f"{str(name)!r} is no file", [*shipped, "a path"])
    return path


def load_candidates(operators: Path | str | None = None) -> tuple[Candidate, ...]:
    """Every (operator, precision) declared in an operators file, operator by operator, widest precision first.

    Args:
        operators: the file's path, or the name of a shipped one; None reads `arch_specs/operators.yaml`.

    Raises:
        InputError: naming the field, what was found and what is allowed.
    """
    path = find_operators(SHIPPED if operators is None else operators)
    document = read_yaml(path)
    if not isinstance(document, dict) or set(document) != {"bits", "operators"}:
        raise InputError(path, "not an operators file", "the two keys bits and operators")
    precisions, operators = document["bits"], document["operators"]
    _require_bits(f"{path}: bits", precisions)
    if not isinstance(operators, dict) or not operators:
        raise InputError(f"{path}: operators", "declares no operator")
    found = tuple(
        _candidate(f"{path}: operators.{name}", name, entry, bits)
        for name, entry in operators.items()
        for bits in _own_bits(f"{path}: operators.{name}", entry, precisions)
    )
    names = [c.name for c in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(path, f"two candidates are named {name}", "a unique `short` for each operator")
    return found


def _own_bits(where: str, entry: Any, precisions: Any) -> list[int]:
    """The precisions of one operator: its own if it lists any."""
    if not isinstance(entry, Mapping) or "bits" not in entry:
        return list(precisions)
    _require_bits(f"{where}.bits", entry["bits"])
    return list(entry["bits"])


def _require_bits(where: str, bits: Any) -> None:
    if not isinstance(bits, list) or not all(type(b) is int and 1 <= b <= 32 for b in bits):
        raise InputError(where, f"found {bits!r}", "a list of integers from 1 to 32")


def _candidate(where: str, operator: str, entry: Any, bits: int) -> Candidate:
    _require_keys(where, entry, _FIELDS, optional=("bits",))
    component = entry["component"]
    _require_keys(f"{where}.component", component, ("class", "attributes", "actions"))

    def value(field: str, expression: Any) -> Any:
        return evaluate(expression, {"bits": bits}, f"{where}.{field}")

    def width(field: str) -> int:
        number = value(field, entry[field])
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{where}.{field}", f"found {number!r}", "a whole number of bits, at least 1")
        return number

    return Candidate(
        operator=operator,
        bits=bits,
        short=str(entry["short"]),
        act_bits=width("act_bits"),
        weight_bits=width("weight_bits"),
        psum_bits=width("psum_bits"),
        compute_class=str(component["class"]),
        compute_attributes=tuple(
            (k, value(f"component.attributes.{k}", v)) for k, v in component["attributes"].items()
        ),
        compute_actions=tuple((k, float(value(f"component.actions.{k}", v))) for k, v in component["actions"].items()),
    )


def _require_keys(where: str, entry: Any, keys: Iterable[str], optional: Iterable[str] = ()) -> None:
    keys, allowed = tuple(keys), (*keys, *optional)
    if not isinstance(entry, Mapping):
        raise InputError(where, f"found {entry!r}", f"a mapping with {', '.join(keys)}")
    for key in entry:
        if key not in allowed:
            raise InputError(where, f"unknown field {key!r}", allowed)
    for key in keys:
        if key not in entry:
            raise InputError(where, f"field {key!r} is missing")
