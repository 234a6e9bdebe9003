"""Image passes: how much training each network of a run has had, so that networks are compared at equal totals.

An image pass is one image through the network, forwards and backwards, in a batch that weights or operator weights
learn from. Images that are only evaluated do not count.
"""

from __future__ import annotations

import math

from search.data.sets import Dataset, Split
from search.sensitivity.calibrate import BATCH
from search.strategies.settings import Bilevel, Search, Sensitivity, Variational
from search.training.epochs import batches_per_epoch

Parts = dict[str, int]
"""Image passes of a network by where its weights or its assignment came from: pretrain, search, relearn."""


def epoch_passes(train: Split, batch_size: int, images: int | None = None) -> int:
    """Image passes of an epoch of training: the images after the last whole batch are left out.

    Args:
        images: how many of the training images an epoch has; None for all.

    Example:
        >>> import torch
        >>> epoch_passes(Split(torch.zeros(103, 1, 2, 2), torch.zeros(103)), 10)
        100
    """
    return batches_per_epoch(train, batch_size, images) * min(batch_size, len(train))


def search_passes(settings: Search, epochs: int, data: Dataset) -> int:
    """Image passes of a search.

    Behind the warm-up, modes that learn alpha on validation images take a validation batch for each training batch.
    The second order computes the training batch three times more: for the step of theta, and on both sides of it for
    the difference.

    Args:
        epochs: of the search, the warm-up included.
    """
    if isinstance(settings, Sensitivity):  # each layer is fitted once to the candidate that it is given
        return settings.calibration_steps * BATCH
    steps = batches_per_epoch(data.train, settings.batch_size, settings.epoch_images)
    train, held_out = (min(settings.batch_size, len(split)) for split in (data.train, data.validation))
    both = epochs - settings.warmup_epochs
    extra = 0
    if isinstance(settings, Bilevel | Variational):
        extra = held_out
        if isinstance(settings, Bilevel) and settings.second_order:
            extra += 3 * train  # the step of theta, and both sides of the difference
    return steps * (epochs * train + max(0, both) * extra)


def equal_training(passes: int, an_epoch: int, batch_size: int) -> tuple[int, int]:
    """The length of a training with as many image passes as another, rounded up to whole batches in each epoch.

    Args:
        passes: that are wanted; none or less is one epoch.
        an_epoch: image passes of the other's epochs, whole batches: no epoch is longer.

    Returns:
        The number of epochs, and the image passes of each.

    Example:
        >>> equal_training(passes=700, an_epoch=200, batch_size=10)
        (4, 180)
    """
    epochs = max(1, math.ceil(passes / an_epoch))
    if passes < 1 or an_epoch < batch_size:
        return epochs, an_epoch
    return epochs, min(an_epoch, math.ceil(passes / epochs / batch_size) * batch_size)
