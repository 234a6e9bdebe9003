"""What a mapping pays at every stage: prices of accesses at memories, savings and neighbours at fan-outs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.hardware.energy.ert import Ert
from dse.hardware.residence import resident_words
from dse.hardware.spec import Fanout, Spec, Storage
from dse.mapper.kernels.geometry import Order
from dse.mapper.kernels.slots import Flags, Floats, Ints
from dse.mapper.kernels.upward import FORGETS, PASSED_ON, Array, Boundary, boundary_floors
from dse.mapper.mapspace import Constraint, Mapspace
from dse.mapper.orders import mesh_arrangements

MOST_ARRANGEMENTS = 2000  # on the mesh, that are looked at for what neighbours have in common


@dataclass(frozen=True)
class Stage:
    """A storage level with its loops and boundary, or a fan-out with its array."""

    level: Storage | Fanout
    loops: Constraint
    allowed: Flags  # (D, max count, max count) as in `loops`, without factors that do better further out
    wanted: Flags  # (tiles,) that the constraints outside can leave and that fit
    boundary: Boundary | None
    order: Order | None
    array: Array | None
    linkable: Flags  # (T,) the next stage is a fan-out whose children may pass the tensor on
    share_outside: Floats  # (T,) least fraction that the fan-outs from here to the next keeping level can leave
    beyond: Floats  # (tiles,) pJ that everything further out costs at least, given the tile above the stage
    outside: Floats  # (tiles,) the same with what that tile adds
    least_idle: float  # inverse of the largest fan-out further out


@dataclass(frozen=True)
class Stages:
    """One choice of what each level keeps, innermost first."""

    keep: Flags  # (K, T) kept, and accesses are merged
    stages: tuple[Stage, ...]
    compute_price: Floats  # (T,) pJ a word an operation takes from the innermost keeping level
    leak: Floats  # (K,) pJ per cycle and instance
    first_share: Floats  # (T,) as `share_outside`, for the compute unit
    last_fanout: int  # the outermost fan-out, -1 if there is none: what leaks further out is known from there on


def build_stages(space: Mapspace, spec: Spec, ert: Ert, keep: Mapping[str, frozenset[str]], base: float) -> Stages:
    """Prices every access of a mapspace.

    Args:
        keep: the tensors that each storage keeps.
        base: pJ that every mapping costs.
    """
    levels = tuple(reversed(spec.levels))
    count, tensors = len(levels), len(space.tensors)
    sharing = most_sharing(space, spec)
    held, kept = np.zeros((count, tensors), bool), np.zeros((count, tensors), bool)
    through = np.zeros((count, tensors))  # a word that a level keeps, but lets through to the next
    reads_first = np.zeros((count, tensors), bool)
    price = np.zeros((count, tensors))  # a word delivered to the child
    fill, read, leak = np.zeros((count, tensors)), np.zeros(count), np.zeros(count)
    for k, level in enumerate(levels):
        if isinstance(level, Storage):
            energies = ert.storage(level.name)
            leak[k] = energies["leak"]
            held[k] = [t in keep[level.name] for t in space.tensors]
            kept[k] = held[k] & of_tensors(space, level.no_coalesce, False)
            reads_first[k] = of_tensors(space, level.rmw_first_update)
            shared_by = level.block_size * sharing[k]  # most words of an access
            read[k] = energies["read"] / shared_by
            price[k] = read[k] + np.where(space.read_write, energies["update"] / shared_by, 0.0)
            fill[k] = energies["write"] / shared_by
            through[k] = np.where(held[k] & ~kept[k], price[k] + np.where(space.read_write, fill[k], 0.0), 0.0)
    mesh = [level.mesh_x * level.mesh_y if isinstance(level, Fanout) else 1 for level in levels]
    has_parent, parent_price = np.zeros((count, tensors), bool), np.zeros((count, tensors))
    least_share = np.ones((count + 1, tensors))
    saved, saved_inside = np.zeros((count, tensors)), np.zeros((count, tensors))
    compute_price = np.zeros(tensors)
    for t in range(tensors):
        keeping = np.flatnonzero(kept[:, t])
        compute_price[t] = price[keeping[0], t] + through[: keeping[0], t].sum()
        for k in range(count):
            outside = keeping[keeping > k]
            has_parent[k, t] = len(outside) > 0
            if len(outside):
                parent_price[k, t] = price[outside[0], t] + through[k + 1 : outside[0], t].sum()
            here = k if kept[k, t] else (outside[0] if len(outside) else k)
            least_share[k, t] = 1.0 / math.prod(mesh[k:here])
            if space.read_write[t] and kept[k, t] and not reads_first[k, t]:
                saved[k, t] = space.full_size[t] * (read[k] + (fill[k, t] if len(outside) else 0.0))
        for k in range(count):
            for j in keeping[keeping < k]:
                saved_inside[k, t] += saved[j, t] * math.prod(mesh[j:k])
    shared = (space.grid.axis_of >= 0).any(axis=1)
    overlapping = shared | space.coarse
    last_fanout = max((k for k, level in enumerate(levels) if isinstance(level, Fanout)), default=-1)

    outermost, outward = _outward(space, levels, bool(spec.special))
    resident = resident_words(spec, space.problem, keep)
    stages: list[Stage] = []
    least_idle = 1.0  # of everything further out
    beyond = np.where(space.reach[-1], base, np.inf)  # pJ of everything further out, for each tile above the stage
    for k in range(count - 1, -1, -1):
        level, loops = levels[k], space.stages[k]
        next_level = levels[k + 1] if k + 1 < count else None
        wanted = space.reach[k + 1]
        boundary, order, array = None, None, None
        linkable = np.zeros(tensors, bool)
        if isinstance(next_level, Fanout):
            linkable = kept[k] & _passing(space, next_level)
        if isinstance(level, Fanout):
            holds = kept[k - 1] if k else np.ones(tensors, bool)
            passing = _passing(space, level)
            most_shared = np.minimum(mesh[k], np.where(space.grid.relevant, 1, space.grid.bounds).prod(axis=1))
            most_shared = np.where(overlapping, mesh[k], most_shared)
            alone = of_tensors(space, level.no_reuse)
            apart = shared | forgets_inside(space, levels, k)
            saved_here = float((saved_inside[k] * (most_shared - 1)).sum())
            array = Array(
                loops.choices, holds & passing, (~holds & apart & passing) | space.coarse, saved_inside[k],
                least_share[k + 1], linkable, _unserved(space, level, loops.choices, passing, k == 0), alone & ~passing,
                float(leak[k:].sum()) if k == last_fanout else 0.0,
            )  # fmt: skip
            outside_here = np.where(wanted, beyond - saved_here, np.inf)
        else:
            if level.capacity is not None:
                lives = np.array([resident.get(level.name, {}).get(t, 0) for t in space.tensors])
                wanted = wanted & (np.maximum(space.boxes, lives)[:, held[k]].sum(axis=1) <= level.capacity)
            boundary = Boundary(
                kept[k], has_parent[k], np.where(kept[k] & has_parent[k], fill[k], 0.0), parent_price[k], saved[k],
                float(leak[k]) if k < last_fanout else 0.0, least_share[k], least_share[k + 1],
                np.where(of_tensors(space, level.no_reuse), np.where(linkable, PASSED_ON, FORGETS), 0),
            )  # fmt: skip
            order = Order(loops.inner, loops.outer, loops.free, outward & (k == outermost))
            outside_here = np.empty(len(wanted))
            boundary_floors(space.grid, boundary, wanted, least_share[k + 1], linkable, space.label_width, outside_here)
            outside_here += beyond
        allowed = _without(loops, outward) if k < outermost else loops.allowed
        stages.insert(0, Stage(
            level, loops, allowed, wanted, boundary, order, array, linkable, least_share[k + 1], beyond, outside_here,
            least_idle,
        ))  # fmt: skip
        beyond = _least_outside(space, outside_here, _steps(space, loops.choices) if array else allowed)
        least_idle /= mesh[k]
    return Stages(kept, tuple(stages), compute_price, leak, least_share[0], last_fanout)


def _steps(space: Mapspace, choices: Ints) -> Flags:
    """(D, max count, max count): divisor positions (at, below) that some use of a fan-out spans in a dimension."""
    quotient = space.grid.quotient
    width = quotient.shape[1]
    allowed = np.zeros(quotient.shape, bool)
    for d in range(len(quotient)):
        for p in np.unique(choices[:, d]):
            below = quotient[d, :, p]
            at = np.flatnonzero((below >= 0) & (np.arange(width) < space.grid.counts[d]))
            allowed[d, at, below[at]] = True
    return allowed


def _least_outside(space: Mapspace, costs: Floats, allowed: Flags) -> Floats:
    """(tiles,) the least cost of the tiles from which a stage's loops lead to each tile."""
    counts = space.grid.counts.tolist()
    least = costs.reshape(counts)
    for d, n in enumerate(counts):
        outside = np.moveaxis(least, d, -1)
        inside = np.full_like(outside, np.inf)
        for below in range(n):
            at = np.flatnonzero(allowed[d, :n, below])
            if len(at):
                inside[..., below] = outside[..., at].min(axis=-1)
        least = np.moveaxis(inside, -1, d)
    return np.ascontiguousarray(least).ravel()


