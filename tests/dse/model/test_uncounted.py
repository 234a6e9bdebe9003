"""Drained words and zeros of the padding against walks that list every word, and what they change in a mapping."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Compute, Fanout, LoopConstraint, Spec, Storage
from dse.model.drain import drained_words, really_drained_words
from dse.model.evaluation import evaluate
from dse.model.loop_nest import nest_of
from dse.model.mapping import Mapping
from dse.model.padding import fetched_words, image_of
from dse.model.physical import physical
from dse.model.real_iterations import COMPUTE
from dse.model.uncounted import energy_of, uncounted
from dse.workload.problem import Problem, conv_problem, problem_from_document
from tests.dse.model.test_physical import points, random_case, walk_of


def with_image(problem: Problem, rng: random.Random) -> Problem:
    """A problem with an image somewhere in the box that its windows cover; the padding of both sides is equal."""
    axis = problem.data_space("window").axes[0]
    covered = 1 + sum(c * (problem.bound[d] - 1) for d, c in axis)
    pad = min(rng.randint(0, 3), (covered - 1) // 2)
    unread = rng.randrange(max([c for d, c in axis if problem.bound[d] > 1], default=1))  # rows after the last window
    image = {"H": covered - 2 * pad + unread, "Hpad": pad}
    letters = {t.name: tuple("H" if i == 0 and t.name == "window" else "" for i in range(len(t.axes)))
               for t in problem.data_spaces}  # fmt: skip
    return dataclasses.replace(problem, image=image, letters=letters)


def forwards(problem: Problem) -> bool:
    return all(c > 0 for t in problem.data_spaces for axis in t.axes for _, c in axis)


def small(spec: Spec, mapping: Mapping) -> bool:
    return math.prod(n for place in spec.levels for _, n in mapping.loops(place)) <= 600


@pytest.mark.parametrize("seed", range(6))
def test_zeros_of_the_padding_are_those_of_a_literal_walk(seed: int) -> None:
    rng, checked, padded = random.Random(seed), 0, 0
    while checked < 40:
        spec, problem, mapping = random_case(rng)
        if not (small(spec, mapping) and forwards(problem)):
            continue
        checked += 1
        problem = with_image(problem, rng)
        levels = tuple(reversed(spec.levels))
        kept = [i for i, place in enumerate(levels) if "window" in mapping.keep.get(place.name, ())]
        child, outermost = [COMPUTE, *kept][-2:]
        window = problem.data_space("window")
        first, size = problem.image["Hpad"], problem.image["H"]
        walked = walk_of(spec, problem, mapping).boundary(window, child, outermost).shared
        zeros = sum(
            times for times, words in walked for word in words if not first <= word[0] < first + size
        )  # fmt: skip
        found = fetched_words(spec, problem, mapping)
        if first == 0:
            assert found == {} and zeros == 0
            continue
        fetched = found[levels[outermost].name]["window"]
        assert fetched == (sum(times * len(words) for times, words in walked), zeros)
        padded += zeros > 0
    assert padded > 10


def drained_by_walk(spec: Spec, problem: Problem, mapping: Mapping, level: int) -> int:
    """Words that leave all instances of a level: of every tile, when the next one takes its place, and at the end.

    With remainders a loop that moves tiles may have one iteration; what it held then goes and comes back, as the
    physical count says of every tensor.
    """
    output, walk = problem.data_space("output"), walk_of(spec, problem, mapping)
    temporal = [loop for loop in reversed(walk.loops) if loop.level > level and not loop.spatial]
    moving = [loop.order for loop in temporal if any(loop.dimension == d for axis in output.axes for d, _ in axis)]
    held: dict[Any, tuple[tuple[int, ...], frozenset[tuple[int, ...]]]] = {}
    left = 0
    for time, working in walk.steps(level):
        for instance, block in working:
            tile = points(output, block)
            if instance in held:
                before, words = held[instance]
                advanced = next(loop.order for loop, i, j in zip(temporal, before, time, strict=True) if i != j)
                goes = tile != words or (bool(mapping.remainders) and bool(moving) and advanced >= min(moving))
                left += len(words) if goes else 0
            held[instance] = time, tile
    return left + sum(len(words) for _, words in held.values())


@pytest.mark.parametrize("seed", range(4))
def test_drained_words_are_those_of_a_literal_walk(seed: int) -> None:
    rng, checked = random.Random(seed), 0
    while checked < 40:
        perfect = checked % 2 == 0
        spec, problem, mapping = random_case(rng, perfect=perfect, windows=False)
        levels = tuple(reversed(spec.levels))
        kept = [i for i, place in enumerate(levels) if "output" in mapping.keep.get(place.name, ())]
        if len(kept) < 2 or not small(spec, mapping) or (perfect and mapping.remainders):
            continue
        checked += 1
        walked = {levels[i].name: {"output": drained_by_walk(spec, problem, mapping, i)} for i in kept[:-1]}
        assert really_drained_words(spec, problem, mapping) == walked
        if perfect:
            apart = tuple(dataclasses.replace(x, no_link_transfer=frozenset(["output"])) if isinstance(x, Fanout) else x
                          for x in spec.levels)  # fmt: skip
            spec = Spec(apart, spec.compute)
            instances = {level.name: level.instances for level in nest_of(spec, problem, mapping).levels}
            each = drained_words(spec, problem, mapping)
            assert {n: {t: w * instances[n] for t, w in x.items()} for n, x in each.items()} == walked


TENSORS = ("Weights", "Inputs", "Outputs")
PRICES = {"read": 3.0, "write": 5.0, "update": 7.0, "leak": 0.0}
ERT = Ert({"dram": PRICES, "buffer": PRICES, "mac": {"compute": 1.0}})


def two_levels(block: int = 1) -> Spec:
    keep = dict.fromkeys(TENSORS, True)
    dram = Storage("dram", "DRAM", {}, 8, block, None, keep, LoopConstraint())
    buffer = Storage("buffer", "SRAM", {}, 8, block, None, keep, LoopConstraint())
    return Spec((dram, buffer), Compute("mac", "mac", {}))


def row_by_row(rows: int, last: int = 0) -> Mapping:
    """P in blocks of 2 rows; `last` is the remainder of the last block, 0 for none."""
    keep = {name: frozenset(TENSORS) for name in ("dram", "buffer")}
    remainders = {("buffer", "P"): last} if last else {}
    blocks = -(-rows // 2)
    return Mapping({"dram": (("P", blocks),), "buffer": (("P", 2), ("R", 3))}, {}, {}, keep, remainders)


def test_the_change_is_that_of_reads_and_energy() -> None:
    layer = conv_problem({"P": 4, "R": 3, "H": 4, "Hpad": 1})
    spec, mapping = two_levels(), row_by_row(4)
    found = evaluate(spec, layer, mapping, ERT)
    drain = uncounted(spec, layer, mapping, ERT, found, "drain")
    assert {level: list(tensors) for level, tensors in drain.items()} == {"buffer": ["Outputs"]}
    assert (drain["buffer"]["Outputs"].reads, energy_of(drain)) == (4, 4 * 3.0)
    padding = uncounted(spec, layer, mapping, ERT, found, "padding")
    assert {level: list(tensors) for level, tensors in padding.items()} == {"dram": ["Inputs"]}
    assert (padding["dram"]["Inputs"].reads, energy_of(padding)) == (-2, -2 * 3.0)


def test_accesses_of_blocks_are_rounded_up_as_timeloop_does() -> None:
    layer = conv_problem({"P": 4, "R": 3, "H": 4, "Hpad": 1})
    spec, mapping = two_levels(block=3), row_by_row(4)
    found = evaluate(spec, layer, mapping, ERT)
    assert energy_of(uncounted(spec, layer, mapping, ERT, found, "drain")) == 2 * 3.0  # 4 words
    assert energy_of(uncounted(spec, layer, mapping, ERT, found, "padding")) == 0.0  # 4 words of 6 take 2 accesses, too


@pytest.mark.parametrize("block", [1, 3])
def test_with_remainders_the_iterations_that_happen_are_counted(block: int) -> None:
    layer = conv_problem({"P": 5, "R": 3, "H": 5, "Hpad": 1})
    spec, mapping = two_levels(block), row_by_row(5, last=1)
    found = physical(spec, layer, mapping, ERT)
    assert energy_of(uncounted(spec, layer, mapping, ERT, found, "drain")) == pytest.approx(5 / block * 3.0)
    assert energy_of(uncounted(spec, layer, mapping, ERT, found, "padding")) == pytest.approx(-2 / block * 3.0)


def test_nothing_changes_without_padding_or_an_outer_level() -> None:
    layer, spec = conv_problem({"P": 4, "R": 3, "H": 6}), two_levels()
    found = evaluate(spec, layer, row_by_row(4), ERT)
    assert uncounted(spec, layer, row_by_row(4), ERT, found, "padding") == {}
    alone = {"dram": frozenset(TENSORS), "buffer": frozenset(("Weights", "Inputs"))}
    mapping = dataclasses.replace(row_by_row(4), keep=alone)
    found = evaluate(spec, layer, mapping, ERT)
    assert uncounted(spec, layer, mapping, ERT, found, "drain") == {}


@pytest.mark.parametrize(
    ("sizes", "inside"),
    [
        ({"H": 7, "Hpad": 3}, (3, 10)),
        ({"H": 7}, (3, 10)),  # 13 rows are covered, so 3 on either side
        ({"H": 8}, (3, 11)),  # 3 before and 2 after
        ({"Hpad": 3}, (3, 10)),
        ({"H": 13, "Hpad": 0}, None),
        ({"H": 20}, None),
        ({"H": 14, "Hpad": 3, "Hstride": 2}, (3, 17)),  # 19 of 20 rows are covered
    ],
)
def test_the_image_in_the_box(sizes: dict[str, int], inside: Any) -> None:
    layer = conv_problem({"P": 7, "R": 7, **sizes})
    assert image_of(layer, "Inputs") == (None, None, None, inside, None)


def test_coefficients_say_which_axis_is_the_height() -> None:
    document = {
        "shape": {
            "dimensions": ["P", "R", "Q", "S"],
            "coefficients": [{"name": name, "default": 1} for name in ("Wstride", "Wdilation", "Hstride", "Hdilation")],
            "data_spaces": [
                {"name": "Inputs", "projection": [[["R", "Wdilation"], ["P", "Wstride"]],
                                                  [["S", "Hdilation"], ["Q", "Hstride"]]]},
                {"name": "Outputs", "projection": [[["P"]], [["Q"]]], "read_write": True},
            ],
        },
        "instance": {"P": 4, "R": 3, "Q": 6, "S": 5, "H": 6, "Hpad": 2, "W": 4, "Wpad": 1},
    }  # fmt: skip
    assert image_of(problem_from_document(document, "p"), "Inputs") == ((1, 5), (2, 8))


def test_the_image_is_no_part_of_what_makes_layers_equal() -> None:
    one, other = conv_problem({"P": 4, "R": 3, "H": 4}), conv_problem({"P": 4, "R": 3})
    assert one == other and hash(one) == hash(other) and one.canonical() == other.canonical()
    assert dict(one.image) == {"H": 4}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "padding: the layer does not say how large Inputs is along R and P (allowed: H and Hpad in the layer's"),
        ({"H": 4, "Hpad": 0}, "padding: H: 4 with 0 on either side are fewer than the 6 that the windows cover"),
        ({"H": 6, "Hpad": 1}, "padding: H: 6 with 1 on either side are more than the 6 that the windows cover"),
        ({"Hpad": 3}, "padding: Hpad: found 3, which does not give the size of Inputs (allowed: H beside it)"),
        ({"Hpad": 1, "Hstride": 2, "Hdilation": 2}, "which does not give the size of Inputs"),
        ({"H": True}, "padding: H: found True (allowed: a whole number"),
        ({"H": 4, "Hpad": -1}, "padding: Hpad: found -1"),
        ({"H": "four"}, "padding: H: found 'four'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_one_line(sizes: dict[str, Any], message: str) -> None:
    layer = conv_problem({"P": 4, "R": 3, **sizes})  # without padding counted it is read as ever
    with pytest.raises(InputError) as e:
        image_of(layer, "Inputs")
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_window_of_one_row_has_no_padding_unless_it_is_said() -> None:
    assert image_of(conv_problem({"P": 4, "Q": 4}), "Inputs") == (None,) * 5
    assert image_of(conv_problem({"P": 4, "Q": 4, "H": 2, "Hpad": 1}), "Inputs")[3] == (1, 3)
