"""The attributes of a sampling macro, as a mixture file or a run configuration gives them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from dse.core.errors import InputError
from dse.core.schema import CONFIG, number, whole

MOST_DAC_BITS = 16
"""Above, a state would not fit into the words that chains are kept in."""


SamplerName = Literal["exact", "mc2ram"]
"""Who draws the noise of assignments: torch's generator, or the macro."""


@dataclass(frozen=True, config=CONFIG)
class Macro:
    """A macro that samples a mixture, and how its chains are run.

    Ideal random bits have the bias 0 and the correlation 0. docs/sampler.md says what each attribute does.
    """

    dac_bits: Annotated[int, whole(1, MOST_DAC_BITS)] = 8
    """Bits of a coordinate of the state: the chain moves on a grid of 2 ** dac_bits points in each dimension."""
    adc_bits: Annotated[int, whole(1, 16)] = 6
    """Bits of a column's sum when it is read."""
    weight_bits: Annotated[int, whole(2, 16)] = 8
    """Bits of a stored weight, the sign included."""
    dac_range: Annotated[float, number(0.1, 100)] = 5.0
    """The grid reaches this many standard deviations beyond the means."""
    adc_range: Annotated[float, number(0.1, 100)] = 6.0
    """A column's sum is clipped at this many standard deviations from the mean."""
    random_bits: Annotated[int, whole(1, 24)] = 12
    """Bits of a random word; see `search.sampling.chain.Proposals`."""
    random_bias: Annotated[float, number(-0.499, 0.499)] = 0.0
    """A random bit is 1 with the probability 0.5 + random_bias."""
    random_correlation: Annotated[float, number(-0.999, 0.999)] = 0.0
    """Correlation of a random bit with the one before it."""
    proposal_width: Annotated[float, number(0, 1000, above=True)] | None = None
    """Half the width of the uniform numbers that a component's Cholesky factor turns into a step; None for
    2.38 * sqrt(3 / D), whose standard deviation is the best one for a Gaussian of many dimensions D."""
    jumps: Annotated[float, number(0, 1)] = 0.1
    """Share of proposals that move by the difference of two means, so that modes far apart are reached."""
    chains: Annotated[int, whole(1, 65536)] = 64
    """Chains, which the macro advances in turn."""
    burn_in: Annotated[int, whole(0, 10**6)] = 200
    """Iterations of each chain before the first sample."""
    columns: Annotated[int, whole(1, 4096)] | None = None
    """Columns that are read at a time, each with an ADC of its own; None for all."""

    def __post_init__(self) -> None:
        p, correlation = 0.5 + self.random_bias, self.random_correlation
        least = -min(p / (1 - p), (1 - p) / p)
        if correlation < least:
            raise InputError("random_correlation", f"found {correlation:g} with the bias {self.random_bias:g}",
                             f"a number from {least:.3g}, for no such bits exist")  # fmt: skip
