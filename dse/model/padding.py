"""Zeros of a convolution's padding, which Timeloop reads from the outermost memory like other words.

A problem has no padding: the input is the box that the windows cover. Where the layer says how large the image is (the
keys H, W, Hpad, Wpad of its instance), the words of the box outside the image are zeros, which hardware does not fetch.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from dse.core import fields
from dse.core.errors import InputError
from dse.hardware.spec import Spec
from dse.model.mapping import Mapping
from dse.model.real_iterations import COMPUTE, real_nest, received
from dse.workload.problem import Axis, Problem


class Fetched(NamedTuple):
    """Words of a tensor that its outermost memory reads over the layer, and how many of them are zeros of padding."""

    words: int
    zeros: int


def fetched_words(spec: Spec, problem: Problem, mapping: Mapping) -> dict[str, dict[str, Fetched]]:
    """What the outermost memories read of tensors with padding, by level and tensor, by the iterations that happen.

    Raises:
        InputError: the layer does not say how large the input is, or says sizes that do not fit its windows.

    Example:
        >>> from dse.hardware.candidates import load_candidates
        >>> from dse.hardware.instance import instance_for, library_for, read_arch
        >>> from dse.mapper import search
        >>> from dse.workload.problem import conv_problem
        >>> arch = read_arch()
        >>> layer = conv_problem({"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3, "H": 8, "W": 8})
        >>> chip = instance_for(arch, load_candidates()[0], layer, library_for(arch))
        >>> found = search(chip.spec, layer, chip.ert, remainders=False)
        >>> fetched_words(chip.spec, layer, found.mapping)  # 10 x 10 words of each channel, of which 8 x 8 are no zeros
        {'dram_ifmap': {'Inputs': Fetched(words=400, zeros=144)}}
    """
    nest = real_nest(spec, problem, mapping)
    levels = tuple(reversed(spec.levels))
    found: dict[str, dict[str, Fetched]] = {}
    for tensor in problem.data_spaces:
        if tensor.read_write:
            continue
        inside = image_of(problem, tensor.name)
        if not any(inside):
            continue
        on = Counter(d for axis in tensor.axes for d, c in axis if c != 0 and problem.bound[d] > 1)
        if twice := [d for d, times in on.items() if times > 1]:
            raise InputError("padding", f"{tensor.name} has {twice[0]} on several axes", "a dimension on one axis")
        kept = [i for i, level in enumerate(levels) if tensor.name in mapping.keep.get(level.name, ())]
        child, outermost = [COMPUTE, *kept][-2:]
        words = received(nest, tensor, child, outermost)
        real = received(nest, tensor, child, outermost, inside)
        found.setdefault(levels[outermost].name, {})[tensor.name] = Fetched(words, words - real)
    return found


def check_padding(problem: Problem) -> None:
    """Refuses a layer whose padding cannot be counted, before it is mapped.

    Raises:
        InputError: as `image_of`.
    """
    for tensor in problem.data_spaces:
        if not tensor.read_write:
            image_of(problem, tensor.name)


def image_of(problem: Problem, tensor: str) -> tuple[tuple[int, int] | None, ...]:
    """For each axis of a tensor the addresses, the end exclusive, that are not padding; None where all are.

    With H and Hpad, Hpad rows of zeros come before the H rows of the image. Without Hpad, both sides have equally many,
    as few as the windows need; without H, both sides have Hpad. W is read like H. A window of one row has no padding
    where nothing is said of it.

    Raises:
        InputError: an axis with a window whose size is not given, or sizes that do not fit its windows.
    """
    space = problem.data_space(tensor)
    letters = problem.letters.get(tensor, ("",) * len(space.axes))
    return tuple(_inside(problem, axis, letter, tensor) for axis, letter in zip(space.axes, letters, strict=True))


def _inside(problem: Problem, axis: Axis, letter: str, tensor: str) -> tuple[int, int] | None:
    terms = [(d, c) for d, c in axis if problem.bound[d] > 1]
    dims = " and ".join(d for d, _ in terms)
    size = _given(problem, letter, least=1)
    pad = _given(problem, f"{letter}pad", least=0)
    if size is None and pad is None:
        if len(terms) < 2:
            return None
        needed = f"{letter} and {letter}pad in the layer's instance" if letter else "coefficients such as Hstride"
        raise InputError("padding", f"the layer does not say how large {tensor} is along {dims}", needed)
    if any(c < 0 for _, c in terms):
        raise InputError("padding", f"{tensor} is read backwards along {dims}", "coefficients of at least 0")
    covered = 1 + sum(c * (problem.bound[d] - 1) for d, c in terms)
    both = size is not None and pad is not None
    if size is None:
        assert pad is not None
        size = covered - 2 * pad
        if size < 1 or min((c for _, c in terms), default=1) > 1:
            raise InputError(
                f"padding: {letter}pad", f"found {pad}, which does not give the size of {tensor}", f"{letter} beside it"
            )
    elif pad is None:
        pad = max(0, -(-(covered - size) // 2))
    if covered > size + 2 * pad:
        problem_text = f"{size} with {pad} on either side are fewer than the {covered} that the windows cover"
        raise InputError(f"padding: {letter}", problem_text, "the size of the image, without padding")
    if both and pad and len(terms) > 1 and size + 2 * pad - covered >= max(c for _, c in terms):
        problem_text = f"{size} with {pad} on either side are more than the {covered} that the windows cover"
        raise InputError(f"padding: {letter}", problem_text, "the size of the image, without padding")
    return None if pad == 0 else (pad, pad + size)


def _given(problem: Problem, name: str, least: int) -> int | None:
    value = problem.image.get(name)
    return None if value is None else fields.integer(value, f"padding: {name}", least)
