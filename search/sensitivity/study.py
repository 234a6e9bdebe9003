"""What is measured of one trained network, and the assignments that follow: the steps of `enos assign` and of runs.

Layers are calibrated, then measured; what lowers the loss counts; whole assignments are measured around a solution;
the network gets what was found. All that is measured is kept in a folder, layer by layer, and not measured again for
the same network, data and settings, whatever becomes of it: other budgets, other energies, a job that was killed.

calibrated.pt   weights that were fitted, by module and candidate
measured.json   losses of the layers that are done
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dse.core.documents import read_json
from dse.core.errors import InputError
from dse.core.files import system_errors, write_atomically, write_json
from dse.table.store import content_key
from search.data.sets import Dataset
from search.layers.mixed_layer import MixedLayer
from search.layers.mixed_product import MixedProduct
from search.sensitivity.calibrate import Fitting, fit_layer, wanted
from search.sensitivity.correct import Choice, Measurements
from search.sensitivity.crew import Crew
from search.sensitivity.measure import BATCH, Batch, Bench, Task, Trials, held_out, helpful, measure, try_whole
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.sensitivity.subject import Calibrated, Subject
from search.supernet import SearchableNetwork

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool

CALIBRATED_ON = 512
"""Training images that layers are calibrated with, if their number is not given."""


@dataclass(frozen=True)
class Settings:
    """What decides the sensitivities of a network.

    Attributes:
        images: held-out images per measurement; None for as many as `search.sensitivity.job.default_images` says.
        reference: candidate of the layers that are not changed.
        calibration_steps: of each layer and candidate that is calibrated; 0 for none.
        calibration_images: training images that layers are calibrated with.
        corrections: assignments that are measured around each solution; no part of the sensitivities.
        seed: of all draws.
    """

    images: int | None = None
    reference: str = "T8"
    calibration_steps: int = 20
    calibration_images: int = CALIBRATED_ON
    corrections: int = 16
    seed: int = 0


@dataclass
class Study:
    """The measurements of a network.

    Args:
        model: with the trained weights, on the device of `data`.
        settings: with a number of images.
        folder: what is done is kept here, and used for the same network, data and settings only.
        own_folder: keep it in a folder of this very study in `folder`, so that several studies have room.
        processes: that measure side by side, or the workers of a cluster; see `Crew`.
        name, about: of the network, and what else the sensitivities say of their origin.
        on_progress: is called with a word for the work, the number of its parts that are done, and of all.
    """

    model: SearchableNetwork
    data: Dataset
    settings: Settings
    folder: Path
    task: Task = field(default_factory=Task)
    processes: int | ClusterPool = 1
    name: str = "network"
    about: Mapping[str, Any] = field(default_factory=dict)
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None
    own_folder: bool = False

    def __post_init__(self) -> None:
        assert self.settings.images is not None
        self.batches = held_out(self.data.validation, self.settings.images, BATCH)
        few, train = self.settings.calibration_images, self.data.train
        self._few: Batch = (train.prepared(train.images[:few]), train.labels[:few])
        self._plain = Subject(self.model, self.settings.reference)
        tensors = [(k, v) for k, v in self.model.network.state_dict().items() if isinstance(v, Tensor)]
        images = [(f"{i}", x) for i, batch in enumerate([self._few, *self.batches]) for x in batch]
        self.key = content_key({
            "weights": digest(tensors), "images": digest(images), "task": list(self.task.names),
            "reference": self.settings.reference, "steps": self.settings.calibration_steps, "seed": self.settings.seed,
            "candidates": {n: [repr(c) for c in layer.candidates] for n, layer in self._plain.layers.items()},
            "options": {n: repr(layer.options) for n, layer in self._plain.layers.items()},
        })  # fmt: skip
        if self.own_folder:
            self.folder = self.folder / f"sensitivity-{self.key[:16]}"
        with system_errors(self.folder, "cannot be made"):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.crew = Crew(self.processes, self.folder)

    @functools.cached_property
    def calibrated(self) -> Calibrated:
        """Weights by module and candidate, all that were fitted."""
        file, layers = self.folder / "calibrated.pt", self._plain.layers
        kept: dict[str, Any] = {}
        if file.exists():
            try:
                kept = torch.load(file, map_location=self._few[0].device, weights_only=True)
            except Exception:  # a damaged file: torch raises many kinds
                kept = {}
        found: Calibrated = kept["weights"] if kept.get("key") == self.key else {}
        left = [name for name in layers if name not in found]
        for name in [name for name in left if not self.settings.calibration_steps or not wanted(layers[name])]:
            found[name] = {}
            left.remove(name)
        fitting = Fitting(self._plain, self._few, self.settings.calibration_steps, self.settings.seed)
        for name, weights in self.crew.do(fit_layer, fitting, left):
            found[name] = weights
            state = {"key": self.key, "weights": found}
            write_atomically(file, lambda path, state=state: torch.save(state, path))  # type: ignore[misc]
            self.on_progress("calibrating", len(found), len(layers))
        return {name: found[name] for name in layers}

    @functools.cached_property
    def sensitivities(self) -> Sensitivities:
        """Measured, or read as far as they have been measured."""
        with _alone(self.folder):
            file, trials = self.folder / "measured.json", Trials()
            if file.exists():
                try:
                    document = read_json(file)
                except InputError:  # damaged
                    document = {}
                if isinstance(document, dict) and document.get("key") == self.key:
                    trials = Trials(**document["trials"])

            def keep(trials: Trials, done: int, of: int) -> None:
                write_json(file, {"key": self.key, "trials": vars(trials)})
                self.on_progress("measuring", done, of)

            about = {**vars(self.settings), **self.about}
            about.pop("images")
            subject = Subject(self.model, self.settings.reference, self.calibrated)
            found = measure(subject, self.batches, self.task, trials, keep, self.name, about, self.crew)
        self._trials = trials
        return found

    @functools.cached_property
    def subject(self) -> Subject:
        """The network with the calibrated weights that lower the loss."""
        assert self.sensitivities.images
        return Subject(self.model, self.settings.reference, helpful(self.calibrated, self._trials))

    def measurements(self, costs: Sequence[FloatArray], penalties: Sequence[FloatArray] | None = None) -> Measurements:
        """What is measured of whole assignments.

        Args:
            costs: what each candidate costs, in the order of the sensitivities; inf for what a layer cannot have.
            penalties: of the same shapes, what each candidate adds to the loss; None for nothing.
        """
        found = self.sensitivities
        penalties = [np.zeros_like(row) for row in found.losses] if penalties is None else penalties
        bench = Bench(self.subject, self.batches, self.task)

        def evaluate(choices: Sequence[Choice]) -> list[tuple[float, float]]:
            tasks = [tuple(self.names(choice).items()) for choice in choices]
            answers = dict(self.crew.do(try_whole, bench, tasks))
            extra = [sum(float(p[i]) for p, i in zip(penalties, choice, strict=True)) for choice in choices]
            return [(answers[t][0] + e, answers[t][1]) for t, e in zip(tasks, extra, strict=True)]

        own = [[c.name for c in self._plain.layers[layer].candidates] for layer in found.layers]
        allowed = [np.array([name in names for name in found.candidates]) for names in own]
        costs = [np.where(ok, row, np.inf) for ok, row in zip(allowed, costs, strict=True)]
        values = [increase + penalty for increase, penalty in zip(found.increases(), penalties, strict=True)]
        return Measurements(values, costs, evaluate, [self._uniform(layer) for layer in found.layers])

    def _uniform(self, layer: str) -> list[int]:
        """The index of what a layer has where the network has each candidate of the sensitivities in all layers.

        A layer without a choice keeps what it has. A product of activations has the typical operator at as many
        bits, or the reference.
        """
        names, choice = list(self.sensitivities.candidates), self._plain.layers[layer]
        if len(choice.candidates) == 1:
            return [names.index(choice.candidates[0].name)] * len(names)
        if not isinstance(choice, MixedProduct):
            return list(range(len(names)))
        known = {c.name: c for part in self._plain.layers.values() for c in part.candidates}
        typical = {c.bits: c.name for c in reversed(choice.candidates)}
        own = {c.name for c in choice.candidates}
        reference = self._plain.reference_of(layer)
        return [names.index(name if name in own else typical.get(known[name].bits, reference)) for name in names]

    def names(self, choice: Choice) -> dict[str, str]:
        """Module -> candidate."""
        found = self.sensitivities
        return {layer: found.candidates[i] for layer, i in zip(found.layers, choice, strict=True)}

    @torch.no_grad()
    def load_calibrated(self, layers: Mapping[str, MixedLayer], candidates: Mapping[str, str]) -> None:
        """Gives layers the weights that were calibrated for their candidates, where these help, in place.

        Args:
            layers: by module.
            candidates: module -> candidate.
        """
        for name, layer in layers.items():
            weight = self.subject.calibrated.get(name, {}).get(candidates[name])
            if weight is not None:
                layer.layer.weight.copy_(weight)


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, shapes and values."""
    found = hashlib.sha256()
    for key, value in tensors:
        found.update(f"{key} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: another that needs the same measurements waits, and then reads them."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
