"""The kernels that Python calls, compiled side by side by the processes that are about to need them.

A search compiles each kernel when it comes to it. Two workers would so wait for the same ones. Here each takes the
first of the list that no other is compiling, the longest to compile first; `tests/dse/mapper/test_precompile.py`
compares the list with what searches call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numba

from dse.mapper.kernels.downward import boundary_cost, expand_fanout, expand_storage
from dse.mapper.kernels.exact import Counts, Rules, exact_counts, least_of_orders, priced
from dse.mapper.kernels.geometry import Around, Grid, Order, enter, nowhere, splits
from dse.mapper.kernels.jit import compile_unless_busy
from dse.mapper.kernels.labels import Aim, floors_of, value_of, values_of
from dse.mapper.kernels.products import Goal, Trees, least, restrict, undominated
from dse.mapper.kernels.upward import Array, Boundary, Inside, Limit, boundary_floors, lift_fanout, lift_storage

_SCALARS = {"b": numba.types.boolean, "i": numba.types.int64, "f": numba.types.float64}

_TUPLES: dict[str, tuple[type[Any], str]] = {
    "aim": (Aim, "i f f f f f"),
    "around": (Around, "f1 f3 i1 b1 f2"),
    "array": (Array, "i2 b1 b1 f1 f1 b1 f2 b1 f"),
    "boundary": (Boundary, "b1 b1 f1 f1 f1 f f1 f1 i1"),
    "counts": (Counts, "f2 f2 f2 i2 i1 i"),
    "goal": (Goal, "i i f"),
    "grid": (Grid, "i1 i2 i2 i1 i2 i3 i1 i3 b2 i2 i2 f2"),
    "inside": (Inside, "i1 i1 f2 f1 f1"),
    "limit": (Limit, "f f1 f"),
    "order": (Order, "i1 i1 b1 b1"),
    "rules": (Rules, "b2 b2 b2 b2 f2 i1"),
    "trees": (Trees, "f2 b1 i2 f2 b2 i1 i1 i1 i1 i1 f2 f2 b1 i1"),
}
"""The fields of each tuple: bool, int and float, with the number of dimensions where it is an array."""

KERNELS: tuple[tuple[Callable[..., object], str], ...] = (
    (least_of_orders, "i2 i1 i1 i3 b2 i1 b2 b1 rules b1 f1 f1 f1 i1 f1 f2"),
    (exact_counts, "i2 i3 b2 i1 b2 b1 rules"),
    (boundary_floors, "grid boundary b1 f1 b1 i f1"),
    (lift_storage, "grid inside b3 order boundary b1 limit aim b b2"),
    (lift_fanout, "grid inside i3 array b1 limit aim b b2"),
    (expand_storage, "grid i inside b3 order around f1 f f f aim f"),
    (expand_fanout, "grid i inside array around f1 f f f aim f"),
    (least, "f1 i1 f1 f1 goal f trees i1 i b"),
    (priced, "counts b1 b2 f1 f1 f1 i1 f1 f2 rules"),
    (enter, "grid order i i i1 i b around around"),
    (boundary_cost, "grid i i f1 around f f f i i"),
    (restrict, "f1 i1 f1 f1 goal f trees"),
    (undominated, "i2 i1"),
    (splits, "grid order i i1"),
    (nowhere, "i i i"),
    (floors_of, "grid f2 i1 f1 b1 f1"),
    (values_of, "aim f1 f f2 f f1"),
    (value_of, "aim f f"),
)
"""Kernels and the types of their arguments."""


@cache
def precompile() -> None:
    """Compiles the kernels that neither the cache has nor another process is compiling; once in a process."""
    for kernel, arguments in KERNELS:
        compile_unless_busy(kernel, types_of(arguments))


def types_of(arguments: str) -> tuple[numba.types.Type, ...]:
    """Numba's types of arguments as `KERNELS` names them."""
    return tuple(_types(arguments))


def _types(arguments: str) -> Iterator[numba.types.Type]:
    for name in arguments.split():
        if name in _TUPLES:
            of, fields = _TUPLES[name]
            yield numba.types.NamedTuple(types_of(fields), of)
        elif len(name) == 1:
            yield _SCALARS[name]
        else:
            yield numba.types.Array(_SCALARS[name[0]], int(name[1]), "C")
