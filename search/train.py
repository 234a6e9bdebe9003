"""The training loop that relearning and the uni-operator baselines share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.checkpoint import Checkpoint, Record
from search.config import Training
from search.data import Augmentation, Dataset, Split

OnEpoch = Callable[[Record], None]


def learn(
    network: nn.Module, data: Dataset, training: Training, seed: int, checkpoint: Checkpoint, on_epoch: OnEpoch
) -> list[Record]:
    """Trains `network` in place with Adam and a cosine learning rate; continues from the checkpoint if there is one.

    Args:
        seed: decides the order of the images.
        on_epoch: is called with every record: those of the checkpoint first, new ones after they are safe on disk.

    Returns:
        One record an epoch: epoch, loss (training, mean), validation_accuracy (0 to 1), seconds.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=training.lr)
    history = checkpoint.restore(network=network, optimiser=optimiser)
    for record in history:
        on_epoch(record)
    steps = batches_per_epoch(data.train, training.batch_size)
    for epoch in range(len(history), training.epochs):
        began, losses = time.monotonic(), []
        network.train()
        for i, (images, labels) in enumerate(batches(data.train, training.batch_size, seed, epoch, data.augmentation)):
            set_lr(optimiser, training.lr, (epoch * steps + i) / (training.epochs * steps))
            loss = functional.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
        history.append(
            {
                "epoch": epoch + 1,
                "loss": float(torch.stack(losses).mean()),
                "validation_accuracy": accuracy(network, data.validation),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        checkpoint.save(history, network=network, optimiser=optimiser)
        on_epoch(history[-1])
    return history


def batches_per_epoch(split: Split, batch_size: int) -> int:
    return max(1, len(split) // batch_size)


def batches(
    split: Split, batch_size: int, seed: int, epoch: int, augmentation: Augmentation | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of images and labels; order and augmentation depend on `seed` and `epoch` alone.

    The few images behind the last whole batch are left out of this epoch, so that no batch is too small to normalise.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(split), generator=generator).to(split.labels.device)
    for i in range(batches_per_epoch(split, batch_size)):
        chosen = order[i * batch_size : (i + 1) * batch_size]
        images = split.images[chosen]
        images = images if augmentation is None else augmentation(images, generator)
        yield split.prepared(images), split.labels[chosen]


def set_lr(optimiser: torch.optim.Optimizer, lr: float, progress: float) -> None:
    """A linear warm-up over the first 5 % of training, then half a cosine to zero; `progress` runs from 0 to 1."""
    factor = min(1.0, progress / 0.05 + 0.1) * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = lr * factor


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
