"""Counts of one tensor at every level of a mapping: tiles, reads, fills and updates.

Accesses of a level that bypasses the tensor are those of the next level out. docs/model.md derives the rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import NamedTuple

from dse.core.errors import InputError
from dse.hardware.spec import Storage
from dse.model.child_accesses import Stats, Vector, child_accesses, steps_before_2025, steps_of
from dse.model.formulas import axis_extent, fraction_of, whole_accesses
from dse.model.loop_nest import Level, Loop, Nest
from dse.model.mapping import Mapping
from dse.model.remainders import Box, Children, Unfinished, WalkLoop, walk_accesses
from dse.workload.problem import DataSpace


class FirstWrites(NamedTuple):
    """What a level does with an output: `read` it also before its first write; keep all accesses `apart`."""

    read: bool
    apart: bool

    @classmethod
    def of(cls, storage: Storage | None, tensor: str) -> FirstWrites:
        """That of a tensor at a level."""
        if storage is None:
            return cls(False, False)
        return cls(tensor in storage.rmw_first_update, tensor in storage.no_coalesce)


@dataclass
class Tile:
    """Running counts of one tensor at one level while bypassed levels are folded outwards."""

    size: int
    fanout: float
    content: float
    by_multicast: Stats
    link_transfers: float
    fill_share: float = 0.0
    partition: int = 0
    peer: float = 0.0


class KeptTile(NamedTuple):
    """What the average instance of a level that keeps a tensor accesses; the outermost one has no parent to fill it."""

    level: Level
    tile: Tile
    outermost: bool


def tensor_counts(nest: Nest, tensor: DataSpace, mapping: Mapping) -> list[tuple[Level, int, int, int, int]]:
    """(level, tile, reads, fills, updates) of a tensor at every level that keeps it, innermost first.

    Timeloop counts nothing at levels outside the outermost one that merges accesses to the tensor.

    Raises:
        InputError: Timeloop stops, because it counts fewer accesses than words that are written first; with remainders
            its rounding can do that. Or no level merges accesses to the tensor.
    """
    out = []
    for level, tile, outermost in kept_tiles(nest, tensor, mapping):
        share = 0.0 if outermost else tile.fill_share
        writes = FirstWrites.of(level.storage, tensor.name)
        accesses = whole_accesses(
            tile.content, tile.peer, share, tile.partition, tensor.read_write, outermost, writes.read, writes.apart
        )
        if min(accesses) < 0:
            problem = f"Timeloop fails: fewer accesses to {tensor.name} than the {tile.partition} first writes"
            raise InputError(f"mapping: {level.name}", problem)
        out.append((level, tile.size, *accesses))
    if not out:
        problem = f"Timeloop fails: every level that keeps {tensor.name} lets all accesses through (no_coalesce)"
        raise InputError("mapping", problem, "a level that keeps it and is not no_coalesce")
    counted = {level.name for level, *_ in out}
    for level in nest.levels:
        storage = level.storage
        if storage is not None and tensor.name in mapping.keep[storage.name] and storage.name not in counted:
            out.append((level, _size(tensor, level.own), 0, 0, 0))
    return out


def kept_tiles(nest: Nest, tensor: DataSpace, mapping: Mapping) -> list[KeptTile]:
    """A tensor at every level that keeps it, not rounded, innermost first.

    Levels outside the outermost one that merges accesses to it are left out: Timeloop counts nothing there.
    """
    tiles = _tiles(nest, tensor)
    keep = [level.storage is not None and tensor.name in mapping.keep[level.storage.name] for level in nest.levels]
    merges = [
        kept and level.storage is not None and tensor.name not in level.storage.no_coalesce
        for level, kept in zip(nest.levels, keep, strict=True)
    ]
    _fold(tiles, merges)
    outermost = max((i for i, merging in enumerate(merges) if merging), default=-1)
    for i in range(outermost, 0, -1):
        if tiles[i].link_transfers:
            tiles[i - 1].peer += tiles[i].link_transfers / nest.levels[i - 1].instances
    return [
        KeptTile(level, tile, i == outermost)
        for i, (level, tile) in enumerate(zip(nest.levels, tiles, strict=True))
        if keep[i] and i <= outermost
    ]


def compute_count(nest: Nest) -> int:
    """Operations that Timeloop counts under remainders: those of the average unit times the units it charges."""
    innermost = nest.levels[0]
    stats, _ = _imperfect_accesses(nest, 0, DataSpace("", ()), links=False)
    executed = sum(multicast * steps for (multicast, _), steps in stats.items())
    return int(executed / innermost.fanout_size * int(innermost.average_instances * innermost.fanout_size))


def _tiles(nest: Nest, tensor: DataSpace) -> list[Tile]:
    """Every level's tile and the accesses its child makes, as if every level kept the tensor."""
    levels = nest.levels
    accesses = _perfect_accesses(nest, tensor) if nest.perfect else [
        _imperfect_accesses(nest, i, tensor, links=_links(level, tensor)) for i, level in enumerate(levels)
    ]  # fmt: skip
    tiles = [
        Tile(_size(tensor, level.own), level.fanout_size, sum(stats.values()), stats, links)
        for level, (stats, links) in zip(levels, accesses, strict=True)
    ]
    tiles[-1].partition = tiles[-1].size
    for i in range(len(levels) - 2, -1, -1):
        parent = tiles[i + 1]
        whole = _size(tensor, levels[i + 1].union) if levels[i + 1].spatial else tiles[i].size
        tiles[i].partition = fraction_of(parent.partition, tiles[i].size, whole)
        tiles[i].fill_share = sum(a * m / parent.fanout for (m, _), a in sorted(parent.by_multicast.items()))
    return tiles


