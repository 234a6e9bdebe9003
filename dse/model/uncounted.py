"""What Timeloop's conventions leave out of a mapping's energy, beside its ordinary numbers (docs/conventions.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dse.core.errors import unknown
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec
from dse.model.drain import drained_words, really_drained_words
from dse.model.evaluation import Evaluation
from dse.model.loop_nest import nest_of
from dse.model.mapping import Mapping
from dse.model.padding import fetched_words
from dse.workload.problem import Problem

DRAIN, PADDING = "drain", "padding"
KINDS = (DRAIN, PADDING)
"""Reads of outputs that leave a memory, which are not counted; reads of zeros of the padding, which are."""


@dataclass(frozen=True)
class Change:
    """What counting something adds to the reads of an instance, and to the energy of all; below 0 if it takes off."""

    reads: int
    energy_pj: float


Changes = dict[str, dict[str, Change]]
"""By level and tensor."""


def uncounted(
    spec: Spec,
    problem: Problem,
    mapping: Mapping,
    ert: Ert,
    evaluation: Evaluation,
    kind: str,
    *,
    timeloop: bool = False,
) -> Changes:
    """How a mapping's reads and energy change where one of `KINDS` is counted; cycles stay as they are.

    Args:
        spec: the accelerator.
        problem: the layer.
        mapping: a complete mapping of it.
        ert: pJ for each component and action.
        evaluation: what the mapping costs.
        kind: one of `KINDS`.
        timeloop: the evaluation counts remainders as Timeloop does, and not the iterations that happen.

    Raises:
        InputError: another kind; with padding, as `dse.model.padding.fetched_words`.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.mapper import search
        >>> from dse.workload.problem import conv_problem
        >>> arch = read_arch()
        >>> layer = conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3, "H": 8, "W": 8})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = search(chip.spec, layer, chip.ert, remainders=False)
        >>> changes = uncounted(chip.spec, layer, found.mapping, chip.ert, found.evaluation, "padding")
        >>> changes["dram_ifmap"]["Inputs"].reads
        -144
    """
    physical = bool(mapping.remainders) and not timeloop
    if kind == DRAIN:
        return _drain(spec, problem, mapping, ert, evaluation, physical)
    if kind == PADDING:
        return _padding(spec, problem, mapping, ert, evaluation, physical)
    raise unknown("count", "kind", kind, KINDS)


def energy_of(changes: Changes) -> float:
    """What all changes together add to the energy, in pJ."""
    return sum(change.energy_pj for tensors in changes.values() for change in tensors.values())


def _drain(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert, evaluation: Evaluation, physical: bool) -> Changes:
    words = (really_drained_words if physical else drained_words)(spec, problem, mapping)
    sharing = _sharing(spec, problem, mapping)
    found: Changes = {}
    for level, tensors in words.items():
        storage, price = spec.storage(level), ert.storage(level)["read"]
        block = storage.block_size
        for tensor, n in tensors.items():
            accesses = evaluation.levels.get(level, {}).get(tensor)
            if accesses is None or not n:
                continue
            instances = accesses.instances
            if physical:
                change = Change(math.floor(n / instances + 0.5), n / block * price)
            else:
                change = Change(n, instances * -(-n // block) * price / sharing[level])
            found.setdefault(level, {})[tensor] = change
    return found


def _padding(
    spec: Spec, problem: Problem, mapping: Mapping, ert: Ert, evaluation: Evaluation, physical: bool
) -> Changes:
    found: Changes = {}
    sharing = _sharing(spec, problem, mapping)
    for level, tensors in fetched_words(spec, problem, mapping).items():
        block, price = spec.storage(level).block_size, ert.storage(level)["read"]
        for tensor, fetched in tensors.items():
            accesses = evaluation.levels.get(level, {}).get(tensor)
            if accesses is None:  # a level that lets all accesses through
                continue
            left = -(-accesses.reads * (fetched.words - fetched.zeros) // fetched.words)
            if physical:
                energy = -fetched.zeros / block * price
            else:  # Timeloop's own number of reads, less the share of them that are zeros
                blocks = -(-accesses.reads // block) - -(-left // block)
                energy = -accesses.instances * blocks * price / sharing[level]
            found.setdefault(level, {})[tensor] = Change(left - accesses.reads, energy)
    return found


def _sharing(spec: Spec, problem: Problem, mapping: Mapping) -> dict[str, float]:
    """Instances of each level for one access, in clusters."""
    return {
        level.name: spec.sharing(level.storage, level.most_instances)
        for level in nest_of(spec, problem, mapping).levels
        if level.storage is not None
    }
