"""Which members of the groups a search has to look at, and the trees over them.

A search fixes what orders do at some stages, and so which columns count. Members that no choice of the others makes
possible are left out, as are those that another one is as good as in these columns; the rest stands in trees whose
neighbours differ little in what the objective and the limits count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dse.mapper.kernels.labels import DELAY, ENERGY, ENERGY_DELAY
from dse.mapper.kernels.products import Goal, Trees, undominated
from dse.mapper.remainders.chains import Flags, Ints
from dse.mapper.remainders.columns import Floats

ROUNDING = 1e-12  # relative: sums of the same numbers in another order
COMPARED = 600  # members of similar columns that are compared with each other
_ENOUGH = 0.9  # another round of leaving out has to reduce what is left to this share


@dataclass(frozen=True)
class Sums:
    """The rows of sums of a search: B terms in some rows, each a coefficient times a product.

    Attributes:
        coefficients: (B,)
        rows: (B,) of each term.
        floors: (B,) the least that a product counts.
        limits: (rows,)
        goal: what is minimised.
    """

    coefficients: Floats
    rows: Ints
    floors: Floats
    limits: Floats
    goal: Goal

    def values(self, sums: Floats) -> Floats:
        """(n,) the objective of each column of sums, (rows, n); inf where one is above its limit."""
        cycles = sums[1 : 1 + self.goal.cycle_rows].max(axis=0, initial=0.0) + self.goal.latency
        value = cycles if self.goal.kind == DELAY else sums[0]
        if self.goal.kind == ENERGY_DELAY:
            value = value * cycles
        fits = (sums <= self.limits[:, None] * (1.0 + ROUNDING)).all(axis=0)
        return np.where(fits, value, math.inf)

    def weights(self, sums: Floats) -> Floats:
        """(rows,) how much one more of each counts: of what is minimised, and less of what only has a limit."""
        goal, index = self.goal, np.arange(len(self.limits))
        counted = (index == 0) & (goal.kind != DELAY)
        counted |= (index > 0) & (index <= goal.cycle_rows) & (goal.kind != ENERGY)
        of_limits = np.where(index <= goal.cycle_rows, 1.0, 0.3) / self.limits
        return np.where(counted, 1.0 / np.maximum(sums, 1e-30), of_limits)


@dataclass
class Members:
    """What is left of a group.

    Attributes:
        numbers: (n,) of the members.
        table: (D, n) their different columns.
        which: (B,) the column of each term.
        subtracted: (D,) columns of which more is better.
        perfect: (n,) those whose chains have no remainder.
    """

    numbers: Ints
    table: Floats
    which: Ints
    subtracted: Flags
    perfect: Flags

    def least(self) -> Floats:
        """(B,) of each term the least of the column; the most where it is subtracted."""
        best = np.where(self.subtracted, self.table.max(axis=1), self.table.min(axis=1))
        return np.asarray(best[self.which])

    def keep(self, chosen: Ints) -> None:
        self.numbers, self.table, self.perfect = (
            self.numbers[chosen],
            self.table.take(chosen, axis=1),
            self.perfect[chosen],
        )

    def sums(self, of: Sums, rest: Floats) -> Floats:
        """(rows, n) bounds of the sums with each member, where other groups give (B,) `rest` at least."""
        terms, floored = of.coefficients * rest, np.isfinite(of.floors)
        weights = np.zeros((len(of.limits), len(self.table)))
        np.add.at(weights, (of.rows[~floored], self.which[~floored]), terms[~floored])
        out = np.einsum("rd,dn->rn", weights, self.table)  # `@` would start threads for so little
        for b in np.flatnonzero(floored):
            out[of.rows[b]] += of.coefficients[b] * np.maximum(rest[b] * self.table[self.which[b]], of.floors[b])
        return np.asarray(out)


def members_of(columns: Sequence[Floats], coefficients: Floats, present: Flags, perfect: Flags) -> Members:
    """The members that are `present`, with the columns of the terms, B of (members,)."""
    known: dict[tuple[int, bool], int] = {}
    distinct: list[Floats] = []
    which = []
    for column, negative in zip(columns, coefficients < 0, strict=True):
        key = id(column), bool(negative)
        if key not in known:
            known[key] = len(distinct)
            distinct.append(column)
        which.append(known[key])
    numbers = np.flatnonzero(present)
    table = np.stack(distinct) if len(numbers) == len(present) else np.stack([c[numbers] for c in distinct])
    return Members(numbers, table, np.array(which), np.array([n for _, n in known]), perfect[numbers])


def restrict(groups: Sequence[Members], sums: Sums, value: float) -> bool:
    """Leaves out members that no choice of the others makes better than `value`; False if no choice is left."""
    left = sum(len(members.numbers) for members in groups)
    while all(len(members.numbers) for members in groups):
        best = [members.least() for members in groups]
        for g, members in enumerate(groups):
            rest = (
                np.prod([b for h, b in enumerate(best) if h != g], axis=0) if len(best) > 1 else np.ones(len(best[0]))
            )
            values = sums.values(members.sums(sums, rest))
            kept = values * (1.0 - ROUNDING) < value
            if not kept.all():
                members.keep(np.flatnonzero(kept))
        before, left = left, sum(len(members.numbers) for members in groups)
        if left >= _ENOUGH * before:  # equal where there is nothing to leave out
            return all(len(members.numbers) for members in groups)
    return False


def without_dominated(members: Members) -> None:
    """Leaves out members that another one of similar columns is as good as in every column.

    One without remainders does not stand for one with a remainder: the search is for choices that have one.
    """
    sign = np.where(members.subtracted, -1, 1)[:, None]
    ranks = sign * members.table.view(np.int64)  # non-negative floats order as integers
    ranks = ranks[(ranks != ranks[:, :1]).any(axis=1)]
    size = (sign * np.log(np.maximum(members.table, 1e-300))).sum(axis=0)
    order = np.argsort(size, kind="stable")
    rows = np.stack([*ranks, members.perfect])[:, order].T
    members.keep(order[undominated(np.ascontiguousarray(rows), np.arange(len(order)) // COMPARED)])


def trees_over(groups: Sequence[Members], sums: Sums) -> Trees:
    """Trees over the members of the groups, one after another, before anything of them is made."""
    best = [members.least() for members in groups]
    product = np.prod(best, axis=0)
    least = np.zeros(len(sums.limits))
    np.add.at(least, sums.rows, sums.coefficients * np.maximum(product, sums.floors))
    counts = np.abs(sums.coefficients) * product * sums.weights(least)[sums.rows]
    offset = np.concatenate([[0], np.cumsum([len(members.numbers) for members in groups])])
    count, columns = int(offset[-1]), max(len(members.table) for members in groups)
    nodes = 2 * count - len(groups)
    table, plain = np.empty((count, columns)), np.empty(count, bool)
    weights, subtracted = np.zeros((len(groups), columns)), np.zeros((len(groups), columns), bool)
    for g, members in enumerate(groups):
        width, own = len(members.table), slice(offset[g], offset[g + 1])
        table[own, :width], plain[own] = members.table.T, members.perfect
        weights[g, :width] = np.bincount(members.which, counts, width)
        subtracted[g, :width] = members.subtracted
    start, stop, left = np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.zeros(nodes, np.int64)
    start[: len(groups)], stop[: len(groups)] = offset[:-1], offset[1:]
    return Trees(
        table, plain, np.stack([members.which for members in groups]), weights, subtracted,
        np.array([len(members.table) for members in groups]), np.arange(count), start, stop, left,
        np.empty((nodes, columns)), np.empty((nodes, columns)), np.empty(nodes, bool), np.array([len(groups)]),
    )  # fmt: skip
