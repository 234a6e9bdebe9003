"""Networks as lists of layers, and their `workloads/*.yaml` files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dse.core import fields
from dse.core.documents import read_yaml, readable
from dse.core.errors import InputError, unknown
from dse.core.shipped import data_dir
from dse.workload.problem import CONV_COEFFICIENTS, CONV_DIMENSIONS, Problem, conv_problem

VERSION = 1
_FIELDS = ("version", "name", "input", "layers", "passed_over")
_LAYER_FIELDS = ("name", "kind", "instance", "candidate")


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
    """The layers of one network, in execution order, and what the exporter passed over (name -> reason).

    Example:
        >>> small = Workload("small", (Layer("conv", "conv", {"C": 3, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3}),))
        >>> small.macs
        7776
    """

    name: str
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...] = ()
    passed_over: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def macs(self) -> int:
        return sum(layer.problem.macs for layer in self.layers)


def write_workload(workload: Workload, path: Path | str) -> None:
    """Writes `workloads/NAME.yaml`: one line a layer, so that a diff shows which layer changed.

    Example:
        >>> fully_connected = Layer("fc", "linear", {"N": 1, "C": 64, "M": 10})
        >>> write_workload(Workload("mine", (fully_connected,), (1, 64)), "mine.yaml")
        >>> read_workload("mine.yaml").macs
        640
    """
    lines = [
        "# Layers of a network as Timeloop problems: G groups of C input and M output channels, P x Q outputs,",
        "# R x S filters. Written by `enos export`; edit it or write your own.",
        f"version: {VERSION}",
        f"name: {_scalar(workload.name)}",
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

    Example:
        >>> workload = read_workload(find_workload("squeezenet"))
        >>> workload.name, len(workload.layers), f"{workload.macs:,}"
        ('squeezenet_cifar', 26, '202,211,328')
    """
    document = fields.mapping(read_yaml(path), path, _FIELDS, required=("version", "layers"))
    fields.one_of(document["version"], f"{path}: version", (VERSION,), "version")
    layers = tuple(fields.sequence(document["layers"], f"{path}: layers", _layer))
    twice = [name for name, times in Counter(layer.name for layer in layers).items() if times > 1]
    if twice:
        raise InputError(f"{path}: layers", f"two layers are named {twice[0]!r}", "a unique name for each layer")
    if not layers:
        raise InputError(f"{path}: layers", "is empty")
    name, passed_over = (
        document.get("name"),
        fields.optional_mapping(document.get("passed_over"), f"{path}: passed_over"),
    )
    return Workload(
        name=Path(path).stem if name is None else fields.name(name, f"{path}: name"),
        layers=layers,
        input_shape=tuple(fields.optional_sequence(document.get("input"), f"{path}: input", fields.integer)),
        passed_over={key: fields.text(reason, f"{path}: passed_over.{key}") for key, reason in passed_over.items()},
    )


def find_workload(name: Path | str) -> Path:
    """The file of a workload given as a path, or as the name of a shipped one (`squeezenet`, `squeezenet_cifar`).

    Example:
        >>> find_workload("squeezenet").name
        'squeezenet_cifar.yaml'
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or readable(path, Path.exists):
        if not readable(path, Path.exists) or path.is_dir():
            raise InputError(path, "no such workload file")
        return path
    folders = [folder for folder in (Path("workloads"), data_dir("workloads")) if folder.is_dir()]
    for folder in folders:
        stems = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
        matches = (
            [stems[str(name)]] if str(name) in stems else [f for s, f in stems.items() if s.startswith(f"{name}_")]
        )
        if len(matches) > 1:
            raise InputError(f"workload {str(name)!r}", "could be several", [m.stem for m in matches])
        if matches:
            return matches[0]
    known = sorted({m.stem for folder in folders for m in folder.glob("*.yaml")})
    raise unknown("workload", "file or shipped workload", str(name), [*known, "a path to a .yaml file"])


def _layer(entry: Any, where: str) -> Layer:
    fields.mapping(entry, where, _LAYER_FIELDS, required=("name", "instance"))
    kind = fields.one_of(entry.get("kind", "conv"), f"{where}.kind", ("conv", "linear"), "kind")
    instance = fields.mapping(entry["instance"], f"{where}.instance", (*CONV_DIMENSIONS, *CONV_COEFFICIENTS))
    conv_problem(instance, where)
    candidate = entry.get("candidate")
    if candidate is not None:
        fields.text(candidate, f"{where}.candidate")
    return Layer(fields.name(entry["name"], f"{where}.name"), kind, instance, candidate)


def _scalar(text: str) -> str:
    """`text` as one YAML scalar, quoted where it needs to be."""
    return yaml.safe_dump(text, width=10**6).removesuffix("\n").removesuffix("\n...")
