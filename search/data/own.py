"""Data of one's own: what a factory returns, image folders, and .npz files, as a data set in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset

from dse.core.errors import InputError
from dse.core.files import reason as os_reason
from dse.workload.networks import reason
from search.data.sets import Augmentation, Dataset, Normalisation, Split
from search.data.splits import VALIDATION_SHARE, stratified, stratified_subset

MOST_BYTES = 16 * 2**30
"""Largest split, inputs and targets: all data are kept in memory."""

TEST_SHARE = 0.2
"""Share of the images for test, where a file has one set only."""

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Files that count as images in a folder, by the end of their names, in small or capital letters."""

IGNORED = -100
SPLITS = ("train", "validation", "test")
Pair = tuple[Tensor, Tensor]


def from_factory(
    function: Callable[..., Any],
    name: str,
    arguments: Mapping[str, Any],
    subset: int | None = None,
    seed: int = 0,
    validation: float | None = None,
) -> Dataset:
    """The data set that a function returns.

    Args:
        function: returns (train, test), (train, validation, test), or a mapping of these names, in which `classes` and
            `augmentation` (an `Augmentation`) may be given too; or a `Dataset` of ENOS. Each split is a pair of tensors
            or arrays (inputs, targets), a torch data set or loader of such pairs, or a tensor of token ids alone, of
            which each token is the target of those before it.
        name: of the function, for errors.
        arguments: its keyword arguments.
        subset, seed, validation: as for the readers of `search.data.datasets`; a validation split that is given is
            kept.

    Raises:
        InputError: the function fails, or returns something else; a split is empty, too large, of a wrong shape or
            type, or has labels out of range.
    """
    where = f"data.factory {name!r}"
    try:
        made = function(**arguments)
    except InputError as e:
        raise e.at(f"{where}: {e.where}") from None
    except Exception as e:  # whatever a user's function does
        raise InputError(where, f"fails: {reason(e)}") from e
    if isinstance(made, Dataset):
        return made
    if isinstance(made, tuple | list) and len(made) in (2, 3):
        made = dict(zip(("train", "test") if len(made) == 2 else SPLITS, made, strict=True))
    if not isinstance(made, Mapping):
        raise InputError(where, f"returned a {type(made).__name__}", "train and test, or train, validation and test")
    for key in made:
        if key not in (*SPLITS, "classes", "augmentation"):
            raise InputError(where, f"returned an unknown part {key!r}", (*SPLITS, "classes", "augmentation"))
    for key in ("train", "test"):
        if made.get(key) is None:
            raise InputError(where, f"returned no {key!r}", SPLITS)
    parts = {key: _pair(made[key], f"{where}: {key}") for key in SPLITS if made.get(key) is not None}
    classes, augmentation = made.get("classes"), made.get("augmentation")
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise InputError(f"{where}: classes", f"found {classes!r}", "a whole number from 1")
    if augmentation is not None and not isinstance(augmentation, Augmentation):
        raise InputError(f"{where}: augmentation", f"found a {type(augmentation).__name__}", "an Augmentation")
    return own_dataset(parts, where, subset, seed, validation, classes=classes, augmentation=augmentation)


def from_path(path: Path, subset: int | None = None, seed: int = 0, validation: float | None = None) -> Dataset:
    """The data set of a folder of images, ``train/CLASS/*.png`` and ``test/CLASS/*.png``, or of a .npz file.

    A .npz file has x_train, y_train, x_test, y_test (and x_validation, y_validation), or train_images, train_labels and
    so on, or images and labels alone, of which a fifth is for test, chosen by `seed`.

    Raises:
        InputError: naming the file or folder that is missing, damaged or of another form.
    """
    if path.is_dir():
        parts, classes = _folder(path)
        return own_dataset(parts, str(path), subset, seed, validation, classes=classes)
    if not path.exists():
        raise InputError(path, "cannot be read: no such file or folder", "a folder of images, a .npz file")
    parts = _npz(path, seed)
    return own_dataset(parts, str(path), subset, seed, validation)


