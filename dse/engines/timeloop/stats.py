"""What Timeloop's `stats.txt` and `map.yaml` say, as an evaluation and a mapping."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.hardware.spec import Spec, Storage
from dse.model.evaluation import Accesses, Evaluation
from dse.model.mapping import Mapping, parse_directives
from dse.workload.problem import Problem

_LEVEL = re.compile(r"=== (\S+) ===")
_GROUP = re.compile(r" {4}(\S[^:]*?)\s*:")
_FIELD = re.compile(r"\s+(\S[^:]*?)\s*:\s*(\S.*)")
_COUNTS = {
    "Utilized capacity": "tile",
    "Utilized instances (max)": "instances",
    "Scalar reads (per-instance)": "reads",
    "Scalar fills (per-instance)": "fills",
    "Scalar updates (per-instance)": "updates",
}
_ENERGY = "Energy (total)"
_LEAKAGE = "Leakage energy (total)"
_SOURCE = "Vector access energy source"
_LAST_DIGIT = 0.005  # pJ, fJ: what is printed has two decimals


@dataclass
class _Section:
    """One level of the file: its own fields and those of each tensor, as text."""

    fields: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)


def parse_stats(text: str, spec: Spec, problem: Problem, where: object) -> Evaluation:
    """The evaluation that a `stats.txt` reports; energies are exact to 0.005 pJ a tensor and level.

    Raises:
        InputError: text of another form, levels or tensors other than the specification's, energies that did not come
            from the energy table, parts that do not add up to the total.
    """
    sections, summary = _sections(text), _summary(text, where)
    compute_name = spec.compute.name
    memories = [s for s in spec.storages if s.name in sections]  # Timeloop leaves out those that keep nothing
    if compute_name not in sections or not memories:
        raise InputError(where, f"has no level {compute_name!r}" if memories else "has no memory", "all of stats.txt")
    compute = sections[compute_name].fields
    kept = {s.name: _accesses(s, sections[s.name], problem, where) for s in reversed(memories)}
    levels = {name: tensors for name, tensors in kept.items() if tensors}
    leakages = [_number(sections[s.name].fields, _LEAKAGE, f"{where}: {s.name}") for s in memories]
    compute_pj = _number(compute, _ENERGY, f"{where}: {compute_name}")
    energies = [compute_pj, *leakages, *(a.energy_pj for tensors in levels.values() for a in tensors.values())]
    computes = int(_number(summary, "Computes", where))
    evaluation = Evaluation(
        energy_pj=math.fsum(energies),
        cycles=int(_number(summary, "Cycles", where)),
        computes=computes,
        compute_instances=int(_number(compute, "Utilized instances", f"{where}: {compute_name}")),
        compute_energy_pj=compute_pj,
        leakage_pj=math.fsum(leakages),
        levels=levels,
        compute_name=compute_name,
    )
    total = _number(summary, "Total", where) * computes / 1000
    if abs(evaluation.energy_pj - total) > _LAST_DIGIT * (computes / 1000 + len(energies)) * 1.001:
        raise InputError(where, f"its parts add up to {evaluation.energy_pj:.2f} pJ, its total is {total:.2f} pJ")
    return evaluation


def parse_mapping(text: str, spec: Spec, problem: Problem, where: object) -> Mapping:
    """The mapping in a `map.yaml`; InputError for one that is not complete or not of this accelerator."""
    return parse_directives(spec, problem, parse_yaml(text, where), where)


def _sections(text: str) -> dict[str, _Section]:
    """The levels, without those of later parts of the file, which repeat their names."""
    levels, _, _ = text.partition("\nNetworks\n")
    found: dict[str, _Section] = {}
    section, target = _Section(), {}
    mapping = False
    for line in levels.splitlines():
        if line.strip() in ("MAPPING", "STATS"):
            mapping = line.strip() == "MAPPING"
        if mapping:
            continue
        if match := _LEVEL.match(line):
            section = found.setdefault(match[1], _Section())
            target = section.fields
        elif match := _FIELD.fullmatch(line):
            target.setdefault(match[1], match[2])
        elif match := _GROUP.fullmatch(line.rstrip()):
            target = section.tensors.setdefault(match[1], {})
        elif line.strip() == "STATS":
            target = section.fields
    return found


def _summary(text: str, where: object) -> dict[str, str]:
    """`Cycles`, `Computes` and `Total` of the end of the file; fJ an operation for the last."""
    _, found, end = text.rpartition("\nSummary Stats\n")
    if not found:
        raise InputError(where, "is incomplete: no summary", "all of stats.txt")
    pairs = re.findall(r"^\s*(\S[^:=]*?)\s*[:=]\s*(\S+)", end, re.MULTILINE)
    return dict(pairs)


def _accesses(storage: Storage, section: _Section, problem: Problem, where: object) -> dict[str, Accesses]:
    here = f"{where}: {storage.name}"
    source = section.fields.get(_SOURCE)
    if source != "ERT":
        raise InputError(here, f"its energy comes from {source!r}, not from the energy table", "ERT")
    tensors = [tensor.name for tensor in problem.data_spaces]
    for name in section.tensors:
        if name not in tensors:
            raise InputError(here, f"unknown tensor {name!r}", tensors)
    return {
        name: Accesses(
            **{ours: int(_number(section.tensors[name], theirs, f"{here}.{name}")) for theirs, ours in _COUNTS.items()},
            energy_pj=_number(section.tensors[name], _ENERGY, f"{here}.{name}"),
        )
        for name in tensors
        if name in section.tensors
    }


def _number(fields: dict[str, str], name: str, where: object) -> float:
    """A field's number, without its unit."""
    text = fields.get(name)
    try:
        value = float((text or "").split()[0])
    except (IndexError, ValueError):
        raise InputError(where, f"{name!r} is {'missing' if text is None else repr(text)}", "a number") from None
    if not 0 <= value < math.inf:
        raise InputError(where, f"{name!r} is {text!r}", "a number of at least 0")
    return value
