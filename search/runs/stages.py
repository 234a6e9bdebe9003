"""Stages: the units of work of a run, and how each is done. A stage needs the run and its predecessor's record only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from dse.core.errors import InputError
from dse.core.files import write_json, write_text
from dse.table.cost_table import CostTable
from dse.workload.networks import Network, load_network
from search.costs import reference_pj, share
from search.data.datasets import DATASETS, Dataset
from search.layers.mixed_layer import LayerOptions
from search.layers.operators import Surrogates
from search.objective import EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.runs.config import PAPER_BASELINES, DataChoice, Layers, RunConfig
from search.runs.records import SCHEMA, read_record
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.strategies.sequential import sequential_epochs
from search.strategies.settings import Search, Sequential, SingleLevel, Stochastic, Variational
from search.strategies.stochastic import population
from search.supernet import SearchableNetwork, searchable, uniform
from search.training.checkpoint import Checkpoint, Record
from search.training.train import Compute, accuracy, batches, learn, renew_statistics

NORMALISED_WITH = 256
"""Images per batch, when the statistics of batch normalisation are measured again for a discretised network."""


@dataclass(frozen=True)
class Stage:
    """One unit of work: a search, the relearning of what it found, or the training of a baseline.

    `kind` is search, relearn or baseline; one of `lam`, `budget` (of energy) and `latency_budget` belongs to the first
    two, `candidate` to the last; `sample` numbers the networks, from 1, that are relearnt of a search that samples
    several.
    """

    kind: str
    seed: int
    lam: float | None = None
    candidate: str | None = None
    sample: int | None = None
    budget: float | None = None
    latency_budget: float | None = None

    @property
    def name(self) -> str:
        sample = "" if self.sample is None else f"-sample{self.sample}"
        what = self.setting if self.lam is None else repr(self.lam)
        return f"seed{self.seed}-{self.kind}-{self.candidate or what}{sample}"

    @property
    def setting(self) -> str:
        """What a search is given, for names of files."""
        if self.lam is not None:
            return f"lambda{self.lam!r}"
        return f"latency{self.latency_budget!r}" if self.budget is None else f"budget{self.budget!r}"


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
        samples = samples_of(c.search)
        numbers = [None] if samples is None else range(1, samples + 1)
        found: list[Stage] = []
        for seed in c.seeds:
            searches = [Stage("search", seed, lam) for lam in c.lambdas]
            searches += [Stage("search", seed, budget=budget) for budget in c.energy_budgets]
            searches += [Stage("search", seed, latency_budget=budget) for budget in c.latency_budgets]
            found += searches
            found += [Stage("baseline", seed, candidate=name) for name in self.baselines]
            found += [replace(search, kind="relearn", sample=n) for search in searches for n in numbers]
        return tuple(found)

    @functools.cached_property
    def baselines(self) -> tuple[str, ...]:
        """Candidates of the uniform networks that are trained; ``all`` and ``paper`` are those that can be mapped."""
        return baselines_of(self.config, self.table)

    def epochs(self, stage: Stage) -> int:
        """Number of epochs of a stage."""
        if stage.kind != "search":
            return self.config.relearn.epochs
        return search_epochs(self)

    def before(self, stage: Stage) -> Stage | None:
        """The stage whose record `stage` needs: relearning begins with what its search found."""
        return replace(stage, kind="search", sample=None) if stage.kind == "relearn" else None

    def assignment(self, stage: Stage) -> dict[str, str]:
        """What a baseline or a relearning trains; what it needs (`before`) is finished."""
        search = self.before(stage)
        if search is None:
            return uniform(self.table, str(stage.candidate))
        found: list[dict[str, str]] = self.record(search)["result"]["assignments"]
        return found[(stage.sample or 1) - 1]

    def twins(self, stage: Stage, others: Iterable[Stage]) -> list[Stage]:
        """Those of `others` that train the same network from the same weights, so that their records are the same.

        What `stage` and the others need is finished.
        """
        same_seed = [s for s in others if s.seed == stage.seed and "search" not in (s.kind, stage.kind)]
        if not same_seed:
            return []
        assignment = self.assignment(stage)
        return [s for s in same_seed if s != stage and self.assignment(s) == assignment]

    def finished(self) -> list[Stage]:
        return [stage for stage in self.stages if self.file(stage).exists()]

    def file(self, stage: Stage) -> Path:
        """File with a finished stage's record; there is none before."""
        return self.folder / "stages" / f"{stage.name}.json"

    def record(self, stage: Stage) -> Record:
        """A finished stage's history and result."""
        return read_record(self.file(stage), stage.kind)

    def checkpoint(self, stage: Stage) -> Checkpoint:
        return Checkpoint(self.folder / "checkpoints" / f"{stage.name}.pt")


