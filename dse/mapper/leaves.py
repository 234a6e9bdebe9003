"""Complete tilings, evaluated exactly in every order that can make a difference."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from dse.energy.ert import Ert
from dse.mapper.exact import exact_energy
from dse.mapper.orders import loop_orders, mesh_arrangements
from dse.mapper.space import Flags, Space
from dse.mapping import Loops, Mapping
from dse.spec import Fanout, Storage


@dataclass
class Best:
    """The cheapest mapping so far; energy in pJ."""

    energy: float = math.inf
    mapping: Mapping | None = None


class Evaluator:
    """Evaluates tilings exactly, in every order that can make a difference."""

    def __init__(self, space: Space, ert: Ert) -> None:
        self.space = space
        levels = space.levels
        self.energies = [
            ert.storage(level.name) if isinstance(level, Storage) else dict.fromkeys(("read", "write", "update"), 0.0)
            for level in levels
        ]
        self.read, self.fill, self.update = (
            np.array([e[action] for e in self.energies]) for action in ("read", "write", "update")
        )
        self.block = np.array([level.block_size if isinstance(level, Storage) else 1 for level in levels], np.float64)
        limits = [
            (level.read_bandwidth, level.write_bandwidth, level.shared_bandwidth)
            if isinstance(level, Storage) else (None, None, None)
            for level in levels
        ]  # fmt: skip
        self.bandwidth = np.array([[math.inf if b is None else b for b in row] for row in limits])
        self.mesh_x = np.array([level.mesh_x if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        self.mesh_y = np.array([level.mesh_y if isinstance(level, Fanout) else 1 for level in levels], np.int64)
        names = space.tensors.names
        self.link_allowed = np.array(
            [[isinstance(v, Fanout) and t not in v.no_link_transfer for t in names] for v in levels]
        )
        self.shared_axis = (space.tensors.axis_of >= 0).any(axis=1)

    def rounding_slack(self) -> float:
        """pJ by which truncated averages of links and multicasts can undercut the bounds, which do not round."""
        slack, copies = 0.0, 1
        for k in range(len(self.space.levels) - 1, -1, -1):
            kept = int((self.space.stages.keep[k] & self.shared_axis).sum())
            slack += kept * copies * float(self.read[k] + self.fill[k])
            copies *= int(self.mesh_x[k] * self.mesh_y[k])
        return float(slack)

    def try_orders(
        self, tiles: tuple[int, ...], firsts: tuple[int, ...], keep: dict[str, frozenset[str]], best: Best
    ) -> None:
        """Evaluates a complete tiling in all orders that start with the loops that a node chose.

        Args:
            tiles: tile outside each stage, outermost first, and last the compute unit's.
            firsts: innermost loop of each stage, -1 for none.
        """
        space = self.space
        dims = space.dims
        per_stage: list[list[tuple[Loops, Loops]]] = []  # choices of (spatial or temporal loops, on-Y loops)
        for depth, k in enumerate(range(len(space.levels) - 1, -1, -1)):
            factors = dims.value[tiles[depth]] // dims.value[tiles[depth + 1]]
            level = space.levels[k]
            if isinstance(level, Fanout):
                linkable = bool((self.link_allowed[k] & (self.shared_axis | (k == 0))).any()) and self._child_keeps(k)
                per_stage.append(list(mesh_arrangements(level, space.problem, dims.names, factors, linkable)))
            else:
                open_below = self._open_below(k)
                orders = loop_orders(factors, firsts[depth], open_below, space.tensors, level.temporal, dims.names, k)
                per_stage.append([(order, ()) for order in orders])
        for choice in itertools.product(*per_stage):
            self._try(choice, keep, best)

    def _child_keeps(self, k: int) -> bool:
        return k == 0 or bool((self.space.stages.keep[k - 1] & self.shared_axis).any())

    def _open_below(self, k: int) -> Flags:
        """Tensors whose accesses depend on the order of the loops at stage k."""
        below = self.space.stages.keep[:k].any(axis=0)
        return np.asarray(below | bool(self.space.stages.fanout[0] and k > 0))

    def _try(self, choice: tuple[tuple[Loops, Loops], ...], keep: dict[str, frozenset[str]], best: Best) -> None:
        space = self.space
        rows: list[tuple[int, int, int, bool]] = []
        for depth in range(len(choice) - 1, -1, -1):
            k = len(choice) - 1 - depth
            is_fanout = isinstance(space.levels[k], Fanout)
            rows += [(k, space.dims.names.index(d), n, is_fanout) for part in choice[depth] for d, n in part]
        columns = np.array([row[:3] for row in rows], np.int64).reshape(len(rows), 3)
        energy, _ = exact_energy(
            columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), np.array([r[3] for r in rows], bool),
            len(rows), space.tensors.coefficient, space.tensors.read_write, space.stages.keep, self.read, self.fill,
            self.update, self.block, space.stages.leak, self.bandwidth, self.mesh_x, self.mesh_y, self.link_allowed,
            self.shared_axis,
        )  # fmt: skip
        energy += space.compute_energy
        if energy < best.energy * (1 - 1e-12):
            best.energy = energy
            best.mapping = self._mapping(choice, keep)

    def _mapping(self, choice: tuple[tuple[Loops, Loops], ...], keep: dict[str, frozenset[str]]) -> Mapping:
        temporal: dict[str, Loops] = {}
        x: dict[str, Loops] = {}
        y: dict[str, Loops] = {}
        for level, (first, second) in zip(reversed(self.space.levels), choice, strict=True):
            if isinstance(level, Fanout):
                x[level.name], y[level.name] = first, second
            else:
                temporal[level.name] = first
        return Mapping(temporal, x, y, keep)
