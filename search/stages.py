"""Stages: the units of work of a run, and how each is done. A stage needs the run and its predecessor's record only."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from dse.documents import read_text
from dse.export import Network
from dse.table import CostTable
from search.checkpoint import Checkpoint, Record, write_json, write_text
from search.config import DataChoice, RunConfig
from search.data import DATASETS, Dataset
from search.networks import make_network
from search.objective import WeightedEnergy, reference_pj
from search.strategies import STRATEGIES
from search.supernet import SearchableNetwork, searchable, uniform
from search.train import accuracy, learn


@dataclass(frozen=True)
class Stage:
    """One unit of work: a search, the relearning of what it found, or the training of a baseline.

    `kind` is search, relearn or baseline; `lam` belongs to the first two, `candidate` to the last.
    """

    kind: str
    seed: int
    epochs: int
    lam: float | None = None
    candidate: str | None = None

    @property
    def name(self) -> str:
        return f"seed{self.seed}-{self.kind}-{self.candidate if self.lam is None else repr(self.lam)}"


@dataclass(frozen=True)
class Run:
    """A run's folder and what decides its results."""

    folder: Path
    config: RunConfig
    table: CostTable

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order they are begun: seed by seed, searches first, for relearning waits for them."""
        c = self.config
        found: list[Stage] = []
        for seed in c.seeds:
            found += [Stage("search", seed, c.search.epochs, lam) for lam in c.lambdas]
            found += [Stage("baseline", seed, c.relearn.epochs, candidate=name) for name in c.baselines]
            found += [Stage("relearn", seed, c.relearn.epochs, lam) for lam in c.lambdas]
        return tuple(found)

    def before(self, stage: Stage) -> Stage | None:
        """The stage whose record `stage` needs: relearning begins with what its search found."""
        return Stage("search", stage.seed, self.config.search.epochs, stage.lam) if stage.kind == "relearn" else None

    def file(self, stage: Stage) -> Path:
        """File with a finished stage's record; there is none before."""
        return self.folder / "stages" / f"{stage.name}.json"

    def record(self, stage: Stage) -> Record:
        """A finished stage's history and result."""
        record: Record = json.loads(read_text(self.file(stage)))
        return record

    def checkpoint(self, stage: Stage) -> Checkpoint:
        return Checkpoint(self.folder / "checkpoints" / f"{stage.name}.pt")


def do_stage(run: Run, stage: Stage, on_entry: Callable[[Record], None]) -> None:
    """Does a stage and keeps its record; an interrupted stage goes on after its last epoch.

    What is found depends on the run and the stage alone, not on the process or on what it did before.

    Args:
        on_entry: is called with every epoch's record, restored ones included, and once the stage's is kept with its
            result.

    Raises:
        InputError: the checkpoint is damaged.
    """
    if run.config.threads is not None:
        torch.set_num_threads(run.config.threads)
    work = _search if stage.kind == "search" else _train
    record = work(run, stage, on_entry)
    write_json(run.file(stage), record)
    on_entry(record["result"])


def _search(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    assert stage.lam is not None
    config, data = run.config, dataset(run.config, stage.seed)
    model = first_network(run, stage.seed, config.candidates).to(config.device)
    strategy = STRATEGIES[config.search.mode]
    history = strategy(
        model, data, config.search, WeightedEnergy(stage.lam), stage.seed, run.checkpoint(stage), on_epoch
    )
    result = _found(model, data)
    text = yaml.safe_dump(result["assignment"], sort_keys=False)
    write_text(run.folder / "assignments" / f"seed{stage.seed}-lambda{stage.lam!r}.yaml", text)
    return {"history": history, "result": result}


def _train(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """Relearning or a baseline."""
    config, data = run.config, dataset(run.config, stage.seed)
    search = run.before(stage)
    assignment: dict[str, str]
    assignment = run.record(search)["result"]["assignment"] if search else uniform(run.table, str(stage.candidate))
    network = first_network(run, stage.seed, None).discretise(assignment).to(config.device)
    history = learn(network, data, config.relearn, stage.seed, run.checkpoint(stage), on_epoch)
    energy_pj = run.table.total_pj(assignment, config.transmission)
    return {
        "history": history,
        "result": {
            "energy": energy_pj / reference_pj(run.table, config.transmission),
            "energy_pj": energy_pj,
            "validation_accuracy": accuracy(network, data.validation),
            "test_accuracy": accuracy(network, data.test),
        },
    }


def _found(model: SearchableNetwork, data: Dataset) -> Record:
    return {
        "energy_expected": float(model.energy().detach()),
        "mixture_validation_accuracy": accuracy(model, data.validation),
        "assignment": model.assignment(),
        "probabilities": model.probabilities(),
    }


def network_of(config: RunConfig) -> Network:
    """The network of a configuration, with weights from torch's present random state."""
    shape = (1, *dataset(config, config.seeds[0]).image_shape)
    return make_network(config.network.factory, config.network.args, shape)


def first_network(run: Run, seed: int, candidates: tuple[str, ...] | None) -> SearchableNetwork:
    """The run's network with the first weights of a seed; relearned networks and baselines all begin there."""
    torch.manual_seed(seed)
    return searchable(network_of(run.config).module, run.table, candidates, run.config.transmission)


@functools.lru_cache(maxsize=1)
def _read_data(chosen: DataChoice, seed: int, device: str) -> Dataset:
    data = DATASETS[chosen.name](Path(chosen.dir) if chosen.dir else None, chosen.subset, seed).to(device)
    return data if chosen.augment else replace(data, augmentation=None)


def dataset(config: RunConfig, seed: int) -> Dataset:
    """The data set; the seed also decides which images are for training, validation and (digits) test."""
    return _read_data(config.data, seed, config.device)
