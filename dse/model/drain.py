"""Reads of outputs that leave a memory outwards, which Timeloop does not count (docs/conventions.md).

A partial or finished sum that moves to the next level out is an update there. Its source was read for it, too.
"""

from __future__ import annotations

import math

from dse.hardware.spec import Spec
from dse.model.access_counts import kept_tiles
from dse.model.loop_nest import nest_of
from dse.model.mapping import Mapping
from dse.model.real_iterations import real_nest, received
from dse.workload.problem import Problem


def drained_words(spec: Spec, problem: Problem, mapping: Mapping) -> dict[str, dict[str, int]]:
    """Words that the average instance of each level hands to the next one out, by level and output tensor.

    They are those that Timeloop counts as fills, the words of the first visits included, which it takes off again. The
    outermost level that keeps a tensor hands nothing on. What neighbours pass on is not part of it: Timeloop reads it.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.mapper import search
        >>> from dse.workload.problem import conv_problem
        >>> arch, layer = read_arch(), conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = search(chip.spec, layer, chip.ert, remainders=False)
        >>> drained_words(chip.spec, layer, found.mapping)["glb_psum"]  # each of 8 x 8 x 8 outputs leaves it once
        {'Outputs': 512}
    """
    nest = nest_of(spec, problem, mapping)
    words: dict[str, dict[str, int]] = {}
    for tensor in problem.data_spaces:
        if tensor.read_write:
            for level, tile, outermost in kept_tiles(nest, tensor, mapping):
                if not outermost:
                    words.setdefault(level.name, {})[tensor.name] = math.floor(tile.fill_share + 0.5)
    return words


def really_drained_words(spec: Spec, problem: Problem, mapping: Mapping) -> dict[str, dict[str, int]]:
    """The same by the iterations that happen (docs/model.md, Physical count), of all instances of a level together."""
    nest = real_nest(spec, problem, mapping)
    levels = tuple(reversed(spec.levels))
    words: dict[str, dict[str, int]] = {}
    for tensor in problem.data_spaces:
        kept = [i for i, level in enumerate(levels) if tensor.name in mapping.keep.get(level.name, ())]
        for level in kept[:-1] if tensor.read_write else []:
            words.setdefault(levels[level].name, {})[tensor.name] = received(nest, tensor, level)
    return words
