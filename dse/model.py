"""The access model: what a mapping costs, exactly as Timeloop computes it.

`dse.access_counts` counts what every level reads, fills and updates; this module adds energies, leakage and cycles.
docs/model.md derives the counts; `tests/dse/test_golden.py` compares them with recorded Timeloop runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any

from dse.access_counts import NestLevel, nest_levels, tensor_counts
from dse.energy.ert import Ert
from dse.errors import InputError
from dse.mapping import Mapping
from dse.problem import Problem
from dse.spec import Spec, Storage


@dataclass(frozen=True)
class Accesses:
    """Scalar accesses of one tensor at one level, per instance, and their energy over all instances."""

    tile: int  # words kept
    instances: int
    reads: int
    fills: int
    updates: int
    energy_pj: float


@dataclass(frozen=True)
class Evaluation:
    """What one mapping costs.

    `levels[storage][tensor]` holds the accesses of every kept tensor; energies are in pJ over the whole layer.
    """

    energy_pj: float
    cycles: int
    computes: int
    compute_instances: int
    compute_energy_pj: float
    leakage_pj: float
    levels: MappingType[str, MappingType[str, Accesses]] = field(hash=False)
    compute_name: str = "mac"

    def document(self) -> dict[str, Any]:
        """The evaluation as `enos model --json` prints it."""
        levels: dict[str, Any] = {
            self.compute_name: {"instances": self.compute_instances, "energy_pj": self.compute_energy_pj}
        }
        for name, tensors in self.levels.items():
            levels[name] = {t: vars(a) for t, a in tensors.items()}
        return {
            "energy_pj": self.energy_pj,
            "cycles": self.cycles,
            "computes": self.computes,
            "levels": levels,
        }


def evaluate(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
    """Access counts, energy and cycles of a mapping.

    Args:
        spec: the accelerator; `problem` the layer; `mapping` a complete mapping of it.
        ert: pJ for each component and action.

    Raises:
        InputError: a kept tile that does not fit its level, or an energy that the table lacks.
    """
    nest = nest_levels(spec, mapping)
    counts: dict[str, dict[str, Accesses]] = {}
    for tensor in problem.data_spaces:
        for name, tile, reads, fills, updates in tensor_counts(nest, problem, tensor, mapping):
            counts.setdefault(name, {})[tensor.name] = Accesses(tile.size, tile.instances, reads, fills, updates, 0.0)
    _check_capacity(spec, counts)

    spatial = math.prod(n for level in nest for _, n in level.spatial)
    compute_cycles = math.prod(n for level in nest for _, n in level.temporal)
    cycles = max([compute_cycles, *(_level_cycles(s, counts.get(s.name, {}), compute_cycles) for s in spec.storages)])
    levels = {
        s.name: {t: _with_energy(s, a, ert.storage(s.name)) for t, a in counts[s.name].items()}
        for s in reversed(spec.storages)
        if s.name in counts
    }
    compute_pj = problem.macs * ert.compute(spec.compute.name)
    leak_pj = _leakage(nest, cycles, ert)
    energy = compute_pj + leak_pj + sum(a.energy_pj for tensors in levels.values() for a in tensors.values())
    return Evaluation(energy, cycles, problem.macs, spatial, compute_pj, leak_pj, levels, spec.compute.name)


def _check_capacity(spec: Spec, counts: MappingType[str, MappingType[str, Accesses]]) -> None:
    for storage in spec.storages:
        kept = counts.get(storage.name, {})
        needed = sum(a.tile for a in kept.values())
        if storage.capacity is not None and needed > storage.capacity:
            tiles = ", ".join(f"{t} {a.tile}" for t, a in kept.items())
            raise InputError(
                f"mapping: {storage.name}", f"needs {needed} words ({tiles})", f"at most {storage.capacity}"
            )


def _level_cycles(storage: Storage, tensors: MappingType[str, Accesses], compute_cycles: int) -> int:
    """Cycles a level needs by its bandwidths, at least the compute cycles."""
    reads = sum(a.reads / compute_cycles for a in tensors.values())
    writes = sum((a.fills + a.updates) / compute_cycles for a in tensors.values())
    slowdown = 1.0
    for limit, demand in (
        (storage.read_bandwidth, reads),
        (storage.write_bandwidth, writes),
        (storage.shared_bandwidth, reads + writes),
    ):
        if limit is not None and limit < demand:
            slowdown = min(slowdown, limit / demand)
    return math.ceil(compute_cycles / slowdown)


def _with_energy(storage: Storage, a: Accesses, energies: MappingType[str, float]) -> Accesses:
    energy = a.instances * sum(
        -(-count // storage.block_size) * energies[action]
        for action, count in (("read", a.reads), ("write", a.fills), ("update", a.updates))
    )
    return Accesses(a.tile, a.instances, a.reads, a.fills, a.updates, energy)


def _leakage(nest: list[NestLevel], cycles: int, ert: Ert) -> float:
    """Leakage in pJ: every instance that the mapping uses leaks in every cycle."""
    total, instances = 0.0, 1
    for level in reversed(nest):
        if level.storage is not None:
            total += ert.storage(level.storage.name)["leak"] * cycles * instances
        instances *= math.prod(n for _, n in level.spatial)
    return total
