"""The inference operators: those of Eq. 3, deep-shift and XNOR.

A new operator needs a class here and an entry in an operators file (`arch_specs/operators.yaml`), which declares its
hardware.
"""

from __future__ import annotations

from dse.core.errors import InputError
from search.layers.operators.base import Inputs, Operator, Surrogates, View, Weights
from search.layers.operators.binary_connect import BinaryConnect
from search.layers.operators.deep_shift import DeepShift
from search.layers.operators.multiplication_free import MultiplicationFree
from search.layers.operators.surrogates import magnitude, sign, view
from search.layers.operators.typical import Typical
from search.layers.operators.xnor import Xnor

__all__ = ["OPERATORS", "Inputs", "Operator", "Surrogates", "View", "Weights", "magnitude", "operator", "sign", "view"]

OPERATORS: dict[str, type[Operator]] = {
    "typical": Typical,
    "multiplication_free": MultiplicationFree,
    "binary_connect": BinaryConnect,
    "deep_shift": DeepShift,
    "xnor": Xnor,
}


def operator(name: str) -> type[Operator]:
    """The class of an operator that an operators file declares.

    Raises:
        InputError: the operator has no class here.
    """
    if name not in OPERATORS:
        raise InputError(f"operator {name!r}", "has no class in search.layers.operators", OPERATORS)
    return OPERATORS[name]
