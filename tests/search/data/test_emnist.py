from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dse.core.errors import InputError
from search.data.datasets import emnist_balanced

IMAGES, LABELS = "emnist-balanced-{}-images-idx3-ubyte", "emnist-balanced-{}-labels-idx1-ubyte"


def idx(values: np.ndarray, magic: int) -> bytes:
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.astype(np.uint8).tobytes()


@pytest.fixture(params=["packed", "unpacked"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """10 images of each class: row 2 of the upright image has the class index, column 9 the value 200."""
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.arange(470) % 47
    upright = np.zeros((470, 28, 28), np.uint8)
    upright[:, 2, :] = labels[:, None]
    upright[:, :, 9] = 200
    for part in ("train", "test"):
        for name, content in ((IMAGES, idx(upright.transpose(0, 2, 1), 2051)), (LABELS, idx(labels, 2049))):
            if request.param == "packed":
                (raw / f"{name.format(part)}.gz").write_bytes(gzip.compress(content))
            else:
                (raw / name.format(part)).write_bytes(content)
    return tmp_path


def test_images_are_upright_and_keep_their_labels(folder: Path) -> None:
    data = emnist_balanced(folder, seed=2)
    assert data.classes == 47 and data.image_shape == (1, 28, 28)
    assert (len(data.train), len(data.validation), len(data.test)) == (423, 47, 470)
    for split in (data.train, data.validation, data.test):
        assert split.images[:, 0, 2, 3].tolist() == split.labels.tolist()
        assert (split.images[:, 0, 20, 9] == 200).all() and (split.images[:, 0, 20, 10] == 0).all()
    assert data.augmentation and not data.augmentation.flip
    assert data.notice and "instead of 112,800 and 18,800" in data.notice


def test_a_subset_keeps_all_classes(folder: Path) -> None:
    data = emnist_balanced(folder, subset=188)
    assert len(data.train) == 4 * 47
    assert len(data.test) == len(emnist_balanced(folder).test) and len(data.train.labels.unique()) == 47


def cut(content: bytes) -> bytes:
    return content[:-100]


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (IMAGES, lambda c: gzip.compress(c)[:-100], r"images-idx3-ubyte.gz: not a complete gzip file"),
        (IMAGES, lambda c: b"<html>", r"images-idx3-ubyte.gz: not a complete gzip file"),
        (IMAGES, lambda c: gzip.compress(cut(c)), r"images-idx3-ubyte.gz: holds .* bytes of data for 470 entries"),
        (IMAGES, lambda c: gzip.compress(b""), r"images-idx3-ubyte.gz: not an EMNIST idx file: it begins with 0"),
        (IMAGES, lambda c: gzip.compress(idx(np.zeros((470, 8, 8)), 2051)), r"images of 8x8 \(allowed: 28x28\)"),
        (LABELS, lambda c: gzip.compress(idx(np.zeros(469), 2049)), r"labels-idx1-ubyte.gz: has 469 labels"),
        (LABELS, lambda c: gzip.compress(idx(np.full(470, 47), 2049)), r"labels-idx1-ubyte.gz: has a class index out"),
        (LABELS, None, r"labels-idx1-ubyte.gz: cannot be read: no such file"),
    ],
)
@pytest.mark.parametrize("folder", ["packed"], indirect=True)
def test_wrong_files_are_one_line_that_names_them(
    folder: Path, name: str, change: Callable[[bytes], bytes] | None, problem: str
) -> None:
    path = folder / "EMNIST" / "raw" / f"{name.format('test')}.gz"
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(gzip.decompress(path.read_bytes())))
    with pytest.raises(InputError, match=rf"test-{problem}|{problem}") as caught:
        emnist_balanced(folder)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
