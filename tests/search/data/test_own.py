"""Data of one's own: factories, image folders and .npz files, and what is refused of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset

from dse.core.errors import InputError
from search.data import own
from search.data.own import from_factory, from_path
from search.data.sets import Augmentation, Dataset

GENERATOR = torch.Generator().manual_seed(0)


def images(n: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    bytes_ = torch.randint(0, 256, (n, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8)
    return bytes_, torch.arange(n) % classes


class Items(TorchDataset[Any]):
    """A data set as torchvision has them: an image and a plain int."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Any:
        return self.pairs[i]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*images(40), strict=True))


def made(*parts: Any, **more: Any) -> Dataset:
    return from_factory(lambda: parts[0] if len(parts) == 1 else parts, "mine:data", {}, **more)


def test_bytes_are_normalised_with_the_training_images_and_shifted() -> None:
    train, test = images(100), images(20)
    data = made(train, test)
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (88, 12, 20, 4)
    assert data.train.images.dtype == torch.uint8 and data.augmentation == Augmentation(shift=1, flip=False)
    whole = torch.cat([split.prepared(split.images) for split in (data.train, data.validation)])
    assert torch.allclose(whole.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(whole.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_a_validation_split_is_of_every_class_and_of_the_seed() -> None:
    first, again, other = (made(images(80), images(8), seed=seed, validation=0.25) for seed in (1, 1, 2))
    assert torch.bincount(first.validation.labels).tolist() == [5, 5, 5, 5]
    assert len(first.train) + len(first.validation) == 80
    assert first.validation.labels.equal(again.validation.labels)
    pair = (torch.arange(80.0)[:, None], torch.arange(80) % 4)
    one, two = (made(pair, pair, seed=seed).validation.images for seed in (1, 2))
    assert not one.equal(two) and len(other.validation) == 20


def test_a_validation_split_that_is_given_is_kept() -> None:
    parts = {"train": images(40), "validation": images(12), "test": images(8), "classes": 7}
    data = made(parts)
    assert (len(data.train), len(data.validation), data.classes) == (40, 12, 7)
    assert data.validation.images.equal(parts["validation"][0])  # type: ignore[index]
    assert len(made(images(40), images(12), images(8)).validation) == 12


def test_a_subset_keeps_the_test_images() -> None:
    data = made(images(200), images(50), subset=60)
    assert (len(data.train) + len(data.validation), len(data.test)) == (pytest.approx(60, abs=4), 50)
    assert set(torch.bincount(data.train.labels).tolist()) == {14}


def test_all_kinds_of_splits_are_read_alike() -> None:
    x, y = images(40)
    pillow = [(Image.fromarray(i.numpy().transpose(1, 2, 0)), int(t)) for i, t in zip(x, y, strict=True)]
    test = images(8)
    kinds = [(x, y), (x.numpy(), y.numpy()), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=7),
             Items(pillow), DataLoader(Items(list(zip(x, y, strict=True))), batch_size=16)]  # fmt: skip
    expected = made((x, y), test)
    for kind in kinds:
        data = made(kind, test)
        assert data.train.images.equal(expected.train.images) and data.train.labels.equal(expected.train.labels)
    assert len(made(Stream(), test).train) == 36


def test_inputs_that_are_not_bytes_are_taken_as_they_are() -> None:
    x = torch.randn(40, 5, generator=GENERATOR, dtype=torch.float64)
    data = made((x, torch.arange(40) % 2), (x, torch.arange(40) % 2))
    assert data.train.normalisation is None and data.augmentation is None and data.image_shape == (5,)
    assert data.test.images.equal(x.float()) and data.test.prepared(data.test.images) is data.test.images


def test_grey_and_channels_last_bytes_become_channels_first() -> None:
    grey = torch.zeros(40, 8, 6, dtype=torch.uint8)
    assert made((grey, torch.arange(40) % 2), (grey, torch.arange(40) % 2)).image_shape == (1, 8, 6)
    last = torch.zeros(40, 8, 6, 3, dtype=torch.uint8)
    assert made((last, torch.arange(40) % 2), (last, torch.arange(40) % 2)).image_shape == (3, 8, 6)


def test_targets_may_be_numbers_masks_or_the_next_tokens() -> None:
    x = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
    numbers = made((x, torch.arange(40.0)), (x, torch.arange(40.0)))
    assert numbers.train.labels.shape == (36, 1) and numbers.classes == 0 and numbers.augmentation is None
    mask = torch.randint(0, 3, (40, 4, 4), generator=GENERATOR, dtype=torch.uint8)
    mask[:, 0, 0], mask[:, 0, 1] = 255, 2
    masks = made((x, mask), (x, mask))
    assert masks.classes == 3 and masks.train.labels.shape == (36, 4, 4)
    assert bool((masks.train.labels[:, 0, 0] == -100).all())
    tokens = torch.arange(400).reshape(40, 10) % 17
    text = made(tokens, tokens[:4])
    assert text.classes == 17 and text.test.images.equal(tokens[:4, :-1]) and text.test.labels.equal(tokens[:4, 1:])


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ((3,), r"data.factory 'mine:data': returned a int \(allowed: train and test"),
        (({"train": images(40)},), r"returned no 'test'"),
        (({"train": images(40), "test": images(4), "valid": images(4)},), r"returned an unknown part 'valid'"),
        (({"train": images(40), "test": images(4), "classes": True},), r"classes: found True"),
        (({"train": images(40), "test": images(4), "augmentation": 4},), r"augmentation: found a int"),
        ((images(40), 7), r"test: is a int \(allowed: a pair \(inputs, targets\), a torch data set or loader\)"),
        ((images(40), images(0)), r"test: is empty"),
        ((images(40), Items([])), r"test: is empty"),
        ((images(3), images(3)), r"train: has 3 images, too few for a validation split"),
        ((images(40), (images(4)[0], torch.arange(5))), r"test: has 4 inputs and 5 targets"),
        ((images(40), (torch.zeros(4, 3, 8, 9, dtype=torch.uint8), torch.arange(4))),
         r"test: has inputs \(4, 3, 8, 9\) of uint8 \(allowed: \(40, 3, 8, 8\) of uint8, as train\)"),
        ((images(40), (torch.zeros(4, 3, 8, 8), torch.arange(4))), r"test: has inputs \(4, 3, 8, 8\) of float32"),
        ((images(40), (images(4)[0], torch.tensor([0, 1, 2, 9]))),
         r"test: has the label 9 \(allowed: 0 to 3, those of train\)"),
        ((images(40), (images(4)[0], torch.tensor([0, 1, 2, -100]))), r"test: has the label -100"),
        (({"train": images(40), "test": images(4), "classes": 2},), r"train: has the label 2 \(allowed: 0 to 1\)"),
        ((images(40), (torch.tensor([[float("nan")]]), torch.tensor([1]))), r"test: has inputs that are not finite"),
        ((images(40), (images(1)[0], torch.tensor([float("inf")]))), r"test: has targets that are not finite"),
        ((images(40), (torch.zeros(4), torch.zeros(4))), r"test: has inputs \(4,\) of float32"),
        ((images(40), (torch.zeros(4, 2, dtype=torch.complex64), torch.zeros(4))), r"inputs .* of complex64"),
        ((images(40), (torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4))), r"has bytes \(4, 2\) of uint8"),
        ((images(40), (np.array([["a"]]), np.array([1]))), r"test: has values of type <U1"),
        ((images(40), torch.zeros(4, 3)), r"test: has no targets, and is \(4, 3\) of float32"),
        ((images(40), Items([("cat", 3)])), r"test\[0\]: has a str .* ToTensor"),
        ((images(40), Items([3])), r"test\[0\]: is a int \(allowed: a pair"),
        ((images(40), Items([(torch.zeros(2), 1), (torch.zeros(3), 1)])), r"test\[1\]: is \(3,\) of float32 \(allow"),
    ],
)  # fmt: skip
def test_each_wrong_part_is_one_line(parts: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        made(*parts)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_into_memory_is_refused_at_its_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MOST_BYTES", 10_000)
    read = []

    class Large(Items):
        def __getitem__(self, i: int) -> Any:
            read.append(i)
            return torch.zeros(3, 8, 8), 0

    with pytest.raises(InputError, match=r"train: needs 0.0 GiB \(allowed: at most 0 GiB in memory\)"):
        made(Large([None] * 1000), images(4))
    assert read == [0]
    with pytest.raises(InputError, match=r"train: needs"):
        made(images(400), images(4))


def test_a_factory_that_fails_is_named() -> None:
    def fails() -> None:
        raise ValueError("no such disk\nand more")

    def refuses() -> None:
        raise InputError("my file", "is damaged")

    with pytest.raises(InputError, match=r"^data.factory 'mine:data': fails: ValueError: no such disk$"):
        from_factory(fails, "mine:data", {})
    with pytest.raises(InputError, match=r"^data.factory 'mine:data': my file: is damaged$"):
        from_factory(refuses, "mine:data", {})
    with pytest.raises(InputError, match=r"fails: TypeError: .*unexpected keyword argument 'depth'"):
        from_factory(fails, "mine:data", {"depth": 3})


def save_images(folder: Path, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> None:
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 3)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / split / name / f"{i:02}.png")


