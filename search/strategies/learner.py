"""What all strategies share: the network, its two optimisers, batches of both sets, and the steps that descend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from search.data.datasets import Dataset
from search.objective import Regulariser
from search.strategies.second_order import gradient_behind_step
from search.strategies.settings import Search
from search.supernet import SearchableNetwork
from search.training.checkpoint import Checkpoint, Record, Stateful
from search.training.cuda_graphs import laid_out
from search.training.epochs import Batch, Epoch, OnEpoch, batches, epochs
from search.training.train import PLAIN, Compute

S_co = TypeVar("S_co", bound=Search, covariant=True)


class Learner(Generic[S_co]):
    """Learns alpha and theta of a searchable network in place, as a strategy asks it to, with Adam for both.

    Args:
        settings: the search mode's.
        regulariser: the energy's part of the loss (Eq. 2a).
        seed: decides the order of the images and every random draw.
        checkpoint: where progress is kept, and restored from.
        on_epoch: is called with each epoch's record, restored ones included.
    """

    def __init__(
        self,
        model: SearchableNetwork,
        data: Dataset,
        settings: S_co,
        regulariser: Regulariser,
        seed: int,
        checkpoint: Checkpoint,
        on_epoch: OnEpoch,
        compute: Compute = PLAIN,
    ) -> None:
        compute.place(model)
        self.model, self.data, self.settings, self.regulariser = model, data, settings, regulariser
        self.seed, self.checkpoint, self.on_epoch, self.compute = seed, checkpoint, on_epoch, compute
        self.of_alpha = compute.adam(model.alphas(), settings.alpha_lr)
        self.of_theta = compute.adam(model.thetas(), settings.lr)
        self._loss = compute.losses(model)
        self.history: list[Record] = []
        """A record for each epoch so far: epoch, loss, validation_accuracy, energy (expected), lambda, seconds; and
        what a strategy adds."""
        self._held_out: Iterator[Batch] = iter(())
        self._epoch: Epoch | None = None

    def epochs(self, number: int) -> Iterator[Epoch]:
        """The epochs still to do of `number`, to iterate over; see `search.training.epochs.epochs`."""

        def keep(record: Record) -> None:
            self.history.append(record)
            self.on_epoch(record)

        parts: dict[str, Stateful] = {"model": self.model, "of_alpha": self.of_alpha, "of_theta": self.of_theta,
                                      "regulariser": self.regulariser}  # fmt: skip
        return epochs(number, self.seed, self.checkpoint, keep, self._measure, parts)

    def batches(self, epoch: Epoch) -> Iterator[Batch]:
        """The training batches of an epoch; `held_out` then gives validation batches in an order of this epoch's."""
        self.model.train()
        s, taken = self.settings, epoch.counts.get("held_out", 0)
        self._held_out = itertools.islice(_endless(self.data, s.batch_size, self.seed, epoch.index), taken, None)
        self._epoch = epoch
        return epoch.batches(self.data, s.batch_size, self.seed, self.of_theta, s.lr, images=s.epoch_images)

    def held_out(self) -> Batch:
        """The next validation batch; starts again when they run out."""
        if self._epoch is not None:
            self._epoch.counts["held_out"] = self._epoch.counts.get("held_out", 0) + 1
        return next(self._held_out)

    def learns_alpha(self, epoch: Epoch) -> bool:
        """Whether the warm-up is over, in which alpha stays as it is."""
        return epoch.index >= self.settings.warmup_epochs

    def loss(self, batch: Batch) -> Tensor:
        """L_acc of Eq. 2a; of `paths` candidates a layer if the settings say so, else without negligible ones."""
        if self.settings.paths is not None:
            paths = self.model.some_paths(self.settings.paths)
        elif self.compute.on_cuda:  # graphs that are captured again take longer than they save
            return self._loss(batch)
        else:
            paths = self.model.without_negligible(self.settings.negligible)
        with paths:
            return self._loss(batch)

    def update_alpha(self, loss: Tensor) -> None:
        """Descends `loss` and the regulariser in alpha."""
        _descend(loss + self.regulariser(self.model), self.of_alpha)
        self.regulariser.update(self.model)

    def update_alpha_behind_step(self, train: Batch, held_out: Batch) -> None:
        """Descends, in alpha, the loss on `held_out` that a gradient step of theta on `train` leads to (Eq. 4)."""
        gradient = gradient_behind_step(
            lambda: self.loss(train),
            lambda: self.loss(held_out),
            self.model.alphas(),
            self.model.thetas(),
            self.of_theta.param_groups[0]["lr"],
        )
        # A loss with this gradient; the regulariser's is added to it as to any other.
        self.update_alpha(
            torch.stack([(g * a).sum() for g, a in zip(gradient, self.model.alphas(), strict=True)]).sum()
        )

    def update_theta(self, loss: Tensor, epoch: Epoch) -> None:
        """Descends `loss`, of a training batch, in theta, which the energy does not depend on."""
        epoch.losses.append(_descend(loss, self.of_theta))

    def update_both(self, loss: Tensor, epoch: Epoch) -> None:
        """Descends `loss`, of a training batch, and the regulariser in alpha and theta together (Eq. 2b)."""
        epoch.losses.append(loss.detach())
        _descend(loss + self.regulariser(self.model), self.of_alpha, self.of_theta)
        self.regulariser.update(self.model)

    def _measure(self) -> Record:
        return {
            **self.compute.measured(self.model, self.data.validation, "validation"),
            **self.regulariser.report(self.model),
        }


def _descend(loss: Tensor, *optimisers: torch.optim.Optimizer) -> Tensor:
    """One step on the optimisers' own parameters only; returns the loss without its graph."""
    parameters: Sequence[Tensor] = [p for o in optimisers for group in o.param_groups for p in group["params"]]
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        p.grad = None if gradient is None else laid_out(gradient, p)
    for optimiser in optimisers:
        optimiser.step()
    return loss.detach()


def _endless(data: Dataset, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Validation batches of one epoch, in an order of their own; starts again when they run out."""
    for again in itertools.count():
        yield from batches(data.validation, batch_size, seed + 1 + again, epoch)
