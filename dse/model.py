"""The access model: what every level of a mapping reads, fills and updates, exactly as Timeloop counts it.

Timeloop walks the loop nest from the outside in, evaluates iterations 0 and 1 of every temporal loop, weighs the
second by n - 1, and charges at each step the part of a tile that the previous step did not hold. Between two
consecutive steps exactly one loop advances and the loops inside it rewind, so a nest of k non-trivial loops has only
k kinds of step. Everything about a step follows from its kind, which gives the counts in closed form; the derivation
is in docs/model.md. `tests/dse/test_model.py` compares it with a literal walk and with recorded Timeloop runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any

from dse.energy.ert import Ert
from dse.errors import InputError
from dse.mapping import Loops, Mapping
from dse.problem import DataSpace, Problem
from dse.spec import Fanout, Spec, Storage

Vector = tuple[int, ...]
Stats = dict[tuple[int, int], float]  # (multicast factor, number of distinct boxes) -> words


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


@dataclass(frozen=True)
class _Level:
    """A level of the nest, innermost first: its spatial loops lie inside its temporal loops."""

    storage: Storage | None
    fanout: Fanout | None
    spatial: Loops
    temporal: Loops


@dataclass
class _Tile:
    """Running counts of one tensor at one level while bypassed levels are folded outwards (Timeloop section 3.6)."""

    size: int
    instances: int
    fanout: int
    content: float
    by_multicast: Stats
    link_transfers: float
    fill_share: float = 0.0
    partition: int = 0
    peer: float = 0.0


def evaluate(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> Evaluation:
    """Access counts, energy and cycles of a mapping.

    Args:
        spec: the accelerator; `problem` the layer; `mapping` a complete mapping of it.
        ert: pJ for each component and action.

    Raises:
        InputError: a kept tile that does not fit its level, or an energy that the table lacks.
    """
    nest = _nest(spec, mapping)
    counts: dict[str, dict[str, Accesses]] = {}
    for tensor in problem.data_spaces:
        for name, tile, reads, fills, updates in _tensor_counts(nest, problem, tensor, mapping):
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


def _nest(spec: Spec, mapping: Mapping) -> list[_Level]:
    levels = []
    for level in reversed(spec.levels):
        if isinstance(level, Fanout):
            levels.append(_Level(None, level, mapping.x[level.name] + mapping.y[level.name], ()))
        else:
            levels.append(_Level(level, None, (), mapping.temporal[level.name]))
    return levels


def _tensor_counts(
    nest: list[_Level], problem: Problem, tensor: DataSpace, mapping: Mapping
) -> list[tuple[str, _Tile, int, int, int]]:
    """(level, tile, reads, fills, updates) of a tensor at every level that keeps it, innermost first."""
    tiles = _tiles(nest, problem, tensor)
    keep = [level.storage is not None and tensor.name in mapping.keep[level.storage.name] for level in nest]
    _fold_bypassed(tiles, keep)
    outermost = max(i for i, kept in enumerate(keep) if kept)
    for i in range(outermost, 0, -1):
        if tiles[i].link_transfers:
            tiles[i - 1].peer += tiles[i].link_transfers / tiles[i - 1].instances
    out = []
    for i, tile in enumerate(tiles):
        storage = nest[i].storage
        if storage is None or not keep[i]:
            continue
        share = 0.0 if i == outermost else tile.fill_share
        accesses = tile.content + tile.peer
        if tensor.read_write:
            reads, updates = _round(accesses - tile.partition), _round(tile.content)
            fills = _round(share + tile.peer - (0 if i == outermost else tile.partition))
        else:
            reads, updates, fills = _round(accesses), 0, int(share + tile.peer)
        out.append((storage.name, tile, reads, fills, updates))
    return out


def _tiles(nest: list[_Level], problem: Problem, tensor: DataSpace) -> list[_Tile]:
    """Every level's tile and the accesses its child makes, as if every level kept the tensor."""
    inside = dict.fromkeys(problem.dimensions, 1)
    strides: list[tuple[int, int, Vector]] = []  # (level, factor, translation) of temporal loops, innermost first
    spatial: list[list[tuple[int, Vector]]] = []
    below: list[tuple[int, ...]] = []  # extents of the child's tile
    sizes, union_sizes = [], []
    for i, level in enumerate(nest):
        below.append(_extents(tensor, inside))
        spatial.append([])
        for d, n in level.spatial:
            spatial[i].append((n, _translation(tensor, d, inside[d])))
            inside[d] *= n
        union_sizes.append(math.prod(_extents(tensor, inside)))
        for d, n in level.temporal:
            strides.append((i, n, _translation(tensor, d, inside[d])))
            inside[d] *= n
        sizes.append(math.prod(_extents(tensor, inside)))

    tiles = []
    instances = 1
    per_level_instances = [0] * len(nest)
    for i in range(len(nest) - 1, -1, -1):
        per_level_instances[i] = instances
        instances *= math.prod(n for n, _ in spatial[i])
    for i, level in enumerate(nest):
        outside = [(n, t) for at, n, t in strides if at >= i]
        stats, links = child_accesses(
            below[i], outside, spatial[i], level.fanout, is_compute=i == 0,
            links=level.fanout is not None and tensor.name not in level.fanout.no_link_transfer,
        )  # fmt: skip
        fanout = math.prod(n for n, _ in spatial[i])
        tile = _Tile(sizes[i], per_level_instances[i], fanout, sum(stats.values()), stats, links)
        tiles.append(tile)
    tiles[-1].partition = tiles[-1].size
    for i in range(len(nest) - 2, -1, -1):
        parent = tiles[i + 1]
        whole = union_sizes[i + 1] if spatial[i + 1] else tiles[i].size
        tiles[i].partition = parent.partition * tiles[i].size // whole
        tiles[i].fill_share = sum(a * m / parent.fanout for (m, _), a in sorted(parent.by_multicast.items()))
    return tiles


