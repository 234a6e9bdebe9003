"""The stages of a run, its units of work, and the networks that they begin with."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dse.table.cost_table import CostTable
from search.runs.config import PAPER_BASELINES, RunConfig
from search.runs.inputs import compute, dataset, layer_options, network_of
from search.runs.passes import Parts, epoch_passes, equal_training, search_passes
from search.runs.records import read_record
from search.sampling.macro import Macro, SamplerName
from search.strategies.sequential import sequential_epochs
from search.strategies.settings import Search, Sensitivity, Sequential, SingleLevel, Stochastic, Variational
from search.supernet import SearchableNetwork, searchable, uniform
from search.training.checkpoint import Checkpoint, Record
from search.training.settings import Training
from search.training.weights import load_weights, read_weights


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
    """A run's folder and what decides its results.

    `own` is a stage whose files are in another folder while it is done; None for none.
    """

    folder: Path
    config: RunConfig
    table: CostTable
    own: tuple[Stage, Path] | None = None

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
        found = {"relearn": epoch_passes(data.train, c.relearn.batch_size, c.relearn.epoch_images)}
        if c.pretrain is not None:
            found["pretrain"] = epoch_passes(data.train, c.pretrain.batch_size, c.pretrain.epoch_images)
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
        return self._length(stage)[0]

    def _length(self, stage: Stage) -> tuple[int, int]:
        """Epochs of the training of a fixed network, found or uniform, and image passes of each.

        A baseline of equal passes has the least number of epochs, of equal length, no longer than those of relearning.
        """
        relearn, longest = self.config.relearn, self.passes_each["relearn"]
        if stage.kind == "relearn":
            return relearn.epochs, longest
        if self._baseline_epochs is not None:
            return self._baseline_epochs, longest
        total = sum(self.image_passes(Stage("relearn", stage.seed)).values())
        return equal_training(total - self._pretrained_passes(stage), longest, relearn.batch_size)

    def training(self, stage: Stage) -> Training:
        """How a fixed network, found or uniform, is trained."""
        epochs, passes = self._length(stage)
        if passes == self.passes_each["relearn"]:
            return replace(self.config.relearn, epochs=epochs)
        return replace(self.config.relearn, epochs=epochs, epoch_images=passes)

    def image_passes(self, stage: Stage) -> Parts:
        """The image passes that the network of a stage has had behind it, by where they came from."""
        searched = stage.kind in ("search", "relearn")
        trained = stage.kind in ("baseline", "relearn")
        return {
            "pretrain": self._pretrained_passes(stage),
            "search": self.passes_each["search"] if searched else 0,
            "relearn": math.prod(self._length(stage)) if trained else 0,
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

    def done_in(self, stage: Stage, folder: Path) -> Run:
        """The same run, with the files of one stage in `folder`; all others stay where they are."""
        moved = replace(self, own=(stage, folder))
        moved.__dict__["passes_each"] = self.passes_each  # is known then, and data need not be read for it
        return moved

    def place(self, stage: Stage) -> Path:
        """The folder that holds the files of a stage, with the same folders in it as the run's."""
        return self.own[1] if self.own is not None and self.own[0] == stage else self.folder

    def finished(self) -> list[Stage]:
        return [stage for stage in self.stages if self.file(stage).exists()]

    def file(self, stage: Stage) -> Path:
        """File with a finished stage's record; there is none before."""
        return self.place(stage) / "stages" / f"{stage.name}.json"

    def record(self, stage: Stage) -> Record:
        """A finished stage's history and result."""
        return read_record(self.file(stage), stage.kind)

    def checkpoint(self, stage: Stage) -> Checkpoint:
        return Checkpoint(self.place(stage) / "checkpoints" / f"{stage.name}.pt")

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
            stage = Stage("pretrain", seed, candidate=self.config.pretrain.candidate)
            return self.place(stage) / "weights" / f"seed{seed}-pretrain.pt"
        assert self.init_file is not None
        return self.init_file


def samples_of(settings: Search) -> int | None:
    """How many assignments a search samples; None where it takes the most probable one."""
    return settings.samples if isinstance(settings, Stochastic | Variational) else None


def noise_of(settings: Search) -> tuple[SamplerName, Macro]:
    """The sampler of a search's noise, and its macro; the exact one for modes without noise."""
    return (settings.sampler, settings.macro) if isinstance(settings, Stochastic | Variational) else ("exact", Macro())


def decides_pretraining(config: RunConfig, seed: int) -> Record:
    """What decides a pretraining besides its network and its data: all of a configuration that is not known to be for
    something else."""
    for_others = ("name", "data", "arch", "transmission", "operators", "candidates", "space", "pins",
                  "lambdas", "energy_budgets", "latency_budgets", "latency_weight", "energy_weight", "seeds",
                  "baselines", "search", "relearn", "init", "distill", "baseline_epochs", "device", "threads", "jobs",
                  "tensorboard", "chips")  # fmt: skip
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
    options = replace(layer_options(config.layers), learned_scales=False)
    model = searchable(network, run.table, [config.pretrain.candidate], config.transmission,
                       operators=config.declared, options=options)  # fmt: skip
    return model.discretise()


def teacher_of(run: Run, seed: int) -> nn.Module | None:
    """The pretrained network that others learn from, if they do."""
    if run.config.distill is None:
        return None
    file = run.weights_file(seed)
    if run.config.pretrain is None:
        return _module(run, seed, "pretrained")
    network = pretrained_network(run, seed)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["network"])
    return network


def baselines_of(config: RunConfig, table: CostTable) -> tuple[str, ...]:
    """The configured baselines; of ``all`` and ``paper``, the declared ones that every layer of the table can have."""
    if not isinstance(config.baselines, str):
        return config.baselines
    names = PAPER_BASELINES if config.baselines == "paper" else tuple(c.name for c in config.declared)
    declared = {c.name for c in config.declared} & set(table.candidates)
    return tuple(name for name in names if name in declared
                 and all(table.row(layer, name)["status"] == "ok" for layer in table.layers))  # fmt: skip


def search_epochs(run: Run) -> int:
    """Epochs of one search of the run; in the sequential mode they depend on the number of layers."""
    settings = run.config.search
    if isinstance(settings, Sequential):
        return sequential_epochs(search_network(run, run.config.seeds[0]), settings)
    if isinstance(settings, Sensitivity):
        return 1
    assert isinstance(settings, SingleLevel)
    return settings.epochs


def first_network(run: Run, seed: int, start: str = "scratch") -> SearchableNetwork:
    """The run's network with the weights that relearned networks and baselines begin with.

    Args:
        start: scratch: the first weights of the seed; pretrained.
    """
    config = run.config
    trained = [*config.candidates, *run.baselines, *config.pins.values()]
    return searchable(_module(run, seed, start), run.table, trained, config.transmission, operators=config.declared,
                      options=layer_options(config.layers), exclude=config.exclude)  # fmt: skip


def search_network(run: Run, seed: int, start: str = "scratch") -> SearchableNetwork:
    """The same network with the choices that the run's search has."""
    config = run.config
    return searchable(_module(run, seed, start), run.table, config.candidates, config.transmission,
                      space=config.space, pins=config.pins, operators=config.declared,
                      options=layer_options(config.layers), exclude=config.exclude)  # fmt: skip


def _module(run: Run, seed: int, start: str) -> nn.Module:
    """The plain network, with the first weights of a seed or pretrained ones."""
    torch.manual_seed(seed)
    module: nn.Module = network_of(run.config, seed).module
    if start == "pretrained":
        file = run.weights_file(seed)
        load_weights(module, read_weights(file), file)
    return module
