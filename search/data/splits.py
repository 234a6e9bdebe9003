"""Splits of images into training, validation and test: stratified by class, decided by a seed, complete or a subset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dse.core.errors import InputError
from search.data.catalogue import OFFICIAL, OfficialSet
from search.data.sets import Augmentation, Dataset, Normalisation, Split

Indices = npt.NDArray[np.int64]

VALIDATION_SHARE = 0.1
"""Default share of an official training set."""


@dataclass(frozen=True)
class Source:
    """Images of an official split: class index of each, and a function that reads given ones as uint8 (N, C, H, W)."""

    labels: npt.NDArray[Any]
    read: Callable[[Indices], npt.NDArray[np.uint8]]


def official_folder(name: str, directory: Path | None) -> Path:
    """The folder of a set's official files.

    Raises:
        InputError: no data folder is given, or it does not contain the set's folder.
    """
    official = OFFICIAL[name]
    if directory is None:
        raise InputError("data.dir", "is not given", f"the folder that contains {official.folder}")
    folder = directory / official.folder
    if not folder.is_dir():
        raise InputError(folder, "cannot be read: no such folder",
                         hint=f"`enos data {name} --dir {directory}` downloads the official files")  # fmt: skip
    return folder


def assemble(
    name: str,
    folder: Path,
    train: Source,
    test: Source,
    subset: int | None,
    seed: int,
    validation: float | None,
    normalisation: Normalisation,
    augmentation: Augmentation,
) -> Dataset:
    """A data set whose validation split is taken from the official training images; its test images are the official.

    Args:
        subset: number of training and validation images to keep, with the same share of every class; None for all.
            All test images are kept: they cost little, and with few of them differences between networks are noise.
        seed: decides which training images become validation images, and the subset.
        validation: share of the training images that become validation images; None for `VALIDATION_SHARE`.

    Raises:
        InputError: there are too few images for a validation split, or they cannot be read.
    """
    official = OFFICIAL[name]
    share = VALIDATION_SHARE if validation is None else validation
    learnt_from, held_out = stratified(train.labels, (1 - share, share), seed)
    if subset is not None:
        kept = subset / len(train.labels)
        learnt_from = stratified_subset(learnt_from, train.labels, round(kept * len(learnt_from)))
        held_out = stratified_subset(held_out, train.labels, round(kept * len(held_out)))
    if not (len(learnt_from) and len(held_out) and len(test.labels)):
        raise InputError(folder, f"has {len(train.labels)} training and {len(test.labels)} test images",
                         "at least 10 training images of each class, and test images")  # fmt: skip
    for_train, for_validation, for_test = (
        Split(torch.from_numpy(source.read(indices)), _labels(source.labels[indices]), normalisation)
        for source, indices in ((train, learnt_from), (train, held_out), (test, np.arange(len(test.labels))))
    )
    notice = _notice(name, official, train, test)
    return Dataset(for_train, for_validation, for_test, official.classes, augmentation, notice)


def stratified(labels: npt.NDArray[Any], shares: tuple[float, ...], seed: int) -> list[Indices]:
    """Disjoint index sets that cover `labels`, each with the same share of every class; `seed` decides them."""
    rng = np.random.default_rng(seed)
    parts: list[list[npt.NDArray[Any]]] = [[] for _ in shares]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares) * len(members)).astype(int)
        for part, chunk in zip(parts, np.split(members, cuts[:-1]), strict=True):
            part.append(chunk)
    return [rng.permutation(np.concatenate(part)) if part else np.zeros(0, np.int64) for part in parts]


def stratified_subset(indices: Indices, labels: npt.NDArray[Any], size: int) -> Indices:
    """The first `size` of `indices`, with equally many of every class (at least one of each)."""
    classes = np.unique(labels)
    each = max(1, round(size / len(classes)))
    kept = np.concatenate([indices[labels[indices] == c][:each] for c in classes])
    return indices[np.isin(indices, kept)]


def check_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> None:
    """Raises an InputError that names `path` if a class index is outside 0 to `classes` - 1."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(path, "has a class index out of range", f"0 to {classes - 1}")


def _labels(labels: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))


def _notice(name: str, official: OfficialSet, train: Source, test: Source) -> str | None:
    if (len(train.labels), len(test.labels)) == (official.train, official.test):
        return None
    return (
        f"{name} on disk is not the official set: {len(train.labels):,} training and {len(test.labels):,} test images "
        f"instead of {official.train:,} and {official.test:,}"
    )
