"""Counts of one tensor at every level of a mapping: tiles, reads, fills, updates, and how bypassed levels fold.

docs/model.md derives the rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass

from dse.child_accesses import Stats, Vector, child_accesses
from dse.mapping import Loops, Mapping
from dse.problem import DataSpace, Problem
from dse.spec import Fanout, Spec, Storage


@dataclass(frozen=True)
class NestLevel:
    """A level of the nest, innermost first: its spatial loops lie inside its temporal loops."""

    storage: Storage | None
    fanout: Fanout | None
    spatial: Loops
    temporal: Loops


@dataclass
class Tile:
    """Running counts of one tensor at one level while bypassed levels are folded outwards."""

    size: int
    instances: int
    fanout: int
    content: float
    by_multicast: Stats
    link_transfers: float
    fill_share: float = 0.0
    partition: int = 0
    peer: float = 0.0


def nest_levels(spec: Spec, mapping: Mapping) -> list[NestLevel]:
    """The levels of a mapping, innermost first."""
    levels = []
    for level in reversed(spec.levels):
        if isinstance(level, Fanout):
            levels.append(NestLevel(None, level, mapping.x[level.name] + mapping.y[level.name], ()))
        else:
            levels.append(NestLevel(level, None, (), mapping.temporal[level.name]))
    return levels


def tensor_counts(
    nest: list[NestLevel], problem: Problem, tensor: DataSpace, mapping: Mapping
) -> list[tuple[str, Tile, int, int, int]]:
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


def _tiles(nest: list[NestLevel], problem: Problem, tensor: DataSpace) -> list[Tile]:
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
        tile = Tile(sizes[i], per_level_instances[i], fanout, sum(stats.values()), stats, links)
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


def _fold_bypassed(tiles: list[Tile], keep: list[bool]) -> None:
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
