"""Data sets for training: splits, their normalisation and augmentation."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Normalisation:
    """Scales bytes to zero mean and unit variance; `mean` and `std` are per channel, for pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """float32 from uint8 (N, C, H, W), on the device of the images."""
        mean, std = (_on_device(v, images.device) for v in (self.mean, self.std))
        return images.to(torch.float32).sub_(mean).div_(std)


@functools.lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value per channel in units of a byte. Cached, because a copy to a device waits for all its pending work."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device).mul_(255).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) and their class indices (N,), int64.

    Images with a normalisation are stored as bytes, in a quarter of the memory; networks read `prepared` batches of
    them. Images without a normalisation are float32.
    """

    images: Tensor
    labels: Tensor
    normalisation: Normalisation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def prepared(self, images: Tensor) -> Tensor:
        """A batch of the split's images, augmented or not, as float32 input of a network."""
        return images if self.normalisation is None else self.normalisation(images)

    def to(self, device: str) -> Split:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images that keep their class: shifts of up to `shift` pixels, mirroring if `flip`."""

    shift: int
    flip: bool

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of `images` (N, C, H, W), each changed independently; pixels shifted in are zero."""
        return self.changed(images, self.draw(len(images), generator).to(images.device))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """The changes of `n` images, shape (3, n): offsets down and right of each image, and 1 if it is mirrored."""
        shifts = torch.randint(0, 2 * self.shift + 1, (2, n), generator=generator)
        mirrored = torch.rand(n, generator=generator) < 0.5 if self.flip else torch.zeros(n)
        return torch.cat([shifts, mirrored.to(shifts.dtype)[None]])

    def changed(self, images: Tensor, changes: Tensor) -> Tensor:
        """Copies of `images` with the `changes` from `draw`, computed on the device of both."""
        n, _, height, width = images.shape
        down, right, mirrored = changes
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = right[:, None] + torch.arange(width, device=images.device)
        columns = torch.where(mirrored[:, None] > 0, columns.flip(1), columns)
        padded = functional.pad(images, (self.shift,) * 4)
        every = torch.arange(n, device=images.device)[:, None, None]
        return padded[every, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits: `train` for theta, `validation` for alpha and all choices, `test` for results.

    `notice` is a sentence if the files have fewer or more images than the official set, else None.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    augmentation: Augmentation | None
    notice: str | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    def to(self, device: str) -> Dataset:
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )
