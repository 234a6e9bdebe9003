"""The macro's chains: equal to literal loops, with the right stationary distribution, exact for fine converters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from search.sampling.array import Array
from search.sampling.chain import Proposals, run_chains, sample_codes, thresholds
from search.sampling.macro import Macro
from search.sampling.mixture import Mixture, mixture
from search.sampling.random_bits import RandomBits
from tests.search.sampling.literal import LiteralMacro
from tests.search.sampling.mixtures import TWO, random_mixture


@pytest.mark.parametrize(
    ("size", "dimensions", "macro"),
    [
        (2, 2, Macro(burn_in=0)),
        (1, 3, Macro(burn_in=0, adc_bits=3, dac_bits=5, weight_bits=3, proposal_width=1.5)),
        (3, 1, Macro(burn_in=0, adc_bits=1, dac_bits=4, random_bits=3, jumps=0.5, random_correlation=0.4)),
        (4, 5, Macro(burn_in=0, random_bits=7, random_bias=0.1, dac_range=3.0, adc_range=3.0, jumps=0.3)),
        (2, 8, Macro(burn_in=0, jumps=0.0)),
    ],
)
def test_many_chains_move_as_literal_loops_with_the_same_words(size: int, dimensions: int, macro: Macro) -> None:
    target = random_mixture(size, dimensions, seed=size + dimensions)
    array = Array(target, macro)
    found = run_chains(array, 300, seed=5)
    source = RandomBits(macro.chains, macro.random_bits, 5, macro.random_bias, macro.random_correlation)
    words = source.words(300, Proposals(array).words)
    width = 2.38 * (3 / dimensions) ** 0.5 if macro.proposal_width is None else macro.proposal_width
    literal = LiteralMacro(
        target.weights.tolist(), target.means.tolist(), target.covariances.tolist(), dac_bits=macro.dac_bits,
        adc_bits=macro.adc_bits, weight_bits=macro.weight_bits, random_bits=macro.random_bits,
        dac_range=macro.dac_range, adc_range=macro.adc_range, width=width, jumps=macro.jumps,
    )  # fmt: skip
    for chain in range(4):
        start = literal.nearest(target.means[chain % size].tolist())
        walked = list(literal.run(start, words[:, chain].tolist()))
        assert found.codes[:, chain].tolist() == walked
    assert len({tuple(state) for state in walked}) > 10


@pytest.mark.parametrize(
    ("target", "macro"),
    [
        (TWO, Macro(dac_bits=3, adc_bits=4, random_bits=3, weight_bits=4)),
        (TWO, Macro(dac_bits=3, adc_bits=1, random_bits=2, jumps=0.5)),
        (random_mixture(3, 1, seed=2), Macro(dac_bits=6, adc_bits=5, random_bits=6, jumps=0.25)),
        (random_mixture(1, 3, seed=3), Macro(dac_bits=2, adc_bits=6, random_bits=2)),
    ],
)
def test_the_quantised_density_is_stationary(target: Mixture, macro: Macro) -> None:
    """All proposal words one by one, and acceptances with their exact probabilities: pi P = pi, and in balance."""
    array, proposals = Array(target, macro), Proposals(Array(target, macro))
    states = np.array(list(itertools.product(range(array.points), repeat=target.dimensions)))
    pi = np.exp(array.log_density(states))
    pi /= pi.sum()
    words = np.array(list(itertools.product(range(2**macro.random_bits), repeat=proposals.words - 1)))
    moves, counts = np.unique(proposals.moves(words), axis=0, return_counts=True)
    transition = np.zeros((len(states), len(states)))
    place = array.points ** np.arange(target.dimensions - 1, -1, -1)
    for move, count in zip(moves, counts, strict=True):
        there = states + move
        inside = ((there >= 0) & (there < array.points)).all(1)
        origin, end = np.flatnonzero(inside), there[inside] @ place
        transition[origin, end] += count / len(words) * np.minimum(1, pi[end] / pi[origin])
    transition[np.arange(len(states)), np.arange(len(states))] += 1 - transition.sum(1)
    assert np.allclose(pi @ transition, pi, atol=1e-12)
    flows = pi[:, None] * transition
    assert np.allclose(flows, flows.T, atol=1e-12)
    assert pi.max() > 2 * pi.min() or macro.adc_bits == 1


def test_acceptance_words_accept_with_the_probability_of_metropolis() -> None:
    log_uniform = thresholds(Macro(random_bits=8))
    for ratio in (1.0, 0.7, 0.5, 0.01):
        assert (log_uniform < np.log(ratio)).mean() == pytest.approx(ratio, abs=1 / 256)


def test_moves_and_moves_back_are_as_probable() -> None:
    proposals = Proposals(Array(random_mixture(3, 2, seed=0), Macro(random_bits=4, jumps=0.5)))
    words = np.array(list(itertools.product(range(16), repeat=5)))
    moves, counts = np.unique(proposals.moves(words), axis=0, return_counts=True)
    of = {tuple(move): count for move, count in zip(moves.tolist(), counts.tolist(), strict=True)}
    assert all(of[tuple(-x for x in move)] == count for move, count in of.items()) and len(of) > 20


@pytest.mark.parametrize(("size", "dimensions"), [(1, 1), (2, 2), (6, 2), (3, 5), (2, 8)])
def test_fine_converters_and_ideal_bits_sample_the_mixture(size: int, dimensions: int) -> None:
    target = random_mixture(size, dimensions, seed=10 * size + dimensions, spread=1.0)
    fine = Macro(dac_bits=12, adc_bits=12, weight_bits=14, random_bits=16, adc_range=8.0, chains=400, burn_in=1000)
    array, found = sample_codes(target, fine, 800_000, seed=1)
    samples = array.values(found.codes)
    of_chains = samples.mean(0)  # independent of one another: their spread is the statistical error
    error = of_chains.std(0) / np.sqrt(fine.chains)
    assert (np.abs(of_chains.mean(0) - target.mean) < 4.5 * error).all()
    apart = (samples - target.mean) ** 2
    variances = apart.mean(0)
    error = variances.std(0) / np.sqrt(fine.chains)
    assert (np.abs(variances.mean(0) - np.diagonal(target.covariance)) < 4.5 * error).all()


def test_modes_far_apart_get_their_weights_by_jumps_alone() -> None:
    far = mixture([0.8, 0.2], [[-40.0, 0.0], [40.0, 5.0]], [np.eye(2), 0.5 * np.eye(2)])
    shares = {}
    for jumps in (0.0, 0.2):
        array, found = sample_codes(far, Macro(jumps=jumps, dac_bits=10), 200_000)
        shares[jumps] = (far.nearest(array.values(found.codes)) == 0).mean()
    assert shares[0.0] == 0.5  # where the chains were started
    assert shares[0.2] == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("field", ["adc_bits", "dac_bits", "random_bits"])
def test_one_bit_of_anything_gives_samples_on_the_grid(field: str) -> None:
    array, found = sample_codes(TWO, Macro(**{field: 1}), 5000)
    assert found.codes.max() < array.points and np.isfinite(array.values(found.codes)).all()


def test_the_seed_decides_everything() -> None:
    one, same, other = (run_chains(Array(TWO, Macro()), 20, seed).codes for seed in (1, 1, 2))
    assert (one == same).all() and not (one == other).all()
