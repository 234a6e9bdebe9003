"""Candidates of the search: operators and precisions as declared in `arch_specs/operators.yaml`."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core import fields
from dse.core.documents import read_yaml, readable
from dse.core.errors import InputError, unknown
from dse.core.expressions import evaluate, specialised
from dse.core.schema import CONFIG, UNIQUE, Expression, Name, validated, whole
from dse.core.shipped import data_dir
from dse.hardware.candidate import MOST_BITS, REDUCTION, SIGNED, WORDS, Candidate, Macro, Overflow, whole_number


@validated_dataclass(frozen=True, config=CONFIG)
class ComponentEntry:
    """The compute unit of an operator."""

    component_class: Annotated[Name, Field(alias="class")]
    """Accelergy class, of arch_specs/components or of the specification."""
    attributes: dict[str, Expression]
    """Of the class; expressions over `bits`, `psum_bits`, `reduction` and `signed`."""
    actions: dict[str, Expression]
    """How often each action happens per operation."""


@validated_dataclass(frozen=True, config=CONFIG)
class MacroEntry:
    """How a compute-in-memory array converts its sums; expressions over `bits` and the specification's variables."""

    rows: Expression
    """Products that one conversion adds, at most."""
    adc_bits: Expression
    full_scale: Expression
    """The sum that has the largest code."""


Precisions = Annotated[tuple[Annotated[int, whole(1, 32)], ...], Len(1), UNIQUE]


@validated_dataclass(frozen=True, config=CONFIG)
class OperatorEntry:
    """An operator of an operators file; widths are expressions over `bits` and the specification's variables."""

    short: Name
    """Its name in candidates: T of T8."""
    act_bits: Expression
    weight_bits: Expression
    psum_bits: Expression
    """Of the accumulator; also over `reduction`, the products that are added into one output of a layer."""
    component: ComponentEntry
    bits: Precisions | None = None
    """Its precisions, where they are not those of the file."""
    variables: dict[Name, Expression] = dataclasses.field(default_factory=dict, hash=False)
    """What it sets in the specification beside the widths of words; also over `signed`."""
    macro: MacroEntry | None = None
    """Of an operator that is computed in memory."""
    cycles: Expression = 1
    """Clock cycles of an operation of the array; below 1 where a compute unit does several in a cycle. Also over
    `signed`, which is 1 for a layer whose inputs can be negative and 0 for others."""
    overflow: Overflow | None = None
    """What the accumulator of `psum_bits` does with larger sums; without it sums are taken to be exact."""


@validated_dataclass(frozen=True, config=CONFIG)
class OperatorsFile:
    """An operators file as it stands there."""

    bits: Precisions
    """Precisions of the operators that name none of their own."""
    operators: Annotated[dict[Name, OperatorEntry], Len(1)]


@validated_dataclass(frozen=True, config=CONFIG)
class ResolvedFile:
    """An operators file whose expressions have been evaluated, as a run keeps it."""

    candidates: Annotated[tuple[Candidate, ...], Len(1)]


_RESOLVED = "candidates"
MOST_ROWS, MOST_ADC_BITS = 65536, 16
"""The largest macro that is understood: sums are exact in a float of 32 bits."""

SHIPPED = "operators"
"""Name of the operators file that is read by default."""


