"""How far Timeloop's conventions, which our numbers follow, are from what hardware would do (docs/conventions.md).

Two questions are answered by the mapper on the shipped array, and two by walking small nests word by word.

usage: python benchmarks/conventions.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import Instance, instance_for, library_for, read_arch
from dse.hardware.spec import Fanout, Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import search
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Mapping
from dse.workload.problem import Problem, conv_problem

DEPTHWISE = {
    "depthwise 3x3, 7 x 7 of 576": {"G": 576, "P": 7, "Q": 7, "R": 3, "S": 3},
    "depthwise 3x3, 14 x 14 of 384": {"G": 384, "P": 14, "Q": 14, "R": 3, "S": 3},
    "depthwise 5x5, 7 x 7 of 672": {"G": 672, "P": 7, "Q": 7, "R": 5, "S": 5},
    "depthwise 5x5, 14 x 14 of 480": {"G": 480, "P": 14, "Q": 14, "R": 5, "S": 5},
}
MIXED = {
    **DEPTHWISE,
    "3x3, 28 x 28, 128 to 128": {"C": 128, "M": 128, "P": 28, "Q": 28, "R": 3, "S": 3},
    "1x1, 14 x 14, 116 to 116": {"C": 116, "M": 116, "P": 14, "Q": 14},
    "1x1, 28 x 28, 16 to 64": {"C": 16, "M": 64, "P": 28, "Q": 28},
    "fully connected, 512 to 1000": {"C": 512, "M": 1000},
}
UNEVEN = {
    "AlexNet conv1": {"C": 3, "M": 96, "P": 55, "Q": 55, "R": 11, "S": 11, "Hstride": 4, "Wstride": 4},
    "AlexNet conv2, a group": {"C": 48, "M": 128, "P": 27, "Q": 27, "R": 5, "S": 5},
    "AlexNet conv3": {"C": 256, "M": 384, "P": 13, "Q": 13, "R": 3, "S": 3},
    "GoogLeNet 4e 3x3": {"C": 160, "M": 320, "P": 14, "Q": 14, "R": 3, "S": 3},
    "3x3, 29 x 29, 13 to 17": {"C": 13, "M": 17, "P": 29, "Q": 29, "R": 3, "S": 3},
}
Sizes = dict[str, int]
Loop = tuple[str, int]
"""Dimension and iterations."""
Finding = tuple[float, str]
"""Relative error, and the nest that has it."""


def main() -> None:
    mapped = {name: _mapped(layer) for name, layer in MIXED.items()}
    print("Zeros of the padding, read from DRAM:")
    for name in DEPTHWISE:
        print(f"  {name}: {_padding_share(*mapped[name], DEPTHWISE[name]):.1%} of the layer's energy")
    print("Outputs that leave a buffer without a read:")
    for name, (instance, problem, mapping, evaluation) in mapped.items():
        print(f"  {name}: {_unread_share(instance, problem, mapping, evaluation):.1%} of the layer's energy")
    print("Input reads from DRAM of the best mappings with remainders; Timeloop's count beside that of a literal walk:")
    for name, layer in UNEVEN.items():
        for objective in ("energy", "delay"):
            print(f"  {name}, {objective}: {_remainder_error(*_mapped(layer, objective, True)):+.1%}")
    for title, errors in (("two loops on one axis", _window_errors), ("the last tile is smaller", _remainder_errors)):
        found = sorted(errors())
        print(f"Input reads of a window from DRAM, {title}; Timeloop's count beside that of a literal walk:")
        wrong = sum(abs(error) > 1e-9 for error, _ in found)
        print(f"  {wrong} of {len(found)} nests differ, by {found[0][0]:+.1%} ({found[0][1]})")
        print(f"  to {found[-1][0]:+.1%} ({found[-1][1]})")


def _mapped(
    layer: dict[str, int], objective: str = "energy", imperfect: bool = False
) -> tuple[Instance, Problem, Mapping, Evaluation]:
    arch, problem = read_arch(), conv_problem(layer)
    (candidate,) = (c for c in load_candidates("operators_published_widths") if c.name == "T8")
    instance = instance_for(arch, candidate, problem, library_for(arch))
    found = search(instance.spec, problem, instance.ert, objective, imperfect)
    assert found.mapping is not None
    return instance, problem, found.mapping, evaluate(instance.spec, problem, found.mapping, instance.ert)


def _padding_share(
    instance: Instance, problem: Problem, mapping: Mapping, evaluation: Evaluation, layer: dict[str, int]
) -> float:
    """Of a layer's energy; its input is as large as its output ("same" padding), the rest of the box is zeros."""
    read = evaluation.levels["dram_ifmap"]["Inputs"].energy_pj
    real = layer["G"] * layer["P"] * layer["Q"]
    return read * (1 - real / problem.tensor_size("Inputs")) / evaluation.energy_pj


def _unread_share(instance: Instance, problem: Problem, mapping: Mapping, evaluation: Evaluation) -> float:
    """Energy of reading every word that a level hands on to the next one out, which is not charged, over the layer's.

    What arrives there as updates was read by all the children whose sums the array adds up.
    """
    spec, total = instance.spec, 0.0
    moving = {d for axis in problem.data_space("Outputs").axes for d, _ in axis}
    keeping = [s for s in spec.storages if "Outputs" in mapping.keep[s.name]]
    for parent, child in itertools.pairwise(keeping):
        between = _between(spec, parent.name, child.name)
        added = 1
        for fanout in between:
            for d, n in (*mapping.x[fanout.name], *mapping.y[fanout.name]):
                added *= 1 if d in moving else n
        accesses = evaluation.levels[parent.name]["Outputs"]
        words = accesses.updates * accesses.instances * added
        total += words / child.block_size * instance.ert.storage(child.name)["read"]
    return total / evaluation.energy_pj


