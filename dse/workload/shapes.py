"""The kinds of layers: what each computes, as a Timeloop shape.

Convolutions of one and two axes, linear layers and products of activations are Timeloop's own convolution with other
bounds. A transposed convolution is the same loop nest with the window on the outputs; convolutions of volumes have two
dimensions more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from dse.core import fields
from dse.core.errors import InputError
from dse.workload.problem import CONV_SHAPE, Problem, problem_from_document

Kind = Literal["conv", "linear", "matmul", "transposed_conv", "conv3d", "transposed_conv3d", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EMBEDDING_DIMENSIONS = ("N", "M")
"""A lookup in a table: N rows of M words each. It moves data and multiplies nothing."""


_HEIGHT_WIDTH = (("P", "R", "H"), ("Q", "S", "W"))
_VOLUME = (("F", "T", "D"), *_HEIGHT_WIDTH)


def _convolution(name: str, triples: tuple[tuple[str, str, str], ...], transposed: bool) -> dict[str, Any]:
    """A grouped convolution; `triples` name for each axis its outputs, its filter and the letter of its coefficients.

    In a transposed one the outputs' names count positions of the input, and the window lies on the outputs.
    """
    window = [[[r, f"{c}dilation"], [p, f"{c}stride"]] for p, r, c in triples]
    points = [[[p]] for p, _, _ in triples]
    reads, writes = (points, window) if transposed else (window, points)
    return {
        "name": name,
        "dimensions": ["N", "G", "C", "M", *(p for p, _, _ in triples), *(r for _, r, _ in triples)],
        "coefficients": [
            {"name": f"{c}{what}", "default": 1} for what in ("stride", "dilation") for _, _, c in triples
        ],
        "data_spaces": [
            {"name": "Weights", "projection": [[["G"]], [["C"]], [["M"]], *([[r]] for _, r, _ in triples)]},
            {"name": "Inputs", "projection": [[["N"]], [["G"]], [["C"]], *reads]},
            {"name": "Outputs", "projection": [[["N"]], [["G"]], [["M"]], *writes], "read_write": True},
        ],
    }


_SHAPES: dict[str, dict[str, Any]] = {
    "conv": CONV_SHAPE,
    "linear": CONV_SHAPE,
    "matmul": CONV_SHAPE,
    "transposed_conv": _convolution("transposed_conv", _HEIGHT_WIDTH, True),
    "conv3d": _convolution("conv3d", _VOLUME, False),
    "transposed_conv3d": _convolution("transposed_conv3d", _VOLUME, True),
}


IMAGE = ("H", "W", "Hpad", "Wpad")
"""Size of the input without padding, and padding on either side; only what is said of padding depends on them."""


def names_of(kind: str) -> tuple[str, ...]:
    """Dimensions and coefficients that an instance of this kind may have, `IMAGE` beside them.

    Example:
        >>> names_of("conv3d")[:10]
        ('N', 'G', 'C', 'M', 'F', 'P', 'Q', 'T', 'R', 'S')
        >>> names_of("embedding")
        ('N', 'M')
    """
    if kind == "embedding":
        return EMBEDDING_DIMENSIONS
    shape = shape_of(kind)
    return (*shape["dimensions"], *(entry["name"] for entry in shape["coefficients"]))


def shape_of(kind: str) -> dict[str, Any]:
    """The Timeloop shape of a kind, the mapping under ``shape`` in a problem file.

    Raises:
        InputError: an embedding, which has no products.

    Example:
        >>> shape_of("transposed_conv")["data_spaces"][2]["projection"][3]
        [['R', 'Hdilation'], ['P', 'Hstride']]
    """
    if kind not in _SHAPES:
        raise InputError(f"a layer of kind {kind}", "has no products to map", list(_SHAPES))
    return _SHAPES[kind]


def problem_of(kind: str, instance: Mapping[str, int], where: object = "problem") -> Problem:
    """The problem of a layer; dimensions and coefficients that the instance does not give are 1.

    Example:
        >>> upsample = problem_of("transposed_conv", {"C": 8, "M": 4, "P": 5, "Q": 5, "R": 2, "S": 2, "Hstride": 2})
        >>> upsample.macs, upsample.bound["P"]  # P counts positions of the input
        (3200, 5)
    """
    shape = shape_of(kind)
    full = dict.fromkeys(shape["dimensions"], 1) | dict(instance)
    return problem_from_document({"shape": shape, "instance": full}, where)


def check_instance(kind: str, instance: Mapping[str, Any], where: object) -> None:
    """Raises an InputError that names the field, if an instance is not one of this kind.

    Example:
        >>> try:
        ...     check_instance("embedding", {"N": 4}, "net.yaml: layers[0]")
        ... except InputError as e:
        ...     print(e)
        net.yaml: layers[0].instance: dimension M has no size
    """
    image = IMAGE if kind == "conv" else ()
    fields.only(instance, (*names_of(kind), *image), f"{where}.instance")
    for name in image:
        if name in instance:
            fields.integer(instance[name], f"{where}.instance.{name}", 0 if name.endswith("pad") else 1)
    if kind != "embedding":
        problem_of(kind, instance, where)
        return
    for name in EMBEDDING_DIMENSIONS:
        if name not in instance:
            raise InputError(f"{where}.instance", f"dimension {name} has no size")
        fields.integer(instance[name], f"{where}.instance.{name}")
