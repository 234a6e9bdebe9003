"""The physical count: words and cycles of the iterations that really happen in a nest with remainders.

A loop iteration covers its block of indices cut at the size of its dimension; empty iterations do not happen. So the
blocks of a dimension at any depth are multiples of the tile there, the last one cut, and everything about a dimension
follows from numbers of blocks. Counts over dimensions multiply, and so do extents over the axes of a tensor.
docs/model.md states the rules and derives these formulas; `tests/dse/model/test_physical.py` compares them with a walk
over all iterations of all loops and all instances.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import NamedTuple

from dse.core.errors import InputError
from dse.hardware.spec import Fanout, Spec
from dse.model.mapping import Mapping
from dse.workload.problem import Axis, DataSpace, Problem

COMPUTE = -1
"""The place of the compute unit among the levels, which are numbered from the innermost one."""

_UNCOUNTED = "`enos model --count timeloop` evaluates such a mapping"


class RealLoop(NamedTuple):
    """`factor` iterations, each over `stride` indices of a dimension; `order` numbers all loops, innermost first."""

    dimension: str
    factor: int
    stride: int
    level: int
    order: int
    spatial: bool


class Words(NamedTuple):
    """Words of a tensor at a level, over the layer and all instances; `tile` is what one instance holds at most."""

    tile: int
    reads: int
    fills: int
    updates: int


@dataclass(frozen=True)
class Count:
    """What really happens: `words[storage][tensor]`, instances that work at a time at most, cycles without stalls.

    `instances` has every level by its name.
    """

    words: MappingType[str, MappingType[str, Words]] = field(hash=False)
    instances: MappingType[str, int] = field(hash=False)
    compute_instances: int
    cycles: int


@dataclass(frozen=True)
class RealNest:
    """The loops of each dimension, innermost first, and its size."""

    loops: MappingType[str, tuple[RealLoop, ...]]
    size: MappingType[str, int]

    def outside(self, dimension: str, level: int) -> tuple[RealLoop, ...]:
        """The loops of a dimension at levels further out."""
        return tuple(loop for loop in self.loops[dimension] if loop.level > level)

    def tile(self, dimension: str, level: int) -> int:
        """Indices that a whole block of a level covers."""
        return math.prod(loop.factor for loop in self.loops[dimension] if loop.level <= level)

    def covers(self, dimension: str, level: int) -> int:
        """Indices that the largest block of a level covers."""
        return min(self.size[dimension], self.tile(dimension, level))


def real_nest(spec: Spec, problem: Problem, mapping: Mapping) -> RealNest:
    """The loops of a complete mapping; remainders follow from factors and sizes."""
    loops: dict[str, list[RealLoop]] = {d: [] for d in problem.dimensions}
    covered = dict.fromkeys(problem.dimensions, 1)
    order = itertools.count()
    for number, level in enumerate(reversed(spec.levels)):
        for d, factor in mapping.loops(level):
            loops[d].append(RealLoop(d, factor, covered[d], number, next(order), isinstance(level, Fanout)))
            covered[d] *= factor
    return RealNest({d: tuple(found) for d, found in loops.items()}, problem.bound)


def check_countable(problem: Problem) -> None:
    """Refuses tensors whose words the closed form cannot count under remainders.

    Raises:
        InputError: a tensor with a dimension on several axes, or an output with an axis that is not one dimension.
    """
    for tensor in problem.data_spaces:
        axes = [_terms(problem.bound, axis) for axis in tensor.axes]
        on = Counter(d for axis in axes for d, _ in axis)
        twice = [d for d, times in on.items() if times > 1]
        if twice:
            raise InputError(
                "remainders", f"{tensor.name} has {twice[0]} on several axes", "a dimension on one axis", _UNCOUNTED
            )
        if tensor.read_write and any(len(axis) > 1 or any(c != 1 for _, c in axis) for axis in axes):
            raise InputError(
                "remainders",
                f"outputs with windows or strides: {tensor.name}",
                "one dimension on each axis, times 1",
                _UNCOUNTED,
            )


def count(spec: Spec, problem: Problem, mapping: Mapping) -> Count:
    """Counts a complete mapping.

    Raises:
        InputError: as `check_countable`; a level that limits reuse or shares accesses (`Spec.perfect_only`).

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.model.mapping import Mapping
        >>> from dse.workload.problem import conv_problem
        >>> arch, layer = read_arch(), conv_problem({"M": 3})
        >>> spec = instance_for(arch, load_candidates()[0], layer, library_for(arch)).spec
        >>> outermost = spec.storages[0].name
        >>> temporal = {s.name: (("M", 3),) if s.name == outermost else () for s in spec.storages}
        >>> none = {level.name: () for level in spec.levels if level not in spec.storages}
        >>> keep = {s.name: frozenset(["Outputs"] if s.name == outermost else []) for s in spec.storages}
        >>> found = count(spec, layer, Mapping(temporal, none, none, keep))
        >>> found.cycles, found.words[outermost]["Outputs"]
        (3, Words(tile=3, reads=0, fills=0, updates=3))
    """
    check_countable(problem)
    for special in spec.perfect_only:
        raise InputError("remainders", f"{special} is not counted under remainders", hint=_UNCOUNTED)
    nest = real_nest(spec, problem, mapping)
    levels = tuple(reversed(spec.levels))
    words: dict[str, dict[str, Words]] = {}
    for tensor in problem.data_spaces:
        kept = [i for i, level in enumerate(levels) if tensor.name in mapping.keep.get(level.name, ())]
        for child, level in zip([COMPUTE, *kept], kept, strict=False):
            content = received(nest, tensor, child, level)
            given = received(nest, tensor, level) if level != kept[-1] else 0
            tile = math.prod(_extent(axis, [nest.covers(d, level) for d, _ in axis]) for axis in tensor.axes)
            found = Words(tile, content, given, 0)
            if tensor.read_write:
                reads_first = tensor.name in getattr(levels[level], "rmw_first_update", ())
                first = 0 if reads_first else _first_writes(nest, problem, tensor, level)
                found = Words(tile, content - first, given - first if given else 0, content)
            words.setdefault(levels[level].name, {})[tensor.name] = found
    instances = {level.name: _most_instances(nest, i) for i, level in enumerate(levels)}
    return Count(words, instances, _most_instances(nest, COMPUTE), _cycles(nest))


def steps(spec: Spec, problem: Problem, mapping: Mapping) -> int:
    """Cycles without stalls: the steps that all instances take together, of any complete mapping."""
    return _cycles(real_nest(spec, problem, mapping))


def received(
    nest: RealNest,
    tensor: DataSpace,
    child: int,
    parent: int | None = None,
    within: Sequence[tuple[int, int] | None] | None = None,
) -> int:
    """Words that all instances of a level receive, over the layer.

    Args:
        child: the level, or `COMPUTE`, whose units take one word of each tensor for each operation.
        parent: the level that they come from: then those that it reads, each once for all children of one fan-out that
            need the same at the same time.
        within: for each axis the addresses, the end exclusive, outside of which words do not count; None for all.
    """
    end = child if parent is None else parent
    axes = [_terms(nest.size, axis) for axis in tensor.axes]
    moving = {d for axis in axes for d, _ in axis}
    first = None
    if child != COMPUTE:
        around = (x for d in moving for x in nest.outside(d, child) if not x.spatial)
        first = min(around, key=lambda x: x.order, default=None)
    total = 1
    for d in nest.size:
        if d not in moving:
            total *= _visits(nest, d, child, end, first)
    for axis, part in zip(axes, within or (None,) * len(axes), strict=True):
        if part is None:
            total *= _axis_words(nest, axis, child, end, first)
        else:
            total *= _enumerated_words(nest, axis, child, end, first, part)
    return total


def _visits(nest: RealNest, dimension: str, child: int, end: int, first: RealLoop | None) -> int:
    """How often what a dimension does not move is asked for: loops inside `first` ask for nothing new."""

    def counted(loop: RealLoop) -> bool:
        if loop.spatial:
            return loop.level > end
        return child == COMPUTE or (first is not None and loop.order > first.order)

    return distinct(nest.outside(dimension, child), nest.size[dimension], counted)


def distinct(loops: Sequence[RealLoop], size: int, counted: Callable[[RealLoop], bool]) -> int:
    """Distinct tuples of iterations of the counted loops, over all iterations that are not empty.

    Args:
        loops: of one dimension, innermost first.
        size: of the dimension.

    >>> rows = RealLoop("P", 4, 1, 0, 0, True), RealLoop("P", 4, 4, 1, 1, False)
    >>> distinct(rows, 13, lambda loop: True), distinct(rows, 13, lambda loop: loop.spatial)
    (13, 4)
    """
    whole = [1]  # tuples of the counted loops further in, in a whole block
    for loop in loops:
        whole.append(whole[-1] * (loop.factor if counted(loop) else 1))
    total = 0
    for i in range(len(loops) - 1, -1, -1):
        iterations = -(-size // loops[i].stride)
        if counted(loops[i]):
            total += (iterations - 1) * whole[i]
            size -= (iterations - 1) * loops[i].stride
        elif iterations > 1:  # the first of them is whole, and has all tuples of the last
            return total + whole[i]
    return total + 1


def _cycles(nest: RealNest) -> int:
    """Steps that all instances take together; the first child of a fan-out is never done before another one."""
    return math.prod(distinct(loops, nest.size[d], lambda loop: not loop.spatial) for d, loops in nest.loops.items())


def _most_instances(nest: RealNest, level: int) -> int:
    """Instances of a level that ever work; in the first step all of them do."""
    return math.prod(distinct(nest.outside(d, level), size, lambda loop: loop.spatial) for d, size in nest.size.items())


def _first_writes(nest: RealNest, problem: Problem, output: DataSpace, level: int) -> int:
    """Words that instances of a level get for the first time: every one has partial sums of its own."""
    moving = {d for axis in output.axes for d, _ in axis}
    copies = (
        distinct(nest.outside(d, level), nest.size[d], lambda loop: loop.spatial) for d in nest.size if d not in moving
    )
    return problem.tensor_size(output.name) * math.prod(copies)


def _terms(size: MappingType[str, int], axis: Axis) -> Axis:
    """The terms of an axis that can move a tensor."""
    return tuple((d, c) for d, c in axis if c != 0 and size[d] > 1)


def _extent(axis: Axis, sizes: Iterable[int]) -> int:
    return 1 + sum(abs(c) * (n - 1) for (_, c), n in zip(axis, sizes, strict=True))


def _axis_words(nest: RealNest, axis: Axis, child: int, end: int, first: RealLoop | None) -> int:
    """Sum of what an axis of the box needs, over all blocks of its dimensions, each shared need once.

    Where `first` is a loop of the axis, a step in which it advances needs the box less the one before.
    """
    together = _in_one_fanout(nest, axis, child, end)
    if len(together) == 1 and len(axis) == 2:
        return _pair_words(nest, axis, child, together[0], first)
    if together:
        return _enumerated_words(nest, axis, child, end, first)
    sizes = [_block_sizes(nest, d, child) for d, _ in axis]
    total = sum(n * _extent(axis, tiles) for tiles, n in _combined(sizes))
    for k, (d, c) in enumerate(axis):
        if first is not None and first.dimension == d:
            loops = nest.outside(d, child)
            advances = -(-nest.size[d] // nest.tile(d, child)) - distinct(loops, nest.size[d], lambda x: x != first)
            sizes[k] = ((nest.tile(d, child), advances),)  # a box that another follows is whole
            step = abs(c) * first.stride
            total -= sum(n * max(0, _extent(axis, tiles) - step) for tiles, n in _combined(sizes))
    return total


def _block_sizes(nest: RealNest, dimension: str, level: int) -> tuple[tuple[int, int], ...]:
    """(size, number) of the blocks of a dimension."""
    tile, size = nest.tile(dimension, level), nest.size[dimension]
    whole = (size - 1) // tile
    last = size - whole * tile
    return ((tile, whole), (last, 1)) if whole else ((last, 1),)


def _combined(sizes: Sequence[Sequence[tuple[int, int]]]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Sizes of all dimensions together, and how often they occur."""
    for chosen in itertools.product(*sizes):
        yield tuple(tile for tile, _ in chosen), math.prod(n for _, n in chosen)


