"""Samples of the macro measured against the exact mixture: what `enos sample` prints and writes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.sampling.chain import sample_codes
from search.sampling.cost import MC2RAM, SOURCE, iteration_cost
from search.sampling.macro import MOST_DAC_BITS, Macro
from search.sampling.mixture import FloatArray, Mixture
from search.sampling.statistics import effective_samples, sliced_wasserstein, split_r_hat, standardised_marginals

DISAGREE = 1.1
"""R-hat above which chains have not seen the same."""

_COARSE = 0.5  # standard deviations
_FAR = 3.0  # times the distance of as many exact samples as are effective


@dataclass(frozen=True, eq=False)
class Sampled:
    """Samples of a macro.

    Attributes:
        chains: shape (iterations, chains, D).
        samples: shape (number, D); iteration by iteration, one of each chain.
        acceptance: share of proposals that were accepted.
        coarse: shape (K, D), steps of the grid in standard deviations of a coordinate given the others.
    """

    target: Mixture
    macro: Macro
    seed: int
    chains: FloatArray
    samples: FloatArray
    acceptance: float
    coarse: FloatArray


def draw(target: Mixture, macro: Macro, number: int, seed: int = 0) -> Sampled:
    """Runs the macro for `number` samples.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> found = draw(mixture([1.0], [[3.0]], [[[4.0]]]), Macro(), 5000)
        >>> found.samples.shape, round(float(found.samples.mean()))
        ((5000, 1), 3)
    """
    array, found = sample_codes(target, macro, number, seed)
    chains = array.values(found.codes.astype(np.int64))
    precisions = np.einsum("kij,kij->kj", target.whitening, target.whitening)
    return Sampled(target, macro, seed, chains, chains.reshape(-1, target.dimensions)[:number], found.acceptance,
                   array.step * np.sqrt(precisions))  # fmt: skip


def measured(found: Sampled) -> dict[str, Any]:
    """Moments, distances, effective sample size, acceptance and cost of samples, beside those of an exact sampler.

    `wasserstein` is the distance to the exact distribution, in standard deviations: `sliced` is the mean over 64
    directions, `marginals` is of each coordinate. `exact` is the sliced distance of as many independent exact samples,
    `exact_effective` of as many as the smallest effective sample size: what lies above it is not statistical error.

    Example:
        >>> from search.sampling.mixture import mixture
        >>> found = measured(draw(mixture([1.0], [[3.0]], [[[4.0]]]), Macro(), 5000))
        >>> abs(found["mean"][0] - 3.0) < 5 * found["mean_error"][0], found["cost"]["cycles"]
        (True, 20000.0)
    """
    target, number = found.target, len(found.samples)
    effective, r_hat = effective_samples(found.chains), split_r_hat(found.chains)
    effective = effective * number / found.chains[..., 0].size
    rng = np.random.default_rng([found.seed, 1])
    exact = target.draw(number, rng)
    independent = target.draw(max(1, int(effective.min())), rng)
    of_chain = target.nearest(found.chains)
    near, near_exact = (
        np.bincount(of, minlength=target.size) / number for of in (of_chain.reshape(-1)[:number], target.nearest(exact))
    )
    moved = float((of_chain[1:] != of_chain[:-1]).mean()) if len(of_chain) > 1 else 0.0
    result = {
        "samples": number,
        "seed": found.seed,
        "dimensions": target.dimensions,
        "mixtures": target.size,
        "macro": dataclasses.asdict(found.macro),
        "mean": found.samples.mean(0).tolist(),
        "mean_exact": target.mean.tolist(),
        "mean_error": (effective**-0.5 * np.sqrt(np.diagonal(target.covariance))).tolist(),
        "covariance": np.atleast_2d(np.cov(found.samples.T)).tolist() if number > 1 else None,
        "covariance_exact": target.covariance.tolist(),
        "nearest_component": near.tolist(),
        "nearest_component_exact": near_exact.tolist(),
        "component_changes_per_iteration": moved,
        "wasserstein": {
            "sliced": sliced_wasserstein(found.samples, target),
            "marginals": standardised_marginals(found.samples, target),
            "exact": sliced_wasserstein(exact, target),
            "exact_effective": sliced_wasserstein(independent, target),
        },
        "effective_samples": effective.tolist(),
        "r_hat": [float(r) if np.isfinite(r) else None for r in r_hat],
        "acceptance": found.acceptance,
        "cost": _cost(found, number, float(effective.min())),
        "published": {"source": SOURCE, **dataclasses.asdict(MC2RAM)},
    }
    return {**result, "notes": _notes(found, result)}


def _cost(found: Sampled, number: int, effective: float) -> dict[str, float]:
    """Of the samples, and of burn-in besides."""
    macro = found.macro
    one = iteration_cost(found.target.dimensions, found.target.size, macro.columns)
    burn_in = macro.burn_in * macro.chains
    return {
        "cycles_per_sample": one.cycles,
        "energy_per_sample_pj": one.energy_pj,
        "power_w": one.power_w,
        "cycles": one.cycles * number,
        "energy_pj": one.energy_pj * number,
        "seconds_at_1_ghz": one.cycles * number / MC2RAM.clock_hz,
        "burn_in_cycles": one.cycles * burn_in,
        "burn_in_energy_pj": one.energy_pj * burn_in,
        "energy_per_effective_sample_pj": one.energy_pj * number / effective,
        "cycles_per_effective_sample": one.cycles * number / effective,
    }


def _notes(found: Sampled, result: dict[str, Any]) -> list[str]:
    """What makes the samples doubtful, and what to change."""
    notes, target, macro = [], found.target, found.macro
    disagreeing = [r for r in result["r_hat"] if r is not None and r > DISAGREE]
    if disagreeing:
        notes.append(f"chains disagree (R-hat {max(disagreeing):.2f}): shares of the modes may be wrong; "
                     "raise --samples or burn_in")  # fmt: skip
    if target.size > 1 and not result["component_changes_per_iteration"]:
        advice = "raise dac_bits or jumps" if macro.jumps else "set jumps=0.1"
        notes.append(f"no chain moved from one component to another: the shares are those of the start; {advice}")
    worst = float(found.coarse.max())
    if worst > _COARSE:
        k, j = np.unravel_index(found.coarse.argmax(), found.coarse.shape)
        enough = macro.dac_bits + math.ceil(math.log2(worst / (_COARSE / 2)))
        advice = f"set dac_bits={enough}" if enough <= MOST_DAC_BITS else f"{MOST_DAC_BITS} dac_bits are not enough"
        notes.append(f"the DAC's step is {worst:.2g} standard deviations of component {k} in dimension {j}: "
                     f"too coarse; {advice}")  # fmt: skip
    lsb = 2 * macro.adc_range / 2**macro.adc_bits
    if lsb > 1:
        notes.append(f"the ADC's step is {lsb:.2g} standard deviations: too coarse; raise adc_bits")
    distance = result["wasserstein"]
    expected = max(distance["exact"], distance["exact_effective"])
    if distance["sliced"] > _FAR * expected:
        notes.append(f"the samples are {distance['sliced'] / expected:.1f} times as far from the mixture as chance "
                     "explains: the macro's imperfections show")  # fmt: skip
    return notes
