"""Energies, cycles and capacities of mappings with remainders as sums of products, a column for each group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import le

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Storage
from dse.mapper.remainders.behaviours import Option
from dse.mapper.remainders.chains import Chains, Flags, Ints, Wanted, chains_of
from dse.mapper.remainders.columns import Floats, Group, Window, window_words
from dse.mapper.remainders.layer import Counted, Fate, Layer, Slid, wanted_of

Columns = tuple[Floats, ...]
"""A column of numbers for each group, one for each of its members: a product is one number of each column."""


@dataclass
class Terms:
    """Rows of sums: each term belongs to a row and is a coefficient times a product."""

    coefficients: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    _known: dict[tuple[int, float, tuple[int, ...]], int] = field(default_factory=dict)

    def add(self, row: int, coefficient: float, columns: Columns, floor: float = -math.inf) -> None:
        """Adds coefficient x max(product, floor) to a row."""
        if coefficient:
            key = row, floor, tuple(map(id, columns))  # what reads and updates count is often the same
            if key in self._known:
                self.coefficients[self._known[key]] += coefficient
                return
            self._known[key] = len(self.rows)
            self.coefficients.append(coefficient)
            self.rows.append(row)
            self.floors.append(floor)
            self.columns.append(columns)

    def extend(self, other: Terms) -> None:
        """Adds terms of other rows."""
        self.coefficients += other.coefficients
        self.rows += other.rows
        self.floors += other.floors
        self.columns += other.columns


@dataclass(frozen=True)
class Words:
    """Words that an action of a memory moves over the layer, as terms: coefficients and products."""

    stage: int
    action: str
    terms: tuple[tuple[float, Columns], ...]


_MOVING = ("read", "write", "update")


@dataclass(frozen=True)
class Prices:
    """pJ of an operation, of a word that an action of a stage moves, and of a cycle of an instance of a stage."""

    operation: float
    word: Mapping[tuple[int, str], float]
    leak: Mapping[int, float]


class Tables:
    """The columns of a layer whose levels keep certain tensors."""

    def __init__(
        self, layer: Layer, wanted: Mapping[str, Wanted] | None = None, known: Mapping[str, Chains] | None = None
    ) -> None:
        """Tables serve other layers, too, whose loops may be the same and which want the same: see `serve`.

        Args:
            layer: what is searched.
            wanted: of each dimension, as `wanted_of` gives it.
            known: chains of some dimensions, found for the same wants.
        """
        self.layer, problem = layer, layer.problem
        wanted = wanted or {d: wanted_of(layer, d) for d in layer.dims}
        known = known or {}
        self.most = {d: w.most for d, w in wanted.items()}
        self.chains = {
            d: known[d] if d in known else chains_of(d, problem.bound[d], layer.stages, wanted[d]) for d in layer.dims
        }
        self._least_of: dict[object, Columns] = {}
        self._traffic: dict[object, list[Words]] = {}
        self.groups = tuple(Group(tuple(self.chains[d] for d in names)) for names in layer.members)
        self.windows = {
            (t, g): Window(*(layer.coefficient[t, d] for d in names))
            for g, names in enumerate(layer.members)
            for t in range(len(problem.data_spaces))
            if (t, names) in layer.windows
        }
        self.perfect = tuple(
            group.spread([self._is_perfect(c).astype(np.float64) for c in group.chains]) > 0 for group in self.groups
        )
        self.serve(layer, wanted)

    def covers(self, wanted: Mapping[str, Wanted]) -> bool:
        """Whether they hold what is wanted, where wants are the same but for how much may be covered.

        Where not all chains were compared, more would be left than are found for less room.
        """
        return all(
            w.most == self.most[d] or (self.chains[d].compared and all(map(le, w.most, self.most[d])))
            for d, w in wanted.items()
        )

    def serve(self, layer: Layer, wanted: Mapping[str, Wanted]) -> None:
        """Takes another layer, whose wants the tables cover."""
        self.layer = layer
        self.fitting = {d: c.within(wanted[d].most) for d, c in self.chains.items()}
        self.empty = not all(flags.any() for flags in self.fitting.values())

    def _is_perfect(self, c: Chains) -> Flags:
        """(chains,) that have no remainder, and exact factors as they are."""
        perfect = np.prod(c.factors, axis=1) == c.size
        for k, stage in enumerate(self.layer.stages):
            perfect &= c.factors[:, k] == stage.loops.factors.get(c.name, c.factors[:, k])
        return np.asarray(perfect)

    def each(self, key: object, values: Callable[[Chains], Ints | Floats | None]) -> Columns:
        """A column for each group from a number for each chain of each dimension; None stands for 1."""
        return tuple(group.of_dimensions((key, *group.names), values) for group in self.groups)

    def steps(self) -> Columns:
        """Cycles without stalls."""
        temporal = np.array(self.layer.temporal)
        return self.each("steps", lambda c: c.distinct(temporal))

    def instances(self, k: int) -> Columns:
        """Instances of stage k that are active at a time at most."""
        fanouts = self.layer.copies(k).over("")
        return self.each(("instances", k), lambda c: c.distinct(fanouts))

    def words(self, t: int, child: int, counted: Counted, slid: Slid | None, between: tuple[int, ...] = ()) -> Columns:
        """Words of a tensor that a level (-1: the compute units) needs.

        Args:
            between: fan-outs whose children can need the same box along a window; then words are the least possible.
        """
        layer = self.layer

        def own(c: Chains) -> Ints | Floats | None:
            coefficient = layer.coefficient.get((t, c.name))
            if coefficient is None:
                return c.distinct(counted.over(c.name))
            if child < 0:
                return np.full(len(c.factors), c.size)
            tiles = -(-c.size // c.below[:, child + 1])
            return np.asarray(coefficient * (c.size - tiles) + tiles)

        out = []
        for g, group in enumerate(self.groups):
            window = self.windows.get((t, g))
            if window is None:
                moved = tuple(layer.coefficient.get((t, d)) for d in group.names)
                masks = tuple(
                    counted.over(d).tobytes() if c is None else b"" for d, c in zip(group.names, moved, strict=True)
                )
                out.append(group.of_dimensions(("words", child if any(moved) else None, moved, masks), own))
                continue
            slides = slid if slid is not None and slid.dimension in group.names else None
            key = ("window", t, child, slides, between)
            if key not in group.cache:
                if child < 0:
                    column = np.full(group.size, float(math.prod(c.size for c in group.chains)))
                else:
                    which = None if slides is None else group.names.index(slides.dimension)
                    column = window_words(group, window, child + 1, which, 0 if slides is None else slides.stage)
                for k in between:
                    a, b = (c.factors[:, k] for c in group.chains)
                    column = column / np.minimum.outer(a, b).ravel()
                group.cache[key] = column
            out.append(group.cache[key])
        return tuple(out)

    def tile(self, t: int, k: int) -> Columns:
        """Words of the largest tile of a tensor that stage k holds."""
        out: list[Floats] = []
        for g, group in enumerate(self.groups):
            window = self.windows.get((t, g))
            if window is None:
                coefficients = {d: self.layer.coefficient.get((t, d), 0) for d in group.names}
                key = ("tile", k, tuple(coefficients.values()))
                out.append(group.of_dimensions(key, partial(_tile_of_dimension, coefficients, k)))
                continue
            if ("tile", t, k) not in group.cache:
                p, r = (c.below[:, k + 1] - 1 for c in group.chains)
                group.cache["tile", t, k] = 1.0 + np.add.outer(window.first * p, window.second * r).ravel()
            out.append(group.cache["tile", t, k])
        return tuple(out)

    def limits(self, terms: Terms, row: int) -> list[float]:
        """Adds the rows of capacities and meshes from `row` on; returns their limits."""
        layer = self.layer
        out: list[float] = []
        names = [tensor.name for tensor in layer.problem.data_spaces]
        keep = {
            stage.name: frozenset(name for name, kept in zip(names, layer.kept, strict=True) if k in kept)
            for k, stage in enumerate(layer.stages)
            if isinstance(stage, Storage)
        }
        resident = resident_words(layer.spec, layer.problem, keep)
        for k, stage in enumerate(layer.stages):
            if isinstance(stage, Storage):
                if stage.capacity is None or not keep[stage.name]:
                    continue
                for t, kept in enumerate(layer.kept):
                    if k in kept:
                        floor = resident.get(stage.name, {}).get(layer.problem.data_spaces[t].name, 0)
                        terms.add(row + len(out), 1.0, self.tile(t, k), float(floor))
                out.append(float(stage.capacity))
                continue
            for y, room in ((False, stage.mesh_x), (True, stage.mesh_y)):
                if room > 1:
                    columns = self.each(("mesh", k, y), partial(_factor_on_side, k, y))
                    terms.add(row + len(out), 1.0, columns)
                    out.append(float(room))
        return out

    def traffic(self, options: Sequence[Sequence[Option]]) -> list[Words]:
        """Words of every action of every memory, all instances together.

        Args:
            options: of each stage, what its loops may do; where there are several, each number is the least of them.
        """
        key = tuple(map(tuple, options))  # searches look at the same options for a moment, closely, and for equal ones
        if key not in self._traffic:
            self._traffic[key] = self._traffic_of(options)
        return self._traffic[key]

    def _traffic_of(self, options: Sequence[Sequence[Option]]) -> list[Words]:
        layer, out = self.layer, []
        for t, tensor in enumerate(layer.problem.data_spaces):
            kept = layer.kept[t]
            fates = list(itertools.product(*(dict.fromkeys(o.behaviour[t] for o in stage) for stage in options)))
            for i, k in enumerate(kept):
                child = kept[i - 1] if i else -1
                between = layer.fanouts_between(child, k)
                several = tuple(j for j in between if layer.stages[j].mesh_x * layer.stages[j].mesh_y > 1)  # type: ignore[union-attr]
                taken = self._least(t, child, fates, between, several)
                first: tuple[tuple[float, Columns], ...] = ()
                if tensor.read_write:
                    if tensor.name not in getattr(layer.stages[k], "rmw_first_update", ()):
                        first = ((-1.0, self.first_writes(t, k)),)
                    out.append(Words(k, "update", ((1.0, taken),)))
                out.append(Words(k, "read", ((1.0, taken), *first)))
                if i + 1 < len(kept):
                    out.append(Words(k, "write", ((1.0, self._least(t, k, fates, (), ())), *first)))
        return out

    def first_writes(self, t: int, k: int) -> Columns:
        """Words of an output that the instances of stage k write first."""
        copies, moved = self.layer.copies(k), self.layer.moves[t]

        def own(c: Chains) -> Ints:
            return np.full(len(c.factors), c.size) if c.name in moved else c.distinct(copies.over(c.name))

        return self.each(("first", t, k), own)

    def _least(
        self, t: int, child: int, fates: Sequence[Fate], merged: tuple[int, ...], between: tuple[int, ...]
    ) -> Columns:
        """The words of a child, each number the least of all fates; fan-outs in `merged` are served by one read."""
        which = tuple(dict.fromkeys(self.layer.counted(t, child, fate) for fate in fates))
        key = (t, child, which, merged, between)
        if key not in self._least_of:
            self._least_of[key] = self._least_words(t, child, which, merged, between)
        return self._least_of[key]

    def _least_words(
        self, t: int, child: int, which: Sequence[tuple[Counted, Slid | None]], merged: tuple[int, ...],
        between: tuple[int, ...],
    ) -> Columns:  # fmt: skip
        columns = [self.words(t, child, counted.without(merged), slid, between) for counted, slid in which]
        return (
            columns[0]
            if len(columns) == 1
            else tuple(np.minimum.reduce(of_group) for of_group in zip(*columns, strict=True))
        )

    def prices(self, ert: Ert) -> Prices:
        """What an energy table says of the layer's stages."""
        operation = ert.compute(self.layer.spec.compute.name)
        memories = {
            k: (ert.storage(s.name), s.block_size) for k, s in enumerate(self.layer.stages) if isinstance(s, Storage)
        }
        each = {(k, action): of[action] / block for k, (of, block) in memories.items() for action in _MOVING}
        return Prices(operation, each, {k: of["leak"] for k, (of, _) in memories.items()})

    def energy(self, terms: Terms, prices: Prices, traffic: Sequence[Words]) -> None:
        """Adds pJ over the layer to row 0."""
        operations = float(self.layer.problem.macs)
        terms.add(0, operations * prices.operation, self.each("one", lambda c: None))
        for words in traffic:
            price = prices.word[words.stage, words.action]
            for coefficient, columns in words.terms:
                terms.add(0, price * coefficient, columns)
        for k, leak in prices.leak.items():
            if leak:
                terms.add(0, leak, tuple(a * b for a, b in zip(self.steps(), self.instances(k), strict=True)))

    def cycles(self, terms: Terms, traffic: Sequence[Words]) -> int:
        """Adds rows of cycles from 1 on, of which the largest counts: those of the array, and those of bandwidths."""
        layer, row = self.layer, 1
        terms.add(row, 1.0, self.steps())
        for k, stage in enumerate(layer.stages):
            if not isinstance(stage, Storage):
                continue
            for bandwidth, actions in (
                (stage.read_bandwidth, ("read",)),
                (stage.write_bandwidth, ("write", "update")),
                (stage.shared_bandwidth, ("read", "write", "update")),
            ):
                if bandwidth is None:
                    continue
                row += 1
                for words in traffic:
                    if words.stage == k and words.action in actions:
                        for coefficient, columns in words.terms:
                            each = tuple(a / b for a, b in zip(columns, self.instances(k), strict=True))
                            terms.add(row, coefficient / bandwidth, each)
        return row


def _tile_of_dimension(coefficients: Mapping[str, int], k: int, c: Chains) -> Ints:
    return np.asarray(1 + coefficients[c.name] * (c.below[:, k + 1] - 1))


def _factor_on_side(k: int, y: bool, c: Chains) -> Ints:
    return np.where(c.on_y[:, k] == y, c.factors[:, k], 1)
