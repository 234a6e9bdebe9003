"""The engine's view of an accelerator: a chain of storage levels and fan-outs, outermost first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class LoopConstraint:
    """Constraints of a specification on the loops of one level.

    `factors` are exact (0: the whole dimension), `at_most` and `at_least` are limits of a factor. A permutation is
    innermost first: the loops in `inner` come first, those in `outer` last, the rest in between in any order. The first
    `split` loops of a spatial permutation, loops of one iteration included, are on X, the others on Y; None leaves the
    choice to the mapper. `maximize` are groups of dimensions whose factors are to be as large as `maximize_capacity`
    allows, None meaning the fan-out; of several levels the one with the highest `maximize_turn` chooses first.
    `dse.hardware.constraints.for_layer` gives the meaning of a constraint for a layer.
    """

    factors: Mapping[str, int] = field(default_factory=dict)
    at_most: Mapping[str, int] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    inner: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()
    split: int | None = None
    maximize: tuple[tuple[str, ...], ...] = ()
    maximize_capacity: int | None = None
    maximize_turn: int = 0

    def permits(self, dimension: str, factor: int) -> bool:
        """Whether the level's loop over a dimension may have this factor."""
        if dimension in self.factors:
            return factor == self.factors[dimension]
        return self.at_least.get(dimension, 1) <= factor <= self.at_most.get(dimension, factor)

    def canonical(self) -> list[Any]:
        return [
            sorted(self.factors.items()),
            sorted(self.at_most.items()),
            sorted(self.at_least.items()),
            self.inner,
            self.outer,
            self.split,
            *((self.maximize, self.maximize_capacity, self.maximize_turn) if self.maximize else ()),
        ]


@dataclass(frozen=True)
class Storage:
    """A memory. Sizes are in words of `datawidth` bits; a physical access moves `block_size` words.

    `capacity` None means unlimited (DRAM). `keep` says for each tensor whether it is kept (True), bypassed (False)
    or open to the mapper (absent). Bandwidths are words per cycle and instance. `network_latency` is the number of
    cycles that filling and draining its network adds to every layer. `power_gate` names the level whose instances are
    switched on and off, each together with all instances of this memory inside it; None if each instance of this
    memory has its own gate. Of the tensors in `no_coalesce` a memory merges no accesses, those in `no_reuse` it does
    not keep from one iteration to the next, and the first write of those in `rmw_first_update` reads them, too.
    `cluster_size` instances share each access. Of its bandwidths a word of a tensor takes `bandwidth_scale` words, 1 of
    those that are not named. `energy_scale` multiplies the energies of its class.
    """

    name: str
    component: str
    attributes: Mapping[str, Any]
    datawidth: int
    block_size: int
    capacity: int | None
    keep: Mapping[str, bool]
    temporal: LoopConstraint
    read_bandwidth: float | None = None
    write_bandwidth: float | None = None
    shared_bandwidth: float | None = None
    network_latency: int = 0
    power_gate: str | None = None
    no_coalesce: frozenset[str] = frozenset()
    no_reuse: frozenset[str] = frozenset()
    rmw_first_update: frozenset[str] = frozenset()
    cluster_size: int = 1
    bandwidth_scale: Mapping[str, float] = field(default_factory=dict, hash=False)
    energy_scale: float = 1.0

    @property
    def loops(self) -> LoopConstraint:
        return self.temporal

    @property
    def off_chip(self) -> bool:
        return self.component.lower() == "dram" or str(self.attributes.get("type", "")).upper().startswith("LPDDR")


@dataclass(frozen=True)
class Fanout:
    """`mesh_x` x `mesh_y` copies of all inner levels. Timeloop names the level ``inter_<node>_spatial``.

    For Timeloop it is a memory that keeps nothing, so it also has a `network_latency`. Of the tensors in `no_reuse`
    each instance is served by an access of its own.
    """

    name: str
    mesh_x: int
    mesh_y: int
    spatial: LoopConstraint
    no_link_transfer: frozenset[str] = frozenset()
    network_latency: int = 0
    no_reuse: frozenset[str] = frozenset()

    @property
    def loops(self) -> LoopConstraint:
        return self.spatial


@dataclass(frozen=True)
class Compute:
    """The unit that executes one operation per cycle."""

    name: str
    component: str
    attributes: Mapping[str, Any]
    energy_scale: float = 1.0


