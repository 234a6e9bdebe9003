"""Macros that compute in memory: recorded runs of `timeloop-model` on arch_specs/cim_macros.yaml."""

from __future__ import annotations

import math

import pytest

from dse.model.evaluation import evaluate
from dse.model.mapping import directives
from tests.dse.engines.timeloop.record_in_memory import CASES, FOLDER, case
from tests.dse.model.test_reuse import recorded


@pytest.mark.parametrize("name", CASES)
def test_counts_energies_and_cycles_are_those_of_timeloop(name: str) -> None:
    spec, problem, mapping, ert, expected = recorded(FOLDER / f"{name}.json")
    found = evaluate(spec, problem, mapping, ert)
    assert (found.cycles, found.computes) == (expected["cycles"], expected["computes"])
    assert {level: set(of) for level, of in found.levels.items()} == {
        level: set(of) for level, of in expected["levels"].items()
    }
    for level, tensors in expected["levels"].items():
        for tensor, accesses in tensors.items():
            near = {"energy_pj": pytest.approx(accesses["energy_pj"], rel=0, abs=0.005001)}
            assert vars(found.levels[level][tensor]) == {**accesses, **near}, (level, tensor)


@pytest.mark.parametrize("name", CASES)
def test_what_was_recorded_is_what_is_shipped(name: str) -> None:
    """The specification, the energies and the optimal mapping are those of today."""
    instance, problem, mapping = case(name)
    spec, layer, old, ert, expected = recorded(FOLDER / f"{name}.json")
    assert layer == problem
    assert directives(spec, layer, old) == directives(instance.spec, problem, mapping)
    found = evaluate(instance.spec, problem, mapping, instance.ert)
    assert ert.tables == instance.ert.tables
    assert math.isclose(found.energy_pj, expected["energy_pj"], abs_tol=0.1)
