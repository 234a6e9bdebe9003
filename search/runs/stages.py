"""Stages: the units of work of a run, and how each is done. A stage needs the run and its predecessor's record only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import yaml
from torch import nn

from dse.core.errors import InputError
from dse.core.files import write_atomically, write_json, write_text
from dse.table.cost_table import CostTable
from dse.workload.networks import Network, load_network
from search.costs import reference_pj, share
from search.data.datasets import DATASETS, Dataset
from search.data.own import from_factory, from_path
from search.layers.mixed_layer import LayerOptions
from search.layers.operators import Surrogates
from search.objective import EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.runs.config import PAPER_BASELINES, DataChoice, Layers, RunConfig
from search.runs.passes import Parts, epoch_passes, epochs_of_equal_passes, search_passes
from search.runs.records import SCHEMA, read_record
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.strategies.sequential import sequential_epochs
from search.strategies.settings import Search, Sensitivity, Sequential, SingleLevel, Stochastic, Variational
from search.strategies.stochastic import population
from search.supernet import SearchableNetwork, plain_weights, searchable, uniform
from search.training.checkpoint import Checkpoint, Record
from search.training.functions import own_function
from search.training.measures import discretised_key
from search.training.metrics import Metric, criterion_of, metric_of
from search.training.pretrained import Pretrained, keep_pretrained, pretraining_key, read_pretrained
from search.training.train import Compute, batches, learn, renew_statistics
from search.training.weights import load_weights, read_weights

NORMALISED_WITH = 256
"""Images per batch, when the statistics of batch normalisation are measured again for a discretised network."""


@dataclass(frozen=True)
class Stage:
    """One unit of work: a pretraining, a search, the relearning of what it found, or the training of a baseline.

    `kind` is pretrain, search, relearn or baseline; one of `lam`, `budget` (of energy) and `latency_budget` belongs to
    searches and relearnings, `candidate` to the others; `sample` numbers the networks, from 1, that are relearnt of a
    search that samples several.
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
        """All stages, in the order they are begun: seed by seed, each behind those that it waits for."""
        c = self.config
        samples = samples_of(c.search)
        numbers = [None] if samples is None else range(1, samples + 1)
        found: list[Stage] = []
        for seed in c.seeds:
            searches = [Stage("search", seed, lam) for lam in c.lambdas]
            searches += [Stage("search", seed, budget=budget) for budget in c.energy_budgets]
            searches += [Stage("search", seed, latency_budget=budget) for budget in c.latency_budgets]
            if c.pretrain is not None:
                found.append(Stage("pretrain", seed, candidate=c.pretrain.candidate))
            found += searches
            found += [Stage("baseline", seed, candidate=name) for name in self.baselines]
            found += [replace(search, kind="relearn", sample=n) for search in searches for n in numbers]
        return tuple(found)

    @functools.cached_property
    def baselines(self) -> tuple[str, ...]:
        """Candidates of the uniform networks that are trained; ``all`` and ``paper`` are those that can be mapped."""
        return baselines_of(self.config, self.table)

    @functools.cached_property
    def search_epochs(self) -> int:
        """Epochs of each search."""
        return search_epochs(self)

    @functools.cached_property
    def passes_each(self) -> dict[str, int]:
        """Image passes of an epoch of each kind of training, and of a whole search; the same for all seeds."""
        c, data = self.config, dataset(self.config, self.config.seeds[0])
        found = {"relearn": epoch_passes(data.train, c.relearn.batch_size)}
        if c.pretrain is not None:
            found["pretrain"] = epoch_passes(data.train, c.pretrain.batch_size)
        return {**found, "search": search_passes(c.search, self.search_epochs, data)}

    @property
    def _baseline_epochs(self) -> int | None:
        """Epochs of each baseline; None for as many as equal the passes of searched networks."""
        wanted = self.config.baseline_epochs or ("equal" if self.config.trained else "relearn")
        if isinstance(wanted, int):
            return wanted
        return self.config.relearn.epochs if wanted == "relearn" else None

    def epochs(self, stage: Stage) -> int:
        """Number of epochs of a stage."""
        c = self.config
        if stage.kind == "search":
            return self.search_epochs
        if stage.kind == "pretrain":
            assert c.pretrain is not None
            return c.pretrain.epochs
        if stage.kind == "relearn":
            return c.relearn.epochs
        if self._baseline_epochs is not None:
            return self._baseline_epochs
        found = Stage("relearn", stage.seed)
        total = sum(self.image_passes(found).values())
        return epochs_of_equal_passes(total, self._pretrained_passes(stage), self.passes_each["relearn"])

    def image_passes(self, stage: Stage) -> Parts:
        """The image passes that the network of a stage has had behind it, by where they came from."""
        searched = stage.kind in ("search", "relearn")
        trained = stage.kind in ("baseline", "relearn")
        return {
            "pretrain": self._pretrained_passes(stage),
            "search": self.passes_each["search"] if searched else 0,
            "relearn": self.epochs(stage) * self.passes_each["relearn"] if trained else 0,
        }

    def _pretrained_passes(self, stage: Stage) -> int:
        """Those of the pretraining, if the stage's weights, its assignment or its teacher came from there."""
        c = self.config
        if c.pretrain is None:
            return 0
        used = stage.kind == "pretrain" or self.starts_from(stage) == "pretrained"
        used = used or (stage.kind == "relearn" and c.search_from == "pretrained")
        used = used or (stage.kind != "search" and c.distill is not None)
        return c.pretrain.epochs * self.passes_each["pretrain"] if used else 0

    def starts_from(self, stage: Stage) -> str:
        """What weights a stage starts from: scratch, pretrained, search; a pretraining's are scratch or init."""
        c = self.config
        if stage.kind == "pretrain":
            return "scratch" if c.init is None else "init"
        return {"search": c.search_from, "relearn": c.relearn_from}.get(stage.kind, c.baselines_from)

    def before(self, stage: Stage) -> Stage | None:
        """The search whose record a relearning needs: it begins with what its search found."""
        return replace(stage, kind="search", sample=None) if stage.kind == "relearn" else None

    def needs(self, stage: Stage) -> list[Stage]:
        """The stages that have to be finished before a stage."""
        found = [] if (search := self.before(stage)) is None else [search]
        pretrain, c = self.config.pretrain, self.config
        if pretrain is not None and stage.kind != "pretrain":
            taught = c.distill is not None and stage.kind != "search"
            if taught or self.starts_from(stage) == "pretrained":
                found.append(Stage("pretrain", stage.seed, candidate=pretrain.candidate))
        return found

    def assignment(self, stage: Stage) -> dict[str, str]:
        """What a baseline or a relearning trains; what it needs (`before`) is finished."""
        search = self.before(stage)
        if search is None:
            return uniform(self.table, str(stage.candidate), self.config.exclude)
        found: list[dict[str, str]] = self.record(search)["result"]["assignments"]
        return found[(stage.sample or 1) - 1]

    def twins(self, stage: Stage, others: Iterable[Stage]) -> list[Stage]:
        """Those of `others` that train the same network from the same weights, so that their records are the same.

        What `stage` and the others need is finished.
        """
        kinds = ("baseline", "relearn")
        alike = [
            s
            for s in others
            if s != stage
            and s.seed == stage.seed
            and {s.kind, stage.kind} <= {*kinds}
            and self._training(s) == self._training(stage)
        ]
        if not alike:
            return []
        assignment = self.assignment(stage)
        return [s for s in alike if self.assignment(s) == assignment]

    def _training(self, stage: Stage) -> tuple[object, int | None]:
        """What tells the trainings of one assignment apart: the weights that it starts from, and its length."""
        start = self.starts_from(stage)
        epochs = self.config.relearn.epochs if stage.kind == "relearn" else self._baseline_epochs
        return self.before(stage) if start == "search" else start, epochs

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

    @property
    def init_file(self) -> Path | None:
        """The weights that are given: the run's own copy, or what the configuration names before there is one."""
        if self.config.init is None:
            return None
        kept = self.folder / "weights" / "init.pt"
        return kept if kept.exists() else Path(self.config.init)

    def weights_file(self, seed: int) -> Path:
        """The pretrained weights of a seed."""
        if self.config.pretrain is not None:
            return self.folder / "weights" / f"seed{seed}-pretrain.pt"
        assert self.init_file is not None
        return self.init_file


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
        work = {"search": _search, "pretrain": _pretrain}.get(stage.kind, _train)
        record = work(run, stage, on_entry)
    parts = run.image_passes(stage)
    passes = {"image_passes": sum(parts.values()), "image_passes_of": parts}
    record = {**record, "result": {**record["result"], **passes}}
    write_json(run.file(stage), record)
    on_entry(record["result"])


