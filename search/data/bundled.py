"""The data set that is shipped with this package: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from search.data.sets import Augmentation, Dataset, Split
from search.data.splits import stratified, stratified_subset

FILE = Path(__file__).with_name("digits.npz")
"""Images and labels as bytes; digits.txt next to it names the source and the licence."""

SPLIT = (0.5, 0.2, 0.3)
"""Shares of the digits for training, validation and test."""


def digits(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """The 1,797 handwritten digits of UCI's test set: 8x8 pixels, 10 classes, values 0 to 1.

    `validation` is a share of the images that are not for test; None for two sevenths.

    Example:
        >>> data = digits(subset=200)
        >>> len(data.train), len(data.validation), len(data.test), data.image_shape
        (100, 40, 60, (1, 8, 8))
    """
    with np.load(FILE) as arrays:
        pixels = (arrays["images"] / 16.0).astype(np.float32)[:, None]
        labels = arrays["labels"].astype(np.int64)
    shares = SPLIT
    if validation is not None:
        learnt_from = 1 - SPLIT[2]
        shares = (learnt_from * (1 - validation), learnt_from * validation, SPLIT[2])
    parts = stratified(labels, shares, seed)
    if subset is not None:
        parts = [
            stratified_subset(part, labels, round(share * subset)) for part, share in zip(parts, shares, strict=True)
        ]
    for_train, for_validation, for_test = (
        Split(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part])) for part in parts
    )
    return Dataset(for_train, for_validation, for_test, 10, Augmentation(shift=1, flip=False))
