"""Cycles and energy of the macro, from the figures of one published design, scaled by a rule.

The figures are those of the abstract of MC2RAM (arXiv 2003.02629), simulated in 45 nm CMOS. They are of one point, two
dimensions and two mixtures, so how cost grows is not known from them. The rule here:

- *Energy* goes with the columns that are read for a proposal, one for each mixture and dimension: each has an analog
  sum, a conversion and a table of its own. So it is published energy x K x D / 4. The bits of converters and of random
  words do not change it, for the abstract does not name those of its design.
- *Cycles* of an iteration are the published four, whatever K and D, since columns are read at the same time. With fewer
  columns at a time (`columns`), the four are spent for each group of them.
- A sample is an iteration: a state that stays is a sample, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SOURCE = "arXiv 2003.02629, abstract"


@dataclass(frozen=True)
class Published:
    """The published point: `samples` take `cycles`, on average."""

    dimensions: int = 2
    mixtures: int = 2
    samples: int = 500
    cycles: int = 2000
    clock_hz: float = 1e9
    power_w: float = 91e-6

    @property
    def cycles_per_sample(self) -> float:
        return self.cycles / self.samples

    @property
    def energy_pj(self) -> float:
        """Of a sample: power x cycles / clock frequency."""
        return self.power_w * self.cycles_per_sample / self.clock_hz * 1e12


MC2RAM = Published()


@dataclass(frozen=True)
class Cost:
    """Cost of an iteration of a chain, which gives a sample."""

    cycles: float
    energy_pj: float

    @property
    def power_w(self) -> float:
        """Mean power at the published clock frequency."""
        return self.energy_pj * 1e-12 / (self.cycles / MC2RAM.clock_hz)


def iteration_cost(dimensions: int, mixtures: int, columns: int | None = None) -> Cost:
    """Cycles and energy of an iteration.

    Args:
        columns: that are read at a time; None for all.

    Example:
        >>> cost = iteration_cost(2, 2)
        >>> cost.cycles, round(cost.energy_pj, 3), round(cost.power_w * 1e6, 1)
        (4.0, 0.364, 91.0)
        >>> half = iteration_cost(2, 2, columns=2)
        >>> half.cycles, round(half.energy_pj, 3)
        (8.0, 0.364)
    """
    read = dimensions * mixtures
    passes = 1 if columns is None else math.ceil(read / columns)
    share = read / (MC2RAM.dimensions * MC2RAM.mixtures)
    return Cost(MC2RAM.cycles_per_sample * passes, MC2RAM.energy_pj * share)