def _search(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    config, data = run.config, dataset(run.config, stage.seed)
    model, regulariser = search_network(run, stage.seed, config.search_from), _regulariser(run, stage)
    learner = Learner(model, data, config.search, regulariser, stage.seed, run.checkpoint(stage), on_epoch,
                      compute(config))  # fmt: skip
    history = STRATEGIES[config.search.mode](learner)
    assignments, metric = _assignments(run, stage, model, regulariser), compute(config).metric
    for i, assignment in enumerate(assignments):
        sample = "" if samples_of(config.search) is None else f"-sample{i + 1}"
        text = yaml.safe_dump(assignment, sort_keys=False)
        write_text(run.folder / "assignments" / f"seed{stage.seed}-{stage.setting}{sample}.yaml", text)
    result = {
        "energy_expected": float(model.energy().detach()),
        f"mixture_{metric.measure.key('validation')}": metric.of(model, data.validation),
        discretised_key(metric.measure): [_discretised_value(metric, model, a, data, stage.seed) for a in assignments],
        "assignments": assignments,
        "energies_discretised": [share(run.table, a, "energy", config.transmission) for a in assignments],
        "probabilities": model.probabilities(),
    }
    return {"schema_version": SCHEMA, "history": history, "result": result}


def _discretised_value(
    metric: Metric, model: SearchableNetwork, assignment: dict[str, str], data: Dataset, seed: int
) -> float:
    """The metric on validation images of an assignment with the weights of the search, before it is relearnt."""
    network = model.discretise(assignment)
    renew_statistics(network, batches(data.train, NORMALISED_WITH, seed, 0))
    return metric.of(network, data.validation)


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


def _pretrain(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """The pretraining of a seed, or what an earlier run has kept of the same one."""
    config, data, settings = run.config, dataset(run.config, stage.seed), run.config.pretrain
    assert settings is not None
    network = pretrained_network(run, stage.seed)
    key = pretraining_key(network, data, _decides_pretraining(config, stage.seed))
    kept = read_pretrained(key)
    if kept is None:
        history = learn(network, data, settings, stage.seed, run.checkpoint(stage), on_epoch, compute(config))
        state = {name: v.cpu() if isinstance(v, torch.Tensor) else v for name, v in network.state_dict().items()}
        keep_pretrained(key, Pretrained(history, state))
    else:
        history, state = kept.history, kept.state
        network.load_state_dict(state)
        compute(config).place(network)
        for entry in history:
            on_epoch(entry)
    kept_weights = {"state_dict": plain_weights(network), "network": state}
    write_atomically(run.weights_file(stage.seed), lambda file: torch.save(kept_weights, file))
    return _trained_record(run, uniform(run.table, settings.candidate, config.exclude), network, data, history)


def _decides_pretraining(config: RunConfig, seed: int) -> Record:
    """What decides a pretraining besides its network and its data: all of a configuration that is not known to be for
    something else."""
    for_others = ("name", "data", "arch", "transmission", "operators", "candidates", "space", "pins",
                  "lambdas", "energy_budgets", "latency_budgets", "latency_weight", "energy_weight", "seeds",
                  "baselines", "search", "relearn", "init", "distill", "baseline_epochs", "device", "threads", "jobs",
                  "tensorboard")  # fmt: skip
    counts = {name: value for name, value in asdict(config).items() if name not in for_others}
    assert config.pretrain is not None
    (candidate,) = (c for c in config.declared if c.name == config.pretrain.candidate)
    device = torch.device(config.device).type
    return {**counts, "candidate": repr(candidate), "seed": seed, "amp": compute(config).amp,
            "computed_on": [device, torch.get_num_threads() if device == "cpu" else 0]}  # fmt: skip


def pretrained_network(run: Run, seed: int) -> nn.Module:
    """The network of a seed's pretraining as it is before it: one candidate, from fresh weights or those given."""
    config = run.config
    assert config.pretrain is not None
    torch.manual_seed(seed)
    network = network_of(config, seed).module
    if run.init_file is not None:
        load_weights(network, read_weights(run.init_file), run.init_file)
    # A learned scale would be lost with the other parts of the layers that a plain network does not have.
    options = replace(_options(config.layers), learned_scales=False)
    model = searchable(network, run.table, [config.pretrain.candidate], config.transmission,
                       operators=config.declared, options=options)  # fmt: skip
    return model.discretise()


def _teacher(run: Run, seed: int) -> nn.Module | None:
    """The pretrained network that others learn from, if they do."""
    if run.config.distill is None:
        return None
    file = run.weights_file(seed)
    if run.config.pretrain is None:
        return _module(run, seed, "pretrained")
    network = pretrained_network(run, seed)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["network"])
    return network


def _train(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """Relearning or a baseline."""
    config, data, assignment = run.config, dataset(run.config, stage.seed), run.assignment(stage)
    training = replace(config.relearn, epochs=run.epochs(stage))
    teacher = _teacher(run, stage.seed)
    network = _first(run, stage, assignment)
    how = replace(compute(config), distil=config.distill)
    history = learn(network, data, training, stage.seed, run.checkpoint(stage), on_epoch, how, teacher)
    return _trained_record(run, assignment, network, data, history)


def _first(run: Run, stage: Stage, assignment: dict[str, str]) -> nn.Module:
    """A decided network with the weights that its training starts from."""
    start = run.starts_from(stage)
    if start != "search":
        return first_network(run, stage.seed, start).discretise(assignment)
    search = run.before(stage)
    assert search is not None
    model = search_network(run, stage.seed)
    if not run.checkpoint(search).restore(model=model):
        raise InputError(run.checkpoint(search).path, "is missing", "the checkpoint of a finished search",
                         "remove its record in stages to search again")  # fmt: skip
    return model.discretise(assignment)


def _trained_record(run: Run, assignment: dict[str, str], network: nn.Module, data: Dataset,
                    history: list[Record]) -> Record:  # fmt: skip
    energy_pj = run.table.total_pj(assignment, run.config.transmission)
    measured = compute(run.config).measured
    return {
        "schema_version": SCHEMA,
        "history": history,
        "result": {
            "energy": energy_pj / reference_pj(run.table, run.config.transmission),
            "energy_pj": energy_pj,
            **measured(network, data.validation, "validation"),
            **measured(network, data.test, "test"),
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
    return Compute(config.device, channels_last=gpu, amp=gpu if config.amp is None else config.amp, graphs=gpu,
                   criterion=criterion_of(config.loss), metric=metric_of(config.metric, config.loss))  # fmt: skip


def search_epochs(run: Run) -> int:
    """Epochs of one search of the run; in the sequential mode they depend on the number of layers."""
    settings = run.config.search
    if isinstance(settings, Sequential):
        return sequential_epochs(search_network(run, run.config.seeds[0]), settings)
    if isinstance(settings, Sensitivity):
        return 1
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


def first_network(run: Run, seed: int, start: str = "scratch") -> SearchableNetwork:
    """The run's network with the weights that relearned networks and baselines begin with.

    Args:
        start: scratch: the first weights of the seed; pretrained.
    """
    config = run.config
    trained = [*config.candidates, *run.baselines, *config.pins.values()]
    return searchable(_module(run, seed, start), run.table, trained, config.transmission, operators=config.declared,
                      options=_options(config.layers), exclude=config.exclude)  # fmt: skip


def search_network(run: Run, seed: int, start: str = "scratch") -> SearchableNetwork:
    """The same network with the choices that the run's search has."""
    config = run.config
    return searchable(_module(run, seed, start), run.table, config.candidates, config.transmission,
                      space=config.space, pins=config.pins, operators=config.declared,
                      options=_options(config.layers), exclude=config.exclude)  # fmt: skip


def _module(run: Run, seed: int, start: str) -> nn.Module:
    """The plain network, with the first weights of a seed or pretrained ones."""
    torch.manual_seed(seed)
    module: nn.Module = network_of(run.config, seed).module
    if start == "pretrained":
        file = run.weights_file(seed)
        load_weights(module, read_weights(file), file)
    return module


def _options(layers: Layers) -> LayerOptions:
    """A configuration's `layers` as what the layers are made with."""
    surrogates = Surrogates(layers.sign_width_input, layers.sign_width_weight, layers.steepness)
    return LayerOptions(layers.quantiser, layers.latent, layers.learned_scales, surrogates)


@functools.lru_cache(maxsize=1)
def _read_data(chosen: DataChoice, seed: int, device: str) -> Dataset:
    check_device(device)
    folder = Path(chosen.dir) if chosen.dir else None
    if chosen.factory is not None:
        function = own_function(chosen.factory, "data.factory")
        data = from_factory(function, chosen.factory, chosen.args, chosen.subset, seed, chosen.validation)
    elif chosen.path is not None:
        data = from_path(Path(chosen.path), chosen.subset, seed, chosen.validation)
    else:
        data = DATASETS[str(chosen.name)](folder, chosen.subset, seed, chosen.validation)
    data = data.to(device)
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
    return {"name": config.data.label, "train": len(data.train), "validation": len(data.validation),
            "test": len(data.test), "subset": config.data.subset, "notice": data.notice}  # fmt: skip