def _extents(tensor: DataSpace, inside: MappingType[str, int]) -> tuple[int, ...]:
    return tuple(1 + sum(abs(c) * (inside[d] - 1) for d, c in axis) for axis in tensor.axes)


def _translation(tensor: DataSpace, dimension: str, stride: int) -> Vector:
    return tuple(sum(c * stride for d, c in axis if d == dimension) for axis in tensor.axes)


def child_accesses(
    box: tuple[int, ...],
    outside: list[tuple[int, Vector]],
    spatial: list[tuple[int, Vector]],
    fanout: Fanout | None,
    *,
    is_compute: bool,
    links: bool,
) -> tuple[Stats, float]:
    """What the children of one instance of a level access in it over the whole layer.

    Args:
        box: extents of a child's tile.
        outside: (iterations, translation of the box) of the temporal loops at and outside the level, innermost first.
        spatial: the same of the loops over the children.
        fanout: the physical mesh, which decides who is whose neighbour.
        is_compute: the child is the compute unit, which holds nothing between two steps.
        links: neighbours may pass data on (section 3.5 of the Timeloop notes).

    Returns:
        Accesses by multicast factor (words, over the layer), and words passed between neighbours.
    """
    steps = _steps(box, outside, is_compute)
    children = _child_offsets(spatial)
    groups = Counter(Counter(children).values())  # multicast factor -> number of distinct boxes
    stats: Stats = {}
    link_transfers = 0.0
    for weight, size, moved in steps:
        if size == 0:
            continue
        chosen, served = groups, 0
        if links and moved is not None and len(children) > 1:
            linked = _linked(children, moved, fanout)
            rest = Counter(Counter(v for v, hit in zip(children, linked, strict=True) if not hit).values())
            if sum(rest.values()) < sum(groups.values()):
                chosen, served = rest, sum(linked)
        link_transfers += served * size * weight
        for key in chosen.items():
            stats[key] = stats.get(key, 0.0) + key[1] * size * weight
    return stats, link_transfers


