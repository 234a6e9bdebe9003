"""Energy of a mapping with remainders without Timeloop's rounding, to choose between mappings by.

Timeloop charges partial steps less than their share (docs/model.md, Remainders): it drops the fraction of the average
number of instances, divides fills by the full fan-out, and counts more or fewer operations than the layer has.
Minimising Timeloop's energy would favour mappings that exploit this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from itertools import pairwise

from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Spec, Storage
from dse.model.access_counts import KeptTile, Serving, kept_tiles, served_operations
from dse.model.evaluation import Evaluation, leaking_instances
from dse.model.loop_nest import nest_of
from dse.model.mapping import Mapping
from dse.workload.problem import Problem


def fair_energy(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert, evaluation: Evaluation) -> float:
    """Energy in pJ over the layer; `evaluation`'s own for a mapping without remainders.

    Every operation of the layer counts; a level's instances count with the fraction of their average; a level is
    filled with what its parents deliver; and where the walk finds more or fewer operations inside a level than the
    layer has, because one child stands for all, the level's accesses are scaled by that.
    """
    if not mapping.remainders:
        return evaluation.energy_pj
    nest = nest_of(spec, problem, mapping)
    average = [level.average_instances for level in nest.levels]
    children = [1.0, *(inner / outer for inner, outer in pairwise(average))]  # that of the innermost is not used
    weights = [problem.macs / (served_operations(nest, i) * instances) for i, instances in enumerate(average)]
    serving = list(map(Serving, children, weights))
    total = problem.macs * ert.compute(spec.compute.name)
    for tensor in problem.data_spaces:
        for kept in kept_tiles(nest, tensor, mapping, serving):
            total += _energy(kept, ert.storage(kept.level.name), read_write=tensor.read_write)
    used = {level.name: level.average_instances for level in nest.levels}
    busy = evaluation.cycles - spec.network_latency
    for storage in spec.storages:
        total += ert.storage(storage.name)["leak"] * busy * leaking_instances(spec, storage, used)
    return total


def _energy(kept: KeptTile, energies: MappingType[str, float], *, read_write: bool) -> float:
    """Energy in pJ of a tensor's accesses in all instances of a level."""
    level, tile = kept.level, kept.tile
    assert level.storage is not None
    instances = level.average_instances
    passed = tile.peer * level.instances / instances  # was divided by the charged instances
    first = tile.partition * level.most_instances / instances if read_write else 0.0  # whose first write saves a read
    received = 0.0 if kept.outermost else tile.fill_share - first
    words = {"read": tile.content + passed - first, "write": received + passed}
    if read_write:
        words["update"] = tile.content
    return instances * sum(_blocks(n, level.storage) * energies[action] for action, n in words.items())


def _blocks(words: float, storage: Storage) -> float:
    """Physical accesses to that many words, the last one counted in full as for a whole number of words."""
    return max(0.0, words / storage.block_size, math.ceil(int(words) / storage.block_size))
