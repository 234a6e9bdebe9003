"""What made a cost table, kept in its file: so that a search never takes energies of something else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic.dataclasses import dataclass

from dse.core.errors import InputError
from dse.core.expressions import evaluate
from dse.core.schema import CONFIG, Flag, Text, checked, exactly, number, whole
from dse.hardware.accelerator import Accelerator
from dse.hardware.candidate import Candidate
from dse.hardware.instance import Instance
from dse.hardware.spec_reader import SpecFile
from dse.mapper.slack import read_slack
from dse.table.shapes import EMBEDDING
from dse.workload.layers import Layer, Workload

SCHEMA = 4
"""Version of the files of cost tables.

1 had no provenance and no column of leakage, 2 `imperfect` for `remainders`, 3 no columns of kind and shape.
"""


def _digest(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise InputError("", f"found {value[:80]!r}", "64 hexadecimal digits")
    return value


def _slack(value: object) -> float:
    return read_slack(value, "")


Slack = Annotated[float, BeforeValidator(_slack), WithJsonSchema({"type": ["number", "string"]})]
"""A share, 0 to 1, or text such as 1%."""
Digest = Annotated[Text, checked(_digest)]


@dataclass(frozen=True, config=CONFIG)
class Level:
    """A memory of the accelerator; energies of those off the chip are not part of ``e_tx_on_chip_pj``."""

    name: Text
    off_chip: Flag


Quantities = dict[Text, Annotated[float, number(0, 1e30)]]
"""A number for each candidate, by its name."""
Areas = dict[Text, Annotated[float, number(0, 1e30)] | None]
"""mm^2 of each component; None where no table has it."""

Counts = dict[Text, Annotated[int, whole(1)]]
"""A whole number for each candidate, by its name."""


@dataclass(frozen=True, config=CONFIG)
class Provenance:
    """What made a table. Digests are SHA-256 of the content that decides energies, not of a file's text.

    `workload_digest` is of the names and shapes of all layers, `arch_digest` of the parsed specification,
    `operators_digest` of the candidates. `arch` is the name of the specification's file, without folder and suffix.
    `remainders` says that mappings with remainders were looked at, and that `optimal` is among these; else it is among
    perfect factors. `levels` are the memories, outermost first;
    `transmission` names the transmission energies that the table has. `slack` is the share of the least energy
    that mappings could need more to be faster; without it there was none.

    `cycle_seconds` is the duration of a cycle, if the specification gives one. For each candidate there are the PEs of
    the array, the bits of a weight, and for each memory off the chip the bits of its words. Tables of earlier schemas
    have none of these. `areas_mm2` has for each candidate the area of every component on the chip, all its instances
    together, and `compute_leakage_pj` the leakage of a compute unit in a cycle that the energies leave out; both are
    empty where the tables of components say nothing of them. `network_cycles` are those of every layer in which
    networks fill and drain, of candidates with any. `operation_cycles` are the clock cycles of an operation of the
    array, where they are not 1.

    `signed_layers` are the layers whose inputs can be negative, if a candidate costs something else there, and
    `signed_cycles` the cycles of an operation of such candidates in them. Tables of other candidates have neither.
    """

    schema_version: Annotated[int, exactly(SCHEMA)]
    workload: Text
    workload_digest: Digest
    arch: Text
    arch_digest: Digest
    operators_digest: Digest
    objective: Text
    engine: Text
    engine_version: Text
    remainders: Flag
    levels: tuple[Level, ...]
    transmission: tuple[Literal["all", "on_chip"], ...] = ("all", "on_chip")
    slack: Slack = 0.0
    cycle_seconds: Annotated[float, number(0, 1e30, above=True)] | None = None
    pes: Counts = field(default_factory=dict, hash=False)
    weight_bits: Counts = field(default_factory=dict, hash=False)
    word_bits: dict[Text, Counts] = field(default_factory=dict, hash=False)
    areas_mm2: dict[Text, Areas] = field(default_factory=dict, hash=False)
    compute_leakage_pj: Quantities = field(default_factory=dict, hash=False)
    network_cycles: Counts = field(default_factory=dict, hash=False)
    operation_cycles: Quantities = field(default_factory=dict, hash=False)
    signed_layers: tuple[Text, ...] | None = None
    signed_cycles: Quantities = field(default_factory=dict, hash=False)

    @property
    def off_chip(self) -> frozenset[str]:
        """Names of the memories off the chip."""
        return frozenset(level.name for level in self.levels if level.off_chip)

    def cycles_of_operation(self, layer: str, candidate: str) -> float:
        """Clock cycles of an operation of the array in a layer.

        Example:
            >>> from dse.table.cost_table import CostTable
            >>> CostTable.load("table.csv").provenance.cycles_of_operation("conv1", "T8")
            1.0
        """
        found = self.operation_cycles.get(candidate, 1.0)
        return self.signed_cycles.get(candidate, found) if layer in (self.signed_layers or ()) else found

    @property
    def document(self) -> dict[str, Any]:
        """JSON data from which the header of a file is read back."""
        document = {**asdict(self), "levels": list(map(asdict, self.levels)), "transmission": list(self.transmission)}
        if not self.slack:  # as in tables that were made before there was one
            del document["slack"]
        if self.cycle_seconds is None:
            del document["cycle_seconds"]
        if self.signed_layers is None:
            del document["signed_layers"]
        else:
            document["signed_layers"] = list(self.signed_layers)
        for name in ("areas_mm2", "compute_leakage_pj", "network_cycles", "operation_cycles", "signed_cycles"):
            if not document[name]:
                del document[name]
        return document


def provenance_of(
    workload: Workload, accelerator: Accelerator, instances: Sequence[Instance], **settings: Any
) -> Provenance:
    """The provenance of a table that is to be made.

    Args:
        instances: the accelerator for each of the candidates.
        settings: objective, engine, engine_version, remainders, slack.
    """
    candidates = [instance.candidate for instance in instances]
    by_sign = [candidate for candidate in candidates if candidate.by_sign]
    return Provenance(
        schema_version=SCHEMA,
        workload=workload.name,
        workload_digest=workload_digest(workload),
        arch=arch_name(accelerator),
        arch_digest=digest(accelerator.document),
        operators_digest=operators_digest(candidates),
        levels=_levels(instances),
        cycle_seconds=cycle_seconds(accelerator.modes[0].arch),
        pes={instance.candidate.name: instance.spec.pe_count for instance in instances},
        weight_bits={instance.candidate.name: instance.candidate.weight_bits for instance in instances},
        word_bits=_word_bits(instances),
        areas_mm2={i.candidate.name: dict(i.areas.mm2) for i in instances if i.areas.known},
        compute_leakage_pj={i.candidate.name: leak for i in instances if (leak := i.uncounted_leakage_pj)},
        operation_cycles={c.name: cycles for c in candidates if (cycles := c.cycles_at(signed=False)) != 1},
        signed_layers=signed_layers(workload) if by_sign else None,
        signed_cycles={c.name: c.cycles_at(signed=True) for c in by_sign},
        network_cycles={i.candidate.name: n for i in instances if (n := i.spec.network_latency)},
        **settings,
    )


def _levels(instances: Sequence[Instance]) -> tuple[Level, ...]:
    """The memories of all computing modes, outermost first: those that a mode adds stand after those that it shares."""
    found: dict[str, Level] = {}
    for instance in instances:
        for storage in instance.spec.storages:
            found.setdefault(storage.name, Level(storage.name, storage.off_chip))
    return tuple(found.values())


def cycle_seconds(arch: SpecFile) -> float | None:
    """Duration of a cycle from the specification's ``global_cycle_seconds``; None if it is not given.

    Example:
        >>> from dse.hardware.instance import read_arch
        >>> cycle_seconds(read_arch())
        1e-09
    """
    value = evaluate(arch.variables.get("global_cycle_seconds"), arch.variables, f"{arch.where}: variables")
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if known else None


def _word_bits(instances: Sequence[Instance]) -> dict[str, dict[str, int]]:
    """Bits of a word of each memory off the chip, for each candidate."""
    bits: dict[str, dict[str, int]] = {}
    for instance in instances:
        for storage in instance.spec.storages:
            if storage.off_chip:
                bits.setdefault(storage.name, {})[instance.candidate.name] = storage.datawidth
    return bits


def check_architecture(provenance: Provenance, arch: Accelerator, where: object) -> None:
    """Refuses a table of another architecture.

    Raises:
        InputError: at `where`, naming both.
    """
    name = arch_name(arch)
    hint = "map the network on this architecture, or name the table's in the configuration (arch)"
    if provenance.arch != name:
        raise InputError(where, f"is of architecture {provenance.arch!r}, not of {name!r}", hint=hint)
    if provenance.arch_digest != digest(arch.document):
        raise InputError(where, f"is of another content of architecture {name!r}", hint="map the network again")


def check_network(provenance: Provenance, workload: Workload, where: object) -> None:
    """Refuses a table of another network, or of other sizes of its layers.

    Raises:
        InputError: at `where`, naming both.
    """
    if provenance.workload_digest != workload_digest(workload):
        problem = f"is of network {provenance.workload!r}, whose layers are not those of {workload.name!r}"
        raise InputError(where, problem, hint="export and map this network")
    if provenance.signed_layers is not None and (signed := signed_layers(workload)) != provenance.signed_layers:
        (first, *_) = sorted({*signed} ^ {*provenance.signed_layers})
        takes, can = ("never negative", "can be") if first in signed else ("possibly negative", "cannot be")
        problem = f"takes inputs of layer {first!r} for {takes}, and those of the network {can}"
        raise InputError(where, problem, hint="export and map this network")


def check_operators(provenance: Provenance, candidates: Iterable[Candidate], where: object) -> None:
    """Refuses a table whose candidates are declared otherwise.

    Raises:
        InputError: at `where`.
    """
    if provenance.operators_digest != operators_digest(candidates):
        raise InputError(where, "was made with other operators", hint="map the network with this operators file")


def arch_name(arch: Accelerator | SpecFile) -> str:
    """The name of an accelerator: its file's, without folder and suffix; of several files the first."""
    return Path(str(arch.where).split(" + ")[0]).stem


def workload_digest(workload: Workload) -> str:
    """Of the names and shapes of all layers, in their order."""
    return digest([[layer.name, _shape(layer)] for layer in workload.layers])


def signed_layers(workload: Workload) -> tuple[str, ...]:
    """Names of the layers with products whose inputs can be negative.

    Example:
        >>> from dse.workload.layers import find_workload, read_workload
        >>> signed_layers(read_workload(find_workload("squeezenet")))
        ('conv1',)
    """
    return tuple(layer.name for layer in workload.layers if layer.signed and layer.kind != EMBEDDING)


def _shape(layer: Layer) -> dict[str, Any]:
    """What decides a layer's costs; an embedding has no problem that a mapper could solve."""
    return {layer.kind: layer.instance} if layer.kind == EMBEDDING else layer.problem.canonical()


def operators_digest(candidates: Iterable[Candidate]) -> str:
    """Of candidates, whatever their order."""
    return digest([candidate.identity for candidate in sorted(candidates, key=lambda candidate: candidate.name)])


def digest(document: object) -> str:
    """SHA-256 of canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