def _remainder_error(instance: Instance, problem: Problem, mapping: Mapping, evaluation: Evaluation) -> float:
    """Words of inputs that a mapping with remainders reads from DRAM, beside those of a literal walk; relative."""
    levels = instance.spec.levels
    at = [level.name for level in levels].index("glb_ifmap")
    loops = [loop for level in reversed(levels[:at]) for loop in mapping.loops(level)]
    assert len({d for d, _ in loops}) == len(loops), "a dimension has two loops outside the buffer"
    inside = [loop for level in levels[at:] for loop in mapping.loops(level)]
    tile = {d: math.prod(n for name, n in inside if name == d) for d in problem.dimensions}
    accesses = evaluation.levels["dram_ifmap"]["Inputs"]
    return accesses.reads * accesses.instances / _literal(loops, tile, problem) - 1


def _between(spec: Spec, outer: str, inner: str) -> list[Fanout]:
    names = [level.name for level in spec.levels]
    between = spec.levels[names.index(outer) : names.index(inner)]
    return [level for level in between if isinstance(level, Fanout)]


def _chip(problem: Problem) -> Spec:
    """A DRAM and a buffer that keeps everything."""
    memory = {"!": "Component", "class": "SRAM", "attributes": {"width": 8, "datawidth": 8}}
    nodes = [{**memory, "name": name} for name in ("dram", "buffer")]
    nodes.append({"!": "Component", "name": "mac", "class": "mac"})
    document = {"architecture": {"version": 0.4, "nodes": nodes}}
    return SpecFile(document, "chip").instance(problem=problem)


PRICES = {"read": 1.0, "write": 1.0, "leak": 0.0}
ERT = Ert({"dram": PRICES, "buffer": PRICES, "mac": {"compute": 1.0}})


def _counted(loops: Sequence[Loop], tile: Sizes, sizes: Sizes) -> int:
    """Words of inputs that the model reads from DRAM for a nest, innermost loop first, around a tile."""
    problem = conv_problem(sizes)
    spec = _chip(problem)
    keep = {s.name: frozenset(t.name for t in problem.data_spaces) for s in spec.storages}
    inside = {d: n for d, n in tile.items() if n > 1}
    last = {("buffer", d): rest for d, n in inside.items() if (rest := sizes[d] % n)}
    mapping = Mapping({"dram": tuple(loops), "buffer": tuple(inside.items())}, {}, {}, keep, last)
    return evaluate(spec, problem, mapping, ERT).levels["dram"]["Inputs"].reads


def _literal(loops: Sequence[Loop], tile: Sizes, problem: Problem) -> int:
    """The same, word by word: of each step's box what the box before did not hold. Each dimension has one loop."""
    bound, axes = problem.bound, problem.data_space("Inputs").axes
    held: list[range] = [range(0) for _ in axes]
    words, outward = 0, loops[::-1]
    for steps in itertools.product(*(range(n) for _, n in outward)):
        start = {d: step * tile.get(d, 1) for (d, _), step in zip(outward, steps, strict=True)}
        box = []
        for axis in axes:
            first = sum(c * start.get(d, 0) for d, c in axis)
            length = 1 + sum(c * (min(tile.get(d, 1), bound[d] - start.get(d, 0)) - 1) for d, c in axis)
            box.append(range(first, first + length))
        shared = [len(range(max(a.start, b.start), min(a.stop, b.stop))) for a, b in zip(box, held, strict=True)]
        words += math.prod(map(len, box)) - math.prod(shared)
        held = box
    return words


def _window_errors() -> Iterator[Finding]:
    """Of all nests of one loop of P and one of R in either order around a tile."""
    for p, r, tile_p, tile_r in itertools.product((2, 3, 4, 7, 14), (2, 3, 5, 7, 11), (1, 2, 3, 4, 7), (1, 2, 3)):
        tile, sizes = {"P": tile_p, "R": tile_r}, {"P": p * tile_p, "R": r * tile_r}
        for loops in itertools.permutations((("P", p), ("R", r))):
            yield _error(loops, tile, sizes)


def _remainder_errors() -> Iterator[Finding]:
    """Of all nests of one loop of P, whose last tile is smaller, and one of M around a tile of P and R."""
    for p, m, tile_p, r in itertools.product((2, 3, 4, 7), (2, 4, 8), (2, 3, 4, 7), (1, 3, 5)):
        for rest in range(1, tile_p):
            tile, sizes = {"P": tile_p, "R": r}, {"P": (p - 1) * tile_p + rest, "R": r, "M": m}
            for loops in itertools.permutations((("P", p), ("M", m))):
                yield _error(loops, tile, sizes)


def _error(loops: Sequence[Loop], tile: Sizes, sizes: Sizes) -> Finding:
    outside = " ".join(f"{d}{n}" for d, n in loops[::-1])
    inside = " ".join(f"{d}{n}" + (f",{sizes[d] % n}" if sizes[d] % n else "") for d, n in tile.items())
    return _counted(loops, tile, sizes) / _literal(loops, tile, conv_problem(sizes)) - 1, f"{outside} around {inside}"


if __name__ == "__main__":
    main()
