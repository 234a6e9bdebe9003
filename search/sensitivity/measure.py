"""Measures sensitivities: each layer with each candidate in turn, on held-out images, without training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import unknown
from search.data.sets import Split
from search.layers.mixed_layer import MixedLayer
from search.sensitivity.replay import Replay
from search.sensitivity.sensitivities import Sensitivities
from search.supernet import SearchableNetwork

Batch = tuple[Tensor, Tensor]
BATCH = 250
"""Held-out images that are measured at once; normalisation statistics are theirs."""

LossOf = Callable[[Tensor, Tensor], Tensor]
Calibrated = dict[str, dict[str, Tensor]]
"""Module -> candidate -> weights of the layer, fitted for this candidate."""
Losses = dict[str, dict[str, list[float]]]
"""Module -> candidate -> loss and metric."""


def right(scores: Tensor, labels: Tensor) -> Tensor:
    """The share of the images that are classified right, a scalar: the metric of classification.

    Example:
        >>> float(right(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])))
        0.5
    """
    return (scores.argmax(1) == labels).float().mean()


@dataclass(frozen=True)
class Task:
    """What is measured of a network's output.

    Attributes:
        loss: of outputs and labels, a scalar, the mean over the images.
        metric: likewise; the higher, the better.
    """

    loss: LossOf = functional.cross_entropy
    metric: LossOf = right


@dataclass
class Sums:
    """What a measurement has added up so far, over batches of images; resumes where it stopped.

    Attributes:
        batches: number of batches that are in the sums.
        images: number of images in them.
        reference: loss and metric of the reference, each times the number of images.
        layers: module -> candidate -> the same, with the layer's own weights.
        calibrated: the same with calibrated weights, where there are such.
    """

    batches: int = 0
    images: int = 0
    reference: list[float] = field(default_factory=lambda: [0.0, 0.0])
    layers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    calibrated: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def helps(self, layer: str, candidate: str) -> bool:
        """Whether the loss is lower with calibrated weights."""
        own, fitted = self.layers[layer][candidate], self.calibrated.get(layer, {}).get(candidate)
        return fitted is not None and fitted[0] < own[0]


class Subject:
    """A searchable network under measurement: one candidate per layer, statistics of the batch at hand.

    Normalisation statistics, and the scales of inputs that quantisers keep, are those of each batch: they are renewed
    for whatever is measured, without passes over other images. Batches should have 64 images or more.

    Args:
        model: stays as it is outside `measured`.
        reference: the candidate that layers have unless they are changed; layers that cannot have it have their first.
        calibrated: weights that a layer has with a candidate, instead of its own.

    Raises:
        InputError: a reference that no layer has.
    """

    def __init__(self, model: SearchableNetwork, reference: str = "T8", calibrated: Calibrated | None = None) -> None:
        self.model, self.reference, self.calibrated = model, reference, calibrated or {}
        self.layers = mixed_layers(model)
        names = dict.fromkeys(c.name for layer in self.layers.values() for c in layer.candidates)
        if reference not in names:
            raise unknown("reference", "candidate", reference, names)
        self._own = {name: layer.layer.weight.detach().clone() for name, layer in self.layers.items()}

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside, the network computes what is measured; afterwards its state is what it was."""
        state = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self.model.state_dict().items()}
        training = {m: m.training for m in self.model.modules()}
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        fixed = {name: layer.fixed for name, layer in self.layers.items()}
        momenta = [(norm, norm.momentum) for norm in norms]
        scales = [(layer.scale, layer.scale.momentum) for layer in self.layers.values()]
        weights = [(layer.layer.weight, layer.layer.weight.data) for layer in self.layers.values()]
        self.model.eval()
        try:
            for norm in norms:
                norm.train()
            for scale, _ in scales:
                scale.train()
                scale.momentum = 1.0
            self.assign({})
            yield
        finally:
            for norm, momentum in momenta:
                norm.momentum = momentum
            for scale, share in scales:
                scale.momentum = share
            for module, flag in training.items():
                module.training = flag
            for parameter, own in weights:
                parameter.data = own  # before the state is loaded, which would write into calibrated weights
            for name, layer in self.layers.items():
                layer.fixed = fixed[name]
            self.model.load_state_dict(state)

    def set(self, name: str, candidate: str, *, calibrated: bool = True) -> None:
        """Gives a layer a candidate, with the weights that were calibrated for it if there are such and they count."""
        layer = self.layers[name]
        layer.fixed = [c.name for c in layer.candidates].index(candidate)
        fitted = self.calibrated.get(name, {}) if calibrated else {}
        weight = fitted.get(candidate, self._own[name])
        if layer.layer.weight.data_ptr() != weight.data_ptr():
            layer.layer.weight.data = weight

    def reference_of(self, name: str) -> str:
        names = [c.name for c in self.layers[name].candidates]
        return self.reference if self.reference in names else names[0]

    def assign(self, candidates: Mapping[str, str]) -> None:
        """Gives each layer its candidate in `candidates`, by module; the reference where it has none there."""
        for name in self.layers:
            self.set(name, candidates.get(name, self.reference_of(name)))