def _steps(
    box: tuple[int, ...], outside: list[tuple[int, Vector]], is_compute: bool
) -> list[tuple[int, int, Vector | None]]:
    """(times, words needed, translation if the previous step needed a box of the same form) of each kind of step.

    Loop 1 is the innermost. A step of kind i advances loop i and rewinds loops 1..i-1; it moves the box by
    T_i = t_i - sum of t_j over j < i. Before a step of kind i > 1 always comes one of kind 1; before one of kind 1
    comes any other.
    """
    volume = math.prod(box)
    if not outside:
        return [(1, volume, None)]
    moves: list[Vector] = []
    rewound = tuple(0 for _ in box)
    for _, t in outside:
        moves.append(tuple(a - b for a, b in zip(t, rewound, strict=True)))
        rewound = tuple(a + b for a, b in zip(t, rewound, strict=True))
    times = []  # of kind i, i = 1..k
    outer = math.prod(n for n, _ in outside)
    for n, _ in outside:
        outer //= n
        times.append((n - 1) * outer)

    if is_compute:
        return [(1, volume, None), *((c, volume, m) for c, m in zip(times, moves, strict=True))]

    first = next((i for i, (_, t) in enumerate(outside) if any(t)), None)
    if first is None:
        return [(1, volume, None)]
    slab = _new_part(box, moves[first])
    need = [
        slab if i == first or (i > first and m == moves[first]) else (0 if not any(m) else volume)
        for i, m in enumerate(moves)
    ]
    if first > 0:  # a step of kind 1 needs nothing, and it comes before every other: no neighbour has what is needed
        return [(1, volume, None), *((c, s, None) for c, s in zip(times, need, strict=True))]
    n1 = outside[0][0]
    out: list[tuple[int, int, Vector | None]] = [(1, volume, None)]
    before_kind_1 = [(1, volume)]  # (settings, words needed) of the steps that open a run of loop 1
    for i in range(1, len(outside)):
        out.append((times[i], need[i], moves[i] if need[i] == slab else None))
        before_kind_1.append((times[i], need[i]))
    for settings, previous in before_kind_1:
        out.append((settings * (n1 - 1), slab, moves[0] if previous == slab else None))
    return out


def _new_part(box: tuple[int, ...], move: Vector) -> int:
    """Words of a box that a translated copy of it did not hold: a slab if it moved along one axis and overlaps."""
    axes = [i for i, m in enumerate(move) if m]
    if len(axes) != 1:
        return math.prod(box)
    axis = axes[0]
    step = min(abs(move[axis]), box[axis])
    return math.prod(box) // box[axis] * step


def _child_offsets(spatial: list[tuple[int, Vector]]) -> list[Vector]:
    """Offset of each child's box from the first child's; the innermost spatial loop runs fastest."""
    offsets: list[Vector] = []
    for n, t in spatial:
        if not offsets:
            offsets = [tuple(0 for _ in t)]
        offsets = [tuple(o + k * s for o, s in zip(offset, t, strict=True)) for k in range(n) for offset in offsets]
    return offsets or [()]


def _linked(children: list[Vector], moved: Vector, fanout: Fanout | None) -> list[bool]:
    """Which children find what they need at a neighbour: the neighbour's box before equals the child's box now.

    Children are numbered in the order of the spatial loops and laid out row by row on the physical mesh, also where
    the loops use only part of a row: that is how Timeloop numbers them.
    """
    assert fanout is not None
    count = len(children)
    width = fanout.mesh_x
    height = max(fanout.mesh_y, -(-count // width))
    hits = [False] * count
    for i, offset in enumerate(children):
        h, v = i % width, i // width
        neighbours = [i - width] * (v > 0) + [i + width] * (v < height - 1)
        neighbours += [i - 1] * (h > 0) + [i + 1] * (h < width - 1)
        wanted = tuple(o + m for o, m in zip(offset, moved, strict=True))
        hits[i] = any(0 <= j < count and children[j] == wanted for j in neighbours)
    return hits


def _fold_bypassed(tiles: list[_Tile], keep: list[bool]) -> None:
    """Hands the accesses of bypassed levels to the next level out, with its multicast kept and its links dropped."""
    for i, kept in enumerate(keep[:-1]):
        if kept:
            continue
        outer = tiles[i + 1]
        delivered = sum(a * m for (m, _), a in outer.by_multicast.items())
        factor = tiles[i].content * outer.fanout / delivered
        outer.by_multicast = {key: a * factor for key, a in outer.by_multicast.items()}
        outer.content = sum(a for _, a in sorted(outer.by_multicast.items()))
        outer.link_transfers = 0.0


def _round(x: float) -> int:
    """C's round(): halves away from zero."""
    return math.floor(x + 0.5) if x >= 0 else -math.floor(0.5 - x)


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


def _leakage(nest: list[_Level], cycles: int, ert: Ert) -> float:
    """Leakage in pJ: every instance that the mapping uses leaks in every cycle."""
    total, instances = 0.0, 1
    for level in reversed(nest):
        if level.storage is not None:
            total += ert.storage(level.storage.name)["leak"] * cycles * instances
        instances *= math.prod(n for _, n in level.spatial)
    return total
