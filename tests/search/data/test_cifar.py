from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from search.data.datasets import cifar10, cifar100

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def write_batch(path: Path, protocol: int = 2, each: int = 20) -> None:
    rng = np.random.default_rng(len(path.name))
    labels = [i % 10 for i in range(each)]
    data = rng.integers(0, 256, (each, 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({b"batch_label": b"x", b"labels": labels, b"data": data}, protocol))


@pytest.fixture(params=[2, 4])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name in NAMES:
        write_batch(batches / name, request.param)
    return tmp_path


def test_cifar_batches_of_either_python_are_read(folder: Path) -> None:
    data = cifar10(folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.image_shape == (3, 32, 32)
    raw = pickle.loads((folder / "cifar-10-batches-py" / "test_batch").read_bytes())
    red = raw[b"data"][data.test.labels.tolist().index(0), 0]
    prepared = data.test.prepared(data.test.images[:1])
    assert red / 255 == pytest.approx(float(prepared[0, 0, 0, 0]) * 0.2470 + 0.4914, abs=1e-5)
    assert data.notice and "100 training and 20 test images instead of 50,000 and 10,000" in data.notice
    some = cifar10(folder, subset=60)
    assert len(some.train) < 90 and len(some.test) == 20
    held_out = cifar10(folder, validation=0.4)
    assert (len(held_out.train), len(held_out.validation), len(held_out.test)) == (60, 40, 20)
    assert len(cifar10(folder, subset=50, validation=0.4).validation) == 20


def test_a_batch_in_the_form_of_the_official_files_is_read(folder: Path) -> None:
    """Python 2 wrote numpy arrays as text strings under the old module name; this is such a pickle, by hand."""
    data = bytes(range(256)) * 12 * 10
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(K\x01K\x0aM\x00\x0c\x86"  # version 1, (10, 3072)
    content = b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"
    labels = b"](" + bytes(byte for i in range(10) for byte in (ord("K"), i)) + b"e"
    official = b"\x80\x02}(U\x04data" + array + shape + dtype + content + b"U\x06labels" + labels + b"u."
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(official)
    assert sorted(cifar10(folder).test.labels.tolist()) == list(range(10))


class Bomb:
    def __reduce__(self) -> Any:  # type: ignore[no-untyped-def]
        return os.system, ("touch bombed",)


def broken(content: object) -> bytes:
    return pickle.dumps(content, 2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (broken(Bomb()), r"refers to (posix|nt).system"),
        (broken({b"data": Bomb(), b"labels": []}), r"refers to (posix|nt).system"),
        (broken({b"labels": [0]}), r"b'data' is not an array of images"),
        (broken({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), r"b'labels' do not match"),
        (broken({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}), r"class index out of range"),
        (broken({b"data": np.array([print]), b"labels": [1]}), r"not a CIFAR-10 batch file"),
        (broken([1, 2]), r"not an array of images"),
        (b"", r"not a CIFAR-10 batch file"),
        (b"<html>not found</html>", r"not a CIFAR-10 batch file"),
    ],
)
def test_wrong_files_are_one_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name in NAMES:
        write_batch(batches / name)
    (batches / "data_batch_3").write_bytes(content)
    with pytest.raises(InputError, match=rf"data_batch_3: .*{problem}") as caught:
        cifar10(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bombed").exists()


def test_truncated_and_missing_files(folder: Path) -> None:
    path = folder / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"data_batch_2: not a CIFAR-10 batch file"):
        cifar10(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"data_batch_2: cannot be read"):
        cifar10(folder)
    with pytest.raises(InputError, match=r"data.dir: is not given"):
        cifar10(None)
    with pytest.raises(InputError, match=r"cifar-10-batches-py: cannot be read: no such folder"):
        cifar10(folder / "elsewhere")


def write_cifar100(folder: Path, labels: list[int]) -> None:
    (folder / "cifar-100-python").mkdir()
    data = np.repeat(np.array(labels, np.uint8)[:, None], 3072, axis=1)
    for part in ("train", "test"):
        batch = {b"fine_labels": labels, b"coarse_labels": [0] * len(labels), b"data": data}
        (folder / "cifar-100-python" / part).write_bytes(pickle.dumps(batch, 2))


def test_cifar100_has_the_fine_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path, [c for c in range(100) for _ in range(10)])
    data = cifar100(tmp_path, seed=1)
    assert data.classes == 100 and data.notice and data.notice.startswith("cifar100 on disk is not the official set")
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 1000)
    assert data.validation.labels.sort().values.tolist() == list(range(100))
    for split in (data.train, data.validation, data.test):
        assert split.images[:, 0, 5, 7].tolist() == split.labels.tolist()  # each image still has its own label


def test_wrong_cifar100_files_are_named(tmp_path: Path) -> None:
    write_cifar100(tmp_path, [0, 100])
    with pytest.raises(InputError, match=r"cifar-100-python/train: has a class index out of range \(allowed: 0 to 99"):
        cifar100(tmp_path)
    write_batch(tmp_path / "cifar-100-python" / "train")
    with pytest.raises(InputError, match=r"train: its b'fine_labels' do not match its images"):
        cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "train").write_bytes(broken({b"data": Bomb(), b"fine_labels": []}))
    with pytest.raises(InputError, match=r"train: not a CIFAR-100 batch file: it refers to (posix|nt).system"):
        cifar100(tmp_path)


def test_too_few_images_to_split_are_refused(tmp_path: Path) -> None:
    write_cifar100(tmp_path, list(range(100)))
    with pytest.raises(InputError, match=r"has 100 training and 100 test images \(allowed: at least 10 training"):
        cifar100(tmp_path)
