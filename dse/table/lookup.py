"""What an embedding costs: it reads rows of a table and writes them, both at the outermost memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dse.core.errors import InputError
from dse.model.formulas import access_energy
from dse.table.result import Result

if TYPE_CHECKING:
    from dse.hardware.instance import Instance
    from dse.hardware.spec import Spec, Storage

TABLE, FOUND = "Weights", "Outputs"
"""The tensors of an embedding: the table, of which rows are read, and the rows that are written."""


def words_of(shape: Mapping[str, int]) -> int:
    """Words that an embedding moves: N tokens of M words each."""
    return shape.get("N", 1) * shape.get("M", 1)


def lookup(words: int, instance: Instance) -> Result:
    """The costs of reading so many words at the outermost memory of weights, and writing them at that of outputs.

    Words are packed as in every other layer: an access moves as many as fit into the memory's width, and the last one
    is paid in full. Nothing is computed, and no mapping is searched, so the costs are those of every mapping.

    Cycles are those of the slower memory; one without a bandwidth takes a word in and a word out each cycle. Leakage
    is that of both memories, and of all that are off the chip.

    Raises:
        InputError: no memory keeps such a tensor, or one has no energies.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.workload.problem import conv_problem
        >>> arch = read_arch()
        >>> instance = instance_for(arch, load_candidates()[0], conv_problem({}), library_for(arch))
        >>> result = lookup(128 * 64, instance)
        >>> result.levels["dram_weights"]["Weights"]["reads"], result.compute_pj, result.cycles
        (8192, 0.0, 8192)
    """
    spec = instance.spec
    source, target = _outermost(spec, TABLE), _outermost(spec, FOUND)
    moved = [(source, TABLE, words, 0), (target, FOUND, 0, words)]
    moved.sort(key=lambda entry: -spec.storages.index(entry[0]))  # innermost first, as everywhere
    levels: dict[str, dict[str, dict[str, float]]] = {}
    for storage, tensor, reads, updates in moved:
        prices = instance.ert.storage(storage.name)
        energy = access_energy(reads, 0, updates, storage.block_size, prices["read"], prices["write"], prices["update"])
        accesses = {"tile": words, "instances": 1, "reads": reads, "fills": 0, "updates": updates, "energy_pj": energy}
        levels.setdefault(storage.name, {})[tensor] = accesses
    if source is target:
        cycles = _cycles(source, words, words, instance.cycles)
    else:
        cycles = max(_cycles(source, words, 0, instance.cycles), _cycles(target, 0, words, instance.cycles))
    leaking = {s.name for s in spec.storages if s.off_chip or s.name in levels}
    of_a_cycle = 1 / instance.cycles
    leakage = sum(instance.ert.storage(name)["leak"] * of_a_cycle * cycles for name in leaking)
    moved_pj = math.fsum(a["energy_pj"] for tensors in levels.values() for a in tensors.values())
    return Result(
        status="ok", optimal=True, energy_pj=moved_pj + leakage, leakage_pj=leakage, cycles=cycles, levels=levels
    )  # fmt: skip


def _outermost(spec: Spec, tensor: str) -> Storage:
    """The outermost memory that may keep a tensor."""
    for storage in spec.storages:
        if storage.keep.get(tensor, True):
            return storage
    raise InputError(spec.storages[0].name, f"no memory keeps {tensor}", hint="let the outermost one keep it")


def _cycles(storage: Storage, reads: int, writes: int, of_step: float) -> int:
    """Clock cycles that a memory needs by its bandwidths, which are words per step of the array; at least 1."""
    limits = (storage.read_bandwidth, storage.write_bandwidth, storage.shared_bandwidth)
    if limits == (None, None, None):
        return max(1, reads, writes)
    words = zip((reads, writes, reads + writes), limits, strict=True)
    return max(1, *(math.ceil(moved * of_step / limit) for moved, limit in words if limit is not None))
