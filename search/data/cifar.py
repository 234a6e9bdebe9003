"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their Python batch files: 32x32 pixels, three channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import InputError
from dse.core.files import reason as os_reason
from search.data.sets import Augmentation, Dataset, Normalisation
from search.data.splits import Source, assemble, check_labels, official_folder
from search.data.unpickle import unpickle_arrays

AUGMENTATION = Augmentation(shift=4, flip=True)


def cifar10(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """CIFAR-10 from the folder that contains ``cifar-10-batches-py``: 45,000 / 5,000 / 10,000 images.

    Args:
        directory: the data folder, with the same layout as in torchvision.
        subset: number of training and validation images to keep, with the same share of every class; None for all.
        seed: decides which training images become validation images, and the subset.
        validation: share of the official training images that become validation images; None for a tenth.

    Raises:
        InputError: a file is missing, truncated or not a file of this set; the error names it.
    """
    folder = official_folder("cifar10", directory)
    batches = [_batch(folder / f"data_batch_{i}", "CIFAR-10", b"labels", 10) for i in range(1, 6)]
    train = _source(np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches]))
    test = _source(*_batch(folder / "test_batch", "CIFAR-10", b"labels", 10))
    normalisation = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    return assemble("cifar10", folder, train, test, subset, seed, validation, normalisation, AUGMENTATION)


def cifar100(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """CIFAR-100 with its 100 fine classes, from the folder that contains ``cifar-100-python``; see `cifar10`."""
    folder = official_folder("cifar100", directory)
    train, test = (_source(*_batch(folder / part, "CIFAR-100", b"fine_labels", 100)) for part in ("train", "test"))
    normalisation = Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    return assemble("cifar100", folder, train, test, subset, seed, validation, normalisation, AUGMENTATION)


def _source(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Source:
    return Source(labels, lambda indices: images[indices])


def _batch(path: Path, title: str, key: bytes, classes: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Images (N, 3, 32, 32) uint8 and labels of one batch file, which has its labels under `key`."""
    try:
        batch = unpickle_arrays(path.read_bytes())
    except OSError as e:
        raise InputError(path, f"cannot be read: {os_reason(e)}", f"a {title} batch file") from None
    except Exception as e:  # a damaged pickle raises almost anything: EOFError, KeyError, ValueError, ...
        reason = " ".join(str(e).split()) or type(e).__name__
        raise InputError(path, f"not a {title} batch file: {reason}") from None
    data, labels = (batch.get(k) if isinstance(batch, dict) else None for k in (b"data", key))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(path, "its b'data' is not an array of images", "uint8 of shape (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(data) or set(map(type, labels)) != {int}:
        raise InputError(path, f"its {key!r} do not match its images", "a list of one class index per image")
    indices = np.array(labels)
    check_labels(path, indices, classes)
    return data.reshape(-1, 3, 32, 32), indices
