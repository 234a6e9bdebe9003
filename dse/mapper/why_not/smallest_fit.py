"""The smallest sizes that give a layer a mapping: of one level with all others as they are, or of several at once.

Constraints and sizes are conditions on the tile around a level and on the ratio of the tiles around a level, so the
tiles that the levels outside a level can leave, and those that the levels inside can split up, are found stage by
stage. What lies in both is all that the level must make room for, and the least of it is its smallest size.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper.mapspace import placements
from dse.mapper.why_not.tiles import Ints, Tiles
from dse.workload.problem import Problem

Levels = tuple[Storage | Fanout, ...]
Keep = Sequence[Mapping[str, int]]
"""For each level the tensors that it keeps, with the words that it must hold of each at least, whatever the tile."""
_SIZES = ("depth", "memory_depth", "data_storage_depth", "entries", "sizeKB")


@dataclass(frozen=True)
class StorageGrowth:
    """A memory that must hold more: `tiles` has the words of the kept tensors that it needs at least."""

    index: int  # of the level, outermost first
    level: Storage
    tiles: dict[str, int]
    whole: frozenset[str] = frozenset()  # of these it must hold more than a tile, as no memory outside keeps them

    @property
    def words(self) -> int:
        return sum(self.tiles.values())

    @property
    def ratio(self) -> float:
        return self.words / (self.level.capacity or math.inf)

    @cached_property
    def grown(self) -> Storage:
        """The memory with the fewest rows (the attribute that gives its size) for these words."""
        name = size_attribute(self.level)
        if name is None:
            return replace(self.level, capacity=self.words)
        most = math.ceil(self.words * self.level.datawidth * _buffering(self.level)) + 1
        least = bisect_left(range(most), self.words, key=lambda n: _capacity(self.level, name, n))
        capacity = _capacity(self.level, name, least)
        return replace(self.level, capacity=capacity, attributes={**self.level.attributes, name: least})


@dataclass(frozen=True)
class FanoutGrowth:
    """A fan-out that must have more instances: `x` and `y` are the factors on its mesh of the smallest one."""

    index: int
    level: Fanout
    x: dict[str, int]
    y: dict[str, int]

    @property
    def ratio(self) -> float:
        return self.grown.mesh_x * self.grown.mesh_y / (self.level.mesh_x * self.level.mesh_y)

    @property
    def grown(self) -> Fanout:
        """The mesh of the fewest instances that is nowhere smaller than it was."""
        x, y = math.prod(self.x.values()), math.prod(self.y.values())
        return replace(self.level, mesh_x=max(self.level.mesh_x, x), mesh_y=max(self.level.mesh_y, y))


Growth = StorageGrowth | FanoutGrowth


def growths(spec: Spec, problem: Problem) -> list[tuple[Growth, ...]]:
    """The alternatives for a mapspace that is empty because of sizes, least growth first.

    Empty if there is a mapping, or if factors are in the way. Each alternative gives the layer a mapping; with one of
    its sizes smaller by a row of the memory, or by a row or column of the mesh, there is none. There are several
    alternatives only if one level is enough.
    """
    tiles = _tiles(problem)
    room = _Room(tiles, problem, spec.levels)
    if room.exists():
        return []
    single = [(g,) for i in range(len(spec.levels)) if (g := room.least(i))]
    if single:
        return sorted(single, key=lambda group: group[0].ratio)
    unlimited = tuple(_unlimited(level, problem) for level in spec.levels)
    if not _Room(tiles, problem, unlimited).exists():
        return []
    together = _joint(tiles, problem, spec.levels, unlimited)
    return [together] if together else []


def has_mapping(spec: Spec, problem: Problem) -> bool:
    """Whether some mapping satisfies all constraints and sizes."""
    return _Room(_tiles(problem), problem, spec.levels).exists()


@lru_cache(maxsize=1)
def _tiles(problem: Problem) -> Tiles:
    """The tiles of the last problem: one reason looks at several variants of a specification."""
    return Tiles(problem)


def size_attribute(storage: Storage) -> str | None:
    """The attribute that gives a memory's size; None if it was set directly, in words."""
    for name in _SIZES:
        n = storage.attributes.get(name)
        if n is not None and _capacity(storage, name, n) == storage.capacity:
            return name
    return None


def _capacity(storage: Storage, name: str, n: int) -> int:
    """Words that a memory holds if the attribute `name` is n, as the reader of specifications counts them."""
    if name == "entries":
        words = n
    elif name == "sizeKB":
        words = n * 1024 * 8 // storage.datawidth
    else:
        words = n * storage.block_size
    return math.floor(words / _buffering(storage))


def _buffering(storage: Storage) -> float:
    return float(storage.attributes.get("multiple_buffering") or 1)


def _unlimited(level: Storage | Fanout, problem: Problem) -> Storage | Fanout:
    if isinstance(level, Fanout):
        return replace(level, mesh_x=problem.macs, mesh_y=problem.macs)
    return replace(level, capacity=None)


