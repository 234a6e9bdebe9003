"""Which members of the groups a search has to look at, and the trees over them.

A search fixes what orders do at some stages, and so which columns count. Members that no choice of the others makes
possible are left out (`kernels.products.restrict`), as are those that another is as good as in these columns; the rest
stands in trees whose neighbours differ little in what the objective and the limits count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dse.mapper.kernels.products import Trees, undominated
from dse.mapper.remainders.chains import Flags, Ints
from dse.mapper.remainders.columns import Floats

COMPARED = 600  # members of similar columns that are compared with each other


def members_of(
    columns: Sequence[Sequence[Floats]], coefficients: Floats, present: Sequence[Flags], perfect: Sequence[Flags]
) -> tuple[Trees, Ints]:
    """The members that are `present`, in trees of which nothing is made yet, and (members,) their numbers.

    Args:
        columns: of each of B terms its column for each group, (members,).
        coefficients: (B,) of the terms.
        present: of each group (members,).
        perfect: of each group (members,) those without a remainder.
    """
    groups, negative = len(present), (coefficients < 0).tolist()
    numbers = [np.flatnonzero(flags) for flags in present]
    offset = np.cumsum([0, *map(len, numbers)])
    which = np.empty((groups, len(coefficients)), np.int64)
    distinct: list[dict[tuple[int, bool], Floats]] = []
    for g in range(groups):
        known: dict[tuple[int, bool], int] = {}
        own: dict[tuple[int, bool], Floats] = {}
        of_terms = []
        for of_groups, sign in zip(columns, negative, strict=True):
            key = id(of_groups[g]), sign
            if key not in known:
                known[key], own[key] = len(known), of_groups[g]
            of_terms.append(known[key])
        which[g] = of_terms
        distinct.append(own)
    count, width = int(offset[-1]), np.array([len(own) for own in distinct])
    most, nodes = int(width.max()), 2 * count + groups
    table, subtracted = np.empty((count, most)), np.zeros((groups, most), bool)
    for g, own in enumerate(distinct):
        everything, place = len(numbers[g]) == len(present[g]), table[offset[g] : offset[g + 1]]
        for d, ((_, sign), column) in enumerate(own.items()):
            place[:, d] = column if everything else column[numbers[g]]
            subtracted[g, d] = sign
    plain = np.concatenate([flags[own] for flags, own in zip(perfect, numbers, strict=True)])
    start, stop = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    start[:groups], stop[:groups] = offset[:-1], offset[1:]
    trees = Trees(
        table, plain, which, np.zeros((groups, most)), subtracted, width, np.arange(count), start, stop,
        np.zeros(nodes, np.int64), np.empty((nodes, most)), np.empty((nodes, most)), np.empty(nodes, bool),
        np.array([groups]),
    )  # fmt: skip
    return trees, np.concatenate(numbers)


def without_dominated(trees: Trees, g: int) -> None:
    """Leaves out members of a group that another one of similar columns is as good as in every column.

    One without remainders does not stand for one with a remainder: the search is for choices that have one.
    """
    width, begin = int(trees.width[g]), int(trees.start[g])
    own = trees.order[begin : trees.stop[g]]
    table = np.ascontiguousarray(trees.table[own, :width].T)
    sign = np.where(trees.subtracted[g, :width], -1, 1)[:, None]
    ranks = sign * table.view(np.int64)  # non-negative floats order as integers
    ranks = ranks[(ranks != ranks[:, :1]).any(axis=1)]
    size = (sign * np.log(np.maximum(table, 1e-300))).sum(axis=0)
    order = np.argsort(size, kind="stable")
    rows = np.stack([*ranks, trees.plain[own]])[:, order].T
    kept = own[order[undominated(np.ascontiguousarray(rows), np.arange(len(order)) // COMPARED)]]
    trees.order[begin : begin + len(kept)] = kept
    trees.stop[g] = begin + len(kept)