def _unserved(space: Mapspace, fanout: Fanout, choices: Ints, passing: Flags, innermost: bool) -> Floats:
    """(choices, T) the least fraction of the boxes of compute units that come from no neighbour in any step.

    In a step that does not move a tensor a unit is served by a neighbour that needs the same word. Where the spatial
    loops do not reach along an axis on which the tensor slides, no neighbour serves it in any other step. The least is
    taken over all arrangements on the mesh; 0 where nothing is known, also where there are too many of them.
    """
    grid = space.grid
    fractions = np.zeros((len(choices), len(space.tensors)))
    if not innermost:
        return fractions
    key = (fanout.mesh_x, fanout.mesh_y, repr(fanout.loops.canonical()))
    if key not in space.unserved:
        arrangements = 0
        for s, choice in enumerate(choices):
            factors = grid.divisors[np.arange(len(choice)), choice]
            sliding = ((grid.axis_of >= 0) & (factors > 1)).any(axis=1)
            if (factors == 1).all():
                fractions[s] = 1.0
                continue
            least = np.where(sliding | space.coarse, 0.0, 1.0)
            repeated = (~grid.relevant & (factors > 1)).any(axis=1)  # some units need the same word
            if (least[repeated] > 0.0).any():
                for on_x, on_y in mesh_arrangements(fanout, space.problem, space.dims, factors, True):
                    arrangements += 1
                    if arrangements > MOST_ARRANGEMENTS:
                        least[repeated] = 0.0
                        break
                    loops = [(space.dims.index(d), n) for d, n in (*on_x, *on_y)]
                    for t in np.flatnonzero(repeated & (least > 0.0)):
                        moves = [(n, bool(grid.relevant[t, d])) for d, n in loops]
                        least[t] = min(least[t], _left(moves, fanout.mesh_x))
                    if not (least[repeated] > 0.0).any():
                        break
            fractions[s] = least
        space.unserved[key] = fractions
    fractions = space.unserved[key].copy()
    fractions[:, ~passing & ~space.coarse] = 1.0
    fractions[:, passing & of_tensors(space, fanout.no_reuse)] = 0.0  # what is known is of different boxes
    return fractions


