from __future__ import annotations

import copy
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.workload.networks import Network
from search.data.datasets import digits
from search.sensitivity.calibrate import calibrate, normalised_behind, relative_error, wanted
from search.sensitivity.measure import Trials, helpful, joint, measure
from search.sensitivity.sensitivities import Sensitivities
from search.sensitivity.subject import Subject, mixed_layers
from search.supernet import SearchableNetwork, searchable
from tests.search.conftest import synthetic_table

DATA = digits()


class Branches(nn.Module):
    """Two branches, a layer without normalisation behind it, and one module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.left, self.right = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.Conv2d(6, 6, 1)
        self.shared = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        left, right = self.left(x), self.right(x)
        left += x
        y = torch.cat([self.shared(left), self.shared(right).relu_()], 1)
        scores: Tensor = self.head(y.mean((2, 3)))
        return scores


TABLE = synthetic_table(Network("branches", Branches(), (1, 1, 8, 8)))


def branches(seed: int = 0) -> SearchableNetwork:
    torch.manual_seed(seed)
    return searchable(Branches(), TABLE)


def some(n: int = 2, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    split = DATA.validation
    return [(split.prepared(split.images[i : i + size]), split.labels[i : i + size]) for i in range(0, n * size, size)]


def slowly(model: SearchableNetwork, layer: str, candidate: str, batches: Any) -> float:
    """The loss with one layer changed, by a discretised network of its own, statistics of each batch."""
    rows = [row for row, module in model._rows.items() if module == layer]
    network = model.discretise({row: candidate if row in rows else "T8" for row in TABLE.layers})
    total = 0.0
    for x, y in batches:
        one = copy.deepcopy(network)
        for m in one.modules():
            if type(m).__name__ == "ActivationScale":
                m.momentum = 1.0
        one.train()
        total += float(functional.cross_entropy(one(x), y).detach()) * len(x)
    return total / sum(len(x) for x, _ in batches)


def test_sensitivities_are_the_losses_of_networks_with_one_layer_changed() -> None:
    model, batches = branches(), some()
    with torch.no_grad():
        model(batches[0][0])  # decides which inputs are signed
    before = {k: copy.deepcopy(v) for k, v in model.state_dict().items()}
    found = measure(Subject(model), batches)
    assert found.layers == ("stem", "left", "right", "shared", "head")
    assert found.rows == {"stem": "stem", "left": "left", "right": "right", "shared": "shared", "shared#2": "shared",
                          "head": "head"}  # fmt: skip
    for i, layer in enumerate(found.layers):
        for j, candidate in enumerate(found.candidates):
            assert found.losses[i, j] == pytest.approx(slowly(model, layer, candidate, batches), rel=1e-5)
    column = found.candidates.index("T8")
    assert found.losses[:, column] == pytest.approx(found.reference_loss)
    after = model.state_dict()
    for key, value in before.items():  # the model is as it was
        assert torch.equal(after[key], value) if isinstance(value, Tensor) else after[key] == value
    assert model.training and all(layer.fixed is None for layer in mixed_layers(model).values())


def test_statistics_of_batches_stand_for_renewed_ones() -> None:
    """Both rank the candidates alike where they differ by more than noise."""
    model = trained()
    batches = some(1, 256)
    found = measure(Subject(model), batches)
    renewed = []
    for candidate in found.candidates:
        network = model.discretise(dict.fromkeys(TABLE.layers, "T8") | {"stem": candidate})
        network.train()
        for m in network.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.reset_running_stats()
                m.momentum = None
        with torch.no_grad():
            for start in range(0, 768, 128):
                network(DATA.train.images[start : start + 128])
            network.eval()
            renewed.append(float(functional.cross_entropy(network(batches[0][0]), batches[0][1])))
    measured = found.losses[found.layers.index("stem")]
    assert np.corrcoef(measured, renewed)[0, 1] > 0.95


def trained() -> SearchableNetwork:
    torch.manual_seed(0)
    network = Branches()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(150):
        chosen = torch.arange(step * 64, (step + 1) * 64) % len(DATA.train)
        optimiser.zero_grad()
        functional.cross_entropy(network(DATA.train.images[chosen]), DATA.train.labels[chosen]).backward()
        optimiser.step()
    return searchable(network, TABLE)


def test_a_measurement_goes_on_where_it_stopped() -> None:
    batches = some(3)
    whole = measure(Subject(branches()), batches)
    kept: list[str] = []

    def kill(trials: Trials, done: int, of: int) -> None:
        kept[:] = [json.dumps(vars(trials))]
        assert of == 15
        if done == 7:  # two layers of the second batch
            raise LookupError

    with pytest.raises(LookupError):
        measure(Subject(branches()), batches, on_layer=kill)
    trials = Trials(**json.loads(kept[0]))
    done: list[int] = []
    resumed = measure(Subject(branches()), batches, trials=trials, on_layer=lambda _trials, n, _of: done.append(n))
    assert done == list(range(8, 16))
    assert np.array_equal(resumed.losses, whole.losses) and resumed.images == 192
    again = measure(Subject(branches()), batches, trials=trials, on_layer=lambda *_: pytest.fail("all is done"))
    assert np.array_equal(again.losses, whole.losses) and again.images == 192


def test_a_whole_assignment_is_measured_alike() -> None:
    model, batches = branches(), some()
    subject = Subject(model)
    found = measure(subject, batches)
    names = dict.fromkeys(found.layers, "T8")
    assert joint(subject, batches, names)[0] == pytest.approx(found.reference_loss)
    one = joint(subject, batches, names | {"left": "BC2"})
    assert one[0] == pytest.approx(found.losses[found.layers.index("left"), found.candidates.index("BC2")])
    assert one[1] == pytest.approx(found.accuracies[found.layers.index("left"), found.candidates.index("BC2")])


def test_calibration_lowers_the_error_of_a_layer() -> None:
    subject, batch = Subject(trained()), (DATA.train.images[:256], DATA.train.labels[:256])
    weights, errors = calibrate(subject, batch, "stem", ["MF4", "BC8", "T8"], steps=40, seed=0)
    assert errors["MF4"][1] < 0.8 * errors["MF4"][0]
    assert errors["T8"][0] < 1e-3  # the reference itself
    assert set(weights) == {name for name, (before, after) in errors.items() if after < before}
    again, _ = calibrate(subject, batch, "stem", ["MF4", "BC8", "T8"], steps=40, seed=0)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
    assert calibrate(subject, batch, "stem", ["MF4"], steps=0, seed=0) == ({}, {})


def test_calibrated_weights_are_measured_and_put_back() -> None:
    model = trained()
    batch = (DATA.train.images[:256], DATA.train.labels[:256])
    weights, _ = calibrate(Subject(model), batch, "stem", ["MF4"], steps=40, seed=0)
    own = mixed_layers(model)["stem"].layer.weight.detach().clone()
    plain = measure(Subject(model), some(1, 256))
    found = measure(Subject(model, calibrated={"stem": weights}), some(1, 256))
    at = (found.layers.index("stem"), found.candidates.index("MF4"))
    assert found.losses[at] < plain.losses[at]
    subject, kept = Subject(model, calibrated={"stem": weights}), weights["MF4"].clone()
    names = dict.fromkeys(found.layers, "T8") | {"stem": "MF4"}
    for _ in range(2):  # what is measured last leaves the calibrated weights as they were
        assert joint(subject, some(1, 256), names)[0] == pytest.approx(found.losses[at])
    assert torch.equal(weights["MF4"], kept)
    others = np.ones_like(found.losses, bool)
    others[at] = False
    assert np.array_equal(found.losses[others], plain.losses[others])
    assert torch.equal(mixed_layers(model)["stem"].layer.weight, own)


def test_weights_that_raise_the_loss_do_not_count() -> None:
    model, trials = trained(), Trials()
    zeros = torch.zeros_like(mixed_layers(model)["stem"].layer.weight)
    weights = {"stem": {"BC8": zeros}, "left": {}}
    plain = measure(Subject(model), some(1, 256))
    found = measure(Subject(model, calibrated=weights), some(1, 256), trials=trials)
    assert np.array_equal(found.losses, plain.losses)
    assert helpful(weights, trials) == {"stem": {}, "left": {}}
    assert trials.fitted[0]["stem"]["BC8"][0] > trials.own[0]["stem"]["BC8"][0]


def test_a_normalisation_behind_a_layer_is_found_by_its_effect() -> None:
    subject, images = Subject(trained()), DATA.train.images[:64]
    behind = {name: normalised_behind(subject, images, name) for name in subject.layers}
    assert behind == {"stem": True, "left": False, "right": False, "shared": False, "head": False}


def test_the_relative_error() -> None:
    torch.manual_seed(0)
    target = torch.randn(8, 3, 4, 4)
    assert float(relative_error(target, target, False)) == 0
    assert float(relative_error(2 * target + 1, target, True)) == pytest.approx(0, abs=1e-5)
    assert float(relative_error(2 * target + 1, target, False)) > 1
    assert float(relative_error(torch.randn(8, 3, 4, 4), target, True)) > 0.9


def test_all_but_typical_candidates_are_calibrated() -> None:
    assert wanted(mixed_layers(branches())["stem"]) == ["MF8", "MF4", "MF2", "BC8", "BC4", "BC2"]


def test_a_reference_that_no_layer_has() -> None:
    with pytest.raises(InputError, match=r"^reference: unknown candidate 'T16'"):
        Subject(branches(), "T16")


def test_layers_without_the_reference_have_their_first_candidate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = searchable(Branches(), TABLE, ["T8", "T4"], pins={"head": "BC8"})
    found = measure(Subject(model), some(1))
    head = found.losses[found.layers.index("head")]
    assert np.isinf(head[found.candidates.index("T8")])
    assert head[found.candidates.index("BC8")] == found.reference_loss
    found.save(tmp_path / "s.json")
    loaded = Sensitivities.load(tmp_path / "s.json")
    assert np.array_equal(loaded.losses, found.losses)
    assert np.array_equal(loaded.accuracies, found.accuracies, equal_nan=True)


def test_a_sequential_network_without_normalisation() -> None:
    module = nn.Sequential(OrderedDict(a=nn.Conv2d(1, 4, 3), flat=nn.Flatten(), b=nn.Linear(144, 10)))
    torch.manual_seed(0)
    table = synthetic_table(Network("seq", module, (1, 1, 8, 8)))
    found = measure(Subject(searchable(module, table)), some(1))
    assert found.layers == ("a", "b") and np.isfinite(found.losses).all()
