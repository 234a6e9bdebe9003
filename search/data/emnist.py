"""EMNIST Balanced (Cohen et al. 2017) from its idx files: 28x28 pixels, one channel, 47 classes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import InputError
from dse.core.files import reason
from search.data.catalogue import OFFICIAL
from search.data.sets import Augmentation, Dataset, Normalisation
from search.data.splits import Source, assemble, check_labels, official_folder

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
"""First word of an idx file of unsigned bytes in three dimensions, and in one dimension."""

SIZE = 28


def emnist_balanced(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """EMNIST Balanced from the folder that contains ``EMNIST/raw``: 101,520 / 11,280 / 18,800 images.

    The idx files may be compressed (.gz, as published) or not. They store images column by column; the result is
    transposed, so that images are upright. Letters are never mirrored. Arguments and errors are those of
    `search.data.cifar.cifar10`.
    """
    folder = official_folder("emnist_balanced", directory)
    train, test = (_source(folder, part) for part in ("train", "test"))
    return assemble(
        "emnist_balanced", folder, train, test, subset, seed, validation, Normalisation((0.1751,), (0.3332,)),
        Augmentation(shift=2, flip=False),
    )  # fmt: skip


def _source(folder: Path, part: str) -> Source:
    path = _existing(folder / f"emnist-balanced-{part}-images-idx3-ubyte")
    images = _idx(path, IMAGES_MAGIC, 3)
    if images.shape[1:] != (SIZE, SIZE):
        raise InputError(path, f"has images of {images.shape[1]}x{images.shape[2]}", f"{SIZE}x{SIZE}")
    labels_path = _existing(folder / f"emnist-balanced-{part}-labels-idx1-ubyte")
    labels = _idx(labels_path, LABELS_MAGIC, 1)
    if len(labels) != len(images):
        raise InputError(labels_path, f"has {len(labels)} labels", f"{len(images)}, one per image of {path.name}")
    check_labels(labels_path, labels, OFFICIAL["emnist_balanced"].classes)
    upright = images.transpose(0, 2, 1)[:, None]
    return Source(labels, lambda indices: np.ascontiguousarray(upright[indices]))


def _existing(path: Path) -> Path:
    """The uncompressed file if it exists, else the path of the compressed one."""
    return path if path.exists() else path.with_name(path.name + ".gz")


def _idx(path: Path, magic: int, dimensions: int) -> npt.NDArray[Any]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise InputError(path, f"not a complete gzip file: {str(e).lower()}", "the official file") from None
    except OSError as e:
        raise InputError(path, f"cannot be read: {reason(e)}", "an EMNIST idx file") from None
    header = 4 * (1 + dimensions)
    number, *shape = struct.unpack(f">{1 + dimensions}I", content[:header].ljust(header, b"\0"))
    if number != magic:
        raise InputError(path, f"not an EMNIST idx file: it begins with {number}", str(magic))
    values = np.frombuffer(content, np.uint8, offset=header) if len(content) > header else np.zeros(0, np.uint8)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise InputError(path, f"holds {len(values):,} bytes of data for {shape[0]:,} entries",
                         f"{np.prod(shape, dtype=np.int64):,} bytes")  # fmt: skip
    return values.reshape(shape)