def test_a_folder_of_images_is_read(tmp_path: Path) -> None:
    save_images(tmp_path)
    data = from_path(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 6)
    assert data.image_shape == (3, 6, 8) and data.classes == 2 and data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = np.asarray(Image.open(tmp_path / "test" / "cat" / "00.png")).transpose(2, 0, 1)
    assert data.test.images[0].numpy().tolist() == first.tolist()


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    save_images(tmp_path, "L")
    assert from_path(tmp_path).image_shape == (1, 6, 8)
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "train" / "cat" / "00.png")
    assert from_path(tmp_path).image_shape == (3, 6, 8)  # one of them has colours


def test_what_is_wrong_in_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read: no such file or folder"):
        from_path(tmp_path / "none")
    with pytest.raises(InputError, match=r"train: cannot be read: no such folder"):
        from_path(tmp_path)
    save_images(tmp_path)
    Image.new("RGB", (9, 6)).save(tmp_path / "train" / "dog" / "large.png")
    with pytest.raises(InputError, match=r"large.png: is 9x6 pixels \(allowed: 8x6, as .*00.png\)"):
        from_path(tmp_path)
    (tmp_path / "train" / "dog" / "large.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"large.png: is no image"):
        from_path(tmp_path)
    (tmp_path / "train" / "dog" / "large.png").write_bytes((tmp_path / "test" / "dog" / "00.png").read_bytes()[:100])
    with pytest.raises(InputError, match=r"large.png: is not a complete image"):
        from_path(tmp_path)
    (tmp_path / "train" / "dog" / "large.png").unlink()
    (tmp_path / "test" / "bird").mkdir()
    with pytest.raises(InputError, match=r"bird: is no class of train \(allowed: cat, dog\)"):
        from_path(tmp_path)
    (tmp_path / "test" / "bird").rmdir()
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(InputError, match=r"bird: contains no image"):
        from_path(tmp_path)


@pytest.mark.parametrize("names", [("x_{}", "y_{}", "val"), ("{}_images", "{}_labels", "validation")])
def test_an_npz_file_is_read(tmp_path: Path, names: tuple[str, str, str]) -> None:
    arrays: dict[str, Any] = {}
    for split, n in (("train", 40), (names[2], 8), ("test", 12)):
        x, y = images(n)
        arrays |= {names[0].format(split): x.numpy(), names[1].format(split): y.numpy()[:, None]}
    np.savez(tmp_path / "a.npz", **arrays)
    data = from_path(tmp_path / "a.npz")
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (40, 8, 12, 4)
    assert data.test.labels.tolist() == [i % 4 for i in range(12)]


def test_one_set_of_images_is_divided_by_the_seed(tmp_path: Path) -> None:
    x, y = images(100)
    np.savez(tmp_path / "a.npz", images=x.numpy(), labels=y.numpy())
    data, other = (from_path(tmp_path / "a.npz", seed=seed) for seed in (0, 1))
    assert (len(data.train), len(data.validation), len(data.test)) == (72, 8, 20)
    assert torch.bincount(data.test.labels).tolist() == [5] * 4 and not data.test.images.equal(other.test.images)


def test_npz_files_of_other_forms_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, pictures=np.zeros(3))
    with pytest.raises(InputError, match=r"a.npz: has the arrays pictures \(allowed: x_train, y_train, x_test"):
        from_path(file)
    np.savez(file, x_train=np.zeros((3, 2)), y_train=np.zeros(3))
    with pytest.raises(InputError, match=r"a.npz: has no 'x_test' and 'y_test'"):
        from_path(file)
    np.savez(file, images=np.array([{}]), labels=np.zeros(1))
    with pytest.raises(InputError, match=r"a.npz: cannot be read: ValueError: .*pickle"):
        from_path(file)
    file.write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=r"a.npz: cannot be read"):
        from_path(file)


