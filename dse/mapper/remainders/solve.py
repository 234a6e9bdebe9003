"""The best mapping with remainders that is better than one already known, or the proof that there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.mapper.kernels.labels import DELAY, ENERGY, Aim
from dse.mapper.kernels.products import Goal, least, restrict
from dse.mapper.remainders.behaviours import Option
from dse.mapper.remainders.chains import Flags
from dse.mapper.remainders.columns import Group
from dse.mapper.remainders.members import members_of, without_dominated
from dse.mapper.remainders.tables import Tables, Terms

FIRST_LOOK = 3000  # nodes of a search for a first good value
QUICK_LOOK = 1000  # nodes of a search that decides whether to look closer
MOST_NODES = 10_000_000  # of a search; beyond it its best choice so far is returned, not as optimal


@dataclass(frozen=True)
class Choice:
    """A mapping but for the loops' order: a chain for each dimension, and what orders do at each stage."""

    value: float
    rows: MappingType[str, int]  # dimension -> number of its chain in `tables`
    options: tuple[Option, ...]
    tables: Tables


class _Look(NamedTuple):
    """What came of a search: whether it found anything, and whether it looked at everything."""

    successful: bool
    ended: bool


class Solver:
    """The search through one choice of which levels keep which tensors."""

    def __init__(self, tables: Tables, ert: Ert, aim: Aim, value: float, room: int = MOST_NODES) -> None:
        """Looks for choices below `value` and within the aim's limits, at `room` nodes at most."""
        self.tables, self.ert, self.aim, self.value, self.room = tables, ert, aim, value, room
        self.looked = 0
        self.best: Choice | None = None
        self.timed = aim.kind != ENERGY or math.isfinite(aim.most_cycles)
        self.proven = True
        self.nothing_below: set[tuple[Option | None, ...]] = set()
        self._prices = tables.prices(ert)
        self._limits: tuple[Terms, list[float]] | None = None  # they are the same in all searches

    def run(self) -> None:
        """Fixes what orders do stage by stage, outermost last, while something below the best value may be left.

        Everything is looked at for a moment first: a good value prunes what is then searched to the end.
        """
        if self.tables.empty:
            return
        options = [tuple(options) for options in self.tables.layer.options]
        if self.aim.kind == DELAY and math.isinf(self.aim.most_energy) and not self.tables.layer.limited:
            # Orders do not change the cycles of the array: any that asks for nothing will do.
            options = [(min(of_stage, key=lambda o: len(o.without)),) for of_stage in options]
        for room in (FIRST_LOOK, self.room):
            self._fix(options, 0, room)

    def _fix(self, options: list[tuple[Option, ...]], k: int, room: int) -> None:
        """Searches below some options, in `room` nodes each, unless this has been done."""
        while k < len(options) and len(options[k]) == 1:
            k += 1
        key = tuple(left[0] if len(left) == 1 else None for left in options)
        if key in self.nothing_below or not self.proven:
            return
        if k == len(options):
            if self._search(options, min(room, self.room - self.looked), any_will_do=False).ended:
                self.nothing_below.add(key)
            return
        look = self._search(options, QUICK_LOOK, any_will_do=True)
        if look.ended and not look.successful:
            self.nothing_below.add(key)
            return
        for option in options[k]:
            self._fix([*options[:k], (option,), *options[k + 1 :]], k + 1, room)

    def _search(self, options: list[tuple[Option, ...]], room: int, *, any_will_do: bool) -> _Look:
        """Looks for a choice below the best value; only where every option is fixed it is one, and taken."""
        tables, aim = self.tables, self.aim
        present = [_present(group, tables.fitting, options) for group in tables.groups]
        if not all(p.any() for p in present):
            return _Look(successful=False, ended=True)
        terms = Terms()
        traffic = tables.traffic(options)
        tables.energy(terms, self._prices, traffic)
        cycle_rows = tables.cycles(terms, traffic) if self.timed else 0
        limits = [aim.most_energy, *[aim.most_cycles - aim.latency] * cycle_rows]
        if self._limits is None:
            of_limits = Terms()
            self._limits = of_limits, tables.limits(of_limits, len(limits))
        terms.extend(self._limits[0])
        limits += self._limits[1]
        coefficients = np.array(terms.coefficients)
        sums = (
            coefficients, np.array(terms.rows), np.array(terms.floors), np.array(limits),
            Goal(aim.kind, cycle_rows, aim.latency), self.value,
        )  # fmt: skip
        trees, numbers = members_of(terms.columns, coefficients, present, tables.perfect)
        if not restrict(*sums, trees):
            return _Look(successful=False, ended=True)
        if room > FIRST_LOOK:
            for g in range(len(present)):
                without_dominated(trees, g)
        chosen = np.zeros(len(present), np.int64)
        value, nodes = least(*sums, trees, chosen, room, any_will_do)
        self.looked += nodes
        look = _Look(value < self.value, nodes <= room)
        self.proven = self.looked <= self.room
        if look.successful and not any_will_do:
            rows: dict[str, int] = {}
            for group, member in zip(tables.groups, numbers[chosen].tolist(), strict=True):
                each = divmod(member, len(group.chains[1].factors)) if len(group.chains) == 2 else (member,)
                rows.update(zip(group.names, each, strict=True))
            self.value = value
            self.best = Choice(value, rows, tuple(of_stage[0] for of_stage in options), tables)
        return look


def _present(group: Group, fitting: MappingType[str, Flags], options: list[tuple[Option, ...]]) -> Flags:
    """(members,) those of fitting chains whose factors are 1 where a behaviour asks for it."""
    masks = []
    for c in group.chains:
        mask = fitting[c.name].copy()
        for k, left in enumerate(options):
            if len(left) == 1 and c.name in left[0].without:
                mask &= c.factors[:, k] == 1
        masks.append(mask)
    return masks[0] if len(masks) == 1 else np.logical_and.outer(*masks).ravel()