def own_dataset(
    parts: Mapping[str, Pair],
    where: str,
    subset: int | None,
    seed: int,
    validation: float | None,
    *,
    classes: int | None = None,
    augmentation: Augmentation | None = None,
) -> Dataset:
    """A data set of tensors, with a validation split taken from the training images where none is given.

    Bytes (N, C, H, W) are normalised with mean and deviation of the training images, and shifted at random by up to an
    eighth of their height where targets are one label per image. Other inputs are taken as they are, in float32 or
    int64.

    Raises:
        InputError: naming the split that is empty, too large, or unlike the others.
    """
    found = {key: _checked(pair, f"{where}: {key}") for key, pair in parts.items()}
    train = found["train"]
    for key, pair in found.items():
        for what, ours, theirs in zip(("inputs", "targets"), pair, train, strict=True):
            if ours.shape[1:] != theirs.shape[1:] or ours.dtype != theirs.dtype:
                raise InputError(f"{where}: {key}", f"has {what} {_form(ours)}", f"{_form(theirs)}, as train")
    classes = _classes(found, where, classes)
    normalisation = _normalisation(train[0]) if train[0].dtype == torch.uint8 else None
    single = not train[1].is_floating_point() and train[1].dim() == 1
    if augmentation is None and normalisation is not None and single:
        augmentation = Augmentation(shift=max(1, train[0].shape[2] // 8), flip=False)
    if "validation" in found:
        learnt, held_out = found["train"], found["validation"]
    else:
        share = VALIDATION_SHARE if validation is None else validation
        first, second = _divided(train[1], (1 - share, share), seed)
        learnt, held_out = _taken(train, first), _taken(train, second)
    if subset is not None:
        kept = min(1.0, subset / (len(learnt[1]) + len(held_out[1])))
        learnt, held_out = (_first(pair, max(1, round(kept * len(pair[1])))) for pair in (learnt, held_out))
    if not len(held_out[1]) or not len(learnt[1]):
        raise InputError(f"{where}: train", f"has {len(train[1])} images, too few for a validation split",
                         hint="give a validation split, or more images")  # fmt: skip
    learnt_from, chosen_by, tested = (Split(*pair, normalisation) for pair in (learnt, held_out, found["test"]))
    return Dataset(learnt_from, chosen_by, tested, classes, augmentation)


def _checked(pair: Pair, where: str) -> Pair:
    """Inputs and targets of a split in the forms that networks take."""
    inputs, targets = _inputs(pair[0], where), _targets(pair[1], where)
    if len(inputs) != len(targets):
        raise InputError(where, f"has {len(inputs)} inputs and {len(targets)} targets", "as many of both")
    if not len(inputs):
        raise InputError(where, "is empty", "at least one image")
    return inputs, targets


def _inputs(x: Tensor, where: str) -> Tensor:
    if x.dim() < 2:
        raise InputError(
            where, f"has inputs {_form(x)}", "the first dimension counts them: (N, C, H, W), (N, features)"
        )
    if x.dtype == torch.uint8:
        channels = (1, 3, 4)
        if x.dim() == 3:
            x = x[:, None]
        elif x.dim() == 4 and x.shape[1] not in channels and x.shape[3] in channels:
            x = x.movedim(3, 1)
        if x.dim() != 4:
            raise InputError(
                where, f"has bytes {_form(x)}", "images (N, C, H, W), (N, H, W, C) or (N, H, W); or floats"
            )
        return x.contiguous()
    if x.is_complex() or x.dtype == torch.bool:
        raise InputError(where, f"has inputs {_form(x)}", "bytes, floats or whole numbers")
    if x.is_floating_point():
        return _finite(x.to(torch.float32), "inputs", where)
    if len(x) and int(x.min()) < 0:
        raise InputError(where, f"has the token {int(x.min())}", "whole numbers from 0; or floats")
    return x.to(torch.int64)


def _targets(y: Tensor, where: str) -> Tensor:
    """Labels as int64, with -100 where bytes have 255 (no label); numbers as float32 of at least two dimensions."""
    if y.is_complex() or y.dim() < 1:
        raise InputError(where, f"has targets {_form(y)}", "labels or numbers, one or more for each input")
    if y.is_floating_point() or y.dtype == torch.bool:
        numbers = _finite(y.to(torch.float32), "targets", where)
        return numbers[:, None] if numbers.dim() == 1 else numbers
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    labels = y.to(torch.int64)
    return labels.masked_fill(labels == 255, IGNORED) if y.dtype == torch.uint8 and y.dim() > 1 else labels


def _finite(x: Tensor, what: str, where: str) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise InputError(where, f"has {what} that are not finite numbers", "no nan and no infinity")
    return x


def _classes(found: Mapping[str, Pair], where: str, given: int | None) -> int:
    """Number of classes, or of tokens; 0 where targets are numbers."""
    if found["train"][1].is_floating_point():
        return 0
    tokens = not found["train"][0].is_floating_point() and found["train"][0].dtype == torch.int64
    train = found["train"] if tokens else found["train"][1:]
    classes = 1 + max(int(part.max()) for part in train) if given is None else given
    for key, (inputs, labels) in found.items():
        for part in (inputs, labels) if tokens else (labels,):
            wrong = part[((part < 0) & ((part != IGNORED) | (part.dim() == 1))) | (part >= classes)]
            if len(wrong):
                source = "" if given is not None else ", those of train"
                raise InputError(f"{where}: {key}", f"has the label {int(wrong[0])}", f"0 to {classes - 1}{source}")
    return classes


def _normalisation(images: Tensor) -> Normalisation:
    """Mean and deviation of each channel, for pixels from 0 to 1."""
    total, squares = torch.zeros(images.shape[1]).double(), torch.zeros(images.shape[1]).double()
    for some in torch.split(images, 1000):
        pixels = some.double() / 255
        total += pixels.sum((0, 2, 3))
        squares += pixels.square().sum((0, 2, 3))
    count = images.numel() / images.shape[1]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return Normalisation(tuple(mean.tolist()), tuple(torch.where(deviation > 1e-6, deviation, 1.0).tolist()))


def _divided(targets: Tensor, shares: tuple[float, ...], seed: int) -> list[Tensor]:
    """Index sets that the seed decides, with the same share of every class where targets are one label per image."""
    labels = targets.numpy() if not targets.is_floating_point() and targets.dim() == 1 else np.zeros(len(targets))
    return [torch.from_numpy(part) for part in stratified(labels, shares, seed)]


def _taken(pair: Pair, indices: Tensor) -> Pair:
    return pair[0][indices], pair[1][indices]


def _first(pair: Pair, size: int) -> Pair:
    """The first images, equally many of each class where targets are one label per image."""
    targets = pair[1]
    if targets.is_floating_point() or targets.dim() > 1:
        return pair[0][:size], pair[1][:size]
    kept = stratified_subset(np.arange(len(targets)), targets.numpy(), size)
    return _taken(pair, torch.from_numpy(kept))


def _form(x: Tensor) -> str:
    return f"{tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"


def _pair(part: Any, where: str) -> Pair:
    """A split as a pair of tensors."""
    if isinstance(part, Split):
        part = (part.images, part.labels)
    if isinstance(part, Tensor | np.ndarray):
        tokens = _tensor(part, where)
        if tokens.dim() != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool or tokens.shape[1] < 2:
            raise InputError(where, f"has no targets, and is {_form(tokens)}",
                             "a pair (inputs, targets), or token ids (N, length)")  # fmt: skip
        _fits(tokens.numel() * tokens.element_size(), where)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous().to(torch.int64)
    if isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(p, Tensor | np.ndarray) for p in part):
        inputs, targets = (_tensor(p, where) for p in part)
        _fits(sum(t.numel() * t.element_size() for t in (inputs, targets)), where)
        return inputs, targets
    if isinstance(part, DataLoader):
        return _joined(_in_order(part, where), where, torch.cat)
    if isinstance(part, TorchDataset):
        items: Any = (part[i] for i in range(len(part))) if hasattr(part, "__len__") else part
        return _joined(items, where, torch.stack, len(part) if hasattr(part, "__len__") else None)
    raise InputError(where, f"is a {type(part).__name__}", "a pair (inputs, targets), a torch data set or loader")


def _in_order(loader: DataLoader[Any], where: str) -> DataLoader[Any]:
    """A loader of the same items that gives all of them, in an order that does not change.

    Each stage of a run reads the data and takes its validation images by their place, so a loader that shuffles would
    give one stage images to learn from that are for validation in another. The run shuffles by itself.
    """
    if isinstance(loader.dataset, IterableDataset):
        return loader  # it has an order of its own
    batches, sampler = loader.batch_sampler, loader.sampler
    if not (batches is None or type(batches) is BatchSampler):
        sampler = batches
    if isinstance(sampler, SubsetRandomSampler):
        kept: Any = Subset(loader.dataset, sorted(int(i) for i in sampler.indices))
    elif isinstance(sampler, SequentialSampler) or (isinstance(sampler, RandomSampler) and not sampler.replacement):
        kept = loader.dataset
    else:
        raise InputError(where, f"is a loader with a {type(sampler).__name__}, whose order may change",
                         "a DataLoader that reads its data set in order or shuffles it")  # fmt: skip
    return DataLoader(kept, loader.batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers,
                      worker_init_fn=loader.worker_init_fn)  # fmt: skip


def _joined(items: Iterable[Any], where: str, join: Callable[[list[Tensor]], Tensor], count: int | None = None) -> Pair:
    """All items (inputs, targets), batches or single ones, in memory."""
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    size = 0
    try:
        for i, item in enumerate(items):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise InputError(f"{where}[{i}]", f"is a {type(item).__name__}", "a pair (input, target)")
            for values, part in zip(found, item, strict=True):
                values.append(_tensor(part, f"{where}[{i}]"))
                size += values[-1].numel() * values[-1].element_size()
                first, last = (tuple(v.shape)[join is torch.cat :] for v in (values[0], values[-1]))
                if first != last or values[0].dtype != values[-1].dtype:
                    raise InputError(f"{where}[{i}]", f"is {_form(values[-1])}", f"{_form(values[0])}, as the first")
            _fits(size if i or count is None else size * count, where)
    except InputError:
        raise
    except Exception as e:  # whatever a user's data set does
        raise InputError(where, f"cannot be read: {reason(e)}") from e
    if not found[0]:
        raise InputError(where, "is empty", "at least one image")
    try:
        return join(found[0]), join(found[1])
    except RuntimeError as e:  # torch's: a loader whose items are no batches
        raise InputError(
            where, f"cannot be read: {reason(e)}", "batches from a loader, single items from a data set"
        ) from e


def _tensor(value: Any, where: str) -> Tensor:
    """A tensor on the CPU from a tensor, an array, a number or a Pillow image, whose channels become the first."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.float32 if isinstance(value, float) else None)
    if hasattr(value, "getbands"):
        pixels = np.array(value)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        try:
            return torch.from_numpy(np.ascontiguousarray(array) if array.ndim else array.reshape(()).copy())
        except TypeError:
            raise InputError(where, f"has values of type {array.dtype}", "bytes, whole numbers or floats") from None
    raise InputError(where, f"has a {type(value).__name__}", "tensors, arrays, numbers or Pillow images",
                     "give the data set a transform such as torchvision's ToTensor")  # fmt: skip


def _fits(size: int, where: str) -> None:
    if size > MOST_BYTES:
        raise InputError(where, f"needs {size / 2**30:.1f} GiB", f"at most {MOST_BYTES / 2**30:.0f} GiB in memory",
                         "give fewer or smaller images, or bytes instead of floats")  # fmt: skip


_NAMES = (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"))


def _npz(path: Path, seed: int) -> dict[str, Pair]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays(path, arrays, seed)
    except InputError:
        raise
    except OSError as e:
        raise InputError(path, f"cannot be read: {os_reason(e)}", "a .npz file") from None
    except Exception as e:  # numpy has no single error for what is no such file
        raise InputError(path, f"cannot be read: {reason(e)}", "a .npz file of numbers") from None


def _from_arrays(path: Path, arrays: Any, seed: int) -> dict[str, Pair]:
    names = list(arrays.files)

    def read(*pair: str) -> Pair:
        return _pair(tuple(arrays[name] for name in pair), str(path))

    for forms in _NAMES:
        keys = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
        found = {}
        for split, word in ((split, word) for split, words in keys.items() for word in words):
            pair = tuple(form.format(word) for form in forms)
            if all(name in names for name in pair):
                found[split] = read(*pair)
        if "train" in found:
            if "test" not in found:
                raise InputError(path, f"has no {forms[0].format('test')!r} and {forms[1].format('test')!r}", names)
            return found
    for pair in (("images", "labels"), ("x", "y")):
        if all(name in names for name in pair):
            inputs, targets = _checked(read(*pair), str(path))
            train, test = _divided(targets, (1 - TEST_SHARE, TEST_SHARE), seed)
            return {"train": _taken((inputs, targets), train), "test": _taken((inputs, targets), test)}
    raise InputError(path, f"has the arrays {', '.join(names) or 'none'}",
                     "x_train, y_train, x_test, y_test; train_images, train_labels, ...; images, labels")  # fmt: skip


def _folder(path: Path) -> tuple[dict[str, Pair], int]:
    """The splits of a folder, and the number of its classes: the folders in train, in the order of their names."""
    folders = {"train": path / "train", "test": path / "test"}
    for word in ("validation", "val", "valid"):
        if (path / word).is_dir():
            folders["validation"] = path / word
    for folder in (folders["train"], folders["test"]):
        if not folder.is_dir():
            raise InputError(folder, "cannot be read: no such folder", "train/CLASS/*.png and test/CLASS/*.png")
    names = _classes_in(folders["train"])
    if not names:
        raise InputError(folders["train"], "contains no folder", "one folder of images for each class")
    listed = {split: _listed(folder, names) for split, folder in folders.items()}
    files = [file for entries in listed.values() for file, _ in entries]
    mode, size = _opened(files)
    bands = len(mode) if mode == "RGB" else 1
    for split, entries in listed.items():
        _fits(len(entries) * bands * size[0] * size[1], str(folders[split]))
    return {split: _decoded(entries, mode, size) for split, entries in listed.items()}, len(names)


def _classes_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listed(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for name in _classes_in(folder):
        if name not in names:
            raise InputError(folder / name, "is no class of train", names)
        images = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in IMAGES)
        found += [(file, names.index(name)) for file in images]
    for name in names:
        if folder.name == "train" and not any(label == names.index(name) for _, label in found):
            raise InputError(folder / name, "contains no image", ", ".join(IMAGES))
    if not found:
        raise InputError(folder, "contains no image", ", ".join(IMAGES))
    return found


def _opened(files: Sequence[Path]) -> tuple[str, tuple[int, int]]:
    """The mode that all images are decoded to, grey (L) if all are grey, and their size (width, height)."""
    from PIL import Image

    modes, size = set(), None
    for file in files:
        try:
            with Image.open(file) as image:
                modes.add(image.mode)
                own = image.size
        except (OSError, SyntaxError, ValueError) as e:
            raise InputError(file, f"is no image: {' '.join(str(e).split())}", ", ".join(IMAGES)) from None
        size = own if size is None else size
        if own != size:
            raise InputError(file, f"is {own[0]}x{own[1]} pixels", f"{size[0]}x{size[1]}, as {files[0]}")
    assert size is not None
    return "L" if modes <= {"1", "L"} else "RGB", size


def _decoded(entries: Sequence[tuple[Path, int]], mode: str, size: tuple[int, int]) -> Pair:
    from PIL import Image

    images = np.empty((len(entries), 3 if mode == "RGB" else 1, size[1], size[0]), np.uint8)
    for i, (file, _) in enumerate(entries):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError) as e:
            raise InputError(file, f"is not a complete image: {' '.join(str(e).split())}") from None
        images[i] = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    return torch.from_numpy(images), torch.tensor([label for _, label in entries])
