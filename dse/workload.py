"""Networks as lists of layers, and their `workloads/*.yaml` files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dse.documents import read_yaml
from dse.errors import InputError
from dse.problem import CONV_COEFFICIENTS, CONV_DIMENSIONS, Problem, conv_problem
from dse.resources import data_dir

VERSION = 1


@dataclass(frozen=True)
class Layer:
    """A layer that is computed by the MAC array.

    `instance` holds Timeloop's dimensions and coefficients: G groups of C input and M output channels each.
    `candidate` is the operator and precision of a network that is decided (``MF4``); mapping does not read it.
    """

    name: str
    kind: str  # "conv" or "linear"
    instance: dict[str, int] = field(hash=False)
    candidate: str | None = None

    @property
    def problem(self) -> Problem:
        return conv_problem(self.instance, f"layer {self.name}")


@dataclass(frozen=True)
class Workload:
    """The layers of one network, in execution order, and what the exporter passed over (name -> reason)."""

    name: str
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...] = ()
    passed_over: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def macs(self) -> int:
        return sum(layer.problem.macs for layer in self.layers)


def write_workload(workload: Workload, path: Path | str) -> None:
    """Writes `workloads/NAME.yaml`: one line a layer, so that a diff shows which layer changed."""
    lines = [
        "# Layers of a network as Timeloop problems: G groups of C input and M output channels, P x Q outputs,",
        "# R x S filters. Written by `enos export`; edit it or write your own.",
        f"version: {VERSION}",
        f"name: {workload.name}",
        f"input: {list(workload.input_shape)}",
        "layers:",
    ]
    for layer in workload.layers:
        instance = ", ".join(f"{k}: {v}" for k, v in layer.instance.items())
        chosen = "" if layer.candidate is None else f", candidate: {_scalar(layer.candidate)}"
        lines.append(f"- {{name: {_scalar(layer.name)}, kind: {layer.kind}, instance: {{{instance}}}{chosen}}}")
    if workload.passed_over:
        lines.append("passed_over:")
        lines += [f"  {_scalar(name)}: {_scalar(reason)}" for name, reason in workload.passed_over.items()]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_workload(path: Path | str) -> Workload:
    """Reads a workload file.

    Raises:
        InputError: unknown or missing fields, a misspelt coefficient, a repeated layer name.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
        raise InputError(path, "not a workload file", "a mapping with version, name, input, layers, passed_over")
    for key in document:
        if key not in ("version", "name", "input", "layers", "passed_over"):
            raise InputError(path, f"unknown field {key!r}", "version, name, input, layers, passed_over")
    if document.get("version") != VERSION:
        raise InputError(f"{path}: version", f"found {document.get('version')!r}", str(VERSION))
    layers = tuple(_layer(entry, f"{path}: layers[{i}]") for i, entry in enumerate(document["layers"]))
    names = [layer.name for layer in layers]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: layers", f"two layers are named {name!r}", "a unique name for each layer")
    if not layers:
        raise InputError(f"{path}: layers", "is empty")
    return Workload(
        name=str(document.get("name") or Path(path).stem),
        layers=layers,
        input_shape=tuple(document.get("input") or ()),
        passed_over=dict(document.get("passed_over") or {}),
    )


def find_workload(name: Path | str) -> Path:
    """The file of a workload given as a path, or as the name of a shipped one (`squeezenet`, `squeezenet_cifar`)."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise InputError(path, "no such workload file")
        return path
    folders = [folder for folder in (Path("workloads"), data_dir("workloads")) if folder.is_dir()]
    for folder in folders:
        matches = sorted(folder.glob(f"{path}.yaml")) or sorted(folder.glob(f"{path}_*.yaml"))
        if len(matches) > 1:
            raise InputError(f"workload {str(name)!r}", "could be several", [m.stem for m in matches])
        if matches:
            return matches[0]
    known = sorted({m.stem for folder in folders for m in folder.glob("*.yaml")})
    raise InputError(f"workload {str(name)!r}", "no such file or shipped workload", known or "a path to a .yaml file")


def _layer(entry: Any, where: str) -> Layer:
    if not isinstance(entry, dict) or not {"name", "instance"} <= set(entry):
        raise InputError(where, f"found {entry!r}", "a mapping with name, kind, instance, candidate")
    for key in entry:
        if key not in ("name", "kind", "instance", "candidate"):
            raise InputError(where, f"unknown field {key!r}", "name, kind, instance, candidate")
    kind = entry.get("kind", "conv")
    if kind not in ("conv", "linear"):
        raise InputError(f"{where}.kind", f"found {kind!r}", "conv, linear")
    instance = entry["instance"]
    if not isinstance(instance, dict):
        raise InputError(f"{where}.instance", f"found {instance!r}", [*CONV_DIMENSIONS, *CONV_COEFFICIENTS])
    conv_problem(instance, where)
    candidate = entry.get("candidate")
    if candidate is not None and (not isinstance(candidate, str) or not candidate):
        raise InputError(f"{where}.candidate", f"found {candidate!r}", "a candidate's name, such as T8")
    return Layer(str(entry["name"]), kind, instance, candidate)


def _scalar(text: str) -> str:
    """`text` as one YAML scalar, quoted where it needs to be."""
    return yaml.safe_dump(text, width=10**6).removesuffix("\n").removesuffix("\n...")
