"""Complete tilings, evaluated exactly in every order that can make a difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.energy.ert import Ert
from dse.mapper.exact import exact_energy
from dse.mapper.labels import BOUND_DELAY, Aim, value_of
from dse.mapper.lift import Inside
from dse.mapper.orders import CLOSED, OPEN, SLID, loop_orders, mesh_arrangements
from dse.mapper.reuse import Flags, Ints
from dse.mapper.space import Mapspace, Tiling
from dse.mapping import Loops, Mapping
from dse.spec import Fanout, Spec, Storage

MOST_ORDERS = 256  # that a boundary is counted in


@dataclass
class Best:
    """The best mapping so far: its objective, and its energy in pJ."""

    value: float = math.inf
    energy: float = math.inf
    mapping: Mapping | None = None
    tiling: Tiling | None = None
    proven: bool = True  # the search was not cut short
    within: tuple[Any, list[Inside]] | None = None  # the search that found it, and its bounds


@dataclass(frozen=True)
class _Arrangement:
    """The loops of one stage in one order: temporal ones, or those on X and on Y; and as rows of `exact_energy`."""

    loops: Loops
    on_y: Loops
    rows: Ints


class Evaluator:
    """Evaluates tilings exactly, in every order that can make a difference."""

    def __init__(
        self, space: Mapspace, spec: Spec, ert: Ert, keep: MappingType[str, frozenset[str]], compute_energy: float
    ) -> None:
        self.space, self.keep, self.compute_energy = space, keep, compute_energy
        levels = self.levels = tuple(reversed(spec.levels))
        self.kept = np.array([[isinstance(v, Storage) and t in keep[v.name] for t in space.tensors] for v in levels])
        self.energies = [
            ert.storage(level.name) if isinstance(level, Storage) else dict.fromkeys(("read", "write", "update"), 0.0)
            for level in levels
        ]
        self.read, self.fill, self.update = (
            np.array([e[action] for e in self.energies]) for action in ("read", "write", "update")
        )
        self.leak = np.array([e.get("leak", 0.0) for e in self.energies])
        self.block = np.array([level.block_size if isinstance(level, Storage) else 1 for level in levels], np.float64)
        limits = [
            (level.read_bandwidth, level.write_bandwidth, level.shared_bandwidth)
            if isinstance(level, Storage) else (None, None, None)
            for level in levels
        ]  # fmt: skip
        self.bandwidth = np.array([[math.inf if b is None else b for b in row] for row in limits])
        self.mesh_x = np.array([level.mesh_x if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        self.mesh_y = np.array([level.mesh_y if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        names = space.tensors
        self.link_allowed = np.array(
            [[isinstance(v, Fanout) and t not in v.no_link_transfer for t in names] for v in levels]
        )
        self.shared_axis: Flags = np.asarray((space.grid.axis_of >= 0).any(axis=1))
        self.arrangements: dict[tuple[Any, ...], list[_Arrangement]] = {}
        self.moved: dict[tuple[int, int], list[int]] = {}
        self.one_tensor = [self._of_one(t) for t in range(len(names))]

    def rounding_slack(self) -> float:
        """pJ by which truncated averages of links and multicasts can undercut the bounds, which do not round."""
        slack, copies = 0.0, 1
        for k in range(len(self.levels) - 1, -1, -1):
            kept = int((self.kept[k] & self.shared_axis).sum())
            slack += kept * copies * float(self.read[k] + self.fill[k])
            copies *= int(self.mesh_x[k] * self.mesh_y[k])
        return float(slack)

    def try_orders(self, tiling: Tiling, aim: Aim, best: Best) -> None:
        """Evaluates a tiling in all orders that start with its innermost loops."""
        tiles, outermost = tiling.tiles, len(self.levels) - 1
        everyone = range(len(self.space.tensors))
        # What loops further in have done to the tiles of each tensor, one for each level that keeps it.
        seen = [[SLID] if isinstance(self.levels[0], Fanout) else [] for _ in everyone]
        per_stage: list[list[_Arrangement]] = []
        for k in range(len(self.levels)):
            outside, inside = tiles[outermost - k], tiles[outermost - k + 1]
            state = tuple(SLID if SLID in s else OPEN if OPEN in s else CLOSED for s in seen)
            per_stage.insert(0, self._arrangements(k, outside, inside, tiling.firsts[outermost - k], state, everyone))
            if isinstance(self.levels[k], Storage):
                for t in everyone:
                    seen[t] = [self._after(s, t, outside, inside) for s in seen[t]] + [OPEN] * int(self.kept[k, t])
        for choice in itertools.product(*per_stage):
            nest = np.concatenate([arrangement.rows for arrangement in reversed(choice)])
            energy, cycles = exact_energy(
                nest, self.space.grid.coefficient, self.space.read_write, self.kept, self.read, self.fill, self.update,
                self.block, self.leak, self.bandwidth, self.mesh_x, self.mesh_y, self.link_allowed, self.shared_axis,
            )  # fmt: skip
            energy += self.compute_energy
            value = float(cycles) if aim.kind == BOUND_DELAY else value_of(aim, energy, cycles / aim.macs)
            if value < best.value * (1 - 1e-12):
                best.value, best.energy = value, energy
                best.mapping, best.tiling = self._mapping(choice), tiling

    def _of_one(self, t: int) -> tuple[Any, ...]:
        """What `exact_energy` needs to know of one tensor alone."""
        one = slice(t, t + 1)
        return (
            self.space.grid.coefficient[one], self.space.read_write[one], np.ascontiguousarray(self.kept[:, one]),
            np.ascontiguousarray(self.link_allowed[:, one]), self.shared_axis[one],
        )  # fmt: skip

    def least_boundary(self, k: int, t: int, tiles: tuple[int, ...], firsts: tuple[int, ...]) -> float | None:
        """pJ that moving a tensor's tiles into level k takes in the best order of the loops outside, counted exactly.

        Args:
            tiles: tile above each stage, outermost first, down to that of k.
            firsts: innermost loop of each stage outside k, outermost first.

        None if there are too many orders to try.
        """
        value = self.space.grid.value
        parent = next(j for j in range(k + 1, len(self.levels)) if self.kept[j, t])
        per_stage, number, status = [], 1, OPEN
        for j in range(k + 1, len(self.levels)):
            depth = len(self.levels) - 1 - j
            outside, inside = tiles[depth], tiles[depth + 1]
            state = tuple(status if u == t else CLOSED for u in range(len(self.space.tensors)))
            found = self._arrangements(j, outside, inside, firsts[depth], state, [t])
            per_stage.append(found)
            number *= len(found)
            if isinstance(self.levels[j], Storage):
                status = self._after(status, t, outside, inside)
        if number > MOST_ORDERS:
            return None
        tile = [(k, d, n, 0) for d, n in enumerate(value[tiles[-1]]) if n > 1]  # their order does not matter outside
        rest = np.array(tile, np.int64).reshape(len(tile), 4)
        nothing = np.zeros(len(self.levels))
        read, fill = nothing.copy(), nothing.copy()
        read[parent], fill[k] = self.read[parent], self.fill[k]
        coefficient, read_write, kept, link_allowed, shared_axis = self.one_tensor[t]
        least = math.inf
        for choice in itertools.product(*per_stage):
            energy, _ = exact_energy(
                np.concatenate([rest, *(a.rows for a in choice)]), coefficient, read_write, kept, read, fill, nothing,
                self.block, nothing, self.bandwidth, self.mesh_x, self.mesh_y, link_allowed, shared_axis,
            )  # fmt: skip
            least = min(least, energy)
        return least

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
        """The ways to order what lies between two tiles at stage k; leaves have most of them in common.

        Args:
            state: what the loops further in have done to each tensor; CLOSED if it need not tell them apart.
            tensors: those to which neighbours in a fan-out matter.
        """
        key = (k, outside, inside, first, state, len(tensors))
        if key in self.arrangements:
            return self.arrangements[key]
        names, level = self.space.dims, self.levels[k]
        factors = self.space.grid.value[outside] // self.space.grid.value[inside]
        if isinstance(level, Fanout):
            linkable = any(
                self.link_allowed[k, t] and (k == 0 or (self.kept[k - 1, t] and self.shared_axis[t])) for t in tensors
            )
            pairs = mesh_arrangements(level, self.space.problem, names, factors, linkable)
        else:
            orders = loop_orders(factors, first, state, self.space.grid, level.temporal, names)
            pairs = ((order, ()) for order in orders)
        found = []
        for loops, on_y in pairs:
            rows = [(k, names.index(d), n, isinstance(level, Fanout)) for d, n in (*loops, *on_y)]
            found.append(_Arrangement(loops, on_y, np.array(rows, np.int64).reshape(len(rows), 4)))
        self.arrangements[key] = found
        return found

    def _mapping(self, choice: tuple[_Arrangement, ...]) -> Mapping:
        temporal: dict[str, Loops] = {}
        x: dict[str, Loops] = {}
        y: dict[str, Loops] = {}
        for level, arrangement in zip(reversed(self.levels), choice, strict=True):
            if isinstance(level, Fanout):
                x[level.name], y[level.name] = arrangement.loops, arrangement.on_y
            else:
                temporal[level.name] = arrangement.loops
        return Mapping(temporal, x, y, dict(self.keep))
