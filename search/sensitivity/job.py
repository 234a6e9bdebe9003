"""The whole job on a trained network: a study, its front, an assignment for each budget; resumable after each layer.

sensitivities.json   losses and accuracies of every layer and candidate (`search.sensitivity.sensitivities`)
calibrated.pt, measured.json   what is done of the measurements (`search.sensitivity.study`)
front.csv            the whole front: cost, predicted increase of the loss, candidate of each layer
assignments/         the found assignments as YAML
training/            checkpoints of fine-tuned networks
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import nn

from dse.core.files import system_errors, write_text
from dse.table.cost_table import CostTable, Transmission
from dse.table.store import content_key
from search.costs import Held, shares, size_shares
from search.data.sets import Dataset
from search.knapsack import Front, check_budget, front
from search.layers.mixed_layer import MixedLayer
from search.sensitivity.correct import Measured, Measurements, correct, uniform_choices
from search.sensitivity.measure import task_of
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.sensitivity.study import Settings, Study, digest
from search.sensitivity.subject import Subject, measured_choices, mixed_layers, rows_of
from search.supernet import SearchableNetwork
from search.training.allocator import keep_freed_memory
from search.training.checkpoint import Checkpoint, Record
from search.training.epochs import batches
from search.training.settings import Training
from search.training.train import PLAIN, Compute, learn, renew_statistics

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool

__all__ = ["Job", "Settings", "Solution", "default_images"]

OPERATIONS = 2.5e12
"""Multiplications that a measurement may take if the number of images is not given."""

FEWEST, MOST = 256, 1000
"""Held-out images if their number is not given."""


@dataclass(frozen=True)
class Solution:
    """An assignment (layer of the table -> candidate), for a budget or with one candidate in all layers.

    Attributes:
        name: ``0.35`` or ``BC4``.
        budget: None for a uniform one.
        cost: share of the energy, cycles or size of the network with T8 in all layers.
        predicted: the sum of its layers' increases of the loss.
        loss, accuracy: measured on the held-out images with the statistics of their batches; `accuracy` is the metric's
            value if there is another metric.
        trained: what fine-tuning gave: the metric on validation and test images, under the keys of
            `search.training.measures`, and image passes; empty without fine-tuning.
    """

    name: str
    budget: float | None
    assignment: Mapping[str, str]
    cost: float
    predicted: float
    loss: float
    accuracy: float
    trained: Mapping[str, float] = field(default_factory=dict)


def default_images(model: SearchableNetwork, table: CostTable) -> int:
    """Held-out images so that a measurement of every candidate takes about `OPERATIONS`.

    Each layer's candidates are computed with all layers behind it.
    """
    macs = dict(zip(table.layers, table.n_ops, strict=True))
    modules = rows_of(model)
    behind, total = float(sum(macs.values())), 0.0
    for row, module in modules.items():
        total += behind * len(Subject(model, _any(model)).layers[module].candidates)
        behind -= macs[row]
    return int(max(FEWEST, min(MOST, OPERATIONS / max(total, 1.0))))


@dataclass
class Job:
    """Sensitivities and solutions of one network, kept in a folder.

    Args:
        model: with the trained weights.
        table: whose layers the model has.
        data: on the device of `compute`.
        folder: what is done is kept here and not done again for the same network, data and settings.
        identity: what the sensitivities say of their origin, as JSON data.
        quantity: what budgets and front are of.
        compute: loss, metric and device.
        processes: that measure side by side, one on a GPU; or the workers of a cluster.
        on_progress: is called with a word for the work, the number of its parts that are done, and of all.
    """

    model: SearchableNetwork
    table: CostTable
    data: Dataset
    settings: Settings
    folder: Path
    identity: Mapping[str, Any]
    quantity: Held = "energy"
    transmission: Transmission = "all"
    name: str = "network"
    compute: Compute = PLAIN
    processes: int | ClusterPool = 1
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None

    def __post_init__(self) -> None:
        keep_freed_memory()
        with system_errors(self.folder, "cannot be made"):
            (self.folder / "assignments").mkdir(parents=True, exist_ok=True)
        count = self.settings.images or default_images(self.model, self.table)
        self.study = Study(
            self.model, self.data, replace(self.settings, images=count), self.folder,
            task_of(self.compute.criterion, self.compute.metric), self.processes, self.name,
            {**self.identity, "energies": _origin(self.table)},
            lambda what, done, of: self.on_progress(what, done, of),
        )  # fmt: skip

    @functools.cached_property
    def sensitivities(self) -> Sensitivities:
        """Measured, or read if they have been measured; also written."""
        found = self.study.sensitivities
        found.save(self.folder / "sensitivities.json")
        return found

    @functools.cached_property
    def costs(self) -> list[FloatArray]:
        """For each layer of the sensitivities the cost of each candidate; inf for what a layer cannot have."""
        s, table, layers = self.sensitivities, self.table, measured_choices(self.model)
        if self.quantity == "size":
            weights = [m.layer.weight.numel() if isinstance(m := layers[n], MixedLayer) else 0 for n in s.layers]
            return size_shares(weights, [layers[name].candidates for name in s.layers], s.candidates)
        return s.costs(shares(table, self.quantity, self.transmission), table.layers, table.candidates)

    @functools.cached_property
    def front(self) -> Front:
        """The whole front of cost against the predicted increase of the loss; also written."""
        found, s = front(self.sensitivities.increases(), self.costs), self.sensitivities
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([self.quantity, "predicted_loss_increase", *s.layers])
        for cost, value, choice in zip(found.costs, found.values, found.choices, strict=True):
            writer.writerow([f"{cost:.6f}", f"{value:.6f}", *(s.candidates[i] for i in choice)])
        write_text(self.folder / "front.csv", buffer.getvalue())
        return found

    @functools.cached_property
    def measurements(self) -> Measurements:
        """What is measured of whole assignments."""
        assert self.sensitivities.images
        return self.study.measurements(self.costs)

    def uniforms(self) -> list[Solution]:
        """One candidate in all layers, for each that all layers can have; from dear to cheap."""
        measure, names = self.measurements, self.sensitivities.candidates
        choices = uniform_choices(measure.costs, measure.uniform)
        measured = zip(choices, measure.all(list(choices.values())), strict=True)
        found = [self._solution(names[j], None, m) for j, m in measured]
        return sorted(found, key=lambda s: s.cost, reverse=True)

    def solve(self, budget: float) -> Solution:
        """The assignment for a budget, corrected; also written as YAML.

        Its measured loss is not above that of any uniform network of no more cost; see `correct`.

        Raises:
            InputError: a budget below the cheapest assignment.
        """
        check_budget(self.measurements.costs, budget, f"{self.quantity} budget")
        found = self._solution(f"{budget:g}", budget, correct(self.measurements, budget, self.settings.corrections))
        text = yaml.safe_dump(dict(found.assignment), sort_keys=False)
        write_text(self.folder / "assignments" / f"{self.quantity}{budget:g}.yaml", text)
        return found

    def network(self, assignment: Mapping[str, str]) -> nn.Module:
        """The network of an assignment with the calibrated weights and renewed statistics: fine-tuning starts here."""
        network, rows = self.model.discretise(assignment), rows_of(self.model)
        layers = {name: network.get_submodule(name) for name in rows.values()}  # of the layers that were measured
        self.study.load_calibrated({n: m for n, m in layers.items() if isinstance(m, MixedLayer)},
                                   {module: assignment[row] for row, module in rows.items()})  # fmt: skip
        renew_statistics(network, batches(self.data.train, min(256, len(self.data.train)), self.settings.seed, 0))
        return network

    @functools.cached_property
    def _data_key(self) -> str:
        return digest([("x", self.data.train.images), ("y", self.data.train.labels)])

    def finetune(self, found: Solution, training: Training, on_epoch: Callable[[Record], None]) -> Solution:
        """The solution after training of its network."""
        network = self.network(found.assignment)
        folder = self.folder / "training"
        with system_errors(folder, "cannot be made"):
            folder.mkdir(exist_ok=True)
        key = content_key({"key": self.study.key, "assignment": dict(found.assignment), "training": vars(training),
                           "data": self._data_key})  # fmt: skip
        learn(network, self.data, training, self.settings.seed, Checkpoint(folder / f"{key[:16]}.pt"), on_epoch,
              self.compute)  # fmt: skip
        trained = {
            **self.compute.measured(network, self.data.validation, "validation"),
            **self.compute.measured(network, self.data.test, "test"),
            "passes": training.epochs * max(1, len(self.data.train) // training.batch_size) * training.batch_size,
        }
        return replace(found, trained=trained)

    def _solution(self, name: str, budget: float | None, m: Measured) -> Solution:
        return Solution(name, budget, self.sensitivities.assignment(m.choice), m.cost, m.predicted, m.loss, m.accuracy)


def _origin(table: CostTable) -> dict[str, Any]:
    """Which chip the candidates of the layers were mapped on; empty for a table that does not say."""
    return {} if table.provenance is None else json.loads(json.dumps(asdict(table.provenance), default=str))


def _any(model: SearchableNetwork) -> str:
    return next(iter(mixed_layers(model).values())).candidates[0].name
