"""How networks are computed while they learn, and the training of a fixed one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from search.data.datasets import Dataset, Split
from search.training.checkpoint import Checkpoint, Record, Stateful
from search.training.cuda_graphs import GraphedLoss
from search.training.epochs import Batch, OnEpoch, epochs
from search.training.measures import SplitName
from search.training.metrics import ACCURACY_METRIC, CROSS_ENTROPY, Criterion, Metric, class_dim
from search.training.settings import Distillation, Training

Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Compute:
    """How a network is computed while it learns; what is measured of it (`accuracy`) is always float32.

    Args:
        device: as torch names it.
        channels_last: keep images and weights with the channels innermost, which a GPU's tensor cores want.
        amp: products in bfloat16 (autocast), what lies between the layers in float32. Words of the quantisers are the
            same as in float32; of one candidate they are multiplied exactly (`search.layers.fused`).
        graphs: compute loss and gradients as a CUDA graph, where the device is one.
        distil: how a network learns from the scores of a teacher, if batches have them.
        criterion: the loss.
        metric: what epochs' records and results say of a network.
    """

    device: str = "cpu"
    channels_last: bool = False
    amp: bool = False
    graphs: bool = False
    distil: Distillation | None = None
    criterion: Criterion = CROSS_ENTROPY
    metric: Metric = ACCURACY_METRIC

    @property
    def on_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def place(self, network: nn.Module) -> None:
        """Moves `network` to the device, in place."""
        network.to(self.device)
        if self.channels_last:  # of the overloads of Module.to, only this one takes a memory format
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.on_cuda:
            torch.backends.cudnn.allow_tf32 = False  # float32 shall be float32: accuracies are measured in it
            torch.backends.cudnn.deterministic = True  # a resumed stage finds what it would have found

    def adam(self, parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
        """Adam; on a GPU in one kernel."""
        return torch.optim.Adam(parameters, lr=lr, fused=True if self.on_cuda else None)

    def losses(self, network: nn.Module) -> Loss:
        """L_acc of a network that is placed, for the batches of its training."""
        if self.graphs and self.on_cuda:
            return GraphedLoss(network, self.loss)
        return functools.partial(self.loss, network)

    def loss(self, network: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """L_acc of Eq. 2a on a batch, the `criterion`; with a teacher's scores, distilled."""
        images, labels, *taught = batch
        with self._precision():
            scores = network(self._laid_out(images))
            found = self.criterion(scores, labels)
            if not taught or self.distil is None:
                return found
            return distilled(found, scores, taught[0], self.distil, class_dim(self.criterion.name))

    def measured(self, network: nn.Module, split: Split, name: SplitName) -> Record:
        """The metric's value on a split under the key that records have it."""
        return {self.metric.measure.key(name): self.metric.of(network, split)}

    @torch.no_grad()
    def taught(self, batch: Batch, teacher: nn.Module) -> Batch:
        """The batch with the scores of `teacher`, as it is in evaluation."""
        with self._precision():
            return *batch, teacher(self._laid_out(batch[0]))

    def _laid_out(self, images: Tensor) -> Tensor:
        wanted = self.channels_last and images.dim() == 4
        return images.contiguous(memory_format=torch.channels_last) if wanted else images

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.amp)


PLAIN = Compute()
"""On the CPU, in float32."""


def distilled(loss: Tensor, scores: Tensor, taught: Tensor, distil: Distillation, dim: int = 1) -> Tensor:
    """(1 - weight) * loss + weight * temperature ** 2 * KL(teacher || network), the mean over all positions.

    A position is what has a score for each class: an image, a pixel of an image, a place in a text. So the divergence
    weighs as much beside a loss that is a mean over pixels as beside one that is a mean over images.

    Args:
        loss: of the batch, a scalar.
        scores, taught: of the network and of its teacher, shape (N, classes, ...).
        dim: the dimension of the classes.

    Raises:
        InputError: outputs that are not the scores of two or more classes: of one number a softmax is always 1.

    Example:
        >>> scores = torch.tensor([[1.0, 0.0]])
        >>> float(distilled(torch.tensor(2.0), scores, scores, Distillation(weight=0.25)))
        1.5
    """
    if scores.dim() < 2 or scores.shape[dim] < 2:
        raise InputError("distill", f"the network gives {tuple(scores.shape)}, no scores of two or more classes "
                         "to compare with the teacher's", "(N, classes, ...)")  # fmt: skip
    t = distil.temperature
    ours, theirs = (scores.float() / t).log_softmax(dim), (taught.float() / t).log_softmax(dim)
    divergence = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim).mean()
    return (1 - distil.weight) * loss + distil.weight * t * t * divergence


def learn(
    network: nn.Module,
    data: Dataset,
    training: Training,
    seed: int,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
    compute: Compute = PLAIN,
    teacher: nn.Module | None = None,
) -> list[Record]:
    """Trains `network` in place with Adam; continues from the checkpoint if there is one.

    Args:
        training: epochs, batches, learning rate and its schedule.
        seed: decides the order of the images.
        on_epoch: see `epochs`.
        teacher: a trained network whose scores `network` learns from as well, as `compute.distil` says.

    Returns:
        One record an epoch: epoch, loss (training, mean), validation_accuracy (0 to 1), seconds.
    """
    history: list[Record] = []

    def keep(record: Record) -> None:
        history.append(record)
        on_epoch(record)

    compute.place(network)
    if teacher is not None:
        compute.place(teacher.eval())
    optimiser, loss_of = compute.adam(network.parameters(), training.lr), compute.losses(network)
    parts: dict[str, Stateful] = {"network": network, "optimiser": optimiser}

    def measure() -> Record:
        return compute.measured(network, data.validation, "validation")

    for epoch in epochs(training.epochs, seed, checkpoint, keep, measure, parts):
        network.train()
        for batch in epoch.batches(data, training.batch_size, seed, optimiser, training.lr, training.schedule,
                                   training.epoch_images):  # fmt: skip
            loss = loss_of(batch if teacher is None else compute.taught(batch, teacher))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            epoch.losses.append(loss.detach())
    return history


@torch.no_grad()
def renew_statistics(network: nn.Module, some: Iterable[Batch], steps: int = 10) -> None:
    """Measures the statistics of batch normalisation again, as means over the first `steps` batches of `some`.

    A discretised network sums other values than the mixture that it was taken from.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    network.train()
    for images, _ in itertools.islice(some, steps):
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def accuracy(network: nn.Module, split: Split, batch_size: int = 1000) -> float:
    """Share of the images that `network` classifies right, 0 to 1."""
    network.eval()
    right = 0
    for images, labels in zip(
        torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True
    ):
        right += int((network(split.prepared(images)).argmax(1) == labels).sum())
    return right / len(split)
