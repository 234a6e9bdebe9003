"""The data set that comes with scikit-learn: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from search.data.sets import Augmentation, Dataset, Split
from search.data.splits import stratified, stratified_subset

SPLIT = (0.5, 0.2, 0.3)
"""Shares of the digits for training, validation and test."""


def digits(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn carries: 8x8 pixels, 10 classes, values 0 to 1.

    `validation` is a share of the images that are not for test; None for two sevenths.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
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
        Split(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part].astype(np.int64))) for part in parts
    )
    return Dataset(for_train, for_validation, for_test, 10, Augmentation(shift=1, flip=False))
