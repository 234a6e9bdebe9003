"""Layers whose counts are near the limits of 64 bits: exact, or refused by name."""

from __future__ import annotations

import random

import pytest

from dse.core.errors import InputError
from dse.mapper import search
from dse.mapper.divisors import divisors_of
from dse.mapper.kernels.exact import fraction_of
from dse.workload.problem import conv_problem
from tests.dse.mapper.test_optimal import chip


@pytest.mark.parametrize(
    "instance",
    [
        {"C": 4096, "M": 128256, "N": 131072},  # the head of a large language model
        {"N": 72000, "C": 64, "M": 256, "P": 13, "Q": 13, "R": 3, "S": 3},
    ],
)
def test_the_two_access_models_agree_on_huge_layers(instance: dict[str, int]) -> None:
    problem = conv_problem(instance)
    spec, ert = chip(problem, mesh=16, depth=4096)
    found = search(spec, problem, ert, remainders=False)
    assert found.optimal and found.evaluation is not None and found.evaluation.computes == problem.macs


def test_a_layer_beyond_64_bits_is_refused_by_name() -> None:
    problem = conv_problem({"C": 2**21, "M": 2**21, "N": 2**21})
    with pytest.raises(InputError, match="operations"):
        search(*chip(problem)[:1], problem, chip(problem)[1], remainders=False)


def test_a_fraction_of_a_large_number_is_exact() -> None:
    pick = random.Random(0)
    for _ in range(2000):
        whole = pick.randint(1, 2 ** pick.randint(1, 60))
        part, n = pick.randint(1, whole), pick.randint(1, 2 ** pick.randint(1, 61))
        assert fraction_of(n, part, whole) == n * part // whole


def test_divisors() -> None:
    for n in range(1, 300):
        assert divisors_of(n) == [k for k in range(1, n + 1) if n % k == 0]
    assert len(divisors_of(100_000_000)) == 81
