from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dse.core.errors import InputError
from search.data.datasets import tiny_imagenet

WNIDS = [f"n{(7 * i) % 200:08d}" for i in range(200)]  # not in alphabetical order, as in the official file


def jpeg(value: int, size: int = 64, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size), value, np.uint8)).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 training images and one for validation of each class; their grey is the class index. Some are monochrome."""
    folder = tmp_path_factory.mktemp("data") / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    lines = []
    for label, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        content = jpeg(label, mode="L" if label % 10 == 0 else "RGB")
        for i in range(10):
            (images / f"{wnid}_{i}.JPEG").write_bytes(content)
        (folder / "val" / "images" / f"val_{label}.JPEG").write_bytes(content)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return folder.parent


def test_images_have_the_class_of_their_folder_or_annotation(whole: Path) -> None:
    data = tiny_imagenet(whole, seed=4)
    assert data.classes == 200 and data.image_shape == (3, 64, 64)
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 200)
    for split in (data.train, data.validation, data.test):
        assert (split.images[:, :, 30, 30].int() - split.labels[:, None]).abs().max() <= 2  # JPEG is not exact
    assert data.augmentation and (data.augmentation.shift, data.augmentation.flip) == (8, True)
    assert data.notice and "2,000 training and 200 test images instead of 100,000 and 10,000" in data.notice
    assert data.train.images.element_size() == 1


def test_of_a_subset_only_its_images_are_read(whole: Path) -> None:
    chosen = tiny_imagenet(whole, subset=600, seed=4)
    assert len(chosen.train) < 1000 and len(chosen.train.labels.unique()) == 200
    assert len(chosen.test) == 200


def put_aside(path: Path, content: bytes | None) -> bytes:
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return before


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("val/images/val_3.JPEG", jpeg(1)[:300], r"not a complete JPEG image"),
        ("val/images/val_3.JPEG", b"<html>", r"not a complete JPEG image"),
        ("val/images/val_3.JPEG", jpeg(1, size=32), r"is 32x32 pixels \(allowed: 64x64\)"),
        ("val/images/val_3.JPEG", None, r"cannot be read: no such file"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn0\t0\t0\t1\t1\n", r"line 1: found .*class of wnids.txt"),
        ("val/val_annotations.txt", b"../x.JPEG\tn00000000\n", r"line 1: found"),
        ("val/val_annotations.txt", None, r"cannot be read: no such file"),
        ("wnids.txt", b"n00000000\n", r"names 1 classes \(allowed: 200\)"),
    ],
)
def test_wrong_files_are_one_line_that_names_them(whole: Path, file: str, content: bytes | None, problem: str) -> None:
    path = whole / "tiny-imagenet-200" / file
    before = put_aside(path, content)
    try:
        with pytest.raises(InputError, match=rf"{path.name}: .*{problem}|{path.name}: {problem}") as caught:
            tiny_imagenet(whole)
    finally:
        path.write_bytes(before)
    assert "\n" not in str(caught.value)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "tiny-imagenet-200").mkdir()
    (tmp_path / "tiny-imagenet-200" / "wnids.txt").write_text("\n".join(WNIDS))
    with pytest.raises(InputError, match=r"train/n00000000/images: contains no image"):
        tiny_imagenet(tmp_path)
