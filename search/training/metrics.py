"""What networks learn from and what they are judged by: losses and metrics by name, or functions of one's own.

The defaults are those of classification, the mean cross entropy and the accuracy. Names and directions are in
`search.training.measures`, which does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.workload.networks import reason
from search.data.sets import Dataset, Split
from search.training.functions import own_function
from search.training.measures import ACCURACY, LOSSES, METRICS, OWN, Measure

IGNORED = -100
"""A label that neither loss nor metric counts, as in torch."""


@dataclass(frozen=True)
class Criterion:
    """L_acc of Eq. 2a: a scalar from a network's outputs and the targets of a batch.

    Args:
        name: as a configuration names it.
        function: outputs, targets -> scalar.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.function(outputs, targets)


@dataclass(frozen=True)
class Metric:
    """What is measured of a network on a split.

    Args:
        measure: its name and direction.
        sums: outputs, targets -> what is added up over batches, in float64; of a function of one's own None.
        value: the sums -> the metric.
        whole: outputs, targets of a whole split -> the metric, for what cannot be added up.
    """

    measure: Measure
    sums: Callable[[Tensor, Tensor], Tensor] | None = None
    value: Callable[[Tensor], float] = float
    whole: Callable[[Tensor, Tensor], float] | None = None

    @torch.no_grad()
    def of(self, network: nn.Module, split: Split, batch_size: int = 1000) -> float:
        """The metric of `network` in evaluation, in float32, on all of a split."""
        network.eval()
        batches = zip(torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True)
        if self.sums is None:
            assert self.whole is not None
            outputs = torch.cat([network(split.prepared(images)) for images, _ in batches])
            return float(self.whole(outputs, split.labels))
        total = None
        for images, targets in batches:
            found = self.sums(network(split.prepared(images)), targets)
            total = found if total is None else total + found
        assert total is not None
        return self.value(total)


def criterion_of(name: str) -> Criterion:
    """The loss of a configuration: one of `LOSSES`, or ``package.module:function`` of outputs and targets.

    Raises:
        InputError: a name that is neither, or a function that cannot be imported.

    Example:
        >>> float(criterion_of("mse")(torch.tensor([[1.0]]), torch.tensor([[3.0]])))
        4.0
    """
    if name in _LOSSES:
        return Criterion(name, _LOSSES[name])
    return Criterion(name, own_function(name, "loss"))


def metric_of(name: str, loss: str = "cross_entropy") -> Metric:
    """The metric of a configuration: one of `METRICS`, or ``package.module:function`` of outputs and targets.

    A function of one's own has the attribute ``higher_is_better``. It is given all of a split at once.

    Args:
        loss: decides where classes are in outputs: in the last dimension for next_token, else in the second.

    Raises:
        InputError: a name that is neither, or a function that cannot be imported or does not say its direction.
    """
    dim = class_dim(loss)
    match name:
        case "accuracy":
            return Metric(ACCURACY, lambda outputs, targets: _right(outputs, targets, dim), _ratio)
        case "mean_iou":
            return Metric(METRICS[name], lambda outputs, targets: _overlap(outputs, targets, dim), _mean_iou)
        case "mse":
            return Metric(METRICS[name], lambda outputs, targets: _errors((outputs - targets).square()), _ratio)
        case "mae":
            return Metric(METRICS[name], lambda outputs, targets: _errors((outputs - targets).abs()), _ratio)
        case "perplexity":
            return Metric(METRICS[name], lambda outputs, targets: _surprise(outputs, targets, dim), _perplexity)
    function = own_function(name, "metric")
    higher = getattr(function, "higher_is_better", None)
    if not isinstance(higher, bool):
        raise InputError(f"metric {name!r}", "does not say its direction",
                         hint="set its attribute higher_is_better to True or False")  # fmt: skip
    return Metric(Measure(name.rpartition(":")[2], higher, percent=False), whole=function)


def class_dim(loss: str) -> int:
    """The dimension of outputs that counts classes, for a loss: the last one for next_token, else the second."""
    return -1 if loss == "next_token" else 1


def measure_named(name: str) -> Measure:
    """Name and direction of a configuration's metric."""
    return METRICS[name] if name in METRICS else metric_of(name).measure


