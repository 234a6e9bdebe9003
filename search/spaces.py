"""Which candidates each layer may choose from: the paper's three spaces (Fig. 7), and layers that are pinned to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from dse.core.errors import InputError, unknown
from dse.core.schema import CONFIG, Text, whole
from dse.hardware.candidate import Candidate

Kind = Literal["operators", "precisions", "modes", "both", "all"]
KINDS = get_args(Kind)


@dataclass(frozen=True, config=CONFIG)
class Space:
    """What differs between a layer's candidates.

    ``operators``: the operator, at a precision of `bits` (8 if None). ``precisions``: the precision, of one `operator`
    (typical if None). Both are of the first computing mode. ``modes``: the computing mode, of one operator
    at one precision. ``all``, and its other name ``both``: each declared candidate may be chosen.
    """

    space: Kind = "both"
    bits: Annotated[int, whole(1, 32)] | None = None
    operator: Text | None = None

    def __post_init__(self) -> None:
        for field, spaces in (("bits", ("operators", "modes")), ("operator", ("precisions", "modes"))):
            value = getattr(self, field)
            if value is not None and self.space not in spaces:
                raise InputError(field, f"found {value!r} in the space {self.space!r}",
                                 f"the spaces {' and '.join(spaces)}")  # fmt: skip

    def of(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those of `candidates` that are in the space, in their order.

        Raises:
            InputError: a precision or an operator that none of them has, or one that leaves a single candidate.
        """
        if self.space in ("all", "both"):
            return tuple(candidates)
        bits, operator = self.bits or 8, self.operator or "typical"
        at_bits, of_operator = f"at {bits} bits", f"of operator {operator!r}"
        first = tuple(c for c in candidates if not c.mode)
        if self.space == "operators":
            what, found = at_bits, tuple(c for c in first if c.bits == bits)
        elif self.space == "precisions":
            what, found = of_operator, tuple(c for c in first if c.operator == operator)
        else:
            what = f"{of_operator} {at_bits}"
            found = tuple(c for c in candidates if (c.operator, c.bits) == (operator, bits))
        if len(found) < 2:
            held = ", ".join(c.name for c in found) or "no candidate"
            problem = f"{self.space!r} {what} holds {held}, so there is nothing to choose"
            raise InputError("space", problem, f"two or more of {', '.join(c.name for c in candidates)}")
        return found


def _with_name(value: Any) -> Any:
    """``operators`` as ``{space: operators}``."""
    if isinstance(value, Space):
        return value
    if isinstance(value, str) and value not in KINDS:
        raise unknown("", "space", value, KINDS)
    fields = {"space": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or "space" not in fields:
        raise InputError("", f"found {value!r}", f"{', '.join(KINDS)}, or a mapping with space, bits, operator")
    return fields


AnySpace = Annotated[Space, BeforeValidator(_with_name)]
"""The space that a configuration names: ``operators``, or ``{space: operators, bits: 8}``."""


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
