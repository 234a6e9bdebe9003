"""Attribute expressions of specifications: arithmetic over named variables, and nothing else."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from dse.errors import InputError

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "float": float,
    "log2": math.log2,
    "log": math.log,
    "sqrt": math.sqrt,
    "pow": pow,
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


class _UnknownNameError(Exception):
    pass


def evaluate(value: Any, variables: Mapping[str, Any], where: object) -> Any:
    """The value of an attribute: numbers and lists as they are, strings as expressions over `variables`.

    A string that is not an expression (``45nm``, ``LPDDR4``) or that is only a name no variable has stays text, as
    in Accelergy. An expression that mixes known and unknown names is an error: guessing would give wrong energies.

    Raises:
        InputError: unknown name inside a longer expression, or arithmetic that fails.
    """
    if isinstance(value, list):
        return [evaluate(v, variables, where) for v in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _NUMBER.match(text):
        number = float(text)
        return int(number) if number.is_integer() and not re.search(r"[.eE]", text) else number
    if text in variables:
        found = variables[text]
        return evaluate(found, {k: v for k, v in variables.items() if k != text}, where)
    tree = _arithmetic(text)
    if tree is None:
        return value
    try:
        return _compute(tree, variables, where)
    except _UnknownNameError as e:
        raise InputError(
            where, f"unknown name {e} in expression {text!r}", sorted(variables) or "no variables"
        ) from None
    except (ArithmeticError, TypeError, ValueError, RecursionError) as e:
        raise InputError(where, f"expression {text!r} cannot be computed: {e}") from None


def is_expression(text: str, names: Container[str]) -> bool:
    """Whether `evaluate` computes a string, given variables with these names, and does not keep it as text."""
    text = text.strip()
    return bool(_NUMBER.match(text)) or text in names or _arithmetic(text) is not None


def _arithmetic(text: str) -> ast.expr | None:
    """The syntax tree of an arithmetic expression; None for other text and for a lone name or constant."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return None if isinstance(tree, (ast.Name, ast.Constant)) or not _is_arithmetic(tree) else tree


def _is_arithmetic(tree: ast.expr) -> bool:
    allowed = (
        ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.BoolOp, ast.Call, ast.Name, ast.Constant,
        ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context,
    )  # fmt: skip
    return all(isinstance(node, allowed) for node in ast.walk(tree))


def _compute(tree: ast.expr, variables: Mapping[str, Any], where: object) -> Any:
    def go(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=v):
                return v
            case ast.Name(id=name):
                if name not in variables:
                    raise _UnknownNameError(name)
                return evaluate(variables[name], {k: v for k, v in variables.items() if k != name}, where)
            case ast.BinOp(left=a, op=op, right=b) if type(op) in _BINARY:
                left, right = go(a), go(b)
                if isinstance(op, ast.Pow) and abs(right) > 1024:
                    raise ValueError("exponent above 1024")
                return _BINARY[type(op)](left, right)
            case ast.UnaryOp(op=op, operand=a) if type(op) in _UNARY:
                return _UNARY[type(op)](go(a))
            case ast.Compare(left=a, ops=[op], comparators=[b]) if type(op) in _COMPARE:
                return _COMPARE[type(op)](go(a), go(b))
            case ast.IfExp(test=t, body=a, orelse=b):
                return go(a) if go(t) else go(b)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(go(v) for v in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(go(v) for v in values)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*(go(a) for a in args))
            case ast.Call(func=ast.Name(id=name)):
                raise _UnknownNameError(name)
        raise ValueError("not arithmetic")

    return go(tree)
