"""The whole job on a trained network: calibrate, measure, solve for each budget, correct; resumable after each batch.

sensitivities.json   losses and accuracies of every layer and candidate (`search.sensitivity.sensitivities`)
calibrated.pt        weights that were fitted, by module and candidate
partial.json         sums of the batches that are done
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from dse.core.documents import read_json
from dse.core.files import system_errors, write_atomically, write_json, write_text
from dse.table.cost_table import CostTable, Transmission
from dse.table.store import content_key
from search.costs import Quantity, shares
from search.data.sets import Dataset
from search.knapsack import Front, check_budget, front
from search.layers.mixed_layer import MixedLayer
from search.sensitivity.calibrate import calibrate, wanted
from search.sensitivity.correct import Choice, Measured, Measurements, correct, uniform_choices
from search.sensitivity.measure import BATCH, Calibrated, Subject, Sums, held_out, helpful, joint, measure, rows_of
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.supernet import SearchableNetwork
from search.training.checkpoint import Checkpoint, Record
from search.training.settings import Training
from search.training.train import accuracy, batches, learn, renew_statistics

OPERATIONS = 2.5e12
"""Multiplications that a measurement may take if the number of images is not given."""

FEWEST, MOST = 256, 1000
"""Held-out images if their number is not given."""


@dataclass(frozen=True)
class Settings:
    """What decides the sensitivities of a network.

    Attributes:
        images: held-out images per measurement; None for as many as `default_images` says.
        reference: candidate of the layers that are not changed.
        calibration_steps: of each layer and candidate that is calibrated; 0 for none.
        calibration_images: training images that layers are calibrated with.
        corrections: assignments that are measured around each solution.
        seed: of all draws.
    """

    images: int | None = None
    reference: str = "T8"
    calibration_steps: int = 20
    calibration_images: int = 512
    corrections: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Solution:
    """An assignment (layer of the table -> candidate), for a budget or with one candidate in all layers.

    Attributes:
        name: ``0.35`` or ``BC4``.
        budget: None for a uniform one.
        cost: share of the reference network's energy or cycles.
        predicted: the sum of its layers' increases of the loss.
        loss, accuracy: measured on the held-out images with the statistics of their batches.
        trained: what fine-tuning gave: validation and test accuracy, image passes; empty without fine-tuning.
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
        folder: what is done is kept here and not done again if `identity` is the same.
        identity: what else decides the results, as JSON data: digests of weights and data.
        on_progress: is called with a word for the work, the number of its parts that are done, and of all.
    """

    model: SearchableNetwork
    table: CostTable
    data: Dataset
    settings: Settings
    folder: Path
    identity: Mapping[str, Any]
    quantity: Quantity = "energy"
    transmission: Transmission = "all"
    name: str = "network"
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None

    def __post_init__(self) -> None:
        with system_errors(self.folder, "cannot be made"):
            (self.folder / "assignments").mkdir(parents=True, exist_ok=True)
        count = self.settings.images or default_images(self.model, self.table)
        self.batches = held_out(self.data.validation, count, BATCH)
        self._key = content_key({
            "identity": dict(self.identity), "images": [len(y) for _, y in self.batches],
            "reference": self.settings.reference, "steps": self.settings.calibration_steps,
            "from": self.settings.calibration_images, "seed": self.settings.seed,
            "candidates": {n: [c.name for c in layer.candidates] for n, layer in Subject(
                self.model, self.settings.reference).layers.items()},
        })  # fmt: skip

    @functools.cached_property
    def calibrated(self) -> Calibrated:
        """Weights by module and candidate, all that were fitted."""
        file = self.folder / "calibrated.pt"
        kept: dict[str, Any] = {}
        if file.exists():
            try:
                kept = torch.load(file, map_location="cpu", weights_only=True)
            except Exception:  # a damaged file: torch raises many kinds
                kept = {}
        found: Calibrated = kept["weights"] if kept.get("key") == self._key else {}
        subject, train = Subject(self.model, self.settings.reference), self.data.train
        few = self.settings.calibration_images
        for i, (name, layer) in enumerate(subject.layers.items()):
            if name not in found:
                batch = (train.prepared(train.images[:few]), train.labels[:few])
                found[name] = calibrate(
                    subject, batch, name, wanted(layer), self.settings.calibration_steps, self.settings.seed
                )[0]
                state = {"key": self._key, "weights": found}
                write_atomically(file, lambda path, state=state: torch.save(state, path))  # type: ignore[misc]
            self.on_progress("calibrating", i + 1, len(subject.layers))
        return found

    @functools.cached_property
    def subject(self) -> Subject:
        """The network with the calibrated weights that lower the loss."""
        assert self.sensitivities.images
        return Subject(self.model, self.settings.reference, helpful(self.calibrated, self._sums))

    @functools.cached_property
    def sensitivities(self) -> Sensitivities:
        """Measured, or read if they have been measured."""
        file, partial = self.folder / "sensitivities.json", self.folder / "partial.json"
        subject, sums = Subject(self.model, self.settings.reference, self.calibrated), Sums()
        if partial.exists():
            document = read_json(partial)
            if isinstance(document, dict) and document.get("key") == self._key:
                sums = Sums(**document["sums"])

        def keep(sums: Sums, batch: int, layers: int) -> None:
            if layers == len(subject.layers):
                write_json(partial, {"key": self._key, "sums": vars(sums)})
            self.on_progress("measuring", batch * len(subject.layers) + layers,
                             len(self.batches) * len(subject.layers))  # fmt: skip

        settings = {**vars(self.settings), **self.identity, "energies": _origin(self.table)}
        settings.pop("images")
        found = measure(subject, self.batches, None, sums, keep, self.name, settings)
        found.save(file)
        self._sums = sums
        return found

    @functools.cached_property
    def costs(self) -> list[FloatArray]:
        """For each layer of the sensitivities the cost of each candidate."""
        table = self.table
        return self.sensitivities.costs(shares(table, self.quantity, self.transmission), table.layers, table.candidates)

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

        def evaluate(choice: Choice) -> tuple[float, float]:
            s = self.sensitivities
            names = {layer: s.candidates[i] for layer, i in zip(s.layers, choice, strict=True)}
            return joint(self.subject, self.batches, names)

        return Measurements(self.sensitivities.increases(), self.costs, evaluate)

    def uniforms(self) -> list[Solution]:
        """One candidate in all layers, for each that all layers can have; from dear to cheap."""
        choices = sorted(uniform_choices(self.costs), key=self.measurements.cost, reverse=True)
        return [self._solution(self.sensitivities.candidates[c[0]], None, self.measurements(c)) for c in choices]

    def solve(self, budget: float) -> Solution:
        """The assignment for a budget, corrected; also written as YAML.

        Raises:
            InputError: a budget below the cheapest assignment.
        """
        check_budget(self.costs, budget, f"{self.quantity} budget")
        found = self._solution(f"{budget:g}", budget, correct(self.measurements, budget, self.settings.corrections))
        text = yaml.safe_dump(dict(found.assignment), sort_keys=False)
        write_text(self.folder / "assignments" / f"{self.quantity}{budget:g}.yaml", text)
        return found

    def network(self, assignment: Mapping[str, str]) -> nn.Module:
        """The network of an assignment with the calibrated weights and renewed statistics: fine-tuning starts here."""
        network = self.model.discretise(assignment)
        load_calibrated(network, assignment, rows_of(self.model), self.subject.calibrated)
        renew_statistics(network, batches(self.data.train, min(256, len(self.data.train)), self.settings.seed, 0))
        return network

    def finetune(self, found: Solution, training: Training, on_epoch: Callable[[Record], None]) -> Solution:
        """The solution after training of its network."""
        network = self.network(found.assignment)
        folder = self.folder / "training"
        with system_errors(folder, "cannot be made"):
            folder.mkdir(exist_ok=True)
        key = content_key({"key": self._key, "assignment": dict(found.assignment), "training": vars(training)})
        learn(network, self.data, training, self.settings.seed, Checkpoint(folder / f"{key[:16]}.pt"), on_epoch)
        trained = {
            "validation_accuracy": accuracy(network, self.data.validation),
            "test_accuracy": accuracy(network, self.data.test),
            "passes": training.epochs * max(1, len(self.data.train) // training.batch_size) * training.batch_size,
        }
        return Solution(found.name, found.budget, found.assignment, found.cost, found.predicted, found.loss,
                        found.accuracy, trained)  # fmt: skip

    def _solution(self, name: str, budget: float | None, m: Measured) -> Solution:
        return Solution(name, budget, self.sensitivities.assignment(m.choice), m.cost, m.predicted, m.loss, m.accuracy)


def _origin(table: CostTable) -> dict[str, Any]:
    """Which chip the candidates of the layers were mapped on; empty for a table that does not say."""
    return {} if table.provenance is None else json.loads(json.dumps(asdict(table.provenance), default=str))


def load_calibrated(
    network: nn.Module, assignment: Mapping[str, str], rows: Mapping[str, str], calibrated: Calibrated
) -> None:
    """Gives the layers of a discretised network the weights that were calibrated for their candidates, in place.

    Args:
        rows: layer of the table -> module.
    """
    for row, module in rows.items():
        weight: Tensor | None = calibrated.get(module, {}).get(assignment[row])
        if weight is not None:
            layer = network.get_submodule(module)
            assert isinstance(layer, MixedLayer)
            with torch.no_grad():
                layer.layer.weight.copy_(weight)


def _any(model: SearchableNetwork) -> str:
    from search.sensitivity.measure import mixed_layers

    return next(iter(mixed_layers(model).values())).candidates[0].name
