"""The epochs of all trainings and searches: batches in a fixed order, and progress that survives a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from search.data.datasets import Augmentation, Dataset, Split
from search.training.checkpoint import Checkpoint, Record, Stateful
from search.training.settings import Schedule

OnEpoch = Callable[[Record], None]
Batch = tuple[Tensor, ...]
"""Images and their labels; and the teacher's scores, if there is a teacher."""

KEPT_EVERY = 120.0
"""Seconds of an epoch between two checkpoints."""


def _nothing() -> None:
    pass


@dataclass
class Epoch:
    """One pass over the training images, out of `of`. Its record has the mean of `losses` and what is in `record`.

    Args:
        keep: is called between two steps, and may make a checkpoint of the epoch so far.
    """

    index: int
    of: int
    losses: list[Tensor] = field(default_factory=list)
    record: Record = field(default_factory=dict)
    progress: float = 0.0
    """Share of all epochs that is done, 0 to 1."""

    keep: Callable[[], None] = _nothing
    steps: int = 0
    """Batches that have been learned from; in an epoch that is resumed not 0 at its start."""

    counts: dict[str, int] = field(default_factory=dict)
    """What else has been counted in the epoch so far, and is needed to resume it."""

    def batches(
        self,
        data: Dataset,
        batch_size: int,
        seed: int,
        optimiser: torch.optim.Optimizer,
        lr: float,
        schedule: Schedule = "cosine",
        images: int | None = None,
    ) -> Iterator[Batch]:
        """Training batches; before each, `optimiser` gets the learning rate of this moment of the schedule.

        Those that have been learned from before the epoch was resumed are left out.

        Args:
            images: how many of the training images the epoch has; None for all.
        """
        steps = batches_per_epoch(data.train, batch_size, images)
        for batch in batches(data.train, batch_size, seed, self.index, data.augmentation, images, self.steps):
            self.progress = (self.index * steps + self.steps) / (self.of * steps)
            set_lr(optimiser, lr, self.progress, schedule)
            yield batch
            self.steps += 1
            if self.steps < steps:
                self.keep()


def epochs(
    number: int,
    seed: int,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch,
    measure: Callable[[], Record],
    parts: Mapping[str, Stateful],
) -> Iterator[Epoch]:
    """The epochs that a stage has still to do, to iterate over.

    Restores `parts` first. After each epoch's body, its record and the state of `parts` are made safe on disk; in an
    epoch every `KEPT_EVERY` seconds. Torch's random state is set again for each epoch, from `seed`, and kept with an
    epoch that has begun. So a resumed stage draws what it would have drawn.

    Args:
        on_epoch: is called with every record: those of the checkpoint first, new ones after they are safe.
        measure: what an epoch's record says of the network, besides epoch, loss, the epoch's own record and seconds.
        parts: all that learning changes: network, optimisers ...
    """
    history, begun = checkpoint.resume(**parts)
    for record in history:
        on_epoch(record)
    for index in range(len(history), number):
        torch.manual_seed(_stream(seed, index) + 2**40)  # no other generator is seeded so
        began, epoch = time.monotonic(), Epoch(index, number)
        if begun is not None:
            began, begun = began - _resume(epoch, begun), None
        epoch.keep = _Keeper(epoch, began, lambda state: checkpoint.save(history, state, **parts))
        yield epoch
        loss = float(_together(epoch.losses).mean())
        seconds = {"seconds": round(time.monotonic() - began, 3)}
        history.append({"epoch": index + 1, "loss": loss, **measure(), **epoch.record, **seconds})
        checkpoint.save(history, **parts)
        on_epoch(history[-1])


class _Keeper:
    """Keeps an epoch that lasts long, every `KEPT_EVERY` seconds."""

    def __init__(self, epoch: Epoch, began: float, save: Callable[[Record], None]) -> None:
        self._epoch, self._began, self._save = epoch, began, save
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last < KEPT_EVERY:
            return
        epoch = self._epoch
        on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._save(
            {
                "steps": epoch.steps,
                "losses": list(_together(epoch.losses).cpu()),
                "record": epoch.record,
                "counts": epoch.counts,
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
                "seconds": time.monotonic() - self._began,
            }
        )
        self._last = time.monotonic()


def _together(losses: Sequence[Tensor]) -> Tensor:
    """The losses as one vector; those of an epoch that was resumed are on the CPU."""
    return torch.stack([loss.to(losses[-1].device) for loss in losses]) if losses else torch.zeros(0)


def _resume(epoch: Epoch, begun: Record) -> float:
    """Continues an epoch that was kept by a `_Keeper`; returns the seconds that it has taken before."""
    epoch.steps, epoch.losses = begun["steps"], begun["losses"]
    epoch.record, epoch.counts = begun["record"], begun["counts"]
    torch.set_rng_state(begun["random"])
    if begun["random_cuda"] and torch.cuda.device_count() == len(begun["random_cuda"]):
        torch.cuda.set_rng_state_all(begun["random_cuda"])
    return float(begun["seconds"])


def batches_per_epoch(split: Split, batch_size: int, images: int | None = None) -> int:
    """Whole batches of an epoch, at least one.

    Args:
        images: how many of the split's images the epoch has; None for all.
    """
    return max(1, min(len(split), images or len(split)) // batch_size)


def batches(
    split: Split,
    batch_size: int,
    seed: int,
    epoch: int,
    augmentation: Augmentation | None = None,
    images: int | None = None,
    first: int = 0,
) -> Iterator[Batch]:
    """Shuffled batches of images and labels; order and augmentation depend on `seed` and `epoch` alone.

    Images after the last whole batch are left out of this epoch, so that no batch is too small to normalise.

    Args:
        images: how many of the split's images the epoch has, the first in its order; None for all.
        first: how many batches to leave out at the start.
    """
    generator, device = torch.Generator().manual_seed(_stream(seed, epoch)), split.labels.device
    order = torch.randperm(len(split), generator=generator)
    parts = torch.split(order, batch_size)[: batches_per_epoch(split, batch_size, images)]
    # All is drawn first and copied at once, without waiting for what the device computes meanwhile.
    draws = [] if augmentation is None else [augmentation.draw(len(part), generator) for part in parts]
    changes = torch.split(torch.cat(draws, 1).to(device, non_blocking=True), batch_size, 1) if draws else ()
    chosen_of = torch.split(order.to(device, non_blocking=True), batch_size)
    for i in range(first, len(parts)):
        chosen = chosen_of[i]
        batch = split.images[chosen]
        batch = batch if augmentation is None else augmentation.changed(batch, changes[i])
        yield split.prepared(batch), split.labels[chosen]


def _stream(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def set_lr(optimiser: torch.optim.Optimizer, lr: float, progress: float, schedule: Schedule = "cosine") -> None:
    """A linear warm-up over the first 5 % of training, then half a cosine to zero, or `lr` if `schedule` is constant.

    Args:
        progress: runs from 0 to 1.
    """
    factor = min(1.0, progress / 0.05 + 0.1)
    if schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = lr * factor
