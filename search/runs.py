"""Runs: the stages of a configuration, each kept in the run's folder as soon as it is finished.

A run that is killed and started again does its remaining stages, and the interrupted one from its last epoch.

    config.yaml      the configuration, every default written out
    table.csv        the energies it was done with
    metrics.jsonl    one line an epoch, and one with the result of each stage
    assignments/     what each search chose, as YAML: layer -> candidate
    results.json     every trained network: accuracies, energies
    stages/          finished stages; checkpoints/  weights and state of each stage after its last epoch
"""

from __future__ import annotations

import fcntl
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from dse.documents import read_text
from dse.errors import InputError
from dse.export import Network
from dse.table import CostTable
from search.checkpoint import Checkpoint, Record, write_json, write_text
from search.config import DataChoice, RunConfig, config_yaml, load_config
from search.data import DATASETS, Dataset
from search.networks import make_network
from search.objective import reference_pj
from search.results import summarise
from search.searchable import SearchableNetwork, searchable, uniform
from search.strategies import STRATEGIES
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


OnProgress = Callable[[Stage, Record], None]
"""Is called with every epoch's record, and for epochs and stages that an earlier process did."""


@dataclass(frozen=True)
class Run:
    """A run's folder and what decides its results."""

    folder: Path
    config: RunConfig
    table: CostTable

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order they are done: seed by seed."""
        c = self.config
        found: list[Stage] = []
        for seed in c.seeds:
            found += [Stage("baseline", seed, c.relearn.epochs, candidate=name) for name in c.baselines]
            for lam in c.lambdas:
                found += [Stage("search", seed, c.search.epochs, lam), Stage("relearn", seed, c.relearn.epochs, lam)]
        return tuple(found)

    def record(self, stage: Stage) -> Path:
        """File with a finished stage's history and result."""
        return self.folder / "stages" / f"{stage.name}.json"

    def checkpoint(self, stage: Stage) -> Checkpoint:
        return Checkpoint(self.folder / "checkpoints" / f"{stage.name}.pt")


