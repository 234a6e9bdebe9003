"""Runs: the stages of a configuration, each kept in the run's folder as soon as it is finished.

A run that is killed and started again does its remaining stages, and the interrupted one from its last epoch.

    config.yaml      the configuration, every default written out
    table.csv        the energies it was done with
    operators.yaml   the operators file it was done with
    metrics.jsonl    one line per epoch, and one with the result of each stage
    assignments/     what each search chose, as YAML: layer -> candidate; a file a sample where it samples several
    results.json     every trained network: accuracies, energies
    weights/         the weights that were given, and the pretrained ones of each seed, as state dicts
    stages/          finished stages; checkpoints/  weights and state of each stage after its last epoch
    tensorboard/     the metrics as event files, if the configuration asks for them
"""

from __future__ import annotations

import fcntl
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import torch

from dse.cluster.connection import Connection
from dse.core.errors import InputError
from dse.core.files import write_atomically, write_json, write_text
from dse.hardware.candidates import load_candidates, resolved_operators
from dse.table.cost_table import CostTable
from dse.table.provenance import check_architecture, check_network, check_operators
from dse.workload.export import export_network
from dse.workload.networks import Network, reason
from search.costs import excluded_layers
from search.runs.attempts import adopt
from search.runs.config import RunConfig, config_yaml, load_config
from search.runs.inputs import data_record, dataset, network_of
from search.runs.limit import Limit
from search.runs.on_cluster import do_on_cluster, on_cpu
from search.runs.results import summarise
from search.runs.stages import Run, Stage, first_network, pretrained_network, search_network
from search.runs.tensorboard import check_installed, event_files
from search.runs.work import do_stage
from search.runs.workers import Lock, do_side_by_side
from search.supernet import uniform
from search.training.checkpoint import Record
from search.training.metrics import check_targets, class_dim, measure_named
from search.training.train import distilled
from search.training.weights import load_weights, read_weights

WORKERS_END_S = 30.0
"""How long a run waits for the workers of a killed process; they end within a second unless the machine is stuck."""

OPERATORS = "operators.yaml"
"""Copy of the operators file, in a run's folder."""

OnProgress = Callable[[Stage, Record], None]
"""Is called with every epoch's record, and for epochs and stages that an earlier process did."""