def check_targets(data: Dataset, outputs: Tensor, loss: str, metric: str, name: str) -> None:
    """Refuses a network, loss or metric that does not fit the targets, before hours are spent.

    Args:
        outputs: of the network for the first training images.
        name: of the data set.

    Raises:
        InputError: naming network, loss or metric, and what would fit.
    """
    targets = data.train.labels[: len(outputs)].to(outputs.device)
    whole = not targets.is_floating_point()
    metrics = _WANTS if loss == "bce" or loss not in LOSSES else {**_WANTS, "accuracy": "labels"}
    for field, chosen, known in (("loss", loss, LOSSES), ("metric", metric, metrics)):
        wants = known.get(chosen, OWN)
        if wants not in (OWN, "labels" if whole else "numbers"):
            what = "labels" if whole else "numbers"
            fit = [n for n, kind in known.items() if kind in (OWN, what)]
            raise InputError(field, f"found {chosen!r}, but the targets of {name} are {what}",
                             ", ".join([*fit, "package.module:function"]))  # fmt: skip
    n, shape = len(outputs), tuple(outputs.shape)
    if loss == "cross_entropy":
        wanted = (n, data.classes, *targets.shape[1:])
        if shape != wanted:
            raise InputError("network", f"gives {shape} for {n} images of {name}", f"{wanted}: one score a class")
    elif loss == "next_token":
        if shape[:-1] != tuple(targets.shape) or shape[-1] < data.classes:
            wanted = (*targets.shape, data.classes)
            raise InputError("network", f"gives {shape} for {n} texts of {name}", f"{wanted}: one score a token")
    elif loss in LOSSES and shape != tuple(targets.shape):
        raise InputError("network", f"gives {shape} for {n} images of {name}", f"{tuple(targets.shape)}, as targets")
    if metric == "mean_iou" and len(shape) < 2:
        raise InputError("metric", f"found {metric!r}, but the network gives {shape}", "one score a class")
    try:
        found = criterion_of(loss)(outputs, targets)
        scalar = isinstance(found, Tensor) and found.dim() == 0
    except InputError:  # names what is wrong itself
        raise
    except Exception as e:  # whatever a user's function does
        raise InputError(f"loss {loss!r}", f"fails on {n} images: {reason(e)}") from e
    if not scalar:
        raise InputError(f"loss {loss!r}", "does not give one number for a batch", "a tensor without dimensions")
    try:
        chosen_metric = metric_of(metric, loss)
        if chosen_metric.whole is not None:
            float(chosen_metric.whole(outputs, targets))
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"metric {metric!r}", f"fails on {n} images: {reason(e)}") from e


_WANTS = {"accuracy": OWN, "mean_iou": "labels", "mse": "numbers", "mae": "numbers", "perplexity": "labels"}


def _next_token(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "next_token": _next_token,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "bce": functional.binary_cross_entropy_with_logits,
}


def _right(outputs: Tensor, targets: Tensor, dim: int) -> Tensor:
    if targets.is_floating_point():  # yes or no, by the sign of a score
        right, counted = (outputs > 0) == (targets > 0.5), torch.ones_like(targets, dtype=torch.bool)
    else:
        right, counted = outputs.argmax(dim) == targets, targets != IGNORED
    return torch.stack([(right & counted).sum(), counted.sum()]).double()


def _overlap(outputs: Tensor, targets: Tensor, dim: int) -> Tensor:
    """Intersection and union of prediction and label of each class, shape (2, classes)."""
    classes, counted = outputs.shape[dim], targets != IGNORED
    found, labels = outputs.argmax(dim)[counted], targets[counted]
    both = torch.bincount(labels[found == labels], minlength=classes)
    either = torch.bincount(found, minlength=classes) + torch.bincount(labels, minlength=classes) - both
    return torch.stack([both, either]).double()


def _mean_iou(sums: Tensor) -> float:
    """The mean over the classes that occur in labels or predictions."""
    both, either = sums
    return float((both[either > 0] / either[either > 0]).mean()) if bool((either > 0).any()) else 0.0


def _errors(errors: Tensor) -> Tensor:
    return torch.stack([errors.double().sum(), torch.ones_like(errors, dtype=torch.float64).sum()])


def _surprise(outputs: Tensor, targets: Tensor, dim: int) -> Tensor:
    scores = outputs.movedim(dim, 1)
    total = functional.cross_entropy(scores, targets, reduction="sum")
    return torch.stack([total.double(), (targets != IGNORED).sum().double()])


def _perplexity(sums: Tensor) -> float:
    return float((sums[0] / sums[1].clamp_min(1)).exp())


def _ratio(sums: Tensor) -> float:
    return float(sums[0] / sums[1].clamp_min(1))


CROSS_ENTROPY = criterion_of("cross_entropy")
ACCURACY_METRIC = metric_of("accuracy")