def _joint(tiles: Tiles, problem: Problem, levels: Levels, unlimited: Levels) -> tuple[Growth, ...]:
    """Growths of which none can be left out and none can be smaller while the others stay.

    Empty if no memory can grow enough: it must hold all of a tensor that bypasses the memories outside, and only a
    larger fan-out would divide that among more instances.
    """
    grown: list[Growth] = []
    # Fan-outs are asked first whether they can stay, the memories outside the array last: growing those costs least.
    inwards = range(len(levels))
    order = sorted(inwards, key=lambda i: (isinstance(levels[i], Storage), -i))
    now = unlimited
    for i in order:
        stays = (*now[:i], levels[i], *now[i + 1 :])
        if _Room(tiles, problem, stays).exists():
            now = stays
    for i in inwards:
        if now[i] is levels[i]:
            continue
        least = _Room(tiles, problem, (*now[:i], levels[i], *now[i + 1 :])).least(i)
        if least is None:
            return ()
        now = (*now[:i], least.grown, *now[i + 1 :])
        grown.append(least)
    return tuple(grown)


class _Room:
    """What the levels of one specification leave to each other."""

    def __init__(self, tiles: Tiles, problem: Problem, levels: Levels) -> None:
        self.tiles, self.problem, self.levels = tiles, problem, levels
        self.permitted = [
            [[n for n in tiles.divisors[d] if level.loops.permits(name, n)] for d, name in enumerate(tiles.names)]
            for level in levels
        ]
        self.words = {t.name: tiles.words(t.axes) for t in problem.data_spaces}
        self.keeps = list(_least_keeps(levels, problem))
        self._fitting_factors: dict[int, list[int]] = {}

    def exists(self) -> bool:
        return any(outside[-1] & self.tiles.one for outside in self.outside)

    def least(self, i: int) -> Growth | None:
        """The least growth of one level that gives a mapping; None if no growth does."""
        level = self.levels[i]
        if isinstance(level, Fanout):
            return self._least_mesh(i, level)
        return self._least_storage(i, level) if level.capacity is not None else None

    def _least_storage(self, i: int, level: Storage) -> StorageGrowth | None:
        best: StorageGrowth | None = None
        for keep, outside, inside in zip(self.keeps, self.outside, self.inside, strict=True):
            members = self.tiles.members(outside[i] & self._loops(i, inside[i + 1], outwards=True))
            if len(members):
                tile = members[np.argmin(self._kept_words(keep[i])[members])]
                needs = {t: max(int(self.words[t][tile]), least) for t, least in keep[i].items()}
                whole = frozenset(t for t, n in needs.items() if n > self.words[t][tile])
                growth = StorageGrowth(i, level, needs, whole)
                if best is None or growth.words < best.words:
                    best = growth
        return best

    def _least_mesh(self, i: int, level: Fanout) -> FanoutGrowth | None:
        # A larger mesh also leaves each memory inside it less of the tensors that live there.
        relieved = _Room(self.tiles, self.problem, self._with(i, _unlimited(level, self.problem)))
        relief = relieved.keeps != self.keeps
        around = [(o[i], inner[i + 1]) for o, inner in zip(relieved.outside, relieved.inside, strict=True)]
        if not any(self._any_factors(i, outside) & inside for outside, inside in around):
            return None
        candidates, instances, sides = self._meshes(i, level, self.problem.macs)
        for j in np.lexsort((self.tiles.volume[candidates], instances)):
            factors = int(candidates[j])
            if any(self.tiles.divided_by(outside, factors) & inside for outside, inside in around):
                sizes = zip(self.tiles.names, self.tiles.value[factors].tolist(), strict=True)
                loops = {d: n for d, n in sizes if n > 1}
                x = {d: n for d, n in loops.items() if d in sides[j]}
                growth = FanoutGrowth(i, level, x, {d: n for d, n in loops.items() if d not in x})
                if not relief or _Room(self.tiles, self.problem, self._with(i, growth.grown)).exists():
                    return growth
        return None

    def _with(self, i: int, level: Storage | Fanout) -> Levels:
        return (*self.levels[:i], level, *self.levels[i + 1 :])

    def _meshes(self, i: int, level: Fanout, most: int) -> tuple[Ints, Ints, list[frozenset[str]]]:
        """All permitted factors of a fan-out that multiply to `most` or less, as tiles, by number.

        With them the instances of the least mesh that holds each and is nowhere smaller than it is, and what lies on X.
        """
        tiles = self.tiles
        flags = tiles.volume <= most
        for d, permitted in enumerate(self.permitted[i]):
            flags &= np.isin(tiles.value[:, d], permitted)
        candidates = np.flatnonzero(flags)
        value = tiles.value[candidates]
        best = np.full(len(candidates), np.iinfo(np.int64).max)
        side = np.zeros(len(candidates), np.int64)
        splits = [frozenset(x) for x in self._splits(i, level)]
        for s, on_x in enumerate(splits):
            columns = [d for d, name in enumerate(tiles.names) if name in on_x]
            rest = [d for d in range(len(tiles.names)) if d not in columns]
            x = np.maximum(value[:, columns].prod(axis=1), level.mesh_x)
            instances = x * np.maximum(value[:, rest].prod(axis=1), level.mesh_y)
            side[instances < best] = s
            np.minimum(best, instances, out=best)
        return candidates, best, [splits[s] for s in side.tolist()]

    def _splits(self, i: int, level: Fanout) -> Iterator[list[str]]:
        """The dimensions on X of every distribution that the constraints allow, whatever the mesh's size."""
        loops = [d for d, permitted in zip(self.tiles.names, self.permitted[i], strict=True) if permitted != [1]]
        endless = replace(level, mesh_x=2 ** len(loops), mesh_y=2 ** len(loops))
        for x, _ in placements(endless, len(self.problem.dimensions), dict.fromkeys(loops, 2)):
            yield x

    @cached_property
    def outside(self) -> list[list[int]]:
        """For each choice of what is kept: tiles that the levels outside each level leave to it.

        The last entry is what all levels leave to the operation.
        """
        chains = []
        for keep in self.keeps:
            chain = [self.tiles.whole]
            for i in range(len(self.levels)):
                chain.append(self._loops(i, chain[-1] & self._fitting(i, keep), outwards=False))
            chains.append(chain)
        return chains

    @cached_property
    def inside(self) -> list[list[int]]:
        """For each choice of what is kept: tiles that each level and those inside it can split up.

        The last entry is the operation itself.
        """
        chains = []
        for keep in self.keeps:
            chain = [self.tiles.one]
            for i in reversed(range(len(self.levels))):
                chain.insert(0, self._loops(i, chain[0], outwards=True) & self._fitting(i, keep))
            chains.append(chain)
        return chains

    def _fitting(self, i: int, keep: Keep) -> int:
        """Tiles that a level has the capacity for."""
        level = self.levels[i]
        if isinstance(level, Fanout) or level.capacity is None:
            return (1 << self.tiles.count) - 1
        return self.tiles.set_of(self._kept_words(keep[i]) <= level.capacity)

    def _kept_words(self, kept: Mapping[str, int]) -> Ints:
        each = (np.maximum(self.words[t], least) for t, least in kept.items())
        return sum(each, np.zeros(self.tiles.count, np.int64))

    def _loops(self, i: int, tiles: int, outwards: bool) -> int:
        """What the loops of a level make of a set of tiles: what lies inside them, or `outwards` around them."""
        level = self.levels[i]
        if not isinstance(level, Fanout) or level.mesh_x == level.mesh_y == self.problem.macs:  # unlimited
            return self._any_factors(i, tiles, outwards)
        step = self.tiles.multiplied_by if outwards else self.tiles.divided_by
        result = 0
        for factors in self._spatial_factors(i, level):
            result |= step(tiles, factors)
        return result

    def _any_factors(self, i: int, tiles: int, outwards: bool = False) -> int:
        """The same by the constraints on factors alone: every dimension for itself."""
        step = self.tiles.multiplied if outwards else self.tiles.divided
        for d, permitted in enumerate(self.permitted[i]):
            result = 0
            for n in permitted:
                result |= step(tiles, d, n)
            tiles = result
        return tiles

    def _spatial_factors(self, i: int, level: Fanout) -> list[int]:
        """The factors, as tiles, that fit the mesh of a fan-out."""
        if i not in self._fitting_factors:
            room = level.mesh_x * level.mesh_y
            candidates, instances, _ = self._meshes(i, level, room)
            self._fitting_factors[i] = candidates[instances == room].tolist()
        return self._fitting_factors[i]


