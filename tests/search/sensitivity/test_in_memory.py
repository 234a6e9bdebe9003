"""Sensitivities of candidates in memory: measured by exact sums, fitted with noise that depends on the seed alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dse.hardware.candidate import Macro
from dse.hardware.candidates import load_candidates
from dse.workload.networks import Network
from search.layers.mixed_layer import MixedLayer
from search.sensitivity.calibrate import calibrate, wanted
from search.sensitivity.measure import measure
from search.sensitivity.subject import Subject, mixed_layers
from search.supernet import SearchableNetwork, searchable
from tests.search.conftest import synthetic_table
from tests.search.sensitivity.test_measure import Branches, some

CANDIDATES = tuple(
    replace(c, macro=Macro(15, 3, 15)) if c.name in ("T4", "MF8", "BC4") else c for c in load_candidates()
)
TABLE = synthetic_table(Network("branches", Branches(), (1, 1, 8, 8)))


def network() -> SearchableNetwork:
    torch.manual_seed(0)
    model = searchable(Branches(), TABLE, operators=CANDIDATES)
    model.train()
    with torch.no_grad():
        for x, _ in some():
            model(x)
    return model


def slowly(model: SearchableNetwork, candidate: str, x: Tensor, labels: Tensor) -> float:
    """The loss with one layer changed, by a discretised network of its own whose layers do not train."""
    network = model.discretise({row: candidate if row == "left" else "T8" for row in TABLE.layers}).train()
    for layer in network.modules():
        if isinstance(layer, MixedLayer):
            layer.training, layer.scale.momentum = False, 1.0
    with torch.no_grad():
        return float(functional.cross_entropy(network(x), labels))


def test_losses_are_those_of_the_exact_sums() -> None:
    model, batches = network(), some(1)
    found = measure(Subject(model), batches)
    for i, layer in enumerate(found.layers):
        for j, candidate in enumerate(found.candidates):
            if layer == "left" and candidate in ("T4", "MF8", "BC4"):
                assert found.losses[i, j] == pytest.approx(slowly(model, candidate, *batches[0]), rel=1e-5)


def test_typical_candidates_in_memory_are_calibrated_too() -> None:
    layer = mixed_layers(network())["left"]
    assert {"T4", "MF8"} <= {*wanted(layer)} and "T8" not in wanted(layer)


def test_fitted_weights_depend_on_the_seed_alone() -> None:
    subject, batch = Subject(network()), some(1, 128)[0]
    fits = []
    for other in (1, 2):
        torch.manual_seed(other)
        fits.append(calibrate(subject, batch, "left", ["T4", "MF8"], steps=5, seed=3))
    (weights, errors), (again, errors_again) = fits
    assert errors == errors_again and weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
