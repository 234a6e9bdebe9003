"""Data sets as tensors: scikit-learn's bundled digits, and CIFAR-10 in its official on-disk layout."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dse.errors import InputError

SPLIT = (0.5, 0.2, 0.3)
"""Shares of the digits for training, validation and test."""


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), float32, and their class indices (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images that keep their class: a shift of up to `shift` pixels, a mirror image."""

    shift: int
    flip: bool

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copies of `images` (N, C, H, W), each image by itself; pixels shifted in are zero."""
        n, _, height, width = images.shape
        down, right = torch.randint(0, 2 * self.shift + 1, (2, n), generator=generator).to(images.device)
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = right[:, None] + torch.arange(width, device=images.device)
        if self.flip:
            mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        padded = functional.pad(images, (self.shift,) * 4)
        every = torch.arange(n, device=images.device)[:, None, None]
        return padded[every, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits: theta learns on `train`, alpha and all choices on `validation`; `test` is for results."""

    train: Split
    validation: Split
    test: Split
    classes: int
    augmentation: Augmentation | None

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    def to(self, device: str) -> Dataset:
        return Dataset(
            self.train.to(device), self.validation.to(device), self.test.to(device), self.classes, self.augmentation
        )


def digits(directory: Path | None = None, subset: int | None = None, seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn carries: 8x8 pixels, 10 classes, values 0 to 1."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = stratified(labels, SPLIT, seed)
    if subset is not None:
        parts = [
            _stratified_subset(part, labels, round(share * subset)) for part, share in zip(parts, SPLIT, strict=True)
        ]
    train, validation, test = (_split(pixels[part], labels[part]) for part in parts)
    return Dataset(train, validation, test, 10, Augmentation(shift=1, flip=False))


def cifar10(directory: Path | None = None, subset: int | None = None, seed: int = 0) -> Dataset:
    """CIFAR-10 from the folder that holds ``cifar-10-batches-py``: 45,000 / 5,000 / 10,000 images of 32x32.

    Args:
        directory: the folder, as torchvision lays it out.
        subset: number of images to keep of all three splits together, class by class in equal shares.
        seed: decides which training images become validation images, and the subset.

    Raises:
        InputError: a missing, truncated or foreign file; it names the file.
    """
    if directory is None:
        raise InputError("data.dir", "is not given", "the folder that holds cifar-10-batches-py")
    folder = directory / "cifar-10-batches-py"
    batches = [_cifar_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    images = np.concatenate([b[0] for b in batches])
    labels = np.concatenate([b[1] for b in batches])
    test_images, test_labels = _cifar_batch(folder / "test_batch")
    train, validation = stratified(labels, (0.9, 0.1), seed)
    test = np.arange(len(test_labels))
    if subset is not None:
        share = subset / (len(labels) + len(test_labels))
        train = _stratified_subset(train, labels, round(share * len(train)))
        validation = _stratified_subset(validation, labels, round(share * len(validation)))
        test = _stratified_subset(test, test_labels, round(share * len(test_labels)))
    return Dataset(
        _split(_normalised(images[train]), labels[train]),
        _split(_normalised(images[validation]), labels[validation]),
        _split(_normalised(test_images[test]), test_labels[test]),
        10,
        Augmentation(shift=4, flip=True),
    )


DATASETS: dict[str, Callable[[Path | None, int | None, int], Dataset]] = {"digits": digits, "cifar10": cifar10}


def stratified(labels: npt.NDArray[Any], shares: tuple[float, ...], seed: int) -> list[npt.NDArray[np.int64]]:
    """Disjoint index sets that cover `labels`, each with the same share of every class; decided by `seed` alone."""
    rng = np.random.default_rng(seed)
    parts: list[list[npt.NDArray[Any]]] = [[] for _ in shares]
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares) * len(own)).astype(int)
        for part, chunk in zip(parts, np.split(own, cuts[:-1]), strict=True):
            part.append(chunk)
    return [rng.permutation(np.concatenate(part)) for part in parts]


def _stratified_subset(indices: npt.NDArray[Any], labels: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The first `size` of `indices` in equal shares of every class (at least one image of each)."""
    classes = np.unique(labels)
    each = max(1, round(size / len(classes)))
    kept = np.concatenate([indices[labels[indices] == c][:each] for c in classes])
    return indices[np.isin(indices, kept)]


def _split(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Split:
    return Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64)))


def _normalised(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """uint8 planes (N, 3, 32, 32) to float32 with about zero mean and unit variance (CIFAR-10's training images)."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    scale = np.array(std, np.float32).reshape(3, 1, 1)
    return (pixels.astype(np.float32) / 255 - np.array(mean, np.float32).reshape(3, 1, 1)) / scale


def _cifar_batch(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images (N, 3, 32, 32) uint8 and labels of one batch file."""
    try:
        batch = _BatchUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as e:
        raise InputError(path, f"cannot be read: {(e.strerror or str(e)).lower()}", "a CIFAR-10 batch file") from None
    except (
        Exception
    ) as e:  # a damaged pickle raises almost anything: EOFError, KeyError, ValueError, UnpicklingError...
        reason = " ".join(str(e).split()) or type(e).__name__
        raise InputError(path, f"not a CIFAR-10 batch file: {reason}") from None
    data, labels = (batch.get(key) if isinstance(batch, dict) else None for key in (b"data", b"labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(path, "its b'data' is no array of images", "uint8 of shape (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(data) or set(map(type, labels)) != {int}:
        raise InputError(path, "its b'labels' do not match its images", "a list of one class index an image")
    if not all(0 <= label < 10 for label in labels):
        raise InputError(path, "has a class index out of range", "0 to 9")
    return data.reshape(-1, 3, 32, 32), np.array(labels)


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays of numbers, lists, dictionaries and strings; refuses every other name, so that no file
    can run code. Old and new names of numpy's modules are both known: the official files were written by Python 2."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module == "numpy" and name == "dtype":
            return _number_dtype
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes at protocol 2
            return _encode_latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image batches do not need")


def _empty_array(kind: Any, shape: Any, typecode: Any) -> npt.NDArray[Any]:
    return np.empty(0, np.uint8)  # the state that follows sets shape, type and bytes


def _number_dtype(name: Any, *flags: Any) -> np.dtype[Any]:
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"an array of type {dtype}")
    return dtype


def _encode_latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
