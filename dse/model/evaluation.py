"""The access model: what a mapping costs, exactly as Timeloop computes it.

`dse.model.access_counts` counts what every level reads, fills and updates; this module adds energies, leakage and
cycles. docs/model.md derives the counts; `tests/dse/model/test_golden.py` compares them with recorded Timeloop runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Any

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Spec, Storage
from dse.model.access_counts import compute_count, tensor_counts
from dse.model.formulas import access_energy, busy_cycles
from dse.model.loop_nest import Level, Nest, nest_of
from dse.model.mapping import Mapping
from dse.workload.problem import Problem


@dataclass(frozen=True)
class Accesses:
    """Scalar accesses of one tensor at one level, per instance, and their energy over all instances.

    With remainders some instances are idle in some steps: `instances` is then the average, rounded down as in Timeloop.
    """

    tile: int  # words kept at most
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
    compute_instances: float
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
        spec: the accelerator.
        problem: the layer.
        mapping: a complete mapping of it.
        ert: pJ for each component and action.

    Raises:
        InputError: a kept tile that does not fit its level, a tensor that does not fit the outermost memory that keeps
            it, or an energy that the table lacks.
    """
    nest = nest_of(spec, problem, mapping)
    counts: dict[str, dict[str, Accesses]] = {}
    for tensor in problem.data_spaces:
        for level, tile, reads, fills, updates in tensor_counts(nest, tensor, mapping):
            accesses = Accesses(tile, level.instances, reads, fills, updates, 0.0)
            counts.setdefault(level.name, {})[tensor.name] = accesses
    check_capacity(spec, counts, resident_words(spec, problem, mapping.keep))
    for tensors in counts.values():
        for name, a in tensors.items():
            if not a.reads + a.fills + a.updates:  # outside all levels that merge: it needs room, but holds nothing
                tensors[name] = replace(a, tile=0)

    steps = nest.compute_cycles
    busy = max(_level_cycles(m, counts.get(m.name, {}), steps) for m in nest.levels if m.storage is not None)
    most = {level.name: level.most_instances for level in nest.levels}
    levels = {
        s.name: {
            t: _with_energy(s, a, ert.storage(s.name), spec.sharing(s, most[s.name])) for t, a in counts[s.name].items()
        }
        for s in reversed(spec.storages)
        if any(a.tile for a in counts.get(s.name, {}).values())  # Timeloop leaves out levels that hold nothing
    }
    computes = problem.macs if nest.perfect else compute_count(nest)
    compute_pj = computes * ert.compute(spec.compute.name)
    leak_pj = _leakage(spec, nest, busy, ert)
    cycles = busy + spec.network_latency
    energy = compute_pj + leak_pj + sum(a.energy_pj for tensors in levels.values() for a in tensors.values())
    return Evaluation(energy, cycles, computes, nest.computes, compute_pj, leak_pj, levels, spec.compute.name)


def check_capacity(
    spec: Spec,
    counts: MappingType[str, MappingType[str, Accesses]],
    resident: MappingType[str, MappingType[str, int]],
) -> None:
    """Refuses tiles that do not fit their level.

    Args:
        counts: accesses by level and tensor.
        resident: as `resident_words` gives them.

    Raises:
        InputError: a level needs more words than it has.
    """
    for storage in spec.storages:
        lives = resident.get(storage.name, {})
        needs = {t: max(a.tile, lives.get(t, 0)) for t, a in counts.get(storage.name, {}).items()}
        needed = sum(needs.values())
        if storage.capacity is not None and needed > storage.capacity:
            tiles = ", ".join(f"{t} {n}" for t, n in needs.items())
            whole = " and ".join(t for t, a in counts[storage.name].items() if needs[t] > a.tile)
            why = f", as no memory outside keeps {whole}" if whole else ""
            raise InputError(
                f"mapping: {storage.name}", f"needs {needed} words ({tiles}){why}", f"at most {storage.capacity}"
            )


def _level_cycles(level: Level, tensors: MappingType[str, Accesses], compute_cycles: int) -> int:
    """Cycles a memory needs by its bandwidths, at least the compute cycles."""
    storage = level.storage
    assert storage is not None
    spread = level.most_instances / level.instances  # all instances share what the charged ones access
    scale = {tensor: storage.bandwidth_scale.get(tensor, 1.0) for tensor in tensors}
    reads = sum(math.ceil(a.reads / spread) / compute_cycles * scale[t] for t, a in tensors.items())
    writes = sum(math.ceil((a.fills + a.updates) / spread) / compute_cycles * scale[t] for t, a in tensors.items())
    limits = (storage.read_bandwidth, storage.write_bandwidth, storage.shared_bandwidth)
    read, write, shared = (math.inf if limit is None else limit for limit in limits)
    return busy_cycles(compute_cycles, reads, writes, read, write, shared)


def _with_energy(storage: Storage, a: Accesses, energies: MappingType[str, float], sharing: float) -> Accesses:
    """`sharing`: instances for each access, in clusters."""
    prices = (energies[action] for action in ("read", "write", "update"))
    each = access_energy(a.reads, a.fills, a.updates, storage.block_size, *prices)
    return replace(a, energy_pj=a.instances * (each / sharing))


def _leakage(spec: Spec, nest: Nest, cycles: int, ert: Ert) -> float:
    """Leakage in pJ of all memories in `cycles`; as in Timeloop, nothing leaks while networks fill and drain."""
    used = {level.name: float(level.instances) for level in nest.levels}
    return sum(
        ert.storage(storage.name)["leak"] * cycles * leaking_instances(spec, storage, used) for storage in spec.storages
    )


def leaking_instances(spec: Spec, storage: Storage, used: MappingType[str, float]) -> float:
    """Instances of a memory that leak: those that are used, or all that share a gate with one that is.

    Args:
        used: instances that take part, by level.
    """
    together = spec.gated_together(storage)
    return used[storage.name] if together == 1 else together * max(1.0, used[storage.power_gate or storage.name])