def shipped_operators() -> dict[str, Path]:
    """The operators files in `arch_specs`, by name.

    Example:
        >>> list(shipped_operators())
        ['operators', 'operators_cim', 'operators_extended', 'operators_published_energies',
         'operators_published_widths', 'operators_rtl', 'operators_rtl_wide']
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


def load_candidates(
    operators: Path | str | None = None, variables: Mapping[str, Any] | None = None, mode: str = ""
) -> tuple[Candidate, ...]:
    """Every (operator, precision) declared in an operators file, operator by operator, widest precision first.

    Args:
        operators: the file's path, or the name of a shipped one; None for `arch_specs/operators.yaml`.
        variables: what its expressions may name beside `bits`: those of the specification that is to be used.
        mode: the computing mode of all of them.

    Raises:
        InputError: naming the field, what was found and what is allowed.

    Example:
        >>> [candidate.name for candidate in load_candidates()]
        ['T8', 'T4', 'T2', 'MF8', 'MF4', 'MF2', 'BC8', 'BC4', 'BC2']
    """
    path = find_operators(SHIPPED if operators is None else operators)
    document = read_yaml(path)
    if _is_resolved(document):
        return validated(ResolvedFile, document, path).candidates
    file = validated(OperatorsFile, document, path)
    scope = {name: value for name, value in (variables or {}).items() if name not in WORDS}
    found = [
        _candidate(f"{path}: operators.{name}", name, entry, {**scope, "bits": bits}, mode)
        for name, entry in file.operators.items()
        for bits in entry.bits or file.bits
    ]
    twice = [name for name, times in Counter(c.name for c in found).items() if times > 1]
    if twice:
        raise InputError(path, f"two candidates are named {twice[0]}", "a unique `short` for each operator")
    return tuple(found)


def resolved_operators(candidates: Iterable[Candidate]) -> str:
    """Candidates as the text of a file that `load_candidates` reads, whatever specification they were declared for.

    Example:
        >>> _ = Path("kept.yaml").write_text(resolved_operators(load_candidates()))
        >>> load_candidates("kept.yaml") == load_candidates()
        True
    """
    return json.dumps({_RESOLVED: [candidate.identity for candidate in candidates]}, indent=1) + "\n"


def is_resolved(operators: Path | str) -> bool:
    """Whether an operators file has candidates as `resolved_operators` writes them.

    Example:
        >>> is_resolved("operators")
        False
    """
    try:
        return _is_resolved(read_yaml(find_operators(operators)))
    except InputError:
        return False


def _is_resolved(document: Any) -> bool:
    return isinstance(document, dict) and list(document) == [_RESOLVED]


def _candidate(where: str, operator: str, entry: OperatorEntry, scope: Mapping[str, Any], mode: str) -> Candidate:
    def value(expression: Any, place: str) -> Any:
        return evaluate(expression, scope, place)

    def width(field: str, owner: Any = entry, place: str = where, most: int = MOST_BITS) -> int:
        here = f"{place}.{field}"
        return fields.integer(whole_number(value(getattr(owner, field), here)), here, most=most)

    if entry.overflow is not None and entry.macro is not None:
        raise InputError(f"{where}.overflow", "is of an operator in memory, whose sums are those of its conversions",
                         "operators without a macro")  # fmt: skip
    component = entry.component
    psum_bits = specialised(entry.psum_bits, scope, (REDUCTION,), f"{where}.psum_bits")
    of_attributes = {**scope, "psum_bits": psum_bits}
    attributes = [
        (name, specialised(expression, of_attributes, (REDUCTION, SIGNED), place), place)
        for name, expression in component.attributes.items()
        for place in (f"{where}.component.attributes.{name}",)
    ]
    actions = [
        (name, value(expression, place), place)
        for name, expression in component.actions.items()
        for place in (f"{where}.component.actions.{name}",)
    ]

    def of_sign(expression: Any, place: str, above: bool = False) -> float | str:
        """A number, or an expression that gives one for either sign of the inputs."""
        found = specialised(expression, scope, (SIGNED,), place)
        numbers = [fields.number(evaluate(found, {SIGNED: sign}, place), place, above=above) for sign in (0, 1)]
        return found if isinstance(found, str) else numbers[0]

    variables = [(name, of_sign(given, f"{where}.variables.{name}")) for name, given in entry.variables.items()]
    cycles = of_sign(entry.cycles, f"{where}.cycles", above=True)
    if isinstance(psum_bits, str):  # of the shortest sum; a text that is no expression is refused here
        shortest = evaluate(psum_bits, {REDUCTION: 1}, f"{where}.psum_bits")
        fields.integer(whole_number(shortest), f"{where}.psum_bits", most=MOST_BITS)
    else:
        psum_bits = fields.integer(whole_number(psum_bits), f"{where}.psum_bits", most=MOST_BITS)
    return Candidate(
        operator=operator,
        bits=scope["bits"],
        short=entry.short,
        act_bits=width("act_bits"),
        weight_bits=width("weight_bits"),
        psum_bits=psum_bits,
        compute_class=component.component_class,
        compute_attributes=tuple((name, _scalar(value, place)) for name, value, place in attributes),
        compute_actions=tuple((name, fields.number(value, place)) for name, value, place in actions),
        mode=mode,
        macro=None if entry.macro is None else _macro(width, entry.macro, f"{where}.macro"),
        cycles=cycles if isinstance(cycles, str) else float(cycles),
        own_variables=tuple(variables),
        overflow=entry.overflow,
    )


def _macro(width: Callable[..., int], entry: MacroEntry, where: str) -> Macro:
    return Macro(
        rows=width("rows", entry, where, MOST_ROWS),
        adc_bits=width("adc_bits", entry, where, MOST_ADC_BITS),
        full_scale=width("full_scale", entry, where, MOST_ROWS),
    )


def _scalar(value: Any, where: str) -> Any:
    """A number, text or boolean."""
    if not isinstance(value, (str, int, float)):
        raise InputError(where, f"found {fields.shown(value)}", "a number or text")
    return value