def measure(
    subject: Subject,
    batches: Sequence[Batch],
    task: Task | None = None,
    sums: Sums | None = None,
    on_layer: Callable[[Sums, int, int], None] | None = None,
    name: str = "network",
    settings: Mapping[str, Any] | None = None,
) -> Sensitivities:
    """Loss and metric on `batches` for each layer and candidate, all other layers having the reference.

    Where a layer has calibrated weights, both are measured and the lower loss counts: to fit a layer's output is not
    always to lower the loss. `helpful` says which weights these are.

    Args:
        batches: held-out images as the network reads them, and labels.
        sums: of batches that are done already; continued in place.
        on_layer: is called with the sums, the batch and the number of layers that are done of it. Only after the last
            layer, the sums are complete and can be kept.
        name, settings: of the result.

    With a network, its cost table and a data set: ``subject = Subject(searchable(network, table))``, then
    ``measure(subject, held_out(data.validation, 500)).increases()``.
    """
    task, sums = task or Task(), sums or Sums()
    order: list[str] = []
    with subject.measured(), torch.no_grad():
        replay = Replay(subject.model.network)
        with replay.patched():
            for i, (images, labels) in enumerate(batches):
                if i < sums.batches and order:
                    continue
                reference = _measured(task, replay.record(images), labels)
                order = order or replay.order(subject.layers)
                if i < sums.batches:
                    continue
                own: Losses = {}
                fitted: Losses = {}
                for done, layer in enumerate(order):
                    own[layer], fitted[layer] = {subject.reference_of(layer): reference}, {}
                    for candidate in (c.name for c in subject.layers[layer].candidates):
                        for calibrated, found in ((False, own[layer]), (True, fitted[layer])):
                            if candidate in own[layer] and not calibrated:
                                continue
                            if calibrated and candidate not in subject.calibrated.get(layer, {}):
                                continue
                            subject.set(layer, candidate, calibrated=calibrated)
                            found[candidate] = _measured(task, replay.run(images, subject.layers[layer]), labels)
                    subject.set(layer, subject.reference_of(layer))
                    if on_layer is not None and done + 1 < len(order):
                        on_layer(sums, i, done + 1)
                _add(sums, reference, own, fitted, len(images))
                if on_layer is not None:
                    on_layer(sums, i, len(order))
    return _sensitivities(subject, sums, order, name, dict(settings or {}))


def helpful(calibrated: Calibrated, sums: Sums) -> Calibrated:
    """Those of the calibrated weights with which the loss was lower than with the layer's own."""
    return {
        layer: {name: weight for name, weight in fitted.items() if sums.helps(layer, name)}
        for layer, fitted in calibrated.items()
    }


def held_out(split: Split, images: int, size: int = BATCH) -> list[Batch]:
    """The first `images` of a split as the network reads them, with labels, in batches of about `size`."""
    count = min(images, len(split))
    parts = max(1, round(count / size))
    bounds = [round(i * count / parts) for i in range(parts + 1)]
    return [(split.prepared(split.images[a:b]), split.labels[a:b]) for a, b in itertools.pairwise(bounds)]


def joint(subject: Subject, batches: Sequence[Batch], candidates: Mapping[str, str], task: Task | None = None
          ) -> tuple[float, float]:  # fmt: skip
    """Loss and metric of a whole assignment, measured as `measure` does.

    Args:
        candidates: module -> candidate.
    """
    task, total, images_seen = task or Task(), [0.0, 0.0], 0
    with subject.measured(), torch.no_grad():
        subject.assign(candidates)
        for images, labels in batches:
            for i, value in enumerate(_measured(task, subject.model.network(images), labels)):
                total[i] += value * len(images)
            images_seen += len(images)
    return total[0] / images_seen, total[1] / images_seen


def mixed_layers(model: SearchableNetwork) -> dict[str, MixedLayer]:
    """Module name in the plain network -> its mixed layer."""
    return {name: layer for name, layer in model.network.named_modules() if isinstance(layer, MixedLayer)}


def rows_of(model: SearchableNetwork) -> dict[str, str]:
    """Layer of the table -> module."""
    return dict(model._rows)


_WORST = 1e6
"""Stands for a loss that is not a number: such a candidate is never better than one that works."""


def _measured(task: Task, scores: Tensor, labels: Tensor) -> list[float]:
    values = [float(task.loss(scores, labels)), float(task.metric(scores, labels))]
    return values if all(map(math.isfinite, values)) else [_WORST, 0.0]


def _add(sums: Sums, reference: list[float], own: Losses, fitted: Losses, images: int) -> None:
    sums.batches += 1
    sums.images += images
    sums.reference = [total + value * images for total, value in zip(sums.reference, reference, strict=True)]
    for total, found in ((sums.layers, own), (sums.calibrated, fitted)):
        for layer, candidates in found.items():
            for candidate, values in candidates.items():
                before = total.setdefault(layer, {}).get(candidate, [0.0, 0.0])
                total[layer][candidate] = [b + v * images for b, v in zip(before, values, strict=True)]


def _sensitivities(
    subject: Subject, sums: Sums, order: Sequence[str], name: str, settings: dict[str, Any]
) -> Sensitivities:
    names = dict.fromkeys(c.name for layer in subject.layers.values() for c in layer.candidates)
    losses = np.full((len(order), len(names)), math.inf)
    accuracies = np.full((len(order), len(names)), math.nan)
    for i, layer in enumerate(order):
        for j, candidate in enumerate(names):
            if candidate in sums.layers[layer]:
                chosen = sums.calibrated if sums.helps(layer, candidate) else sums.layers
                losses[i, j], accuracies[i, j] = (v / sums.images for v in chosen[layer][candidate])
    rows = rows_of(subject.model)
    reference_loss, reference_metric = (v / sums.images for v in sums.reference)
    return Sensitivities(name, subject.reference, reference_loss, reference_metric, tuple(order), tuple(names),
                         losses, accuracies, rows, sums.images, settings)  # fmt: skip