def _in_one_fanout(nest: RealNest, axis: Axis, child: int, end: int) -> list[int]:
    """Fan-outs between two levels that share two dimensions of an axis among their children."""
    if len(axis) < 2:
        return []
    on = Counter(x.level for d, _ in axis for x in nest.outside(d, child) if x.spatial and x.level <= end)
    return [level for level, dimensions in on.items() if dimensions > 1]


class _Run(NamedTuple):
    """A step of a dimension: `children` of a fan-out work, the last one on `last` indices, all others on whole tiles.

    `advances`: of the loop that moves the tensor first, while all others stand still.
    """

    children: int
    last: int
    advances: bool


def _pair_words(nest: RealNest, axis: Axis, child: int, fanout: int, first: RealLoop | None) -> int:
    """The same for an axis of two dimensions that a fan-out shares among its children: boxes may coincide."""
    runs = [_runs(nest, d, child, fanout, first) for d, _ in axis]
    strides = [next(x.stride for x in nest.outside(d, child) if x.level == fanout) for d, _ in axis]
    tiles = [nest.tile(d, child) for d, _ in axis]
    total = 0
    for (one, times), (other, more) in itertools.product(runs[0].items(), runs[1].items()):
        total += times * more * _needed_once(axis, (one, other), strides, tiles, first)
    return total


