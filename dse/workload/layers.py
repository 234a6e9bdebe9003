"""Networks as lists of layers, and their `workloads/*.yaml` files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Len
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core.documents import read_yaml, readable
from dse.core.errors import InputError, unknown
from dse.core.schema import CONFIG, Flag, Name, Text, exactly, validated, whole
from dse.core.shipped import data_dir
from dse.workload.problem import Problem
from dse.workload.shapes import IMAGE, Kind, check_instance, problem_of

VERSION = 1


@validated_dataclass(frozen=True, config=CONFIG)
class LayerEntry:
    """A layer of a workload file."""

    name: Name
    instance: dict[str, Any]
    """Timeloop's dimensions and coefficients: G groups of C input and M output channels, P x Q outputs, R x S filters;
    1 where it says nothing. Other kinds: `dse.workload.shapes`. A convolution may also say how large its input is, H
    and W without padding, Hpad and Wpad on either side."""
    kind: Kind = "conv"
    candidate: Text | None = None
    """Operator and precision of a network that is decided, such as MF4."""
    signed: Flag = True
    """Whether inputs can be negative; false after a ReLU. Candidates in memory are cheaper for inputs that cannot."""


@validated_dataclass(frozen=True, config=CONFIG)
class WorkloadFile:
    """A workload file as it stands there: the layers of a network in execution order."""

    version: Annotated[int, exactly(VERSION)]
    layers: Annotated[tuple[LayerEntry, ...], Len(1)]
    name: Name | None = None
    """Default: the file's name."""
    input: tuple[Annotated[int, whole(1)], ...] | None = None
    """Shape of the input with its batch."""
    passed_over: dict[str, Text] | None = None
    """What is not a layer of the MAC array, and why."""


@dataclass(frozen=True)
class Layer:
    """A layer that the MAC array computes, or a lookup in a table (`kind` embedding), which only moves data.

    `kind` is one of `dse.workload.shapes.KINDS`. `instance` has Timeloop's dimensions and coefficients: G groups of C
    input and M output channels each. In a product of two activations (``matmul``) the second one is in the place of the
    weights, with a group for each of the products. `candidate` is the operator and precision of the layer in a searched
    network (``MF4``); mapping ignores it. `image` has the size of the input and its padding, H, W, Hpad and Wpad, where
    they are known (`dse.model.padding`). `signed` says whether inputs can be negative, true where a file does not
    say it: an array in memory then converts more sums (docs/in_memory.md).
    """

    name: str
    kind: str
    instance: dict[str, int] = field(hash=False)
    candidate: str | None = None
    image: dict[str, int] = field(default_factory=dict, compare=False)
    signed: bool = True

    @cached_property
    def problem(self) -> Problem:
        """The layer as a Timeloop problem; an InputError for an embedding."""
        found = problem_of(self.kind, self.instance | self.image, f"layer {self.name}")
        return replace(found, signed=self.signed)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer; 0 for an embedding."""
        return 0 if self.kind == "embedding" else self.problem.macs


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
        return sum(layer.macs for layer in self.layers)


def write_workload(workload: Workload, path: Path | str) -> None:
    """Writes `workloads/NAME.yaml`: one line per layer, so that a diff shows which layer changed.

    Example:
        >>> fully_connected = Layer("fc", "linear", {"N": 1, "C": 64, "M": 10})
        >>> write_workload(Workload("mine", (fully_connected,), (1, 64)), "mine.yaml")
        >>> read_workload("mine.yaml").macs
        640
    """
    lines = [
        "# Layers of a network as Timeloop problems: G groups of C input and M output channels, P x Q outputs,",
        "# R x S filters; signed: false for inputs that are never negative.",
        "# Written by `enos export`; edit it or write your own.",
        f"version: {VERSION}",
        f"name: {_scalar(workload.name)}",
        f"input: {list(workload.input_shape)}",
        "layers:",
    ]
    for layer in workload.layers:
        instance = ", ".join(f"{k}: {v}" for k, v in (layer.instance | layer.image).items())
        chosen = "" if layer.candidate is None else f", candidate: {_scalar(layer.candidate)}"
        signed = "" if layer.signed else ", signed: false"
        lines.append(f"- {{name: {_scalar(layer.name)}, kind: {layer.kind}, instance: {{{instance}}}{signed}{chosen}}}")
    if workload.passed_over:
        lines.append("passed_over:")
        lines += [f"  {_scalar(name)}: {_scalar(reason)}" for name, reason in workload.passed_over.items()]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_workload(path: Path | str) -> Workload:
    """Reads a workload file.

    Raises:
        InputError: a field is unknown or missing, or two layers have the same name.

    Example:
        >>> workload = read_workload(find_workload("squeezenet"))
        >>> workload.name, len(workload.layers), f"{workload.macs:,}"
        ('squeezenet_cifar', 26, '202,211,328')
    """
    file = validated(WorkloadFile, read_yaml(path), path)
    twice = [name for name, times in Counter(entry.name for entry in file.layers).items() if times > 1]
    if twice:
        raise InputError(f"{path}: layers", f"two layers are named {twice[0]!r}", "a unique name for each layer")
    for i, entry in enumerate(file.layers):
        check_instance(entry.kind, entry.instance, f"{path}: layers[{i}]")
    layers = tuple(_layer(entry) for entry in file.layers)
    return Workload(file.name or Path(path).stem, layers, file.input or (), file.passed_over or {})


def _layer(entry: LayerEntry) -> Layer:
    instance, image = ({k: v for k, v in entry.instance.items() if (k in IMAGE) is inside} for inside in (False, True))
    return Layer(entry.name, entry.kind, instance, entry.candidate, image, entry.signed)


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
            raise InputError(f"workload {str(name)!r}", "is ambiguous", [m.stem for m in matches])
        if matches:
            return matches[0]
    known = sorted({m.stem for folder in folders for m in folder.glob("*.yaml")})
    raise unknown("workload", "file or shipped workload", str(name), [*known, "a path to a .yaml file"])


def _scalar(text: str) -> str:
    """`text` as one YAML scalar, quoted if necessary."""
    return yaml.safe_dump(text, width=10**6).removesuffix("\n").removesuffix("\n...")