def do_stage(run: Run, stage: Stage, on_entry: Callable[[Record], None]) -> None:
    """Does a stage and keeps its record; an interrupted stage resumes after its last epoch.

    What is found depends on the run and the stage alone, not on the process or on what it did before. So a stage that
    trains what another one has trained (a sample that was drawn twice, say) takes over its record.

    Args:
        on_entry: is called with every epoch's record, restored ones included, and once the stage's is kept with its
            result.

    Raises:
        InputError: the checkpoint is damaged.
    """
    if run.config.threads is not None:
        torch.set_num_threads(run.config.threads)
    twins = run.twins(stage, run.finished())
    if twins:
        record = run.record(twins[0])
        for entry in record["history"]:
            on_entry(entry)
    else:
        work = _search if stage.kind == "search" else _train
        record = work(run, stage, on_entry)
    write_json(run.file(stage), record)
    on_entry(record["result"])


def _search(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    config, data = run.config, dataset(run.config, stage.seed)
    model, regulariser = search_network(run, stage.seed), _regulariser(run, stage)
    learner = Learner(model, data, config.search, regulariser, stage.seed, run.checkpoint(stage), on_epoch,
                      compute(config))  # fmt: skip
    history = STRATEGIES[config.search.mode](learner)
    assignments = _assignments(run, stage, model, regulariser)
    for i, assignment in enumerate(assignments):
        sample = "" if samples_of(config.search) is None else f"-sample{i + 1}"
        text = yaml.safe_dump(assignment, sort_keys=False)
        write_text(run.folder / "assignments" / f"seed{stage.seed}-{stage.setting}{sample}.yaml", text)
    result = {
        "energy_expected": float(model.energy().detach()),
        "mixture_validation_accuracy": accuracy(model, data.validation),
        "validation_accuracies_discretised": [_discretised_accuracy(model, a, data, stage.seed) for a in assignments],
        "assignments": assignments,
        "energies_discretised": [share(run.table, a, "energy", config.transmission) for a in assignments],
        "probabilities": model.probabilities(),
    }
    return {"schema_version": SCHEMA, "history": history, "result": result}


def _discretised_accuracy(model: SearchableNetwork, assignment: dict[str, str], data: Dataset, seed: int) -> float:
    """Validation accuracy of an assignment with the weights of the search, before it is relearnt."""
    network = model.discretise(assignment)
    renew_statistics(network, batches(data.train, NORMALISED_WITH, seed, 0))
    return accuracy(network, data.validation)


def _regulariser(run: Run, stage: Stage) -> Regulariser:
    """The part of a search's loss that energy and latency have (Eq. 2a)."""
    if stage.budget is not None:
        return EnergyBudget(stage.budget)
    if stage.latency_budget is not None:
        return LatencyBudget(stage.latency_budget, run.config.energy_weight)
    assert stage.lam is not None
    return WeightedEnergy(stage.lam, run.config.latency_weight)


def _assignments(run: Run, stage: Stage, model: SearchableNetwork, regulariser: Regulariser) -> list[dict[str, str]]:
    """What a search has found: the most probable assignment, or a sample of them."""
    samples = samples_of(run.config.search)
    if samples is None:
        return [regulariser.assignment(model)]
    return population(model, regulariser, samples, stage.seed)


def samples_of(settings: Search) -> int | None:
    """How many assignments a search samples; None where it takes the most probable one."""
    return settings.samples if isinstance(settings, Stochastic | Variational) else None


def _train(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """Relearning or a baseline."""
    config, data, assignment = run.config, dataset(run.config, stage.seed), run.assignment(stage)
    network = first_network(run, stage.seed).discretise(assignment)
    history = learn(network, data, config.relearn, stage.seed, run.checkpoint(stage), on_epoch, compute(config))
    energy_pj = run.table.total_pj(assignment, config.transmission)
    return {
        "schema_version": SCHEMA,
        "history": history,
        "result": {
            "energy": energy_pj / reference_pj(run.table, config.transmission),
            "energy_pj": energy_pj,
            "validation_accuracy": accuracy(network, data.validation),
            "test_accuracy": accuracy(network, data.test),
        },
    }


def baselines_of(config: RunConfig, table: CostTable) -> tuple[str, ...]:
    """The configured baselines; of ``all`` and ``paper``, the declared ones that every layer of the table can have."""
    if not isinstance(config.baselines, str):
        return config.baselines
    names = PAPER_BASELINES if config.baselines == "paper" else tuple(c.name for c in config.declared)
    declared = {c.name for c in config.declared} & set(table.candidates)
    return tuple(name for name in names if name in declared
                 and all(table.row(layer, name)["status"] == "ok" for layer in table.layers))  # fmt: skip


def compute(config: RunConfig) -> Compute:
    """How the run's networks are computed: on a GPU as graphs, with channels last, and in bfloat16 unless `amp` says
    otherwise."""
    gpu = config.device != "cpu"
    return Compute(config.device, channels_last=gpu, amp=gpu if config.amp is None else config.amp, graphs=gpu)


def search_epochs(run: Run) -> int:
    """Epochs of one search of the run; in the sequential mode they depend on the number of layers."""
    settings = run.config.search
    if isinstance(settings, Sequential):
        return sequential_epochs(search_network(run, run.config.seeds[0]), settings)
    assert isinstance(settings, SingleLevel)
    return settings.epochs


def network_of(config: RunConfig, seed: int | None = None) -> Network:
    """The network of a configuration, with weights from torch's present random state.

    Args:
        seed: whose data set is in memory; all have images of the same shape.
    """
    shape = (1, *dataset(config, config.seeds[0] if seed is None else seed).image_shape)
    chosen = config.network
    network = load_network(chosen.factory, arguments=chosen.args, default_shape=shape, where="network.factory")
    if not any(weight.requires_grad for weight in network.module.parameters()):
        raise InputError(f"network.factory {chosen.factory!r}", "has no weight that learns (requires_grad)")
    return network


def first_network(run: Run, seed: int) -> SearchableNetwork:
    """The run's network with the first weights of a seed; relearned networks and baselines all begin there."""
    torch.manual_seed(seed)
    config = run.config
    trained = [*config.candidates, *run.baselines, *config.pins.values()]
    return searchable(network_of(config, seed).module, run.table, trained, config.transmission,
                      operators=config.declared, options=_options(config.layers))  # fmt: skip


def search_network(run: Run, seed: int) -> SearchableNetwork:
    """The same network with the choices that the run's search has."""
    config = run.config
    torch.manual_seed(seed)
    return searchable(network_of(config, seed).module, run.table, config.candidates, config.transmission,
                      space=config.space, pins=config.pins, operators=config.declared,
                      options=_options(config.layers))  # fmt: skip


def _options(layers: Layers) -> LayerOptions:
    """A configuration's `layers` as what the layers are made with."""
    surrogates = Surrogates(layers.sign_width_input, layers.sign_width_weight, layers.steepness)
    return LayerOptions(layers.quantiser, layers.latent, layers.learned_scales, surrogates)


@functools.lru_cache(maxsize=1)
def _read_data(chosen: DataChoice, seed: int, device: str) -> Dataset:
    check_device(device)
    folder = Path(chosen.dir) if chosen.dir else None
    data = DATASETS[chosen.name](folder, chosen.subset, seed, chosen.validation).to(device)
    return data if chosen.augment else replace(data, augmentation=None)


def check_device(device: str) -> None:
    """Refuses a device that torch does not have, before anything is placed on it.

    Raises:
        InputError: names the device.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError("device", f"{device!r} is not available to torch", "cpu")


def dataset(config: RunConfig, seed: int) -> Dataset:
    """The data set; the seed also decides which images are for training, validation and (digits) test."""
    return _read_data(config.data, seed, config.device)


def data_record(config: RunConfig) -> Record:
    """What results say of the data set: the sizes of its splits, which all seeds share, and its notice."""
    data = dataset(config, config.seeds[0])
    return {"name": config.data.name, "train": len(data.train), "validation": len(data.validation),
            "test": len(data.test), "subset": config.data.subset, "notice": data.notice}  # fmt: skip