def open_run(folder: Path, config: RunConfig, table: CostTable) -> Run:
    """Creates the run's folder, or opens it to go on with it.

    Raises:
        InputError: the folder belongs to another configuration or table, or is no run at all; configuration, data set
            and table do not fit together. Nothing is written then.
    """
    _check_fit(Run(folder, config, table))
    kept, kept_table = folder / "config.yaml", folder / "table.csv"
    if kept.exists():
        _check_same_config(kept, config)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(folder, "is not empty and holds no run", "a new folder, or one of an earlier run")
    text = _as_csv(table)
    if kept_table.exists() and read_text(kept_table) != text:
        raise InputError(kept_table, "the run was begun with other energies", "another name or folder for a new run")
    for part in ("stages", "checkpoints", "assignments"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_text(kept, config_yaml(config))
    write_text(kept_table, text)
    return Run(folder, config, table)


def do_run(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """Does every stage that is not finished; returns the results, which are also in ``results.json``.

    Raises:
        InputError: another process is at work on this run, or a checkpoint is damaged.
    """
    if run.config.threads is not None:
        torch.set_num_threads(run.config.threads)
    with _alone(run.folder):
        return _do_stages(run, on_progress)


def _do_stages(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    done = {stage: json.loads(read_text(run.record(stage))) for stage in run.stages if run.record(stage).exists()}
    metrics = run.folder / "metrics.jsonl"
    write_text(metrics, "".join(_line(stage, entry) for stage, record in done.items() for entry in _entries(record)))
    for stage in run.stages:
        if stage in done:
            for entry in done[stage]["history"]:
                on_progress(stage, entry)
            continue
        with metrics.open("a", encoding="utf-8") as lines:

            def on_epoch(entry: Record, stage: Stage = stage, lines: Any = lines) -> None:
                lines.write(_line(stage, entry))
                lines.flush()
                on_progress(stage, entry)

            done[stage] = _do_stage(run, stage, done, on_epoch)
            write_json(run.record(stage), done[stage])
            lines.write(_line(stage, done[stage]["result"]))
    results = summarise(run.config, reference_pj(run.table, run.config.transmission), done)
    write_json(run.folder / "results.json", results)
    return results


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder; a killed process lets go of it."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(folder, "another process is working on this run", "wait for it, or another name") from None
        yield


def _do_stage(run: Run, stage: Stage, done: Mapping[Stage, Record], on_epoch: Callable[[Record], None]) -> Record:
    """A stage's history and result."""
    config, checkpoint = run.config, run.checkpoint(stage)
    data = _data(config, stage.seed)
    if stage.kind == "search":
        assert stage.lam is not None
        model = _searchable(run, stage.seed, config.candidates).to(config.device)
        search = STRATEGIES[config.search.mode]
        history = search(model, data, config.search, stage.lam, stage.seed, checkpoint, on_epoch)
        result = _found(model, data)
        text = yaml.safe_dump(result["assignment"], sort_keys=False)
        write_text(run.folder / "assignments" / f"seed{stage.seed}-lambda{stage.lam!r}.yaml", text)
        return {"history": history, "result": result}
    assignment: dict[str, str]
    if stage.kind == "relearn":
        assignment = done[Stage("search", stage.seed, config.search.epochs, stage.lam)]["result"]["assignment"]
    else:
        assignment = uniform(run.table, str(stage.candidate))
    network = _searchable(run, stage.seed, None).discretise(assignment).to(config.device)
    history = learn(network, data, config.relearn, stage.seed, checkpoint, on_epoch)
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
    shape = (1, *_data(config, config.seeds[0]).image_shape)
    return make_network(config.network.factory, config.network.args, shape)


def _searchable(run: Run, seed: int, candidates: tuple[str, ...] | None) -> SearchableNetwork:
    """The run's network with the first weights of a seed; relearned networks and baselines all begin there."""
    torch.manual_seed(seed)
    return searchable(network_of(run.config).module, run.table, candidates, run.config.transmission)


@functools.lru_cache(maxsize=1)
def _read_data(chosen: DataChoice, seed: int, device: str) -> Dataset:
    data = DATASETS[chosen.name](Path(chosen.dir) if chosen.dir else None, chosen.subset, seed).to(device)
    return data if chosen.augment else replace(data, augmentation=None)


def _data(config: RunConfig, seed: int) -> Dataset:
    """The data set; the seed also decides which images are for training, validation and (digits) test."""
    return _read_data(config.data, seed, config.device)


def _check_fit(run: Run) -> None:
    """Finds what would stop the run later, before hours are spent."""
    config = run.config
    if config.device != "cpu" and not torch.cuda.is_available():
        raise InputError("device", f"{config.device!r} is not available to torch", "cpu")
    for name in config.baselines:
        if not run.table.total_pj(uniform(run.table, name), config.transmission) < float("inf"):
            raise InputError(
                "baselines", f"{name} has no mapping in some layer", "candidates that every layer can have"
            )
    data, network = _data(config, config.seeds[0]), network_of(config)
    if network.input_shape[1:] != data.image_shape:
        raise InputError("network", f"takes images of {network.input_shape[1:]}, but {config.data.name} has "
                         f"{data.image_shape}", "network.args that fit the data")  # fmt: skip
    model: nn.Module = _searchable(run, config.seeds[0], config.candidates)
    with torch.no_grad():
        scores = model(data.train.images[:2].cpu())
    if scores.shape != (2, data.classes):
        raise InputError("network", f"gives {tuple(scores.shape)} for 2 images of {config.data.name}",
                         f"(2, {data.classes}): one score a class")  # fmt: skip


def _check_same_config(kept: Path, config: RunConfig) -> None:
    before, now = asdict(load_config(kept)), asdict(config)
    for name, value in before.items():
        if value != now[name]:
            raise InputError(kept, f"the run was begun with {name} = {value!r}, now it is {now[name]!r}",
                             "the same configuration, or another name for a new run")  # fmt: skip


def _entries(record: Mapping[str, Any]) -> list[Record]:
    return [*record["history"], record["result"]]


def _line(stage: Stage, entry: Mapping[str, Any]) -> str:
    return json.dumps({"stage": stage.name, **entry}) + "\n"


def _as_csv(table: CostTable) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.save(path)
        return path.read_text(encoding="utf-8")
