"""Bi-level ENOS: Algorithm 1 of the paper, first-order approximation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from search.checkpoint import Checkpoint, Record, Stateful
from search.config import Search
from search.data import Dataset
from search.objective import Regulariser
from search.supernet import SearchableNetwork
from search.train import OnEpoch, accuracy, batches, batches_per_epoch, set_lr


def bilevel(
    model: SearchableNetwork,
    data: Dataset,
    settings: Search,
    regulariser: Regulariser,
    seed: int,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
) -> list[Record]:
    """Updates alpha on a validation batch, then theta on a training batch, until the epochs are over (Algorithm 1)."""
    of_alpha = torch.optim.Adam(model.alphas(), lr=settings.alpha_lr)
    of_theta = torch.optim.Adam(model.thetas(), lr=settings.lr)
    parts: dict[str, Stateful] = {"model": model, "of_alpha": of_alpha, "of_theta": of_theta,
                                  "regulariser": regulariser}  # fmt: skip
    history = checkpoint.restore(**parts)
    for record in history:
        on_epoch(record)
    steps = batches_per_epoch(data.train, settings.batch_size)
    for epoch in range(len(history), settings.epochs):
        began, losses = time.monotonic(), []
        validation = _endless(data, settings.batch_size, seed, epoch)
        for i, (images, labels) in enumerate(batches(data.train, settings.batch_size, seed, epoch, data.augmentation)):
            set_lr(of_theta, settings.lr, (epoch * steps + i) / (settings.epochs * steps))
            model.train()
            if epoch >= settings.warmup_epochs:
                # 1. Update alpha by descending the loss on the validation set.
                held_out, held_out_labels = next(validation)
                _descend(_task(model, held_out, held_out_labels) + regulariser(model), of_alpha)
                regulariser.update(model)
            # 2. Update theta by descending the loss on the training set; the energy does not depend on theta.
            losses.append(_descend(_task(model, images, labels), of_theta))
        history.append(
            {
                "epoch": epoch + 1,
                "loss": float(torch.stack(losses).mean()),
                "validation_accuracy": accuracy(model, data.validation),
                **regulariser.report(model),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        checkpoint.save(history, **parts)
        on_epoch(history[-1])
    return history


def _task(model: SearchableNetwork, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(model(images), labels)


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> Tensor:
    """One step on the optimiser's own parameters only; returns the loss without its graph."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        p.grad = gradient
    optimiser.step()
    return loss.detach()


def _endless(data: Dataset, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Validation batches of one epoch, in an order of their own; starts again when they run out."""
    for again in itertools.count():
        yield from batches(data.validation, batch_size, seed + 1 + again, epoch)