class Streamed(IterableDataset[Any]):
    """Items that can be read in their own order only."""

    def __iter__(self) -> Iterator[Any]:
        return ((torch.full((1, 1, 1), float(i)), i % 2) for i in range(20))


class Unlikely(Sampler[int]):
    """Any order of one's own."""

    def __iter__(self) -> Iterator[int]:
        return iter([3, 1])


def test_a_loader_is_read_in_the_order_of_its_data_set() -> None:
    pairs = TensorDataset(torch.arange(20.0).reshape(20, 1, 1, 1), torch.arange(20) % 2)

    def made(**options: Any) -> tuple[Any, Any]:
        return DataLoader(pairs, **{"batch_size": 4, **options}), DataLoader(pairs, 4)

    for kept, options in (
        (range(20), {"shuffle": False}),
        (range(20), {"shuffle": True, "drop_last": True}),
        (range(3, 20), {"sampler": SubsetRandomSampler([*range(19, 2, -1)])}),
    ):
        first, again = (from_factory(made, "x", options) for _ in range(2))
        found = torch.cat([first.train.images, first.validation.images]).flatten()
        assert sorted(found.tolist()) == [float(i) for i in kept]
        assert torch.equal(first.train.images, again.train.images)
    streamed = from_factory(lambda: (DataLoader(Streamed(), 4), DataLoader(pairs, 4)), "x", {})
    assert len(streamed.train) + len(streamed.validation) == 20
    with pytest.raises(InputError, match=r"train: cannot be read: .*allowed: batches from a loader"):
        from_factory(made, "x", {"batch_size": None})
    for options in ({"sampler": Unlikely()}, {"sampler": WeightedRandomSampler([1.0] * 20, 20)}):
        with pytest.raises(
            InputError, match=r"train: is a loader with a (Unlikely|WeightedR.*), whose order may change"
        ):
            from_factory(made, "x", options)
