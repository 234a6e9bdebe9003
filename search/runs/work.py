"""How the stages of a run are done: what each trains or searches, and the record that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, pstdev

import torch
import yaml
from torch import nn

from dse.core.errors import InputError
from dse.core.files import write_atomically, write_json, write_text
from search.costs import reference_pj, share
from search.data.datasets import Dataset
from search.objective import EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.runs.inputs import compute, dataset
from search.runs.records import SCHEMA
from search.runs.stages import (
    Run,
    Stage,
    decides_pretraining,
    first_network,
    noise_of,
    pretrained_network,
    samples_of,
    search_network,
    teacher_of,
)
from search.sampling.sampler import InMemory, Sampler, Sampling, sampler_of, sampling_of
from search.signs import check_signs
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.strategies.stochastic import population
from search.supernet import SearchableNetwork, plain_weights, uniform
from search.training.allocator import keep_freed_memory
from search.training.checkpoint import Record
from search.training.chips import layers_in_memory, over_chips
from search.training.epochs import batches
from search.training.measures import discretised_key
from search.training.metrics import Metric
from search.training.pretrained import Pretrained, keep_pretrained, pretraining_key, read_pretrained
from search.training.train import learn, renew_statistics

NORMALISED_WITH = 256
"""Images per batch, when the statistics of batch normalisation are measured again for a discretised network."""


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
    keep_freed_memory()
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
    sampler = sampler_of(*noise_of(config.search))
    assignments, metric = _assignments(run, stage, model, regulariser, sampler), compute(config).metric
    for i, assignment in enumerate(assignments):
        sample = "" if samples_of(config.search) is None else f"-sample{i + 1}"
        text = yaml.safe_dump(assignment, sort_keys=False)
        write_text(run.place(stage) / "assignments" / f"seed{stage.seed}-{stage.setting}{sample}.yaml", text)
    result = {
        "energy_expected": float(model.energy().detach()),
        f"mixture_{metric.measure.key('validation')}": metric.of(model, data.validation),
        discretised_key(metric.measure): [_discretised_value(metric, model, a, data, stage.seed) for a in assignments],
        "assignments": assignments,
        "energies_discretised": [share(run.table, a, "energy", config.transmission) for a in assignments],
        "probabilities": model.probabilities(),
        **({"sampling": _sampling(sampler, history)} if isinstance(sampler, InMemory) else {}),
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


def _sampling(sampler: InMemory, history: list[Record]) -> Sampling:
    """What a search drew, in its epochs and for its assignments."""
    noise = [epoch.get("noise", {}) for epoch in history]
    numbers, iterations = (sum(n.get(key, 0) for n in noise) for key in ("numbers", "iterations"))
    return sampling_of("mc2ram", sampler.numbers + numbers, sampler.iterations + iterations, sampler.macro)


def _assignments(run: Run, stage: Stage, model: SearchableNetwork, regulariser: Regulariser,
                 sampler: Sampler) -> list[dict[str, str]]:  # fmt: skip
    """What a search has found: the most probable assignment, or a sample of them."""
    samples = samples_of(run.config.search)
    if samples is None:
        return [regulariser.assignment(model)]
    return population(model, regulariser, samples, stage.seed, sampler)


def _pretrain(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """The pretraining of a seed, or what an earlier run has kept of the same one."""
    config, data, settings = run.config, dataset(run.config, stage.seed), run.config.pretrain
    assert settings is not None
    network = pretrained_network(run, stage.seed)
    key = pretraining_key(network, data, decides_pretraining(config, stage.seed))
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
    return _trained_record(
        run, stage.seed, uniform(run.table, settings.candidate, config.exclude), network, data, history
    )


def _train(run: Run, stage: Stage, on_epoch: Callable[[Record], None]) -> Record:
    """Relearning or a baseline."""
    config, data, assignment = run.config, dataset(run.config, stage.seed), run.assignment(stage)
    teacher = teacher_of(run, stage.seed)
    network = _first(run, stage, assignment)
    how = replace(compute(config), distil=config.distill)
    history = learn(network, data, run.training(stage), stage.seed, run.checkpoint(stage), on_epoch, how, teacher)
    return _trained_record(run, stage.seed, assignment, network, data, history)


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


def _trained_record(run: Run, seed: int, assignment: dict[str, str], network: nn.Module, data: Dataset,
                    history: list[Record]) -> Record:  # fmt: skip
    check_signs(network, run.table)
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
            **_on_chips(run, network, data, seed),
        },
    }


def _on_chips(run: Run, network: nn.Module, data: Dataset, seed: int) -> Record:
    """The measure on test images over simulated chips, if the run has such and the network a layer in memory."""
    chips = run.config.chips
    if chips is None or not layers_in_memory(network):
        return {}
    metric = compute(run.config).metric
    some = None
    if chips.calibration:
        some = [next(iter(batches(data.train, min(chips.calibration, len(data.train)), seed, 0)))[0]]
    values = over_chips(
        network, chips.number, chips.mismatch, chips.offset, lambda: metric.of(network, data.test), some
    )
    worst = min(values, key=metric.measure.rank)
    return {"chips": {"mean": mean(values), "deviation": pstdev(values), "worst": worst, "values": values}}
