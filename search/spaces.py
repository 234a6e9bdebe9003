"""Which candidates each layer may choose from: the paper's three spaces (Fig. 7), and layers that are pinned to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dse.core.errors import InputError, unknown
from dse.hardware.candidates import Candidate

KINDS = ("operators", "precisions", "both")


@dataclass(frozen=True)
class Space:
    """What differs between a layer's candidates.

    ``operators``: the operator, at a precision of `bits` (8 if None). ``precisions``: the precision, of one `operator`
    (typical if None). ``both``: each declared candidate may be chosen.
    """

    space: Literal["operators", "precisions", "both"] = "both"
    bits: int | None = None
    operator: str | None = None

    def __post_init__(self) -> None:
        if self.space not in KINDS:
            raise unknown("space", "space", self.space, KINDS)
        if self.bits is not None and self.space != "operators":
            raise InputError("space.bits", f"found {self.bits!r} in the space {self.space!r}", "the space operators")
        if self.operator is not None and self.space != "precisions":
            raise InputError("space.operator", f"found {self.operator!r} in the space {self.space!r}",
                             "the space precisions")  # fmt: skip

    def of(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those of `candidates` that are in the space, in their order.

        Raises:
            InputError: a precision or an operator that none of them has, or one that leaves a single candidate.
        """
        if self.space == "both":
            return tuple(candidates)
        if self.space == "operators":
            bits = self.bits or 8
            what, found = f"at {bits} bits", tuple(c for c in candidates if c.bits == bits)
        else:
            operator = self.operator or "typical"
            what, found = f"of operator {operator!r}", tuple(c for c in candidates if c.operator == operator)
        if len(found) < 2:
            held = ", ".join(c.name for c in found) or "no candidate"
            problem = f"{self.space!r} {what} holds {held}, so there is nothing to choose"
            raise InputError("space", problem, f"two or more of {', '.join(c.name for c in candidates)}")
        return found


def read_space(value: Any, where: str = "space") -> Space:
    """The space that a configuration names: ``operators``, or ``{space: operators, bits: 8}``.

    Raises:
        InputError: naming the field, what was found and what is allowed.

    Example:
        >>> read_space({"space": "operators", "bits": 4})
        Space(space='operators', bits=4, operator=None)
    """
    fields = {"space": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or "space" not in fields:
        raise InputError(where, f"found {value!r}", f"{', '.join(KINDS)}, or a mapping with space, bits, operator")
    for key in fields:
        if key not in ("space", "bits", "operator"):
            raise InputError(where, f"unknown field {key!r}", "space, bits, operator")
    bits, operator = fields.get("bits"), fields.get("operator")
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 32):
        raise InputError(f"{where}.bits", f"found {bits!r}", "a whole number from 1 to 32")
    if operator is not None and not isinstance(operator, str):
        raise InputError(f"{where}.operator", f"found {operator!r}", "an operator's name")
    try:
        return Space(fields["space"], bits, operator)
    except InputError as e:
        raise e.at(where.removesuffix("space") + e.where) from None


def read_pins(value: Any, where: str = "pins") -> dict[str, str]:
    """The pins of a configuration: a mapping of layers, ``first`` or ``last`` to candidates' names.

    Raises:
        InputError: anything else.

    Example:
        >>> read_pins({"first": "T8", "last": "T8"})
        {'first': 'T8', 'last': 'T8'}
    """
    if not isinstance(value, dict) or not all(isinstance(t, str) for pair in value.items() for t in pair):
        raise InputError(where, f"found {value!r}", "a mapping of layers, first or last to candidates such as T8")
    return dict(value)


def pinned(pins: Mapping[str, str], table_layers: Sequence[str]) -> dict[str, str]:
    """Layer -> candidate, with ``first`` and ``last`` replaced by the layers that are executed first and last.

    A network may have a layer of its own that is called first or last; the name means this layer then.

    Args:
        table_layers: layers in the order of their execution.

    Raises:
        InputError: a layer that the table lacks, or one that is pinned to two candidates.

    Example:
        >>> pinned({"first": "T8", "fc": "T4"}, ["conv1", "conv2", "fc"])
        {'conv1': 'T8', 'fc': 'T4'}
    """
    ends = {"first": table_layers[0], "last": table_layers[-1]}
    found: dict[str, str] = {}
    for name, candidate in pins.items():
        layer = name if name in table_layers else ends.get(name)
        if layer is None:
            raise unknown("pins", "layer", name, ["first", "last", *table_layers])
        if found.setdefault(layer, candidate) != candidate:
            raise InputError(f"pins.{name}", f"layer {layer!r} is pinned to {found[layer]} and to {candidate}", "one")
    return found
