"""A candidate of the search: an operator at a precision, and the unit of hardware that computes it."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from dse.core import fields
from dse.core.expressions import evaluate, names_in


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


Overflow = Literal["wrap", "saturate"]
"""What an accumulator does with a sum that it cannot hold: it keeps the lowest bits, or stays at the nearest end."""


@dataclass(frozen=True)
class Candidate:
    """One choice for a layer: an operator at a precision (`j, k` of the paper's Section III.B) in a computing mode.

    `act_bits`, `weight_bits` and `psum_bits` are the word widths of the layer's three tensors. `psum_bits`, and with it
    attributes of the compute unit, may be an expression over `reduction`, the products that are added into one output:
    the accumulator is then configured for each layer (`at`). These attributes, `cycles` and `own_variables` may also
    be expressions over `signed`, 1 for a layer whose inputs can be negative and 0 for others.
    `compute_class`, `compute_attributes` and `compute_actions` describe the unit that executes one operation. `mode` is
    the computing mode, "" for the first or the only one of an accelerator; in memory, `macro` says how sums are
    converted. `cycles` are clock cycles of the array for one operation of each of its compute units, and
    `own_variables` what else the candidate sets in the specification. `overflow` says what its accumulator of
    `psum_bits` does with larger sums, which is then simulated where networks are evaluated; None for sums that are
    taken to be exact.
    """

    operator: str
    bits: int
    short: str
    act_bits: int
    weight_bits: int
    psum_bits: int | str
    compute_class: str
    compute_attributes: tuple[tuple[str, Any], ...]
    compute_actions: tuple[tuple[str, float], ...]
    mode: str = ""
    macro: Macro | None = None
    cycles: float | str = 1.0
    own_variables: tuple[tuple[str, float | str], ...] = ()
    overflow: Overflow | None = None

    @property
    def name(self) -> str:
        """Short name such as ``T8``, or ``MF8@cim`` in a computing mode; unique within a candidate set."""
        return f"{self.short}{self.bits}" + (f"@{self.mode}" if self.mode else "")

    @property
    def variables(self) -> dict[str, int | float | str]:
        """Variables of the architecture specification that this candidate sets."""
        words = dict(zip(WORDS, (self.act_bits, self.weight_bits, self.psum_bits), strict=True))
        return {**words, **dict(self.own_variables)}

    def accumulator_bits(self, reduction: int) -> int:
        """The width of the accumulator for sums of `reduction` products.

        Raises:
            InputError: the candidate's expression gives no width.

        Example:
            >>> from dse.hardware.candidates import load_candidates
            >>> [c.accumulator_bits(576) for c in load_candidates() if c.bits == 8]
            [26, 19, 19]
        """
        where = f"{self.name}: psum_bits of {reduction} products"
        width = evaluate(self.psum_bits, {REDUCTION: reduction}, where)
        return fields.integer(whole_number(width), where, most=MOST_BITS)

    @cached_property
    def by_sign(self) -> bool:
        """Whether it costs something else for a layer whose inputs can be negative.

        Example:
            >>> from dse.hardware.candidates import load_candidates
            >>> load_candidates()[0].by_sign
            False
        """
        values = [self.cycles, *(value for _, value in (*self.own_variables, *self.compute_attributes))]
        return any(SIGNED in names_in(value) for value in values if isinstance(value, str))

    def cycles_at(self, signed: bool) -> float:
        """Clock cycles of an operation in a layer whose inputs can be negative, or cannot.

        Raises:
            InputError: the candidate's expression gives no number above 0.

        Example:
            >>> from dse.hardware.candidates import load_candidates
            >>> load_candidates()[0].cycles_at(signed=True)
            1.0
        """
        if not isinstance(self.cycles, str):
            return self.cycles
        where = f"{self.name}: cycles"
        return float(fields.number(evaluate(self.cycles, {SIGNED: int(signed)}, where), where, above=True))

    def at(self, reduction: int, signed: bool = True) -> Candidate:
        """The candidate with the accumulator that it has for sums of `reduction` products.

        Args:
            signed: whether the layer's inputs can be negative.

        Raises:
            InputError: the candidate's expression gives no width, or no number.

        Example:
            >>> from dse.hardware.candidates import load_candidates
            >>> load_candidates()[0].at(1152).compute_attributes
            (('multiplier_width', 8), ('adder_width', 27))
        """
        if not isinstance(self.psum_bits, str) and not self.by_sign:
            return self
        scope = {REDUCTION: reduction, SIGNED: int(signed)}

        def values(of: tuple[tuple[str, Any], ...], what: str) -> Any:
            where = f"{self.name}: {what}"
            return tuple((name, whole_number(evaluate(value, scope, where))) for name, value in of)

        return dataclasses.replace(
            self,
            psum_bits=self.accumulator_bits(reduction),
            compute_attributes=values(self.compute_attributes, "attributes of its component"),
            own_variables=values(self.own_variables, "variables"),
            cycles=self.cycles_at(signed),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """All that it is as JSON data; what is as in a candidate of one digital mode is left out."""
        found = asdict(self)
        return {name: value for name, value in found.items() if name not in _LATER or value != _LATER[name]}


REDUCTION = "reduction"
"""Name in the expressions of an operators file: products that are added into one output, C R S of a convolution."""


SIGNED = "signed"
"""Name in the expressions of an operators file: 1 for a layer whose inputs can be negative, 0 for others."""


MOST_BITS = 1024


WORDS = ("act_bits", "weight_bits", "psum_bits")


_LATER: dict[str, Any] = {"mode": "", "macro": None, "cycles": 1.0, "own_variables": (), "overflow": None}
"""Fields that candidates did not always have, with what stands for their absence."""


def whole_number(value: Any) -> Any:
    """A whole number that an expression gave as a float, as an integer; other values as they are.

    Example:
        >>> whole_number(4.0), whole_number(4.5)
        (4, 4.5)
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
