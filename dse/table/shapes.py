"""The shape of a layer as one cell of a table: ``C3 M96 P32 Q32 R3 S3``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from dse.core.errors import InputError
from dse.core.fields import LARGEST, shown

EMBEDDING = "embedding"
"""The kind of a layer that looks words up in a table: it moves words and computes nothing."""

_ENTRY = re.compile(r"([A-Za-z_]+)([0-9]{1,16})")


def shape_text(instance: Mapping[str, int]) -> str:
    """Dimensions and coefficients of a layer as text; those of size 1, which all others have, are left out.

    Example:
        >>> shape_text({"N": 1, "C": 3, "M": 96, "P": 16, "Q": 16, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2})
        'C3 M96 P16 Q16 R3 S3 Hstride2 Wstride2'
        >>> shape_text({"N": 1, "C": 1})  # never empty: an empty cell is a table that has no shapes
        'N1'
    """
    sizes = {name: size for name, size in instance.items() if size != 1} or dict(
        list(instance.items())[:1] or [("N", 1)]
    )
    return " ".join(f"{name}{size}" for name, size in sizes.items())


def read_shape(text: str, where: object = "shape") -> dict[str, int]:
    """The sizes that `shape_text` wrote; what is missing is 1.

    Raises:
        InputError: text of another form, a name that is there twice, or a size of 0.

    Example:
        >>> read_shape("C3 M96 R3 S3")
        {'C': 3, 'M': 96, 'R': 3, 'S': 3}
    """
    sizes: dict[str, int] = {}
    for entry in text.split(" "):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in sizes or not 1 <= int(match[2]) <= LARGEST:
            raise InputError(where, f"found {shown(text)}", "names and sizes, each name once, such as C3 M96 R3 S3")
        sizes[match[1]] = int(match[2])
    return sizes


def weights(kind: str, shape: Mapping[str, int]) -> int:
    """Weights of a layer: its filters. The second operand of a product of activations is none, nor is a table of words.

    Example:
        >>> weights("conv", {"G": 2, "C": 3, "M": 96, "P": 32, "Q": 32, "R": 3, "S": 3})
        5184
        >>> weights("matmul", {"N": 197, "C": 64, "M": 197})
        0
    """
    if kind in ("matmul", EMBEDDING):
        return 0
    return math.prod(shape.get(name, 1) for name in ("G", "C", "M", "T", "R", "S"))


def operations(kind: str | None, shape: Mapping[str, int]) -> int:
    """Operations of a layer of this shape: the product of its dimensions; an embedding has none.

    Coefficients (``Hstride``, ``Wdilation`` ...) have longer names than dimensions, and are no part of the product.

    Example:
        >>> operations("conv", {"C": 3, "M": 96, "P": 32, "Q": 32, "R": 3, "S": 3, "Hstride": 2})
        2654208
        >>> operations("embedding", {"N": 128, "M": 768})
        0
    """
    return 0 if kind == EMBEDDING else math.prod(size for name, size in shape.items() if len(name) == 1)
