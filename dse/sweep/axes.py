"""The settings of a sweep, such as ``glb_ifmap.depth=1024:65536:x2``, as axes, and the points that they define."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any

from dse.core.errors import InputError

MAX_POINTS = 10_000
"""A sweep of more points is refused: it is almost always a mistake in a range, and would run for days."""

Number = int | float
Value = Number | str

_VALUES = "numbers a,b,c; a range start:stop:xFACTOR (geometric) or start:stop:+STEP (arithmetic)"
_OR_TEXT = f"{_VALUES}; words such as LPDDR4,HBM2 or 45nm,32nm"
_WORD = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_]([A-Za-z0-9_.+-]*[A-Za-z0-9_])?")
_DIGITS = 30  # largest decimal exponent of a number, so that computed values stay finite
_HIT = Decimal("1e-12")  # relative tolerance by which a geometric range includes its stop, as powers are rounded


@dataclass(frozen=True)
class Axis:
    """Paths that vary together: `steps[i][j]` is the value of `paths[j]` at step i."""

    paths: tuple[str, ...]
    steps: tuple[tuple[Value, ...], ...]

    @property
    def name(self) -> str:
        """The name in figures and messages."""
        return ",".join(self.paths)


@dataclass(frozen=True)
class Point:
    """One architecture of a sweep; `steps[k]` is its step on axis k. Numbered from 1, the last axis varying fastest."""

    number: int
    steps: tuple[int, ...]
    settings: Mapping[str, Value]  # path -> value, in the order of the axes

    @property
    def label(self) -> str:
        return " ".join(f"{path}={format_number(value)}" for path, value in self.settings.items())


def format_number(value: Value) -> str:
    """A value as text: a number without needless digits, a word as it is."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_set(text: str, where: str = "--set") -> Axis:
    """The axis of ``PATHS=VALUES``; paths joined by commas take the same value.

    Values are numbers, ranges or words: ``glb.depth=1024:65536:x2``, ``dram.type=LPDDR4,HBM2``.

    Raises:
        InputError: the text has another form, a range is invalid, or a value is given twice.
    """
    paths, equals, values = text.partition("=")
    if not equals:
        raise InputError(where, f"found {text!r}", "PATH=VALUES, such as glb_ifmap.depth=1024:65536:x2")
    return parse_axis(paths, values, where)


def parse_axis(paths: str, values: Any, where: str) -> Axis:
    """An axis from its paths, joined by commas, and its values: text as in ``--set``, a number, or a list."""
    names = _paths(paths, where)
    return Axis(
        names, tuple((value,) * len(names) for value in parse_values(values, f"{where} {paths.strip()}", words=True))
    )


def parse_zip(group: Any, where: str) -> Axis:
    """An axis of settings that vary together, each with its own list of values; all lists have the same length.

    Args:
        group: paths (joined by commas if they take the same value) -> values in the form of `parse_axis`.
    """
    if not isinstance(group, dict) or not group:
        raise InputError(where, f"found {group!r}", "a mapping of PATH: VALUES")
    columns: dict[str, tuple[Value, ...]] = {}
    for key, values in group.items():
        parsed = parse_values(values, f"{where}: {key}", repeats=True, words=True)
        for path in _paths(str(key), where):
            if path in columns:
                raise InputError(where, f"{path} is given twice", "each path once")
            columns[path] = parsed
    lengths = {path: len(values) for path, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} has {n}" for path, n in lengths.items())
        raise InputError(where, f"different numbers of values: {listed}", "as many values for each path")
    steps = tuple(zip(*columns.values(), strict=True))
    if len(set(steps)) < len(steps):
        raise InputError(where, "two steps are the same", "each combination once")
    return Axis(tuple(columns), steps)


def parse_values(values: Any, where: str, *, repeats: bool = False, words: bool = False) -> tuple[Value, ...]:
    """Numbers from ``a,b,c``, a range, a number or a list of these.

    Args:
        repeats: allows a value twice.
        words: allows words, too: letters and digits, as in ``LPDDR4`` or ``45nm``.

    A range includes its stop if a step reaches it. If both ends are integers, values of a geometric range are rounded
    to integers: 100:1000:x1.5 is 100, 150, 225, 338, 506, 759.
    """
    items: list[Any] = [None]
    if _is_scalar(values):
        items = str(values).split(",")
    elif isinstance(values, Iterable) and not isinstance(values, Mapping):
        items = list(values)
    if not all(map(_is_scalar, items)):
        raise InputError(where, f"found {values!r}", _OR_TEXT if words else _VALUES)
    found = [value for item in items for value in _expand(str(item).strip(), where, words)]
    if not found:
        raise InputError(where, "has no values", _OR_TEXT if words else _VALUES)
    twice = [value for value, times in Counter(found).items() if times > 1]
    if twice and not repeats:
        raise InputError(where, f"{format_number(twice[0])} is given twice", "each value once")
    return tuple(found)


