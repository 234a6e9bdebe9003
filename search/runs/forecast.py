"""What a run has still to do, and how much of it fits a period: printed without doing any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.runs.inputs import dataset
from search.runs.passes import Parts, epoch_passes
from search.runs.progress import in_words
from search.runs.stages import Run, Stage
from search.training.checkpoint import Record
from search.training.epochs import batches_per_epoch


@dataclass(frozen=True)
class Planned:
    """A stage with its epochs, those of them that are done, and the steps and images of one epoch.

    `image_passes` is all the training that the stage's network has had at its end, by where it came from.
    """

    stage: Stage
    epochs: int
    done: int
    steps: int
    images: int
    image_passes: Parts
    seconds: float | None  # of one epoch, measured; None where no epoch of its kind has been


def plan(run: Run) -> list[Planned]:
    """All stages of a run, in the order they are begun.

    Raises:
        InputError: data that cannot be read, a damaged checkpoint.
    """
    records = {stage: _kept(run, stage) for stage in run.stages}
    measured = _seconds(records)
    train = dataset(run.config, run.config.seeds[0]).train
    found = []
    for stage in run.stages:
        searching = stage.kind == "search"
        settings = {"search": run.config.search, "pretrain": run.config.pretrain}.get(stage.kind) or run.training(stage)
        steps = batches_per_epoch(train, settings.batch_size, settings.epoch_images)
        images = epoch_passes(train, settings.batch_size, settings.epoch_images)
        found.append(Planned(stage, run.epochs(stage), len(records[stage]), steps, images, run.image_passes(stage),
                             measured.get(searching)))  # fmt: skip
    return found


def describe(planned: Sequence[Planned], minutes: float | None = None) -> list[str]:
    """The plan in words, a line a stage; with `minutes`, also which stages end within them."""
    lines, left, known = [], 0.0, True
    width = max(len(p.stage.name) for p in planned)
    for p in planned:
        todo = p.epochs - p.done
        known = known and (p.seconds is not None or not todo)
        left += todo * (p.seconds or 0.0)
        text = f"{p.stage.name:{width}}  {p.done} of {p.epochs} epochs done, {p.steps} steps, {p.images:,} images each"
        parts = {name: number for name, number in p.image_passes.items() if number}
        text += f", {sum(parts.values()):,} image passes"
        if len(parts) > 1:
            text += f" ({', '.join(f'{name} {number:,}' for name, number in parts.items())})"
        if todo:
            text += _when(p, left if known else None, minutes)
        lines.append(text)
    total = in_words(left) if known else "not known before an epoch of every kind has been timed"
    return [*lines, f"Time left: {total}"]


def _when(p: Planned, end: float | None, minutes: float | None) -> str:
    if p.seconds is None:
        return "; not timed yet"
    text = f"; {p.seconds:.1f} s an epoch"
    if end is None:
        return text
    fits = "" if minutes is None or end <= 60 * minutes else f", not within {minutes:g} min"
    return f"{text}, done in {in_words(end)}{fits}"


def _kept(run: Run, stage: Stage) -> list[Record]:
    """The records of the epochs that are done."""
    if run.file(stage).exists():
        history: list[Record] = run.record(stage)["history"]
        return history
    return run.checkpoint(stage).restore()


def _seconds(records: Mapping[Stage, Sequence[Record]]) -> dict[bool, float]:
    """Seconds of an epoch of searches (True) and of other stages, means of all that were measured."""
    found = {}
    for searching in (True, False):
        took = [r["seconds"] for stage, rs in records.items() if (stage.kind == "search") == searching for r in rs]
        if took:
            found[searching] = sum(took) / len(took)
    return found