def _left(loops: Sequence[tuple[int, bool]], width: int) -> float:
    """The fraction of different boxes that some unit without a neighbour of the same box needs.

    Args:
        loops: iterations of each spatial loop and whether it moves the tensor, innermost first.
        width: units in a row of the mesh.

    >>> _left([(3, False), (8, True)], 8)  # triples of units across rows of 8: two lose a unit at the end of a row
    0.25
    >>> _left([(4, False), (8, True)], 8)
    0.0
    >>> _left([(2, True), (2, False)], 1)  # neighbours of one column need different words
    1.0
    """
    boxes, different = np.zeros(1, np.int64), 1
    for n, moves in loops:
        boxes = np.concatenate([boxes + different * i * moves for i in range(n)])
        different *= n if moves else 1
    served = np.zeros(len(boxes), bool)
    in_row = np.arange(len(boxes) - 1) % width < width - 1  # the next unit is in the same row
    for distance, beside in ((1, in_row), (width, True)):
        same = (boxes[distance:] == boxes[:-distance]) & beside
        served[distance:] |= same
        served[:-distance] |= same
    return len(np.unique(boxes[~served])) / different


def _passing(space: Mapspace, fanout: Fanout) -> Flags:
    return of_tensors(space, fanout.no_link_transfer, False)


