"""Data sets as tensors: the shipped digits, and four others in their official on-disk layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from search.data.bundled import digits
from search.data.cifar import cifar10, cifar100
from search.data.emnist import emnist_balanced
from search.data.imagenet import tiny_imagenet
from search.data.sets import Augmentation, Dataset, Normalisation, Split

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Normalisation",
    "Split",
    "cifar10",
    "cifar100",
    "digits",
    "emnist_balanced",
    "tiny_imagenet",
]

DATASETS: dict[str, Callable[[Path | None, int | None, int, float | None], Dataset]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "emnist_balanced": emnist_balanced,
    "tiny_imagenet": tiny_imagenet,
}
"""Readers by the names of `search.data.catalogue`. Arguments: folder of the official files, number of images to keep
(None for all), seed, share of validation images (None for the set's default)."""
