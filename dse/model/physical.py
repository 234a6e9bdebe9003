"""The physical evaluation of a mapping with remainders: energy and cycles of what really happens.

Timeloop approximates partial steps (docs/model.md, Remainders): it drops the fraction of the average number of
instances, lets one child stand for all, and charges full steps in outer loops. These energies do not compare with
those of perfect mappings. The physical ones do, and the search for mappings with remainders is proven for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType

from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Spec, Storage
from dse.model.evaluation import Accesses, Evaluation, check_capacity, evaluate, leaking_instances
from dse.model.formulas import busy_cycles
from dse.model.mapping import Mapping
from dse.model.real_iterations import Words, count
from dse.workload.problem import Problem


def physical(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
    """Access counts, energy and cycles of a mapping, by the iterations that happen; without remainders Timeloop's.

    Accesses are those of the mean instance, rounded to whole words; energies are of the exact means. An access moves a
    block; the mean number of accesses is not rounded up.

    Args:
        spec: the accelerator.
        problem: the layer.
        mapping: a complete mapping of it.
        ert: pJ for each component and action.

    Raises:
        InputError: with remainders, a tensor with a dimension on several axes or an output with windows or strides; a
            kept tile that does not fit its level; a tensor that does not fit the outermost memory that keeps it; an
            energy that the table lacks.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.mapper import search
        >>> from dse.workload.problem import conv_problem
        >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = search(chip.spec, layer, chip.ert, "energy", remainders=False)
        >>> physical(chip.spec, layer, found.mapping, chip.ert).computes == layer.macs
        True
    """
    if not mapping.remainders:
        return evaluate(spec, problem, mapping, ert)
    return by_iterations(spec, problem, mapping, ert)


def by_iterations(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
    """As `physical`, of every mapping: also one without remainders is counted without rounding and without links.

    This is what a mapping of perfect factors is compared by with those with remainders.
    """
    counted = count(spec, problem, mapping)
    levels = {
        s.name: {
            t: _accesses(s, words, counted.instances[s.name], ert.storage(s.name))
            for t, words in counted.words[s.name].items()
        }
        for s in reversed(spec.storages)
        if s.name in counted.words
    }
    check_capacity(spec, levels, resident_words(spec, problem, mapping.keep))
    busy = max(
        _level_cycles(s, counted.words.get(s.name, {}), counted.instances[s.name], counted.cycles)
        for s in spec.storages
    )
    used = {name: float(n) for name, n in counted.instances.items()}
    leak_pj = sum(ert.storage(s.name)["leak"] * busy * leaking_instances(spec, s, used) for s in spec.storages)
    compute_pj = problem.macs * ert.compute(spec.compute.name)
    energy = compute_pj + leak_pj + sum(a.energy_pj for tensors in levels.values() for a in tensors.values())
    return Evaluation(
        energy, busy + spec.network_latency, problem.macs, counted.compute_instances, compute_pj, leak_pj, levels,
        spec.compute.name,
    )  # fmt: skip


def _accesses(storage: Storage, words: Words, instances: int, energies: MappingType[str, float]) -> Accesses:
    """What the mean of the most instances that work at a time accesses, and the energy of all."""
    each = 0.0
    for n, action in ((words.reads, "read"), (words.fills, "write"), (words.updates, "update")):
        each += n / (instances * storage.block_size) * energies[action]
    reads, fills, updates = (math.floor(n / instances + 0.5) for n in words[1:])
    return Accesses(words.tile, instances, reads, fills, updates, instances * each)


def _level_cycles(storage: Storage, tensors: MappingType[str, Words], instances: int, cycles: int) -> int:
    """Cycles that a memory needs by its bandwidths, at least the compute cycles."""
    reads = sum(words.reads for words in tensors.values()) / instances / cycles
    writes = sum(words.fills + words.updates for words in tensors.values()) / instances / cycles
    limits = (storage.read_bandwidth, storage.write_bandwidth, storage.shared_bandwidth)
    read, write, shared = (math.inf if limit is None else limit for limit in limits)
    return busy_cycles(cycles, reads, writes, read, write, shared)
