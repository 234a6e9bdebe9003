"""Timeloop problems: an n-dimensional loop nest and how its tensors are addressed from the loop indices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dse.errors import InputError

CONV_DIMENSIONS = ("N", "G", "C", "M", "P", "Q", "R", "S")
CONV_COEFFICIENTS = ("Hstride", "Wstride", "Hdilation", "Wdilation")

Axis = tuple[tuple[str, int], ...]  # sum of (dimension, coefficient) products


@dataclass(frozen=True)
class DataSpace:
    """A tensor of a problem: every axis is a sum of dimensions times coefficients."""

    name: str
    axes: tuple[Axis, ...]
    read_write: bool = False


@dataclass(frozen=True)
class Problem:
    """One layer as Timeloop sees it.

    `bounds[i]` is the size of `dimensions[i]`; coefficients are already substituted into the tensors' axes.
    """

    dimensions: tuple[str, ...]
    bounds: tuple[int, ...]
    data_spaces: tuple[DataSpace, ...]

    @cached_property
    def macs(self) -> int:
        """Operations of the layer, N_OP of Eq. 2: the product of all bounds."""
        return math.prod(self.bounds)

    @cached_property
    def bound(self) -> dict[str, int]:
        return dict(zip(self.dimensions, self.bounds, strict=True))

    def data_space(self, name: str) -> DataSpace:
        return next(d for d in self.data_spaces if d.name == name)

    def tensor_size(self, name: str) -> int:
        """Words of a tensor's bounding box (with stride > 1 it includes the points that are skipped)."""
        return math.prod(1 + sum(abs(c) * (self.bound[d] - 1) for d, c in axis) for axis in self.data_space(name).axes)

    def canonical(self) -> dict[str, Any]:
        """Everything that decides a mapping's cost, as JSON data; the layer's name is no part of it."""
        return {
            "dimensions": list(self.dimensions),
            "bounds": list(self.bounds),
            "data_spaces": [[d.name, [list(map(list, a)) for a in d.axes], d.read_write] for d in self.data_spaces],
        }


def _conv_shape() -> dict[str, Any]:
    return {
        "name": "conv",
        "dimensions": list(CONV_DIMENSIONS),
        "coefficients": [{"name": name, "default": 1} for name in CONV_COEFFICIENTS],
        "data_spaces": [
            {"name": "Weights", "projection": [[["G"]], [["C"]], [["M"]], [["R"]], [["S"]]]},
            {
                "name": "Inputs",
                "projection": [
                    [["N"]], [["G"]], [["C"]],
                    [["R", "Hdilation"], ["P", "Hstride"]],
                    [["S", "Wdilation"], ["Q", "Wstride"]],
                ],
            },
            {"name": "Outputs", "projection": [[["N"]], [["G"]], [["M"]], [["P"]], [["Q"]]], "read_write": True},
        ],
    }  # fmt: skip


CONV_SHAPE = _conv_shape()
"""Timeloop shape of a grouped, strided, dilated convolution: per group C input and M output channels."""


def conv_problem(instance: Mapping[str, int], where: object = "problem") -> Problem:
    """A convolution from its dimensions (N G C M P Q R S, default 1) and coefficients (Hstride ..., default 1)."""
    full = dict.fromkeys(CONV_DIMENSIONS, 1) | dict(instance)
    return problem_from_document({"shape": CONV_SHAPE, "instance": full}, where)


def problem_document(instance: Mapping[str, int]) -> dict[str, Any]:
    """The Timeloop v4 file of a convolution: what `timeloop-model` and `enos model` read."""
    return {"problem": {"version": 0.4, "shape": CONV_SHAPE, "instance": dict(instance)}}


def problem_from_document(document: Any, where: object) -> Problem:
    """Reads a Timeloop `problem` (the mapping under that key).

    Raises:
        InputError: a missing or unknown field, a dimension without a size, an instance key that is neither
            dimension nor coefficient (Timeloop would silently ignore it and cost another layer).
    """
    shape, instance = (_field(document, key, where, dict) for key in ("shape", "instance"))
    _only(document, {"version", "shape", "instance"}, where)
    _only(shape, {"version", "name", "dimensions", "coefficients", "data_spaces"}, f"{where}.shape")
    dimensions = tuple(_field(shape, "dimensions", f"{where}.shape", list))
    declared = shape.get("coefficients") or []
    try:
        coefficients = {c["name"]: c.get("default", 1) for c in declared}
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{where}.shape.coefficients", f"found {declared!r}", "[{name, default}, ...]") from None
    for key, size in instance.items():
        if key not in dimensions and key not in coefficients:
            raise InputError(f"{where}.instance", f"unknown key {key!r}", [*dimensions, *coefficients])
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"{where}.instance.{key}", f"found {size!r}", "a whole number, at least 1")
    for d in dimensions:
        if d not in instance:
            raise InputError(f"{where}.instance", f"dimension {d} has no size")
    values = coefficients | {k: v for k, v in instance.items() if k in coefficients}
    spaces = _field(shape, "data_spaces", f"{where}.shape", list)
    return Problem(
        dimensions=dimensions,
        bounds=tuple(instance[d] for d in dimensions),
        data_spaces=tuple(
            _data_space(s, dimensions, values, f"{where}.shape.data_spaces[{i}]") for i, s in enumerate(spaces)
        ),
    )


def _data_space(entry: Any, dimensions: tuple[str, ...], values: Mapping[str, int], where: str) -> DataSpace:
    projection = _field(entry, "projection", where, list)
    _only(entry, {"name", "projection", "read_write", "read-write"}, where)
    axes = []
    for i, terms in enumerate(projection):
        axis: list[tuple[str, int]] = []
        for term in terms if isinstance(terms, list) else [terms]:
            names = term if isinstance(term, list) else [term]
            if not 1 <= len(names) <= 2 or names[0] not in dimensions:
                raise InputError(f"{where}.projection[{i}]", f"found {term!r}", f"[dimension] or [dimension, "
                                 f"coefficient] with a dimension of {', '.join(dimensions)}")  # fmt: skip
            if len(names) == 2 and names[1] not in values:
                raise InputError(f"{where}.projection[{i}]", f"unknown coefficient {names[1]!r}", values)
            axis.append((names[0], values[names[1]] if len(names) == 2 else 1))
        axes.append(tuple(axis))
    read_write = entry.get("read_write", entry.get("read-write", False))
    return DataSpace(str(_field(entry, "name", where, str)), tuple(axes), bool(read_write))


def _field(document: Any, key: str, where: object, kind: type) -> Any:
    if not isinstance(document, dict) or key not in document:
        raise InputError(where, f"field {key!r} is missing")
    if not isinstance(document[key], kind):
        raise InputError(f"{where}.{key}", f"found {document[key]!r}", f"a {kind.__name__}")
    return document[key]


def _only(document: dict[str, Any], allowed: set[str], where: object) -> None:
    for key in document:
        if key not in allowed:
            raise InputError(where, f"unknown field {key!r}", sorted(allowed))
