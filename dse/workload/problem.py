"""Timeloop problems: an n-dimensional loop nest, and the addresses of its tensors as functions of the loop indices."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dse.core import fields
from dse.core.errors import InputError
from dse.core.expressions import evaluate

_log = logging.getLogger(__name__)

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
    """One layer as a Timeloop problem.

    `bounds[i]` is the size of `dimensions[i]`; the values of coefficients are already in the tensors' axes.

    `image` has the size of the input and its padding (H, W, Hpad, Wpad) as the file gives them, and `letters` for each
    tensor the letter of each axis in these names, empty where there is none. No count depends on them but that of the
    padding (`dse.model.padding`), so problems that differ in nothing else are equal.

    `signed` says whether the inputs can be negative: hardware may be configured for it, but what a mapping costs on
    given hardware does not depend on it, so it is no part of equality either.
    """

    dimensions: tuple[str, ...]
    bounds: tuple[int, ...]
    data_spaces: tuple[DataSpace, ...]
    image: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    letters: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    signed: bool = field(default=True, compare=False, repr=False)

    @cached_property
    def macs(self) -> int:
        """Operations of the layer, N_OP of Eq. 2: the product of all bounds."""
        return math.prod(self.bounds)

    @cached_property
    def reduction(self) -> int:
        """Products that are added into one output: the product of the bounds that no output depends on.

        Example:
            >>> conv_problem({"C": 3, "M": 96, "P": 32, "Q": 32, "R": 3, "S": 3}).reduction
            27
        """
        kept = {name for space in self.data_spaces if space.read_write for axis in space.axes for name, _ in axis}
        return math.prod(size for name, size in self.bound.items() if name not in kept)

    @cached_property
    def bound(self) -> dict[str, int]:
        return dict(zip(self.dimensions, self.bounds, strict=True))

    def data_space(self, name: str) -> DataSpace:
        return next(d for d in self.data_spaces if d.name == name)

    def tensor_size(self, name: str) -> int:
        """Words in a tensor's bounding box (with a stride above 1 it includes points that are never read)."""
        return math.prod(1 + sum(abs(c) * (self.bound[d] - 1) for d, c in axis) for axis in self.data_space(name).axes)

    def canonical(self) -> dict[str, Any]:
        """Everything that determines a mapping's cost, as JSON data, so without the layer's name."""
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
"""Timeloop shape of a grouped, strided, dilated convolution with C input and M output channels per group."""


def conv_problem(instance: Mapping[str, int], where: object = "problem") -> Problem:
    """A convolution from its dimensions (N G C M P Q R S, default 1) and coefficients (Hstride ..., default 1).

    Example:
        >>> problem = conv_problem({"C": 3, "M": 96, "P": 32, "Q": 32, "R": 3, "S": 3})
        >>> problem.macs, problem.tensor_size("Inputs")  # 3 channels of 34 x 34 pixels
        (2654208, 3468)
    """
    full = dict.fromkeys(CONV_DIMENSIONS, 1) | dict(instance)
    return problem_from_document({"shape": CONV_SHAPE, "instance": full}, where)


def problem_document(instance: Mapping[str, int]) -> dict[str, Any]:
    """The Timeloop v4 file of a convolution: what `timeloop-model` and `enos model` read.

    Example:
        >>> problem_document({"C": 16, "M": 32})["problem"]["instance"]
        {'C': 16, 'M': 32}
    """
    return {"problem": {"version": 0.4, "shape": CONV_SHAPE, "instance": dict(instance)}}


_PROBLEM_FIELDS = ("version", "name", "dnn_name", "notes", "histograms", "shape", "instance")
_SHAPE_FIELDS = ("version", "name", "dimensions", "coefficients", "data_spaces")
_SPACE_FIELDS = ("name", "projection", "read_write", "read-write")


def problem_from_document(
    document: Any, where: object, variables: Mapping[str, Any] | None = None, dense: bool = False
) -> Problem:
    """Reads a Timeloop `problem` (the mapping under that key).

    A coefficient that is written in another case (``HStride``) is read as it is meant, with a warning: Timeloop
    ignores it without a word, and maps the layer with the coefficient's default.

    Args:
        variables: of the specification; sizes may be expressions over them.
        dense: whether densities are left out, instead of being refused where they are below 1.

    Raises:
        InputError: a field is missing or unknown, a dimension has no size, or a key of the instance is neither
            dimension nor coefficient (Timeloop would silently ignore it and map another layer).

    Example:
        >>> shape = {
        ...     "dimensions": ["M", "N", "K"],
        ...     "data_spaces": [
        ...         {"name": "A", "projection": ["M", "K"]},
        ...         {"name": "B", "projection": ["K", "N"]},
        ...         {"name": "C", "projection": ["M", "N"], "read_write": True},
        ...     ],
        ... }
        >>> problem_from_document({"shape": shape, "instance": {"M": 4, "N": 8, "K": 16}}, "matmul.yaml").macs
        512
    """
    document = {key: value for key, value in fields.mapping(document, where).items() if "ignore" not in key}
    fields.mapping(document, where, _PROBLEM_FIELDS, required=("shape", "instance"))
    shape = fields.mapping(document["shape"], f"{where}.shape", _SHAPE_FIELDS, required=("dimensions", "data_spaces"))
    dimensions = _unique(fields.sequence(shape["dimensions"], f"{where}.shape.dimensions", fields.name),
                         f"{where}.shape.dimensions", "dimension")  # fmt: skip
    declared = fields.optional_sequence(shape.get("coefficients"), f"{where}.shape.coefficients", _coefficient)
    names = _unique([*dimensions, *(name for name, _ in declared)], f"{where}.shape.coefficients", "name")
    instance = dict(fields.mapping(document["instance"], f"{where}.instance"))
    _check_densities(instance.pop("densities", None), f"{where}.instance.densities", dense)
    implied = {name: instance.pop(name) for name in _IMPLIED if name not in names and name in instance}
    for key in [key for key in instance if key not in names]:
        # A base file that is merged may give the coefficient its default, in the right spelling.
        meant = next((n for n, value in declared if n.lower() == key.lower() and instance.get(n, value) == value), None)
        if meant is not None:
            text = "%s.instance.%s is read as %s; Timeloop ignores this spelling and takes the default"
            _log.warning(text, where, key, meant)
            instance[meant] = instance.pop(key)
    fields.only(instance, names, f"{where}.instance", "key")
    sizes = {key: _size(size, variables, f"{where}.instance.{key}") for key, size in instance.items()}
    for d in dimensions:
        if d not in sizes:
            raise InputError(f"{where}.instance", f"dimension {d} has no size")
    values = {name: sizes.get(name, default) for name, default in declared}

    def space(entry: Any, at: str) -> DataSpace:
        return _data_space(entry, dimensions, values, at)

    spaces = fields.sequence(shape["data_spaces"], f"{where}.shape.data_spaces", space)
    _unique([s.name for s in spaces], f"{where}.shape.data_spaces", "tensor")
    image = {name: value for name, value in implied.items() if name != "name" and value is not None}
    letters = {
        found.name: tuple(_letter(terms) for terms in entry["projection"])
        for entry, found in zip(shape["data_spaces"], spaces, strict=True)
    }
    return Problem(dimensions, tuple(sizes[d] for d in dimensions), tuple(spaces), image, letters)


