"""Candidates of the search: operators and precisions as declared in `arch_specs/operators.yaml`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core import fields
from dse.core.documents import read_yaml, readable
from dse.core.errors import InputError, unknown
from dse.core.expressions import evaluate
from dse.core.schema import CONFIG, UNIQUE, Expression, Name, validated, whole
from dse.core.shipped import data_dir


@dataclass(frozen=True)
class Macro:
    """How a compute-in-memory array adds: bit plane by bit plane, each sum of one-bit products converted by an ADC.

    An ADC of `adc_bits` has 2^adc_bits codes, which divide the sums from 0 to `full_scale` into equal steps of at least
    1; larger sums are clipped. It is exact where it has a code for each sum of `rows` products.
    """

    rows: int
    """One-bit products that a column adds for one conversion, at most."""
    adc_bits: int
    full_scale: int
    """The sum that has the largest code."""

    @property
    def step(self) -> float:
        """The difference between neighbouring codes, as a number of one-bit products.

        Example:
            >>> Macro(rows=31, adc_bits=5, full_scale=31).step, Macro(rows=31, adc_bits=4, full_scale=30).step
            (1.0, 2.0)
        """
        return max(1.0, self.full_scale / ((1 << self.adc_bits) - 1))


@dataclass(frozen=True)
class Candidate:
    """One choice for a layer: an operator at a precision (`j, k` of the paper's Section III.B) in a computing mode.

    `act_bits`, `weight_bits` and `psum_bits` are the word widths of the layer's three tensors;
    `compute_class`, `compute_attributes` and `compute_actions` describe the unit that executes one operation. `mode` is
    the computing mode, "" where the accelerator has only one; in memory, `macro` says how sums are converted.
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
    mode: str = ""
    macro: Macro | None = None

    @property
    def name(self) -> str:
        """Short name such as ``T8``, or ``MF8@cim`` in a computing mode; unique within a candidate set."""
        return f"{self.short}{self.bits}" + (f"@{self.mode}" if self.mode else "")

    @property
    def variables(self) -> dict[str, int]:
        """Variables of the architecture specification that this candidate sets."""
        return {"act_bits": self.act_bits, "weight_bits": self.weight_bits, "psum_bits": self.psum_bits}


@validated_dataclass(frozen=True, config=CONFIG)
class ComponentEntry:
    """The compute unit of an operator."""

    component_class: Annotated[Name, Field(alias="class")]
    """Accelergy class, of arch_specs/components or of the specification."""
    attributes: dict[str, Expression]
    """Of the class; expressions over `bits`."""
    actions: dict[str, Expression]
    """How often each action happens per operation."""


Precisions = Annotated[tuple[Annotated[int, whole(1, 32)], ...], Len(1), UNIQUE]


@validated_dataclass(frozen=True, config=CONFIG)
class OperatorEntry:
    """An operator of an operators file; widths are expressions over `bits`."""

    short: Name
    """Its name in candidates: T of T8."""
    act_bits: Expression
    weight_bits: Expression
    psum_bits: Expression
    component: ComponentEntry
    bits: Precisions | None = None
    """Its precisions, where they are not those of the file."""


@validated_dataclass(frozen=True, config=CONFIG)
class OperatorsFile:
    """An operators file as it stands there."""

    bits: Precisions
    """Precisions of the operators that name none of their own."""
    operators: Annotated[dict[Name, OperatorEntry], Len(1)]


SHIPPED = "operators"
"""Name of the operators file that is read by default."""


def shipped_operators() -> dict[str, Path]:
    """The operators files in `arch_specs`, by name.

    Example:
        >>> list(shipped_operators())
        ['operators', 'operators_extended']
    """
    return {path.stem: path for path in sorted(data_dir("arch_specs").glob(f"{SHIPPED}*.yaml"))}


def find_operators(name: Path | str, where: str = "operators") -> Path:
    """The path of an operators file, given by its path or by the name of a shipped one (`operators_extended`).

    Raises:
        InputError: at `where`, for neither.

    Example:
        >>> find_operators("operators_extended").name
        'operators_extended.yaml'
    """
    shipped = shipped_operators()
    path = shipped.get(str(name), Path(name))
    if not readable(path, Path.is_file):
        raise unknown(where, "file or shipped name", str(name), [*shipped, "a path"])
    return path


def load_candidates(operators: Path | str | None = None) -> tuple[Candidate, ...]:
    """Every (operator, precision) declared in an operators file, operator by operator, widest precision first.

    Args:
        operators: the file's path, or the name of a shipped one; None for `arch_specs/operators.yaml`.

    Raises:
        InputError: naming the field, what was found and what is allowed.

    Example:
        >>> [candidate.name for candidate in load_candidates()]
        ['T8', 'T4', 'T2', 'MF8', 'MF4', 'MF2', 'BC8', 'BC4', 'BC2']
    """
    path = find_operators(SHIPPED if operators is None else operators)
    file = validated(OperatorsFile, read_yaml(path), path)
    found = [
        _candidate(f"{path}: operators.{name}", name, entry, bits)
        for name, entry in file.operators.items()
        for bits in entry.bits or file.bits
    ]
    twice = [name for name, times in Counter(c.name for c in found).items() if times > 1]
    if twice:
        raise InputError(path, f"two candidates are named {twice[0]}", "a unique `short` for each operator")
    return tuple(found)


def _candidate(where: str, operator: str, entry: OperatorEntry, bits: int) -> Candidate:
    def value(expression: Any, place: str) -> Any:
        return evaluate(expression, {"bits": bits}, place)

    def width(field: str) -> int:
        return fields.integer(value(getattr(entry, field), f"{where}.{field}"), f"{where}.{field}", most=1024)

    component = entry.component
    attributes, actions = (
        [(name, value(expression, f"{where}.component.{part}.{name}"), f"{where}.component.{part}.{name}")
         for name, expression in getattr(component, part).items()]
        for part in ("attributes", "actions")
    )  # fmt: skip
    return Candidate(
        operator=operator,
        bits=bits,
        short=entry.short,
        act_bits=width("act_bits"),
        weight_bits=width("weight_bits"),
        psum_bits=width("psum_bits"),
        compute_class=component.component_class,
        compute_attributes=tuple((name, _scalar(value, place)) for name, value, place in attributes),
        compute_actions=tuple((name, fields.number(value, place)) for name, value, place in actions),
    )


def _scalar(value: Any, where: str) -> Any:
    """A number, text or boolean."""
    if not isinstance(value, (str, int, float)):
        raise InputError(where, f"found {fields.shown(value)}", "a number or text")
    return value