def _least_keeps(levels: Levels, problem: Problem) -> Iterator[Keep]:
    """The tensors that each level keeps, in every way that the specification leaves open and that keeps little.

    A tensor lives in the outermost memory that keeps it. Where some level must keep it, that is this one, or an open
    one further out, which leaves this one more room; otherwise one of the open levels. No other level need keep it.
    As in Timeloop the outermost memory keeps what it does not bypass.
    """
    storages = [(i, level) for i, level in enumerate(levels) if isinstance(level, Storage)]
    outermost = storages[0][0]
    meshes = (level.mesh_x * level.mesh_y if isinstance(level, Fanout) else 1 for level in levels)
    instances = list(itertools.accumulate(meshes, operator.mul, initial=1))  # of each level
    choices = []
    for t in problem.data_spaces:
        keep = {i: level.keep.get(t.name, True if i == outermost else None) for i, level in storages}
        fixed = tuple(i for i, k in keep.items() if k)
        free = [i for i, k in keep.items() if k is None and i < min(fixed, default=len(levels))]
        choices.append([*([fixed] if fixed else []), *((i, *fixed) for i in free)])
    for chosen in itertools.product(*choices):
        kept: list[dict[str, int]] = [{} for _ in levels]
        for t, where in zip(problem.data_spaces, chosen, strict=True):
            for i in where:
                kept[i][t.name] = -(-problem.tensor_size(t.name) // instances[i]) if i == where[0] else 0
        yield kept
