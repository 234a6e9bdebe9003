"""Measures sensitivities: each layer with each candidate in turn, on held-out images, without training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from search.data.sets import Split
from search.sensitivity.crew import Crew
from search.sensitivity.replay import Replay
from search.sensitivity.sensitivities import Sensitivities
from search.sensitivity.subject import Calibrated, Subject, constant_rows, rows_of
from search.training.metrics import Criterion, Metric

Batch = tuple[Tensor, Tensor]
BATCH = 250
"""Held-out images that are measured at once; normalisation statistics are theirs."""

_WORST = 1e6
"""Stands for a loss that is not a number: such a candidate is never better than one that works."""

LossOf = Callable[[Tensor, Tensor], Tensor]
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
        metric: likewise.
        names: of loss and metric, as configurations have them.
        higher_is_better: the direction of the metric.
    """

    loss: LossOf = functional.cross_entropy
    metric: LossOf = right
    names: tuple[str, str] = ("cross_entropy", "accuracy")
    higher_is_better: bool = True

    def of(self, outputs: Tensor, labels: Tensor) -> list[float]:
        """Loss and metric; bad values in place of those that are not finite."""
        values = [float(self.loss(outputs, labels)), float(self.metric(outputs, labels))]
        if all(map(math.isfinite, values)):
            return values
        return [_WORST, 0.0 if self.higher_is_better else _WORST]


def task_of(criterion: Criterion, metric: Metric) -> Task:
    """The task of a loss and a metric of a configuration; of the metric, the mean over batches is measured.

    Example:
        >>> from search.training.metrics import criterion_of, metric_of
        >>> task = task_of(criterion_of("mse"), metric_of("mae", "mse"))
        >>> task.of(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [5.0]])), task.names
        ([2.0, 1.0], ('mse', 'mae'))
    """

    def measured(outputs: Tensor, labels: Tensor) -> Tensor:
        if metric.sums is None:
            assert metric.whole is not None
            return torch.as_tensor(float(metric.whole(outputs, labels)))
        return torch.as_tensor(metric.value(metric.sums(outputs, labels)))

    measure = metric.measure
    return Task(criterion, measured, (criterion.name, measure.name), measure.higher_is_better)


class Trial(NamedTuple):
    """Loss and metric of one layer's candidates on a batch: with the layer's own weights, and with calibrated ones."""

    own: dict[str, list[float]]
    fitted: dict[str, list[float]]


@dataclass
class Trials:
    """What a measurement has found so far, batch by batch of images; it resumes where it stopped. JSON data.

    Attributes:
        images: number of images of each batch.
        reference: loss and metric of the reference.
        own: module -> candidate -> loss and metric, with the layer's own weights.
        fitted: likewise with calibrated weights, where there are such.
    """

    images: list[int] = field(default_factory=list)
    reference: list[list[float]] = field(default_factory=list)
    own: list[Losses] = field(default_factory=list)
    fitted: list[Losses] = field(default_factory=list)

    def begin(self, images: int, reference: list[float]) -> None:
        """A new batch."""
        self.images.append(images)
        self.reference.append(reference)
        self.own.append({})
        self.fitted.append({})

    def helps(self, layer: str, candidate: str) -> bool:
        """Whether the loss on the first batch is lower with calibrated weights."""
        fitted = self.fitted[0].get(layer, {}).get(candidate)
        return fitted is not None and fitted[0] < self.own[0][layer][candidate][0]

    def mean(self, layer: str, candidate: str) -> list[float]:
        """Loss and metric over all images, with the weights of which the loss on the first batch is lower."""
        chosen = self.fitted if self.helps(layer, candidate) else self.own
        return self._mean([batch[layer][candidate] for batch in chosen])

    def mean_reference(self) -> list[float]:
        """Loss and metric of the reference over all images."""
        return self._mean(self.reference)

    def _mean(self, values: Sequence[Sequence[float]]) -> list[float]:
        total = sum(self.images)
        return [sum(v[k] * n for v, n in zip(values, self.images, strict=True)) / total for k in (0, 1)]


class Bench:
    """Where a subject is measured, layer by layer of a batch, or as a whole.

    Args:
        batches: held-out images as the network reads them, and labels.
    """

    def __init__(self, subject: Subject, batches: Sequence[Batch], task: Task | None = None) -> None:
        self.subject, self.batches, self.task = subject, batches, task or Task()
        self._open: ExitStack | None = None
        self._at: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        assert self._open is None
        return {"subject": self.subject, "batches": self.batches, "task": self.task, "_open": None, "_at": None}

    def close(self) -> None:
        """The network is as it was before anything was measured."""
        if self._open is not None:
            self._open.close()
            self._open, self._at = None, None

    def order(self) -> list[str]:
        """The layers in the order in which they are computed."""
        self._record(0)
        return self._replay.order(self.subject.layers)

    def reference(self, batch: int) -> list[float]:
        """Loss and metric of the reference."""
        return self.task.of(self._record(batch), self.batches[batch][1])

    @torch.no_grad()
    def layer(self, batch: int, layer: str, wanted: Sequence[tuple[str, bool]]) -> Trial:
        """Loss and metric with one layer changed.

        Args:
            wanted: each candidate, and whether with calibrated weights.
        """
        if self._at != batch:
            self._record(batch)
        images, labels = self.batches[batch]
        trial = Trial({}, {})
        for candidate, calibrated in wanted:
            self.subject.set(layer, candidate, calibrated=calibrated)
            scores = self._replay.run(images, self.subject.layers[layer])
            (trial.fitted if calibrated else trial.own)[candidate] = self.task.of(scores, labels)
        self.subject.set(layer, self.subject.reference_of(layer))
        return trial

    def joint(self, candidates: Mapping[str, str]) -> list[float]:
        """Loss and metric of a whole assignment, module -> candidate, on all batches; measured as single layers are."""
        self.close()
        total, images_seen = [0.0, 0.0], 0
        with self.subject.measured(), torch.no_grad():
            self.subject.assign(candidates)
            for images, labels in self.batches:
                for i, value in enumerate(self.task.of(self.subject.model.network(images), labels)):
                    total[i] += value * len(images)
                images_seen += len(images)
        return [value / images_seen for value in total]

    @torch.no_grad()
    def _record(self, batch: int) -> Any:
        """The output of the reference."""
        if self._open is None:
            self._replay, self._open = Replay(self.subject.model.network), ExitStack()
            self._open.enter_context(self.subject.measured())
            # The first images decide which inputs are signed, whichever batch comes next.
            self.subject.model.network(self.batches[0][0])
            self._open.enter_context(self._replay.patched())
        self._at = batch
        return self._replay.record(self.batches[batch][0])


