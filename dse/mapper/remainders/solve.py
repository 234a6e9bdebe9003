"""The best mapping with remainders that is better than one already known, or the proof that there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.mapper.kernels.labels import ENERGY, Aim
from dse.mapper.remainders.behaviours import Behaviour, Option
from dse.mapper.remainders.columns import Group
from dse.mapper.remainders.tables import Tables, Terms
from dse.mapper.remainders.tree import Goal, least, least_below

DEBUG = 0
QUICK_LOOK = 1000  # nodes of a search that decides whether to look closer
MOST_NODES = 20_000_000  # of a search; beyond it its best choice so far is returned, not as optimal


@dataclass(frozen=True)
class Choice:
    """A mapping but for the loops' order: a chain for each dimension, and what orders do at each stage."""

    value: float
    rows: MappingType[str, int]  # dimension -> number of its chain in `tables`
    behaviours: tuple[Behaviour, ...]
    tables: Tables


class Solver:
    """The search through one choice of which levels keep which tensors."""

    def __init__(self, tables: Tables, ert: Ert, aim: Aim, value: float, room: int = MOST_NODES) -> None:
        """Looks for choices below `value` and within the aim's limits, at `room` nodes at most."""
        self.tables, self.ert, self.aim, self.value, self.room = tables, ert, aim, value, room
        self.looked = 0
        self.best: Choice | None = None
        timed = aim.kind != ENERGY or math.isfinite(aim.most_cycles)
        self.timed = timed

    @property
    def proven(self) -> bool:
        return self.looked <= self.room

    def run(self) -> None:
        """Fixes what orders do stage by stage, outermost last, while something below the best value may be left."""
        if not self.tables.empty:
            self._fix([tuple(options) for options in self.tables.layer.options], 0)

    def _fix(self, options: list[tuple[Option, ...]], k: int) -> None:
        while k < len(options) and len(options[k]) == 1:
            k += 1
        if not self._search(options, complete=k == len(options)):
            return
        for option in options[k] if k < len(options) else ():
            if self.proven:
                self._fix([*options[:k], (option,), *options[k + 1 :]], k + 1)

    def _search(self, options: list[tuple[Option, ...]], *, complete: bool) -> bool:
        """Whether a choice below the best value may exist; if everything is fixed, it is taken."""
        tables, aim = self.tables, self.aim
        present = [_present(group, options) for group in tables.groups]
        if not all(p.any() for p in present):
            return False
        terms = Terms()
        traffic = tables.traffic(options)
        tables.energy(terms, self.ert, traffic)
        cycle_rows = tables.cycles(terms, traffic) if self.timed else 0
        limits = [aim.most_energy, *[aim.most_cycles - aim.latency] * cycle_rows]
        limits += tables.limits(terms, len(limits))
        arrays, members = _packed(tables, terms, present)
        chosen = np.zeros(len(tables.groups), np.int64)
        value, nodes = least(
            np.array(terms.coefficients), np.array(terms.rows), np.array(terms.floors), np.array(limits),
            Goal(aim.kind, cycle_rows, aim.latency), self.value, *arrays, chosen,
            self.room - self.looked if complete else QUICK_LOOK, not complete,
        )  # fmt: skip
        self.looked += nodes
        if DEBUG and nodes > DEBUG: print('        ', complete, nodes, [len(o) for o in options], [(k, o[0]) for k, o in enumerate(options) if len(o) == 1 and any(o[0].behaviour)])
        if not complete:
            return value < self.value or nodes > QUICK_LOOK
        if not self.proven or not value < self.value:
            return False
        if complete:
            rows: dict[str, int] = {}
            for g, group in enumerate(tables.groups):
                member = int(members[chosen[g]])
                numbers = divmod(member, len(group.chains[1].factors)) if len(group.chains) == 2 else (member,)
                rows.update(zip(group.names, numbers, strict=True))
            self.value = value
            self.best = Choice(value, rows, tuple(o[0].behaviour for o in options), tables)
        return True


def _present(group: Group, options: list[tuple[Option, ...]]) -> np.ndarray:
    """(members,) those whose factors are 1 where a behaviour asks for it."""
    masks = []
    for c in group.chains:
        mask = np.ones(len(c.factors), bool)
        for k, possible in enumerate(options):
            if len(possible) == 1 and c.name in possible[0].without:
                mask &= c.factors[:, k] == 1
        masks.append(mask)
    return masks[0] if len(masks) == 1 else np.logical_and.outer(*masks).ravel()


def _packed(tables: Tables, terms: Terms, present: list[np.ndarray]):
    """The arrays of `least` about the trees, and the member at each tree leaf."""
    signs = np.array(terms.coefficients)
    low, high, plain, left, right, offset, members, at = [], [], [], [], [], [], [], 0
    for g, (group, tree) in enumerate(zip(tables.groups, tables.trees, strict=True)):
        table = np.stack([columns[g] for columns in terms.columns], axis=1)
        used = len(tree.left)
        lows, highs, plains = np.empty((used, len(signs))), np.empty((used, len(signs))), np.empty(used, bool)
        least_below(
            table, present[g], tables.perfect[g], tree.order, tree.left, tree.right, tree.start, signs, lows, highs, plains
        )
        low.append(lows)
        high.append(highs)
        plain.append(plains)
        left.append(np.where(tree.left < 0, -1, tree.left + at))
        right.append(np.where(tree.right < 0, -1, tree.right + at))
        members.append(tree.order[tree.start])
        offset.append(at)
        at += used
    arrays = (*(np.concatenate(parts) for parts in (low, high, plain, left, right)), np.array(offset, np.int64))
    return arrays, np.concatenate(members)