def _perfect_accesses(nest: Nest, tensor: DataSpace) -> list[tuple[Stats, float]]:
    outside = [(loop.factor, _move(tensor, loop)) for level in nest.levels for loop in level.temporal]
    steps = steps_before_2025 if nest.before_2025 else steps_of
    out = []
    for i, level in enumerate(nest.levels):
        box = _extents(tensor, {d: indices.whole for d, indices in level.child.items()})
        spatial = [(loop.factor, _move(tensor, loop)) for loop in level.spatial]
        links, alone = _links(level, tensor), _alone(level, tensor)
        forgets = _forgets(nest, i, tensor)
        out.append(
            child_accesses(
                box, outside, spatial, level.fanout, is_compute=forgets, links=links, alone=alone, steps=steps
            )
        )
        outside = outside[len(level.temporal) :]
    return out


def _imperfect_accesses(nest: Nest, at: int, tensor: DataSpace, *, links: bool) -> tuple[Stats, float]:
    """As `child_accesses`, for nests with remainders."""
    level = nest.levels[at]

    def loops(which: tuple[Loop, ...], spatial: bool) -> list[WalkLoop]:
        return [WalkLoop(x.dimension, x.factor, x.last, _move(tensor, x), spatial, x.remainder_inside) for x in which]

    def tile(unfinished: Unfinished) -> Box:
        steps = {d: (e.whole if d in unfinished else e.last) - 1 for d, e in level.child.items()}
        low = tuple(sum(min(0, c * steps[d]) for d, c in axis) for axis in tensor.axes)
        return low, tuple(1 + sum(max(0, c * steps[d]) for d, c in axis) for axis in tensor.axes)

    outside = loops(level.temporal, False)
    for outer in nest.levels[at + 1 :]:
        outside += loops(outer.spatial, True) + loops(outer.temporal, False)
    spatial = tuple(loops(level.spatial, True))
    children = Children(spatial, level.fanout, links and bool(level.spatial), _alone(level, tensor))
    forgets = _forgets(nest, at, tensor)
    return walk_accesses(tuple(reversed(outside)), children, tile, own_loop=bool(level.temporal), is_compute=forgets)


def _forgets(nest: Nest, at: int, tensor: DataSpace) -> bool:
    """Whether a level's child holds nothing of a tensor between two steps: the compute unit, or a level without reuse.

    Timeloop asks this also of a level that bypasses the tensor.
    """
    child = nest.levels[at - 1].storage if at > 0 else None
    return at == 0 or (child is not None and tensor.name in child.no_reuse)


def _alone(level: Level, tensor: DataSpace) -> bool:
    """Whether each child of a level is served by an access of its own."""
    return level.fanout is not None and tensor.name in level.fanout.no_reuse


def _links(level: Level, tensor: DataSpace) -> bool:
    """Whether neighbours may pass a tensor on."""
    return level.fanout is not None and tensor.name not in level.fanout.no_link_transfer


def _size(tensor: DataSpace, covered: MappingType[str, int]) -> int:
    return math.prod(_extents(tensor, covered))


def _extents(tensor: DataSpace, covered: MappingType[str, int]) -> Vector:
    return tuple(axis_extent([abs(c) for _, c in axis], [covered[d] for d, _ in axis]) for axis in tensor.axes)


def _move(tensor: DataSpace, loop: Loop) -> Vector:
    """Translation of a tensor's tile from one iteration of a loop to the next."""
    return tuple(sum(c * loop.stride for d, c in axis if d == loop.dimension) for axis in tensor.axes)


def _fold(tiles: list[Tile], merges: list[bool]) -> None:
    """Hands the accesses of some levels to the next level out, with its multicast kept and its links dropped.

    These levels bypass the tensor, or let every access to it through.
    """
    for i, merging in enumerate(merges[:-1]):
        if merging:
            continue
        outer = tiles[i + 1]
        delivered = sum(a * m for (m, _), a in outer.by_multicast.items())
        factor = tiles[i].content * outer.fanout / delivered
        outer.by_multicast = {key: a * factor for key, a in outer.by_multicast.items()}
        outer.content = sum(a for _, a in sorted(outer.by_multicast.items()))
        outer.link_transfers = 0.0
