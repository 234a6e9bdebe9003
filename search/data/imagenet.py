"""Tiny ImageNet (Stanford CS231N) from its folder of JPEG files: 64x64 pixels, three channels, 200 classes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt

from dse.core.documents import read_text
from dse.core.errors import InputError
from search.data.sets import Augmentation, Dataset, Normalisation
from search.data.splits import Indices, Source, assemble, official_folder

SIZE = 64

BLOCK = 64
"""Number of images that a thread decodes at a time."""


def tiny_imagenet(
    directory: Path | None = None, subset: int | None = None, seed: int = 0, validation: float | None = None
) -> Dataset:
    """Tiny ImageNet from the folder that contains ``tiny-imagenet-200``: 90,000 / 10,000 / 10,000 images.

    Its official validation images are the test split, because the labels of its test images are not published. Classes
    are numbered as in ``wnids.txt``. With a subset, only the chosen images are read. Arguments and errors are those of
    `search.data.cifar.cifar10`.
    """
    folder = official_folder("tiny_imagenet", directory)
    wnids = read_text(folder / "wnids.txt").split()
    if len(wnids) != 200 or len(set(wnids)) != 200:
        raise InputError(folder / "wnids.txt", f"names {len(set(wnids))} classes", "200")
    normalisation = Normalisation((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))
    return assemble(
        "tiny_imagenet", folder, _training(folder, wnids), _validation(folder, wnids), subset, seed, validation,
        normalisation, Augmentation(shift=8, flip=True),
    )  # fmt: skip


def _training(folder: Path, wnids: Sequence[str]) -> Source:
    files: list[Path] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        of_class = sorted(images.glob("*.JPEG"))  # sorted, because the order of the file system is arbitrary
        if not of_class:
            raise InputError(images, "contains no image", "JPEG files of this class")
        files += of_class
        labels += [label] * len(of_class)
    return _source(files, labels)


def _validation(folder: Path, wnids: Sequence[str]) -> Source:
    path = folder / "val" / "val_annotations.txt"
    index = {wnid: i for i, wnid in enumerate(wnids)}
    files, labels = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, wnid, *_ = [*line.split("\t"), "", ""]
        if wnid not in index or Path(name).name != name:
            raise InputError(f"{path}: line {number}", f"found {line[:60]!r}", "file name, tab, class of wnids.txt")
        files.append(folder / "val" / "images" / name)
        labels.append(index[wnid])
    return _source(files, labels)


def _source(files: Sequence[Path], labels: Sequence[int]) -> Source:
    def read(indices: Indices) -> npt.NDArray[np.uint8]:
        images = np.empty((len(indices), 3, SIZE, SIZE), np.uint8)

        def fill(start: int) -> None:
            for i in range(start, min(start + BLOCK, len(indices))):
                images[i] = _decoded(files[indices[i]])

        with ThreadPoolExecutor(joblib.cpu_count()) as threads:  # Pillow decodes without the interpreter's lock
            list(threads.map(fill, range(0, len(indices), BLOCK)))
        return images

    return Source(np.array(labels, np.int64), read)


def _decoded(path: Path) -> npt.NDArray[np.uint8]:
    """One image as (3, 64, 64); the few greyscale images of the set get three equal channels."""
    from PIL import Image

    try:
        with Image.open(path, formats=("JPEG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(path, "cannot be read: no such file or directory", "a JPEG image") from None
    except (OSError, SyntaxError, ValueError) as e:  # Pillow raises these for other formats and damaged files
        raise InputError(path, f"not a complete JPEG image: {' '.join(str(e).split())}", "the official file") from None
    if pixels.shape != (SIZE, SIZE, 3):
        raise InputError(path, f"is {pixels.shape[1]}x{pixels.shape[0]} pixels", f"{SIZE}x{SIZE}")
    return pixels.transpose(2, 0, 1)