def open_run(folder: Path, config: RunConfig, table: CostTable, *, elsewhere: bool = False) -> Run:
    """Creates the run's folder, or opens it to resume.

    Args:
        elsewhere: whether other machines do the stages, so that this one need not have the device.

    Raises:
        InputError: the folder belongs to another configuration or table, or is not a run; configuration, data set
            and table do not fit together. Nothing is written then.
    """
    check_fit(on_cpu(Run(folder, config, table)) if elsewhere else Run(folder, config, table))
    kept, kept_table, kept_operators = (folder / name for name in ("config.yaml", "table.csv", OPERATORS))
    if kept.exists():
        _check_same_config(kept, config)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(folder, "is not empty and holds no run", hint="give a new folder, or one of an earlier run")
    if kept_table.exists() and not CostTable.load(kept_table).same_costs(table):
        raise InputError(
            kept_table, "the run was begun with other energies", hint="take another name or folder for a new run"
        )
    if kept_operators.exists() and load_candidates(kept_operators) != config.declared:
        raise InputError(kept_operators, "the run was begun with other operators",
                         hint="take another name or folder for a new run")  # fmt: skip
    for part in ("stages", "checkpoints", "assignments", "weights"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _keep_init(Run(folder, config, table))
    write_text(kept, config_yaml(config))
    if not kept_table.exists():
        write_atomically(kept_table, table.save)
    write_text(kept_operators, resolved_operators(config.declared))
    return Run(folder, config, table)


def _keep_init(run: Run) -> None:
    """Copies the weights that are given into the run's folder; a run that has its copy needs the file no more.

    Raises:
        InputError: the file has changed since.
    """
    if run.config.init is None:
        return
    given, kept = Path(run.config.init), run.folder / "weights" / "init.pt"
    if kept.exists() and not given.exists():
        return
    weights = read_weights(given)
    if not kept.exists():
        write_atomically(kept, lambda file: torch.save(weights, file))
        return
    before = read_weights(kept)
    if before.keys() != weights.keys() or not all(torch.equal(before[name], weights[name]) for name in before):
        raise InputError(given, "is not what the run was begun with", hint="take another name for a new run")


def read_run(folder: Path) -> Run:
    """A run as it was begun, with the operators that its folder keeps.

    Raises:
        InputError: a folder without configuration or table, or with damaged ones.
    """
    kept = folder / OPERATORS
    operators = [f"operators={json.dumps(str(kept))}"] if kept.exists() else []
    return Run(folder, load_config(folder / "config.yaml", operators), CostTable.load(folder / "table.csv"))


def do_run(run: Run, on_progress: OnProgress, jobs: int | None = None, limit: Limit | None = None,
           connection: Connection | None = None) -> dict[str, Any]:  # fmt: skip
    """Does every stage that is not finished; returns the results, which are also in ``results.json``.

    Args:
        jobs: processes, None for the configuration's; the results do not depend on it. A script needs the guard
            ``if __name__ == "__main__"``, for where there are several, each imports it.
        limit: of the time that it may take, None for none.
        connection: a cluster that does the stages instead of processes of this machine; its workers share the run's
            folder.

    Raises:
        OutOfTimeError: the limit is reached; what is done is kept. Of several processes, the others lose what they have
            done of the present epoch.
        InputError: another process is at work on this run, a checkpoint is damaged, or a worker has ended.
    """
    with _alone(run.folder) as lock:
        leading = run if connection is None else on_cpu(run)
        data = data_record(leading.config)
        _ = leading.passes_each  # is then known to workers, which need not read the data of the first seed for it

        def work(left: Sequence[Stage], on_entry: OnProgress) -> None:
            processes = min(default_jobs(run.config) if jobs is None else jobs, len(left))
            if connection is not None:
                do_on_cluster(connection.cluster, run, leading, left, on_entry)
            elif processes > 1:
                do_side_by_side(run, left, processes, lock, on_entry)
            else:
                for stage in left:
                    do_stage(run, stage, functools.partial(on_entry, stage))

        adopt(run)  # what workers of a cluster have left, which was led by a process that was killed
        _do_stages(leading, on_progress, work, limit or Limit())
        done = {stage: run.record(stage) for stage in run.stages}
        _write_metrics(run, done)  # once more, for several workers report in any order
        results = summarise(run.config, run.table, data, done, measure_named(run.config.metric))
        pretrained = [(stage, record["result"]) for stage, record in done.items() if stage.kind == "pretrain"]
        if pretrained:
            results["pretrained"] = [{"seed": s.seed, "candidate": s.candidate, **found} for s, found in pretrained]
        write_json(run.folder / "results.json", results)
        return results


def default_jobs(config: RunConfig) -> int:
    """As many processes as the cores can feed; one where a process takes all of them, or the GPU."""
    if config.jobs is not None:
        return config.jobs
    if config.threads is None or config.device != "cpu":
        return 1
    import joblib  # knows of affinities and of a container's share

    return max(1, int(joblib.cpu_count()) // config.threads)


def _do_stages(
    run: Run, on_progress: OnProgress, work: Callable[[Sequence[Stage], OnProgress], None], limit: Limit
) -> None:
    done = {stage: run.record(stage) for stage in run.stages if run.file(stage).exists()}
    left = [stage for stage in run.stages if stage not in done]
    events = event_files(run.folder / "tensorboard", run.config.tensorboard)
    with _write_metrics(run, done).open("a", encoding="utf-8") as lines, events as write_event:

        def on_entry(stage: Stage, entry: Record) -> None:
            lines.write(_line(stage, entry))
            lines.flush()
            write_event(stage.name, entry)
            if "epoch" in entry:
                on_progress(stage, entry)
            limit.check(stage.kind == "search", entry)

        for stage, record in done.items():
            for entry in record["history"]:
                on_progress(stage, entry)
            for entry in [*record["history"], record["result"]]:
                write_event(stage.name, entry)
        if left:
            work(left, on_entry)


def _write_metrics(run: Run, done: Mapping[Stage, Record]) -> Path:
    """Replaces ``metrics.jsonl`` by the lines of finished stages."""
    path = run.folder / "metrics.jsonl"
    entries = ((stage, entry) for stage, record in done.items() for entry in [*record["history"], record["result"]])
    write_text(path, "".join(_line(stage, entry) for stage, entry in entries))
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[Lock]:
    """Keeps other processes out of a run's folder; gives the lock that workers have to hold as well.

    A killed process lets go of its lock at once, its workers of theirs as soon as they have noticed.
    """
    with (folder / "lock").open("w") as ours, (folder / "lock-workers").open("w") as workers:
        if not _locked(ours):
            raise InputError(folder, "another process is working on this run", hint="wait for it, or take another name")
        patience = time.monotonic() + WORKERS_END_S
        while not _locked(workers):
            if time.monotonic() > patience:
                raise InputError(
                    folder, "workers of an earlier process are still at work on this run", hint="wait for them"
                )
            time.sleep(0.02)
        yield Lock(workers.fileno())


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_fit(run: Run) -> None:
    """Finds what would stop the run later, before hours are spent."""
    config = run.config
    if config.tensorboard:
        check_installed()
    if config.search.mode == "sensitivity" and config.search_from != "pretrained":
        raise InputError("search.mode", "sensitivity measures trained weights, and there are none",
                         hint="give init or pretrain")  # fmt: skip
    for name in run.baselines:
        if not run.table.total_pj(uniform(run.table, name, config.exclude), config.transmission) < float("inf"):
            raise InputError(
                "baselines", f"{name} has no mapping in some layer", hint="name candidates that every layer can have"
            )
    data, network = dataset(config, config.seeds[0]), network_of(config)
    if network.input_shape[1:] != data.image_shape:
        raise InputError("network", f"takes images of {network.input_shape[1:]}, but {config.data.label} has "
                         f"{data.image_shape}", hint="give network.args that fit the data")  # fmt: skip
    model = search_network(run, config.seeds[0])
    if not model.undecided():
        raise InputError(
            "candidates", "leave no layer a choice", hint="name two or more that the layers have mappings for"
        )
    for budget in config.energy_budgets:
        model.check_budget(budget)
    for budget in config.latency_budgets:
        model.check_budget(budget, "latency")
    if run.init_file is not None:
        load_weights(network.module, read_weights(run.init_file), run.init_file)
    first_network(run, config.seeds[0])  # relearning and the baselines begin there
    if config.pretrain is not None:
        name = config.pretrain.candidate
        if not run.table.total_pj(uniform(run.table, name, config.exclude), config.transmission) < float("inf"):
            raise InputError("pretrain.candidate", f"{name} has no mapping in some layer",
                             hint="name a candidate that every layer can have")  # fmt: skip
        pretrained_network(run, config.seeds[0])
    try:
        with torch.no_grad():
            scores = model(data.train.prepared(data.train.images[:2]).cpu())
    except RuntimeError as e:  # torch's, of shapes that do not fit
        raise InputError("network", f"does not run on {config.data.label}, images of {data.image_shape}: {reason(e)}",
                         hint="give network.args that fit the data") from e  # fmt: skip
    check_targets(data, scores, config.loss, config.metric, config.data.label)
    if config.distill is not None:  # refuses what has no classes
        distilled(torch.zeros(()), scores, scores, config.distill, class_dim(config.loss))
    _check_origin(config, network, run.table)


def _check_origin(config: RunConfig, network: Network, table: CostTable) -> None:
    """Refuses energies of another architecture, of other operators, or of other layers of the same names."""
    workload = export_network(network)
    left_out = excluded_layers(config.exclude, [layer.name for layer in workload.layers])
    counted = [x for x in workload.layers if x.name in table.layers or (x.name.rpartition("#")[0] not in left_out
               and x.name not in left_out)]  # fmt: skip
    workload = replace(workload, layers=tuple(counted))
    if table.provenance:
        named = [candidate for candidate in config.declared if candidate.name in table.candidates]
        check_architecture(table.provenance, config.accelerator, "table")
        check_operators(table.provenance, named, "table")
    operations = dict(zip(table.layers, table.n_ops, strict=True))
    for layer in workload.layers:
        if layer.name not in operations:
            raise InputError("table", f"has no rows for layer {layer.name!r} of the network", table.layers)
        if layer.macs != operations[layer.name]:
            problem = f"has {operations[layer.name]:,.0f} operations, the network's has {layer.macs:,}"
            raise InputError(f"table: layer {layer.name!r}", problem, hint="take a table of this very network")
    if table.provenance:
        check_network(table.provenance, workload, "table")


def _check_same_config(kept: Path, config: RunConfig) -> None:
    before, now = asdict(load_config(kept)), asdict(config)
    for name, value in before.items():
        # The first two decide no results. The weights themselves are compared, wherever their file is now.
        same = name in ("jobs", "tensorboard") or (name == "init" and None not in (value, now[name]))
        if not same and value != now[name]:
            raise InputError(kept, f"the run was begun with {name} = {value!r}, now it is {now[name]!r}",
                             hint="take the same configuration, or another name for a new run")  # fmt: skip


def _line(stage: Stage, entry: Mapping[str, Any]) -> str:
    return json.dumps({"stage": stage.name, **entry}) + "\n"
