"""Complete tilings, evaluated exactly in every order that can make a difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper.kernels.exact import Rules, exact_counts, least_of_orders, priced
from dse.mapper.kernels.labels import BOUND_DELAY, Aim, value_of
from dse.mapper.kernels.slots import LOOP, Flags, Floats, Ints
from dse.mapper.kernels.upward import Inside
from dse.mapper.mapspace import BoundaryCounts, Mapspace, Tiling
from dse.mapper.orders import CLOSED, OPEN, SLID, loop_orders, mesh_arrangements
from dse.mapper.prices import forgets_inside, most_sharing, of_tensors
from dse.model.mapping import Loops, Mapping

MOST_ORDERS = 256  # that a boundary is counted in
FEW_ORDERS = 8  # of a tiling, that are tried without a bound of them all
MOST_BOUNDARIES = 20_000  # whose counts are kept


@dataclass
class Best:
    """The best mapping so far: its objective, and its energy in pJ."""

    value: float = math.inf
    energy: float = math.inf
    mapping: Mapping | None = None
    tiling: Tiling | None = None
    proven: bool = True  # the search was not cut short
    bound: float = math.inf  # the least bound of what was not looked at

    @property
    def gap(self) -> float:
        """The best objective over the least that any mapping can have: 1 where the best is proven."""
        least = min(self.value, self.bound)
        return self.value / least if 0.0 < least < math.inf else 1.0 if self.value == least else math.inf

    within: tuple[Any, list[Inside]] | None = None  # the search that found it, and its bounds


@dataclass(frozen=True)
class _Arrangement:
    """The loops of one stage in one order: temporal ones, or those on X and on Y; and as rows of `exact_counts`."""

    loops: Loops
    on_y: Loops
    rows: Ints


class Evaluator:
    """Evaluates tilings exactly, in every order that can make a difference."""

    def __init__(
        self,
        space: Mapspace,
        spec: Spec,
        ert: Ert,
        keep: MappingType[str, frozenset[str]],
        compute_energy: float,
        whole_accesses: bool,
    ) -> None:
        """`whole_accesses`: prices are per access of a whole block, as energies are, and not per word as bandwidths."""
        self.space, self.keep, self.compute_energy = space, keep, compute_energy
        self.whole_accesses = whole_accesses
        levels = self.levels = tuple(reversed(spec.levels))
        self.kept = np.array([[isinstance(v, Storage) and t in keep[v.name] for t in space.tensors] for v in levels])
        self.rules = _rules(space, spec, self.kept)
        self.merges, self.clusters = self.rules.merges, self.rules.clusters
        self.energies = [
            ert.storage(level.name) if isinstance(level, Storage) else dict.fromkeys(("read", "write", "update"), 0.0)
            for level in levels
        ]
        self.read, self.fill, self.update = (
            np.array([e[action] for e in self.energies]) for action in ("read", "write", "update")
        )
        self.leak = np.array([e.get("leak", 0.0) for e in self.energies])
        self.block = np.array([level.block_size if isinstance(level, Storage) else 1 for level in levels], np.int64)
        limits = [
            (level.read_bandwidth, level.write_bandwidth, level.shared_bandwidth)
            if isinstance(level, Storage) else (None, None, None)
            for level in levels
        ]  # fmt: skip
        self.bandwidth = np.array([[math.inf if b is None else b for b in row] for row in limits])
        self.share_most = most_sharing(space, spec)
        self.mesh_x = np.array([level.mesh_x if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        self.mesh_y = np.array([level.mesh_y if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        names = space.tensors
        self.link_allowed = np.array(
            [[isinstance(v, Fanout) and t not in v.no_link_transfer for t in names] for v in levels]
        )
        self.shared_axis: Flags = (space.grid.axis_of >= 0).any(axis=1) | space.coarse
        self.linkable = self.link_allowed & (self.shared_axis | self.rules.forgets)
        self.fractional = self.shared_axis | self.rules.forgets[1:].any(axis=0) | self.rules.alone.any(axis=0)
        self.rounding = self._rounding()
        self.least_energy: dict[
            tuple[tuple[int, ...], tuple[int, ...]], float
        ] = {}  # of the tilings tried so far; the search for fewest cycles skips those above its energy
        self.arrangements: dict[tuple[Any, ...], list[_Arrangement]] = {}
        # Candidates that keep the same tensors and differ in energies have these counts in common.
        self.boundaries = space.boundaries.setdefault((
            self.kept.tobytes(), self.link_allowed.tobytes(), *(rule.tobytes() for rule in self.rules[:4]),
        ), {})  # fmt: skip
        self.moved: dict[tuple[int, int], list[int]] = {}
        self.one_tensor = [self._of_one(t) for t in range(len(names))]
        self.one_price = [self._price_of_one(t) for t in range(len(names))]

    def _rounding(self) -> tuple[Floats, Floats]:
        """pJ by which rounded averages can undercut the bounds, which do not round: (K, T) of writes and of reads.

        A count is whole unless neighbours pass words on, or boxes are shared unevenly, in a fan-out directly outside
        the level, or in one inside it whose children do not keep the tensor.
        """
        writes, reads = np.zeros(self.kept.shape), np.zeros(self.kept.shape)
        copies = 1
        for k in range(len(self.levels) - 1, -1, -1):
            for t in np.flatnonzero(self.kept[k] & self.fractional).tolist():
                if self._under_fanout(k):
                    writes[k, t] = copies * self.fill[k] / self.block[k]  # truncated
                if self._under_fanout(k) or self._uneven(k, t) or not self.merges[k, t]:
                    words = self.read[k] + self.update[k] * self.space.read_write[t]
                    if not self.merges[k, t]:
                        words += self.fill[k]
                    reads[k, t] = 0.5 * copies * words / self.block[k]  # rounded to nearest
            copies *= int(self.mesh_x[k] * self.mesh_y[k])
        return writes, reads

    def _under_fanout(self, k: int) -> bool:
        """Whether level k is what a fan-out directly outside it multiplies."""
        return k + 1 < len(self.levels) and isinstance(self.levels[k + 1], Fanout)

    def _uneven(self, k: int, t: int) -> bool:
        """Whether a fan-out inside level k, but outside the next that keeps the tensor, has children without it."""
        inside = range(max((j for j in range(k) if self.merges[j, t]), default=-1) + 1, k)
        return any(isinstance(self.levels[j], Fanout) and j > 0 and not self.merges[j - 1, t] for j in inside)

    def _start(self, k: int, t: int) -> int:
        """What no loop has done yet to what the level outside k sees of a tensor; SLID: every order is tried."""
        outside = k + 1 < len(self.levels) and self.rules.forgets[k + 1, t]
        return SLID if self.space.coarse[t] or outside else OPEN

    def _scales(self, k: int, t: int) -> bool:
        """Whether k is a fan-out whose children hold no such tensor, while its share depends on whom neighbours serve.

        Then the loops outside decide that share, whatever the level inside that keeps the tensor can reuse.
        """
        passing = isinstance(self.levels[k], Fanout) and self.linkable[k, t]
        return bool(k > 0 and passing and not self.merges[k - 1, t])

    def slack(self) -> float:
        """pJ by which rounding can undercut the bounds of a whole mapping."""
        return float(sum(rounded.sum() for rounded in self.rounding))

    def try_orders(self, tiling: Tiling, aim: Aim, best: Best) -> None:
        """Evaluates a tiling in all orders that start with its innermost loops."""
        if self.least_energy.get((tiling.tiles, tiling.firsts), 0.0) > aim.most_energy:
            return
        everyone = range(len(self.space.tensors))
        per_stage = self._per_stage(tiling, everyone)
        if aim.kind != BOUND_DELAY and math.prod(map(len, per_stage)) > FEW_ORDERS:
            least = self._least_apart(tiling, aim, best.value * (1 - 1e-12))
            if least is not None:
                self.least_energy[tiling.tiles, tiling.firsts] = least
                return
        least = math.inf
        for choice in itertools.product(*per_stage):
            nest = np.concatenate([arrangement.rows for arrangement in choice])
            counts = exact_counts(
                nest, self.space.grid.coefficient, self.kept, self.mesh_x, self.link_allowed, self.shared_axis,
                self.rules,
            )  # fmt: skip
            energy, cycles = priced(
                counts, self.space.read_write, self.kept, self.read, self.fill, self.update, self.block, self.leak,
                self.bandwidth, self.rules,
            )  # fmt: skip
            if math.isinf(energy):
                continue  # Timeloop stops at such a mapping
            energy += self.compute_energy
            least = min(least, energy)
            value = float(cycles) if aim.kind == BOUND_DELAY else value_of(aim, energy, cycles / aim.macs)
            if value < best.value * (1 - 1e-12):
                best.value, best.energy = value, energy
                best.mapping, best.tiling = self._mapping(choice), tiling
        self.least_energy[tiling.tiles, tiling.firsts] = least

    def _per_stage(self, tiling: Tiling, tensors: Sequence[int]) -> list[list[_Arrangement]]:
        """The orders of every stage's loops, innermost stage first, that some of the tensors can tell apart."""
        outermost = len(self.levels) - 1
        # What loops further in have done to the tiles of each tensor, one for each level whose accesses they decide.
        seen = {t: [SLID] if isinstance(self.levels[0], Fanout) else [] for t in tensors}
        per_stage: list[list[_Arrangement]] = []
        for k in range(len(self.levels)):
            depth = outermost - k
            outside, inside = tiling.tiles[depth], tiling.tiles[depth + 1]
            state = tuple(_worst(seen[t]) if t in seen else CLOSED for t in range(len(self.space.tensors)))
            per_stage.append(self._arrangements(k, outside, inside, tiling.firsts[depth], state, tensors))
            for t in tensors:
                if isinstance(self.levels[k], Storage):
                    seen[t] = [self._after(s, t, outside, inside) for s in seen[t]]
                if self.kept[k, t] or self._scales(k, t):
                    # What scales at a fan-out is decided by what its children would hold.
                    seen[t].append(max(self._start(k, t), self._start(k - 1, t) if self._scales(k, t) else OPEN))
        return per_stage

    def _least_apart(self, tiling: Tiling, aim: Aim, limit: float) -> float | None:
        """pJ that a tiling costs at least, if this excludes that any order of its loops comes below a limit; else None.

        Each tensor is counted in the order that is the best for it alone.
        """
        energy, cycles = self.compute_energy, 0.0
        for t in range(len(self.space.tensors)):
            per_stage = self._per_stage(tiling, [t])  # all orders of a stage have the same loops
            rows = np.concatenate([arrangement.rows for arrangements in per_stage for arrangement in arrangements])
            ways = np.array([len(arrangements) for arrangements in per_stage])
            loops = np.array([len(arrangements[0].rows) for arrangements in per_stage])
            least, fewest = least_of_orders(rows, ways, loops, *self.one_tensor[t], *self.one_price[t])
            energy, cycles = energy + float(least), max(cycles, float(fewest))
            if value_of(aim, energy, cycles / aim.macs) >= limit:
                return energy
        return None

    def _of_one(self, t: int) -> tuple[Any, ...]:
        """What `exact_counts` needs to know of one tensor alone."""
        one = slice(t, t + 1)
        of, only = self.rules, np.ascontiguousarray
        rules = Rules(
            only(of.forgets[:, one]), only(of.alone[:, one]), only(of.merges[:, one]), only(of.reads_first[:, one]),
            only(of.scale[:, one]), of.clusters,
        )  # fmt: skip
        return (
            self.space.grid.coefficient[one], np.ascontiguousarray(self.kept[:, one]), self.mesh_x,
            np.ascontiguousarray(self.link_allowed[:, one]), self.shared_axis[one], rules,
        )  # fmt: skip

    def _price_of_one(self, t: int) -> tuple[Any, ...]:
        """What `least_of_orders` needs besides to price one tensor alone; leakage is that of the first."""
        one = slice(t, t + 1)
        return (
            self.space.read_write[one], self.read, self.fill, self.update, self.block,
            self.leak if t == 0 else np.zeros_like(self.leak), self.bandwidth,
        )  # fmt: skip

    def _accesses(self, words: float, k: int) -> float:
        """Accesses to level k that some words take."""
        blocks = words / float(self.block[k])
        return math.ceil(blocks) if self.whole_accesses else blocks

    def rounds(self, k: int, t: int) -> bool:
        """Whether an exact count of a boundary gives something back that was subtracted for its rounding."""
        return bool(self.rounding[0][k, t] + self.rounding[1][k, t] > 0.0)

    def least_boundary(self, k: int, t: int, tiles: tuple[int, ...], firsts: tuple[int, ...]) -> float | None:
        """pJ that moving a tensor's tiles into level k takes in the best order of the loops outside, counted exactly.

        What rounding can undercut a bound by is contained where it is known here, so that it need not be subtracted.

        Args:
            tiles: tile above each stage, outermost first, down to that of k.
            firsts: innermost loop of each stage outside k, outermost first.

        None if there are too many orders to try.
        """
        key = (k, t, tiles, firsts)
        if key not in self.boundaries:
            if len(self.boundaries) >= MOST_BOUNDARIES:
                self.boundaries.clear()
            self.boundaries[key] = self._boundary_counts(k, t, tiles, firsts)
        counted = self.boundaries[key]
        if counted is None:
            return None
        parent = self._parent(k, t)
        through = self._through(k, parent, t)
        writes, reads = self.rounding
        least = math.inf
        for content, given, peer, parents, children in counted:
            taken, brought, known = content / self.block[parent], (given + peer) / self.block[k], 0.0
            if not self.space.read_write[t]:
                brought, known = self._accesses(math.floor(given + peer), k), float(writes[k, t])
                if not self._under_fanout(parent):  # no neighbours: nothing else is read there
                    taken = self._accesses(math.floor(content + 0.5), parent)
                    known += float(reads[parent, t])
                if not self._uneven(k, t):  # what children take of this level is whole, so only this part is rounded
                    peer = math.floor(peer + 0.5)
                    known += float(reads[k, t])
            price = self.read[parent] + self.update[parent] * self.space.read_write[t]
            moved = brought * self.fill[k] + peer / self.block[k] * self.read[k]
            energy = self._accessing(parent, parents) * taken * price + self._accessing(k, children) * moved
            energy += parents * content * through
            least = min(least, energy + known)
        return least

    def _boundary_counts(self, k: int, t: int, tiles: tuple[int, ...], firsts: tuple[int, ...]) -> BoundaryCounts:
        """The counts of every order that a tensor can tell apart, each once."""
        value = self.space.grid.value
        per_stage, number, seen = [], 1, [self._start(k, t)]
        for j in range(k + 1, len(self.levels)):
            depth = len(self.levels) - 1 - j
            outside, inside = tiles[depth], tiles[depth + 1]
            state = tuple(_worst(seen) if u == t else CLOSED for u in range(len(self.space.tensors)))
            arrangements = self._arrangements(j, outside, inside, firsts[depth], state, [t])
            per_stage.append(arrangements)
            number *= len(arrangements)
            if isinstance(self.levels[j], Storage):
                seen = [self._after(s, t, outside, inside) for s in seen]
            if self._scales(j, t):
                seen.append(max(self._start(j, t), self._start(j - 1, t)))
        if number > MOST_ORDERS:
            return None
        tile = [(k, d, n, 0) for d, n in enumerate(value[tiles[-1]]) if n > 1]  # their order does not matter outside
        rest = np.array(tile, np.int64).reshape(len(tile), LOOP)
        parent = self._parent(k, t)
        distinct = set()
        for choice in itertools.product(*per_stage):
            nest = np.concatenate([rest, *(a.rows for a in choice)])
            counts = exact_counts(nest, *self.one_tensor[t])
            distinct.add((
                float(counts.content[parent, 0]), float(counts.given[k, 0]), float(counts.peer[k, 0]),
                int(counts.instances[parent]), int(counts.instances[k]),
            ))  # fmt: skip
        return tuple(distinct)

    def _parent(self, k: int, t: int) -> int:
        """The next level out that keeps a tensor and merges its accesses."""
        return next(j for j in range(k + 1, len(self.levels)) if self.merges[j, t])

    def _accessing(self, k: int, used: int) -> int:
        """Instances of a level that make an access of their own, of those that are used."""
        return min(used, int(self.clusters[k]))

    def _through(self, k: int, parent: int, t: int) -> float:
        """pJ a word at least at levels between two that let it through: they see at least what the outer one does."""
        price = 0.0
        for j in range(k + 1, parent):
            if self.kept[j, t]:
                words = self.read[j] + (self.update[j] + self.fill[j]) * self.space.read_write[t]
                price += float(words / (self.block[j] * self.share_most[j]))
        return price

    def _after(self, status: int, t: int, outside: int, inside: int) -> int:
        """What has happened to a tensor's tile once the loops between two tiles have run too."""
        if (outside, inside) not in self.moved:
            grid = self.space.grid
            moved = grid.relevant & (grid.value[outside] > grid.value[inside])
            settled = (moved & (grid.axis_of < 0)).any(axis=1)
            self.moved[outside, inside] = np.where(settled, CLOSED, np.where(moved.any(axis=1), SLID, OPEN)).tolist()
        return max(status, self.moved[outside, inside][t])

    def _arrangements(
        self, k: int, outside: int, inside: int, first: int, state: tuple[int, ...], tensors: Sequence[int]
    ) -> list[_Arrangement]:
        """The ways to order what lies between two tiles at stage k; most tilings have them in common.

        Args:
            state: what the loops further in have done to each tensor; CLOSED if it need not tell them apart.
            tensors: those to which neighbours in a fan-out matter.
        """
        key = (k, outside, inside, first, state, tuple(tensors))
        if key in self.arrangements:
            return self.arrangements[key]
        names, level = self.space.dims, self.levels[k]
        factors = self.space.grid.value[outside] // self.space.grid.value[inside]
        if isinstance(level, Fanout):
            linkable = any(self.linkable[k, t] for t in tensors)
            pairs = mesh_arrangements(level, self.space.problem, names, factors, linkable)
        else:
            orders = loop_orders(factors, first, state, self.space.grid, level.temporal, names,
                                 self.space.uneven_outputs)  # fmt: skip
            pairs = ((order, ()) for order in orders)
        arrangements = []
        for loops, on_y in pairs:
            rows = [(k, names.index(d), n, isinstance(level, Fanout)) for d, n in (*loops, *on_y)]
            arrangements.append(_Arrangement(loops, on_y, np.array(rows, np.int64).reshape(len(rows), LOOP)))
        self.arrangements[key] = arrangements
        return arrangements

    def _mapping(self, choice: tuple[_Arrangement, ...]) -> Mapping:
        temporal: dict[str, Loops] = {}
        x: dict[str, Loops] = {}
        y: dict[str, Loops] = {}
        for level, arrangement in zip(self.levels, choice, strict=True):
            if isinstance(level, Fanout):
                x[level.name], y[level.name] = arrangement.loops, arrangement.on_y
            else:
                temporal[level.name] = arrangement.loops
        return Mapping(temporal, x, y, dict(self.keep))


def _rules(space: Mapspace, spec: Spec, kept: Flags) -> Rules:
    """What the levels of a specification limit."""
    levels = tuple(reversed(spec.levels))

    def flags(name: str, of: type) -> Flags:
        named = [getattr(v, name) if isinstance(v, of) else () for v in levels]
        return np.array([of_tensors(space, tensors) for tensors in named])

    instances = [spec.instances[v.name] for v in levels]
    clusters = [n // v.cluster_size if isinstance(v, Storage) else n for v, n in zip(levels, instances, strict=True)]
    scales = [v.bandwidth_scale if isinstance(v, Storage) else {} for v in levels]
    return Rules(
        np.array([forgets_inside(space, levels, k) for k in range(len(levels))]),
        flags("no_reuse", Fanout),
        kept & ~flags("no_coalesce", Storage),
        flags("rmw_first_update", Storage),
        np.array([[float(scale.get(t, 1.0)) for t in space.tensors] for scale in scales]),
        np.array(clusters, np.int64),
    )


def _worst(seen: Sequence[int]) -> int:
    """The state in which the order of further loops matters most."""
    return SLID if SLID in seen else OPEN if OPEN in seen else CLOSED