Part = tuple[int, str, Sequence[tuple[str, bool]]]
"""A batch, a layer, and its candidates, each with whether it has calibrated weights."""


def try_layer(bench: Bench, part: Part) -> Trial:
    """`Bench.layer`, as a `Crew` does it."""
    return bench.layer(*part)


def try_whole(bench: Bench, candidates: tuple[tuple[str, str], ...]) -> list[float]:
    """`Bench.joint`, as a `Crew` does it."""
    return bench.joint(dict(candidates))


def measure(
    subject: Subject,
    batches: Sequence[Batch],
    task: Task | None = None,
    trials: Trials | None = None,
    on_layer: Callable[[Trials, int, int], None] | None = None,
    name: str = "network",
    settings: Mapping[str, Any] | None = None,
    crew: Crew | None = None,
) -> Sensitivities:
    """Loss and metric on `batches` for each layer and candidate, all other layers having the reference.

    Where a layer has calibrated weights, they and its own are measured on the first batch, and those of the lower loss
    there on the others: to fit a layer's output is not always to lower the loss. `helpful` says which weights these
    are.

    Args:
        batches: held-out images as the network reads them, and labels.
        trials: what is done already; continued in place.
        on_layer: is called after each layer with the trials, the number of layers of all batches that are done, and of
            how many.
        name, settings: of the result.
        crew: who does the work.

    With a network, its cost table and a data set: ``subject = Subject(searchable(network, table))``, then
    ``measure(subject, held_out(data.validation, 500)).increases()``.
    """
    trials, crew = trials or Trials(), crew or Crew()
    bench = Bench(subject, batches, task)
    try:
        order = bench.order()
        for i, (images, _) in enumerate(batches):
            if len(trials.images) == i:
                trials.begin(len(images), bench.reference(i))
            left = [(i, layer, _wanted(subject, trials, i, layer)) for layer in order if layer not in trials.own[i]]
            done = i * len(order) + len(order) - len(left)
            for (_, layer, _), found in crew.do(try_layer, bench, left):  # dear ones first: they end together
                same = {subject.reference_of(layer): trials.reference[i]}
                trials.own[i][layer], trials.fitted[i][layer] = {**same, **found.own}, found.fitted
                done += 1
                if on_layer is not None:
                    on_layer(trials, done, len(batches) * len(order))
    finally:
        bench.close()
    return _sensitivities(subject, trials, order, name, dict(settings or {}), bench.task)


def _wanted(subject: Subject, trials: Trials, batch: int, layer: str) -> list[tuple[str, bool]]:
    """What is measured of a layer on a batch: on the first one, calibrated weights and its own."""
    wanted, reference = [], subject.reference_of(layer)
    for name in (c.name for c in subject.layers[layer].candidates):
        fitted = name in subject.calibrated.get(layer, {})
        helps = batch > 0 and fitted and trials.helps(layer, name)
        if name != reference and not helps:
            wanted.append((name, False))
        if helps or (fitted and batch == 0):
            wanted.append((name, True))
    return wanted


def helpful(calibrated: Calibrated, trials: Trials) -> Calibrated:
    """Those of the calibrated weights with which the loss was lower than with the layer's own."""
    return {
        layer: {name: weight for name, weight in fitted.items() if trials.helps(layer, name)}
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
    loss, metric = Bench(subject, batches, task).joint(candidates)
    return loss, metric


def _sensitivities(
    subject: Subject, trials: Trials, order: Sequence[str], name: str, settings: dict[str, Any], task: Task
) -> Sensitivities:
    names = dict.fromkeys(c.name for layer in subject.layers.values() for c in layer.candidates)
    losses = np.full((len(order), len(names)), math.inf)
    accuracies = np.full((len(order), len(names)), math.nan)
    for i, layer in enumerate(order):
        for j, candidate in enumerate(names):
            if candidate in trials.own[0][layer]:
                losses[i, j], accuracies[i, j] = trials.mean(layer, candidate)
    rows = rows_of(subject.model)
    reference_loss, reference_metric = trials.mean_reference()
    return Sensitivities(name, subject.reference, reference_loss, reference_metric, tuple(order), tuple(names),
                         losses, accuracies, rows, sum(trials.images), settings, *task.names,
                         constant_rows(subject.model, subject.reference))  # fmt: skip