def combine(*groups: Sequence[Axis]) -> tuple[Axis, ...]:
    """All axes; an axis of a later group replaces one with the same paths in an earlier group.

    Raises:
        InputError: two axes have a path in common.
    """
    axes: dict[frozenset[str], Axis] = {}
    for group in groups:
        names = [frozenset(axis.paths) for axis in group]
        if len(set(names)) < len(names):
            repeated = next(axis.name for axis, name in zip(group, names, strict=True) if names.count(name) > 1)
            raise InputError("sweep", f"{repeated} is set twice", "each path once")
        axes |= dict(zip(names, group, strict=True))
    seen: dict[str, str] = {}
    for axis in axes.values():
        for path in axis.paths:
            if path in seen:
                raise InputError(
                    "sweep", f"{path} is set by {seen[path]} and by {axis.name}", hint="name all its paths once"
                )
            seen[path] = axis.name
    return tuple(axes.values())


def points_of(axes: Sequence[Axis]) -> tuple[Point, ...]:
    """Every combination of the axes' steps.

    Raises:
        InputError: there is no axis, or there are more than `MAX_POINTS` points.
    """
    if not axes:
        raise InputError("sweep", "nothing varies", "at least one --set PATH=VALUES")
    count = math.prod(len(axis.steps) for axis in axes)
    if count > MAX_POINTS:
        sizes = " x ".join(str(len(axis.steps)) for axis in axes)
        raise InputError("sweep", f"{sizes} = {count:,} points", f"at most {MAX_POINTS:,}")
    return tuple(
        Point(number, steps, _settings(axes, steps))
        for number, steps in enumerate(itertools.product(*(range(len(axis.steps)) for axis in axes)), 1)
    )


def _settings(axes: Sequence[Axis], steps: Iterable[int]) -> dict[str, Value]:
    return {
        path: value
        for axis, step in zip(axes, steps, strict=True)
        for path, value in zip(axis.paths, axis.steps[step], strict=True)
    }


def _paths(text: str, where: str) -> tuple[str, ...]:
    paths = tuple(path.strip() for path in text.split(","))
    for path in paths:
        node, dot, name = path.partition(".")
        if not (node and dot and name) or "." in name:
            raise InputError(where, f"found {path!r}", "NODE.ATTRIBUTE, NODE.meshX, NODE.meshY or variables.NAME")
        if paths.count(path) > 1:
            raise InputError(where, f"{path} is given twice", "each path once")
    return paths


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, Real)) and not isinstance(value, bool)


def _expand(text: str, where: str, words: bool) -> Sequence[Value]:
    """The numbers of one item of a list, or its word."""
    if words and _WORD.fullmatch(text) and not _is_number(text):
        return [text]
    if ":" not in text:
        return [_number(_decimal(text, where, _OR_TEXT if words else _VALUES))]
    start, _, rest = text.partition(":")
    stop, _, step = rest.partition(":")
    low, high = _decimal(start.strip(), where), _decimal(stop.strip(), where)
    kind, by = step.strip()[:1], step.strip()[1:]
    if kind not in ("x", "+") or ":" in by:
        raise InputError(where, f"found {text!r}", _VALUES)
    by_value = _decimal(by.strip(), where)
    if low > high:
        raise InputError(where, f"range {text} starts above its stop", "start <= stop")
    values = (
        _geometric(low, high, by_value, text, where) if kind == "x" else _arithmetic(low, high, by_value, text, where)
    )
    if kind == "x" and low == low.to_integral_value() and high == high.to_integral_value():
        values = [min(value.to_integral_value(), high) for value in values]
    return list(dict.fromkeys(map(_number, values)))


def _geometric(low: Decimal, high: Decimal, factor: Decimal, text: str, where: str) -> list[Decimal]:
    if factor <= 1:
        raise InputError(where, f"range {text} has factor {factor}", "a factor above 1")
    if low <= 0:
        raise InputError(where, f"range {text} starts at {low}", "a start above 0")
    values = [low]
    while (value := values[-1] * factor) <= high * (1 + _HIT):
        values.append(value)
        _check_length(len(values), text, where)
    return values


def _arithmetic(low: Decimal, high: Decimal, step: Decimal, text: str, where: str) -> list[Decimal]:
    if step <= 0:
        raise InputError(where, f"range {text} has step {step}", "a step above 0")
    last = (high - low) / step
    _check_length(last, text, where)
    return [low + i * step for i in range(int(last) + 1)]


def _check_length(length: Decimal | int, text: str, where: str) -> None:
    if length >= MAX_POINTS:
        raise InputError(where, f"range {text} has more than {MAX_POINTS:,} values", f"at most {MAX_POINTS:,}")


def _is_number(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True


def _decimal(text: str, where: str, allowed: str = _VALUES) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InputError(where, f"found {text!r}", allowed) from None
    if not value.is_finite() or (value and not -_DIGITS <= value.adjusted() < _DIGITS) or len(text) > 2 * _DIGITS:
        raise InputError(where, f"found {text!r}", f"a finite number, from 1e-{_DIGITS} to 1e{_DIGITS} in magnitude")
    return value


def _number(value: Decimal) -> Number:
    return int(value) if value == value.to_integral_value() else float(value)
