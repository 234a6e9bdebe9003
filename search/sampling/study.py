"""How far each attribute of the macro takes its samples from the mixture: one attribute varied at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.sampling.macro import Macro
from search.sampling.measure import draw
from search.sampling.mixture import Mixture
from search.sampling.statistics import effective_samples, sliced_wasserstein

SEEDS = 3
SAMPLES = 50_000
"""Of each seed of each value."""

IDEAL = {"dac_bits": 14, "adc_bits": 14, "weight_bits": 16, "random_bits": 20, "random_bias": 0.0,
         "random_correlation": 0.0, "proposal_width": None}  # fmt: skip
"""Attributes of a sampler without imperfections: all that is left is the statistical error of its chains."""

_WIDTHS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

AXES: Mapping[str, Sequence[float]] = {
    "adc_bits": (1, 2, 3, 4, 5, 6, 7, 8, 10),
    "dac_bits": (2, 3, 4, 5, 6, 7, 8, 10),
    "random_bias": (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2),
    "random_correlation": (-0.5, -0.3, -0.1, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
    "proposal_width": (),
}
"""What is varied, and the values; widths are multiples of the default one."""


def study(target: Mixture, macro: Macro, seed: int = 0, samples: int = SAMPLES,
          on_point: Callable[[int, int], None] = lambda done, of: None) -> dict[str, Any]:  # fmt: skip
    """Sliced Wasserstein distance to the exact mixture, by attribute and value; the others are the macro's.

    Args:
        on_point: is called with the number of values that are done, and of all.

    Returns:
        `ideal` is a point with the attributes `IDEAL`; `points` has for each attribute a list of points: `value`, and
        for each seed `wasserstein`, `acceptance` and `effective_share` (effective samples of each sample).

    Example:
        >>> from search.sampling.mixture import mixture
        >>> found = study(mixture([1.0], [[0.0]], [[[1.0]]]), Macro(burn_in=20), samples=640)
        >>> list(found["points"]), len(found["points"]["adc_bits"])
        (['adc_bits', 'dac_bits', 'random_bias', 'random_correlation', 'proposal_width'], 9)
    """
    best = 2.38 * math.sqrt(3 / target.dimensions)
    values = {**AXES, "proposal_width": tuple(w * best for w in _WIDTHS)}
    total, done = 1 + sum(map(len, values.values())), 0

    def point(changed: Mapping[str, Any]) -> dict[str, list[float]]:
        nonlocal done
        runs = [_run(target, dataclasses.replace(macro, **changed), samples, seed + i) for i in range(SEEDS)]
        done += 1
        on_point(done, total)
        return {key: [run[key] for run in runs] for key in runs[0]}

    return {
        "samples": samples,
        "seeds": [seed + i for i in range(SEEDS)],
        "ideal": point(IDEAL),
        "points": {
            field: [{"value": value, **point({field: value})} for value in of] for field, of in values.items()
        },
    }  # fmt: skip


def _run(target: Mixture, macro: Macro, samples: int, seed: int) -> dict[str, float]:
    found = draw(target, macro, samples, seed)
    return {
        "wasserstein": sliced_wasserstein(found.samples, target),
        "acceptance": found.acceptance,
        "effective_share": float(effective_samples(found.chains).min()) / found.chains[..., 0].size,
    }