def of_tensors(space: Mapspace, named: Collection[str], value: bool = True) -> Flags:
    """(T,) `value` for the tensors that are named."""
    return np.array([(t in named) is value for t in space.tensors])


def most_sharing(space: Mapspace, spec: Spec) -> Floats:
    """(K,) how many instances of a level can share an access: the more of them work, the more do."""
    found, most = np.ones(len(spec.levels)), 1
    for k, level in reversed(list(enumerate(reversed(spec.levels)))):
        if isinstance(level, Storage):
            found[k] = spec.sharing(level, most)
        elif len(space.stages[k].choices):
            factors = space.grid.divisors[np.arange(len(space.dims)), space.stages[k].choices]
            most *= int(factors.prod(axis=1).max())
    return found


def forgets_inside(space: Mapspace, levels: Sequence[Storage | Fanout], k: int) -> Flags:
    """(T,) whether the level inside k holds nothing from one step to the next: compute units, levels without reuse."""
    inside = levels[k - 1] if k else None
    if inside is None:
        return np.ones(len(space.tensors), bool)
    return of_tensors(space, inside.no_reuse if isinstance(inside, Storage) else ())


def _outward(space: Mapspace, levels: tuple[Storage | Fanout, ...], special: bool) -> tuple[int, Flags]:
    """The outermost level that may loop at all, and the dimensions whose loops do at least as well outside all others.

    These are dimensions that move every tensor along an axis of its own, such as groups: their loops repeat everything
    inside with other data. Loops further in only make tiles larger and interrupt reuse. No dimension is named where
    Timeloop's counts do not follow this: where neighbours pass words on, whose averages are rounded, and where tiles of
    outputs have gaps or overlap, because then first writes depend on where the loops stand (docs/mapper.md). Nor where
    some level is `special` (`Spec.special`).
    """
    grid, nothing = space.grid, np.zeros(len(space.dims), bool)
    single = np.eye(grid.divisors.shape[1], dtype=bool)
    looping = [k for k, v in enumerate(levels) if isinstance(v, Fanout) or (space.stages[k].allowed & ~single).any()]
    if special or not looping or isinstance(levels[looping[-1]], Fanout):
        return -1, nothing
    if space.uneven_outputs.any():
        return -1, nothing
    sliding = (grid.axis_of >= 0).any(axis=1)
    if any((sliding & _passing(space, level)).any() for level in levels if isinstance(level, Fanout)):
        return -1, nothing
    everywhere = np.asarray((grid.relevant & (grid.axis_of < 0)).all(axis=0))
    return looping[-1], everywhere & space.stages[looping[-1]].open


def _without(loops: Constraint, outward: Flags) -> Flags:
    """The allowed factors without those of dimensions that lie further out, where a level can do without them."""
    allowed = loops.allowed.copy()
    for d in np.flatnonzero(outward):
        if allowed[d, 0, 0]:
            allowed[d] &= np.eye(allowed.shape[1], dtype=bool)
    return allowed