def _letter(terms: Any) -> str:
    """H or W: which size of the input an axis with a window has, by its coefficients, else by its dimensions."""
    if len(_listed(terms)) < 2:
        return ""
    pairs = [(*term, "")[:2] if isinstance(term, list) else (term, "") for term in _listed(terms)]
    by_coefficient = {c[0] for _, c in pairs if c.lower().endswith(("stride", "dilation"))}
    by_dimension = {_OF_DIMENSION.get(d, "") for d, _ in pairs}
    found = (by_coefficient or by_dimension) - {""}
    return found.pop() if len(found) == 1 else ""


def _listed(terms: Any) -> list[Any]:
    return terms if isinstance(terms, list) else [terms]


_OF_DIMENSION = {"P": "H", "R": "H", "Q": "W", "S": "W"}

_IMPLIED = ("name", "H", "W", "Hpad", "Wpad")
"""Keys of an instance that no address depends on: a name, the input's size and padding. Timeloop ignores them."""


def _size(value: Any, variables: Mapping[str, Any] | None, where: str) -> int:
    if isinstance(value, str):
        value = evaluate(value, variables or {}, where)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
    return fields.integer(value, where)


def _check_densities(found: Any, where: str, dense: bool) -> None:
    """Refuses densities below 1; with `dense` they are left out, with a warning."""

    def density(value: Any) -> Any:
        return value.get("density") if isinstance(value, dict) else value

    sparse = [
        str(tensor)
        for tensor, value in (found.items() if isinstance(found, dict) else [("all", found)])
        if density(value) not in (None, 1)
    ]
    if sparse and not dense:
        raise InputError(f"{where}.{sparse[0]}", "is below 1: sparse tensors are not modelled",
                         hint="read the layer as dense with --dense")  # fmt: skip
    if sparse:
        _log.warning("%s: read as dense, without the densities of %s", where, ", ".join(sparse))


def _coefficient(entry: Any, where: str) -> tuple[str, int]:
    fields.mapping(entry, where, ("name", "default"), required=("name",))
    default = fields.integer(entry.get("default", 1), f"{where}.default")
    return fields.name(entry["name"], f"{where}.name"), default


def _unique(names: list[str], where: str, kind: str) -> tuple[str, ...]:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(where, f"a second {kind} is named {name!r}", "unique names")
    return tuple(names)


def _data_space(entry: Any, dimensions: tuple[str, ...], values: Mapping[str, int], where: str) -> DataSpace:
    fields.mapping(entry, where, _SPACE_FIELDS, required=("name", "projection"))

    def axis(terms: Any, at: str) -> Axis:
        coefficients: dict[str, int] = {}
        for term in _listed(terms):
            dimension, coefficient = _term(term, dimensions, values, at)
            coefficients[dimension] = coefficients.get(dimension, 0) + coefficient
        return tuple(coefficients.items())

    axes = fields.sequence(entry["projection"], f"{where}.projection", axis)
    flags = [fields.boolean(entry[key], f"{where}.{key}") for key in ("read_write", "read-write") if key in entry]
    if len(flags) == 2:
        raise InputError(where, "read_write is given twice", "read_write")
    return DataSpace(fields.name(entry["name"], f"{where}.name"), tuple(axes), any(flags))


def _term(term: Any, dimensions: tuple[str, ...], values: Mapping[str, int], where: str) -> tuple[str, int]:
    """Dimension and coefficient of ``[dimension]``, ``[dimension, coefficient]`` or the name of a dimension."""
    names = term if isinstance(term, list) else [term]
    if not 1 <= len(names) <= 2 or not all(isinstance(n, str) for n in names) or names[0] not in dimensions:
        allowed = f"[dimension] or [dimension, coefficient] with a dimension of {', '.join(dimensions)}"
        raise InputError(where, f"found {fields.shown(term)}", allowed)
    if len(names) == 2:
        fields.only(names[1:], values, where, "coefficient")
    return names[0], values[names[1]] if len(names) == 2 else 1
