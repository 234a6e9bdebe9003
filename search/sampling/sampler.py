"""Where the random numbers come from that assignments are drawn with: torch's generator, or the sampler inside SRAM."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from search.sampling.array import Array
from search.sampling.chain import run_chains
from search.sampling.cost import iteration_cost
from search.sampling.macro import Macro, SamplerName
from search.sampling.mixture import mixture

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:  # pydantic, which checks records, needs the form of Python 3.12
    from typing_extensions import TypedDict


class Sampler(Protocol):
    """Draws the noise of assignments; a generator, torch's global one for None, decides the numbers."""

    def uniform(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        """Numbers between 0 and 1, float64, shape (number,)."""

    def exponential(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        """Exponential numbers of mean 1, float32, shape (number,)."""


class Sampling(TypedDict):
    """What the sampler of a search drew and what it cost, by the rule of `search.sampling.cost`."""

    sampler: str
    numbers: int
    iterations: int
    cycles: float
    energy_pj: float


class Exact:
    """Torch's own generator, without cost."""

    def uniform(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(number, generator=generator, dtype=torch.float64)

    def exponential(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.empty(number).exponential_(generator=generator)


EXACT = Exact()

_LARGEST = 8.0
"""Where the table of the normal distribution function ends: beyond, float64 would round it to 0 or 1."""


@dataclass(eq=False)
class InMemory:
    """A macro that samples the standard normal distribution, and a table that turns its samples into other numbers.

    Each number is the state of a chain of its own after `macro.burn_in` + 1 iterations from 0: numbers of one call are
    independent but for the random bits. The normal distribution function makes them uniform. Each call starts chains
    anew, so a search that resumes draws what it would have drawn.

    Attributes:
        numbers, iterations: how many were drawn so far, and what they took in all chains.

    Example:
        >>> sampler = InMemory(Macro(burn_in=20))
        >>> drawn = sampler.uniform(1000, torch.Generator().manual_seed(0))
        >>> 0.45 < float(drawn.mean()) < 0.55, sampler.iterations
        (True, 21000)
        >>> round(sampler.sampling()["energy_pj"])  # 21 x 1000 iterations of one column, 0.091 pJ each
        1911
    """

    macro: Macro
    numbers: int = 0
    iterations: int = 0

    def _normal(self, number: int, generator: torch.Generator | None) -> Tensor:
        if not number:
            return torch.empty(0, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))
        array = Array(mixture([1.0], [[0.0]], [[[1.0]]]), self.macro)
        start = np.repeat(array.codes(np.zeros((1, 1))), number, axis=0)
        found = run_chains(array, 1, np.random.SeedSequence(seed), start)
        self.numbers += number
        self.iterations += number * (self.macro.burn_in + 1)
        values = array.values(found.codes[0].astype(np.int64))[:, 0]
        return torch.from_numpy(values.clip(-_LARGEST, _LARGEST))

    def uniform(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        uniform: Tensor = torch.special.ndtr(self._normal(number, generator))
        return uniform

    def exponential(self, number: int, generator: torch.Generator | None = None) -> Tensor:
        exponential: Tensor = -torch.special.log_ndtr(self._normal(number, generator))
        return exponential.float()

    def sampling(self) -> Sampling:
        """What was drawn so far, and its cost."""
        return sampling_of("mc2ram", self.numbers, self.iterations, self.macro)


def sampling_of(name: str, numbers: int, iterations: int, macro: Macro) -> Sampling:
    """The cost of iterations of one dimension and one mixture.

    Example:
        >>> sampling_of("mc2ram", 10, 1000, Macro())["cycles"]
        4000.0
    """
    one = iteration_cost(1, 1, macro.columns)
    return {"sampler": name, "numbers": numbers, "iterations": iterations, "cycles": one.cycles * iterations,
            "energy_pj": one.energy_pj * iterations}  # fmt: skip


def sampler_of(name: SamplerName, macro: Macro) -> Exact | InMemory:
    """The sampler of that name; the exact one needs no macro.

    Example:
        >>> sampler_of("exact", Macro()) is EXACT
        True
    """
    return EXACT if name == "exact" else InMemory(macro)
