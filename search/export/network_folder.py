"""A finished run's network, or any discretised one, as a folder of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

from dse.core.errors import InputError, unknown
from dse.core.files import write_atomically, write_text
from dse.workload.export import export_network
from dse.workload.inputs import Example
from dse.workload.layers import Workload, write_workload
from dse.workload.networks import Network
from search.export.qdq import write_onnx
from search.runs.inputs import network_of
from search.runs.run import read_run
from search.runs.stages import Run, Stage, first_network
from search.training.metrics import measure_named


def export_run(
    folder: Path, out: Path, stage: str | None = None, onnx: bool = True, inputs: Example | None = None
) -> tuple[str, list[Path]]:
    """Writes a trained network of a finished run; returns the stage it is of, and the files.

    Args:
        folder: the run's folder.
        stage: name of a relearning or a baseline; None takes the relearned network with the highest validation
            accuracy.
        inputs: makes what the ONNX file takes; None for what the run's network takes.

    Raises:
        InputError: no such run or stage, one that is not finished, or without checkpoint; see also `write_files`.
    """
    run = read_run(folder)
    chosen = _chosen(run, stage)
    assignment = run.assignment(chosen)
    network = network_of(run.config)
    fixed = first_network(run, chosen.seed).discretise(assignment)
    # What another stage has trained is not trained again: the checkpoint may be that stage's.
    trained = [chosen, *run.twins(chosen, run.finished())]
    if not any(run.checkpoint(stage).restore(network=fixed) for stage in trained):
        raise InputError(run.checkpoint(chosen).path, "is missing", "the checkpoint of a finished stage")
    return chosen.name, write_files(replace(network, name=run.config.name), fixed, assignment, out, onnx, inputs)


def write_files(
    network: Network, fixed: nn.Module, assignment: Mapping[str, str], out: Path, onnx: bool = True,
    inputs: Example | None = None,
) -> list[Path]:  # fmt: skip
    """Writes ``network.pt``, ``assignment.yaml``, ``workload.yaml`` and ``network.onnx``; returns their paths.

    ``network.pt`` is the state dictionary of `fixed`: build it again by ``searchable(...).discretise(assignment)`` and
    load it with ``torch.load(path, weights_only=True)``.

    Args:
        network: the plain network, for its layers, its name and what it takes.
        fixed: what `SearchableNetwork.discretise` made of it, trained.
        assignment: layer -> candidate.
        onnx: without it the ONNX file is left out, and packages that it needs may be missing.
        inputs: makes what the ONNX file takes, if that is something else than what the network is run with.

    Raises:
        InputError: the assignment is not that of the network's layers, or the ONNX file cannot be made.
    """
    workload = assigned_workload(network, assignment)
    out.mkdir(parents=True, exist_ok=True)
    state, chosen, layers = (out / name for name in ("network.pt", "assignment.yaml", "workload.yaml"))
    write_atomically(state, lambda file: torch.save(fixed.state_dict(), file))
    write_text(chosen, yaml.safe_dump(dict(assignment), sort_keys=False))
    write_atomically(layers, lambda file: write_workload(workload, file))
    if not onnx:
        return [state, chosen, layers]
    model = out / "network.onnx"
    make = network.example if inputs is None else inputs
    taken = network.input_shape if make is None else make(network.module)
    write_atomically(model, lambda file: write_onnx(fixed, assignment, taken, file))
    return [state, chosen, layers, model]


def assigned_workload(network: Network, assignment: Mapping[str, str]) -> Workload:
    """The network's workload with the candidate of each layer.

    Raises:
        InputError: a layer without candidate, or a candidate for what is not a layer.
    """
    workload = export_network(network)
    names = [layer.name for layer in workload.layers]
    if set(names) != set(assignment):
        odd = sorted(set(names) ^ set(assignment))
        raise InputError("assignment", f"does not fit the network in {', '.join(odd)}", names)
    return replace(workload, layers=tuple(replace(x, candidate=assignment[x.name]) for x in workload.layers))


def _chosen(run: Run, name: str | None) -> Stage:
    trained = [stage for stage in run.stages if stage.kind != "search"]
    if name is not None:
        found = next((stage for stage in trained if stage.name == name), None)
        if found is None:
            raise unknown("--stage", "stage", name, [stage.name for stage in trained])
        _check_done(run, found)
        return found
    relearned = [stage for stage in trained if stage.kind == "relearn"]
    for stage in relearned:
        _check_done(run, stage)
    measure = measure_named(run.config.metric)
    return max(relearned, key=lambda stage: measure.rank(measure.of(run.record(stage)["result"], "validation")))


def _check_done(run: Run, stage: Stage) -> None:
    if not run.file(stage).exists():
        raise InputError(run.folder, f"stage {stage.name} is not finished", hint="start the run again to resume it")