@dataclass(frozen=True)
class Spec:
    """One instance of an accelerator. `levels` are ordered from the outermost memory to the innermost level."""

    levels: tuple[Storage | Fanout, ...]
    compute: Compute

    @cached_property
    def storages(self) -> tuple[Storage, ...]:
        return tuple(level for level in self.levels if isinstance(level, Storage))

    @cached_property
    def pe_count(self) -> int:
        """Number of compute units in the whole array."""
        product = 1
        for level in self.levels:
            if isinstance(level, Fanout):
                product *= level.mesh_x * level.mesh_y
        return product

    @cached_property
    def instances(self) -> Mapping[str, int]:
        """Number of instances of each level."""
        found, product = {}, 1
        for level in self.levels:
            found[level.name] = product
            if isinstance(level, Fanout):
                product *= level.mesh_x * level.mesh_y
        return found

    @property
    def network_latency(self) -> int:
        """Cycles that the networks between levels add to every layer."""
        return sum(level.network_latency for level in self.levels)

    @property
    def special(self) -> tuple[str, ...]:
        """What makes its levels unlike plain memories and fan-outs, such as ``buffer.no_coalesce``."""
        names = ("no_coalesce", "no_reuse", "rmw_first_update", "bandwidth_scale", "cluster_size")
        plain: tuple[Any, ...] = (None, 1, frozenset(), {})
        return tuple(f"{v.name}.{name}" for v in self.levels for name in names if getattr(v, name, None) not in plain)

    @property
    def perfect_only(self) -> tuple[str, ...]:
        """Those of `special` that only mappings without remainders are counted with."""
        return tuple(name for name in self.special if not name.endswith(".rmw_first_update"))

    def gated_together(self, storage: Storage) -> int:
        """Number of instances of a memory that each power gate switches."""
        gate = storage.power_gate
        return 1 if gate is None else max(1, self.instances[storage.name] // self.instances[gate])

    def sharing(self, storage: Storage, used: int) -> float:
        """How many of the `used` instances of a memory share an access: they are spread over all its clusters.

        Timeloop's rule: as long as there are clusters left, no two instances are in the same.
        """
        return used / min(used, self.instances[storage.name] // storage.cluster_size)

    def storage(self, name: str) -> Storage:
        return next(s for s in self.storages if s.name == name)

    def with_compute(self, compute: Compute) -> Spec:
        return replace(self, compute=compute)

    def with_step(self, cycles: float) -> Spec:
        """The specification whose steps take so many clock cycles: its memories move as many times more words in one.

        Bandwidths are words per clock cycle before, and words per step afterwards.
        """

        def of_step(level: Storage | Fanout) -> Storage | Fanout:
            names = ("read_bandwidth", "write_bandwidth", "shared_bandwidth")
            limits = {} if isinstance(level, Fanout) else {n: b for n in names if (b := getattr(level, n)) is not None}
            return replace(level, **{name: limit * cycles for name, limit in limits.items()}) if limits else level

        return self if cycles == 1 else replace(self, levels=tuple(map(of_step, self.levels)))

    def canonical(self) -> dict[str, Any]:
        """Everything in the hardware that determines access counts and mapspace, as JSON data."""
        return {"levels": [_canonical_level(level) for level in self.levels]}


def _canonical_level(level: Storage | Fanout) -> list[Any]:
    if isinstance(level, Fanout):
        return ["fanout", level.name, level.mesh_x, level.mesh_y, level.spatial.canonical(),
                sorted(level.no_link_transfer), level.network_latency, *_given(level, ("no_reuse",))]  # fmt: skip
    return [
        "storage",
        level.name,
        level.block_size,
        level.capacity,
        sorted(level.keep.items()),
        level.temporal.canonical(),
        level.read_bandwidth,
        level.write_bandwidth,
        level.shared_bandwidth,
        level.network_latency,
        level.power_gate,
        *_given(level, ("no_coalesce", "no_reuse", "rmw_first_update")),
        *([["cluster_size", level.cluster_size]] if level.cluster_size > 1 else []),
        *([["bandwidth_scale", sorted(level.bandwidth_scale.items())]] if level.bandwidth_scale else []),
    ]


def _given(level: Storage | Fanout, names: tuple[str, ...]) -> list[Any]:
    """Sets of tensors that are not empty: a specification without them keeps the key that it has had."""
    return [[name, sorted(getattr(level, name))] for name in names if getattr(level, name)]
