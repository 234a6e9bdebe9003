"""Noise of assignments: torch's by default, bit for bit; inside SRAM rightly distributed, and its cost counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.sampling.macro import Macro
from search.sampling.sampler import EXACT, InMemory, sampler_of

FINE = Macro(dac_bits=14, adc_bits=14, weight_bits=14, random_bits=20, burn_in=60)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_exact_sampler_draws_what_torch_draws() -> None:
    assert torch.equal(EXACT.uniform(9, generator()), torch.rand(9, generator=generator(), dtype=torch.float64))
    torch.manual_seed(3)
    expected = torch.empty(50).exponential_()
    torch.manual_seed(3)
    assert torch.equal(EXACT.exponential(50), expected)


@pytest.mark.parametrize("macro", [FINE, Macro()])
def test_numbers_of_the_macro_have_the_distributions_that_are_asked_for(macro: Macro) -> None:
    number = 20_000
    uniform = np.sort(InMemory(macro).uniform(number, generator()).numpy())
    assert uniform[0] > 0 and uniform[-1] < 1
    distance = np.abs(uniform - (np.arange(number) + 0.5) / number).max()
    assert (
        distance < 1.63 / number**0.5 + 0.4 * 10 / 2**macro.dac_bits
    )  # Kolmogorov-Smirnov at 1 %, and the grid's step
    exponential = InMemory(macro).exponential(number, generator())
    assert exponential.dtype == torch.float32
    assert float(exponential.mean()) == pytest.approx(1, abs=0.03)
    assert float(exponential.var()) == pytest.approx(1, abs=0.1)


def chosen(macro: Macro) -> np.ndarray:
    """How often Gumbel noise of the macro chooses each of three candidates with the weights 0.6, 0.3 and 0.1."""
    gumbel = -(-InMemory(macro).uniform(60_000, generator(1)).log()).log().reshape(-1, 3)
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    return np.bincount((weights.log() + gumbel).argmax(1), minlength=3) / 20_000


def test_candidates_are_chosen_by_their_weights_and_imperfect_bits_show() -> None:
    expected = np.array([0.6, 0.3, 0.1])
    assert np.abs(chosen(FINE) - expected).max() < 0.012
    assert np.abs(chosen(Macro()) - expected).max() < 0.02
    assert np.abs(chosen(Macro(random_correlation=0.7)) - expected).max() > 0.04


def test_the_generator_decides_the_numbers_and_all_iterations_are_counted() -> None:
    sampler = InMemory(Macro(burn_in=10))
    one, other = (sampler.uniform(100, generator(s)) for s in (0, 1))
    assert torch.equal(one, InMemory(Macro(burn_in=10)).uniform(100, generator(0))) and not torch.equal(one, other)
    assert sampler.exponential(0).shape == (0,)
    cost = sampler.sampling()
    assert cost == {"sampler": "mc2ram", "numbers": 200, "iterations": 2200, "cycles": 8800.0,
                    "energy_pj": pytest.approx(2200 * 0.364 / 4)}  # fmt: skip


def test_noise_is_finite_however_wide_the_grid() -> None:
    wild = Macro(dac_range=100.0, adc_bits=1, adc_range=100.0, proposal_width=100.0)
    uniform, exponential = InMemory(wild).uniform(5000, generator()), InMemory(wild).exponential(5000, generator())
    assert 0 < float(uniform.min()) < 1e-9 and float(uniform.max()) < 1
    assert float(exponential.min()) > 0 and bool(torch.isfinite(exponential.log()).all())


def test_more_numbers_than_a_macro_may_have_chains_are_drawn() -> None:
    assert InMemory(Macro(burn_in=0)).uniform(70_000, generator()).shape == (70_000,)


def test_samplers_are_found_by_name() -> None:
    found = sampler_of("mc2ram", Macro(adc_bits=3))
    assert isinstance(found, InMemory) and found.macro.adc_bits == 3