def _runs(nest: RealNest, dimension: str, child: int, fanout: int, first: RealLoop | None) -> Counter[_Run]:
    """How often each kind of step of a dimension happens, with the loop of the fan-out left out."""
    loops, tile, size = nest.outside(dimension, child), nest.tile(dimension, child), nest.size[dimension]
    (shared,) = (x for x in loops if x.level == fanout)
    advancing = first if first is not None and first.dimension == dimension else None
    block, positions = shared.stride * shared.factor, shared.stride // tile
    blocks = -(-size // block)  # of the loops outside the fan-out; each has the same positions of those inside
    rest = size - (blocks - 1) * block
    full, over = divmod(rest - 1, shared.stride)  # children of the last block before its last one, which is cut
    cut = over // tile  # the position at which it is cut
    found: Counter[_Run] = Counter()

    def add(children: int, last: int, outer: tuple[int, int], inner: tuple[int, int]) -> None:
        """Steps of blocks `outer[0]` to `outer[1]`, exclusive, at positions `inner[0]` to `inner[1]`."""
        number, still = (outer[1] - outer[0]) * (inner[1] - inner[0]), 0
        if advancing is None:
            still = number
        elif advancing.order < shared.order:
            still = (outer[1] - outer[0]) * _at_start(advancing, tile, inner)
        else:
            still = _at_start(advancing, block, outer) * (inner[1] - inner[0])
        if children:
            found[_Run(children, last, False)] += still
            found[_Run(children, last, True)] += number - still

    add(shared.factor, tile, (0, blocks - 1), (0, positions))
    last = (blocks - 1, blocks)
    add(full + 1, tile, last, (0, cut))
    add(full + 1, over + 1 - cut * tile, last, (cut, cut + 1))
    add(full, tile, last, (cut + 1, positions))
    return Counter({run: n for run, n in found.items() if n})


def _at_start(loop: RealLoop, unit: int, among: tuple[int, int]) -> int:
    """Multiples k of `unit` indices with k in [among[0], among[1]) at which a loop is in its first iteration."""
    inside = loop.stride // unit
    period = inside * loop.factor

    def below(k: int) -> int:
        return k // period * inside + min(inside, k % period)

    return below(among[1]) - below(among[0])


def _needed_once(
    axis: Axis, runs: tuple[_Run, _Run], strides: Sequence[int], tiles: Sequence[int], first: RealLoop | None
) -> int:
    """Words of an axis that the children of a fan-out need in a step, those that several need once."""
    moves = [c * step for (_, c), step in zip(axis, strides, strict=True)]
    if all(run.last == tile for run, tile in zip(runs, tiles, strict=True)):
        # Children (a, b) and (a + k * period, b - k * other period) coincide: all are copies of one box.
        common = math.gcd(*moves)
        again = [run.children - abs(move) // common for run, move in zip(runs, reversed(moves), strict=True)]
        boxes = math.prod(run.children for run in runs) - max(0, again[0]) * max(0, again[1])
        low, high = _need(axis, runs, tiles, tiles, first)
        return boxes * (high - low)
    needs = set()
    for at in itertools.product(*(range(run.children) for run in runs)):
        sizes = [run.last if i == run.children - 1 else tile for i, run, tile in zip(at, runs, tiles, strict=True)]
        low, high = _need(axis, runs, tiles, sizes, first)
        by = sum(i * move for i, move in zip(at, moves, strict=True))
        needs.add((low + by, high + by))
    return sum(high - low for low, high in needs)


def _need(
    axis: Axis, runs: Sequence[_Run], tiles: Sequence[int], sizes: Sequence[int], first: RealLoop | None
) -> tuple[int, int]:
    """What a child lacks along an axis, seen from its place."""
    low, high = _interval(axis, sizes)
    for k, ((_, c), run) in enumerate(zip(axis, runs, strict=True)):
        if run.advances:
            assert first is not None
            before = [tiles[k] if i == k else n for i, n in enumerate(sizes)]
            low, high = _without((low, high), _interval(axis, before), -c * first.stride)
    return low, high


def _interval(axis: Axis, sizes: Sequence[int]) -> tuple[int, int]:
    """Addresses along an axis, the end exclusive, of blocks that start at 0."""
    ends = [c * (n - 1) for (_, c), n in zip(axis, sizes, strict=True)]
    return sum(min(0, e) for e in ends), 1 + sum(max(0, e) for e in ends)


def _without(interval: tuple[int, int], held: tuple[int, int], by: int) -> tuple[int, int]:
    """An interval less another one, moved by `by`: what is left is on the side that lies ahead."""
    low, high = interval
    if by < 0:
        return max(low, min(high, held[1] + by)), high
    return low, min(high, max(low, held[0] + by))


class _Block(NamedTuple):
    """A block of one dimension: where, how large, which iteration of which loop, and whether one came before it."""

    base: int
    size: int
    digits: tuple[int, ...]


def _enumerated_words(
    nest: RealNest,
    axis: Axis,
    child: int,
    end: int,
    first: RealLoop | None,
    within: tuple[int, int] | None = None,
) -> int:
    """The same for any axis, by listing all blocks: for axes of three dimensions, or pairs in two fan-outs, rare ones.

    Two children that differ in one fan-out only share what they both need; so do those that a chain of such pairs
    connects. Of what is shared so, the words `within` some addresses are counted; None for all.
    """
    loops = [nest.outside(d, child) for d, _ in axis]
    shared = [[x.spatial and x.level <= end for x in of] for of in loops]
    fanouts = sorted({x.level for of in loops for x in of if x.spatial and x.level <= end})
    tiles = [nest.tile(d, child) for d, _ in axis]
    found: dict[tuple[tuple[int, ...], ...], dict[tuple[int, int], list[tuple[tuple[int, ...], ...]]]] = {}
    for blocks in itertools.product(*(_blocks(nest, d, child) for d, _ in axis)):
        sizes = [block.size for block in blocks]
        low, high = _interval(axis, sizes)
        for k, (block, of) in enumerate(zip(blocks, loops, strict=True)):
            if any(x == first and i > 0 for x, i in zip(of, block.digits, strict=True)):
                assert first is not None
                before = [tiles[k] if i == k else n for i, n in enumerate(sizes)]
                low, high = _without((low, high), _interval(axis, before), -axis[k][1] * first.stride)
        by = sum(c * block.base for (_, c), block in zip(axis, blocks, strict=True))
        step = tuple(
            tuple(i for i, inside in zip(block.digits, of, strict=True) if not inside)
            for block, of in zip(blocks, shared, strict=True)
        )
        place = tuple(
            tuple(i for block, of in zip(blocks, loops, strict=True)
                  for i, x in zip(block.digits, of, strict=True) if x.level == fanout)
            for fanout in fanouts
        )  # fmt: skip
        found.setdefault(step, {}).setdefault((low + by, high + by), []).append(place)
    start, stop = within or (-math.inf, math.inf)
    return sum(
        int(min(high, stop) - max(low, start)) * _connected(places)
        for of in found.values()
        for (low, high), places in of.items()
        if min(high, stop) > max(low, start)
    )


def _blocks(nest: RealNest, dimension: str, level: int) -> list[_Block]:
    tile, size = nest.tile(dimension, level), nest.size[dimension]
    loops = nest.outside(dimension, level)
    return [
        _Block(base, min(tile, size - base), tuple(base // x.stride % x.factor for x in loops))
        for base in range(0, size, tile)
    ]


def _connected(places: list[tuple[tuple[int, ...], ...]]) -> int:
    """Number of groups of places, of which those that differ in one part are in the same group."""
    left, groups = set(places), 0
    while left:
        reached, groups = [left.pop()], groups + 1
        while reached:
            place = reached.pop()
            near = {other for other in left if sum(a != b for a, b in zip(place, other, strict=True)) == 1}
            left -= near
            reached.extend(near)
    return groups
