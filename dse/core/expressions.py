"""Attribute expressions of specifications: arithmetic over named variables, and nothing else.

Every expression ends soon: its text, its depth, the steps it takes with those of the variables it names, and each
number on the way have a limit.
"""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import math
import operator
import re
import warnings
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import Any

from dse.core.errors import InputError

MAX_TEXT = 2000
"""Characters of an expression; a longer text is kept as text."""

MAX_STEPS = 20_000
"""Operations of an expression, with those of the variables that it names, each time it names them."""

MOST = 10**30
"""The largest number on the way, in magnitude."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: _power(base, exponent),
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
    "round": lambda value, digits=0: _round(value, digits),
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "float": float,
    "log2": math.log2,
    "log": math.log,
    "sqrt": math.sqrt,
    "pow": lambda base, exponent: _power(base, exponent),
    "exp": math.exp,
    "log10": math.log10,
    "fabs": math.fabs,
    "trunc": math.trunc,
    "gcd": math.gcd,
    "isqrt": math.isqrt,
    "bool": bool,
    "str": str,
    "len": len,
    "sum": sum,
    "prod": math.prod,
}
"""Functions of expressions, a part of those that Accelergy offers."""

CONSTANTS = {"pi": math.pi, "e": math.e, "INF": math.inf, "inf": math.inf}
"""Names with a value where no variable has the name; ``INF`` is a size without a limit."""

MAX_LIST = 10_000
"""Items of a list, and characters of a text, that an expression makes."""


class View:
    """What an expression sees of an object: named fields, and methods.

    Args:
        fields: name -> a value, an expression, or another view.
        methods: name -> a function of evaluated arguments.
    """

    def __init__(
        self, fields: Mapping[str, Any] | None = None, methods: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.fields, self.methods = dict(fields or {}), dict(methods or {})


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


class _UnknownNameError(Exception):
    pass


def evaluate(value: Any, variables: Mapping[str, Any], where: object) -> Any:
    """The value of an attribute: numbers and lists as they are, strings as expressions over `variables`.

    A string that is not an expression (``45nm``, ``LPDDR4``) or that is only a name no variable has stays text, as
    in Accelergy. An expression that mixes known and unknown names is an error: guessing would give wrong energies.

    Raises:
        InputError: unknown name inside a longer expression, arithmetic that fails or exceeds a limit.
    """
    return _evaluate(value, variables, where, itertools.count())


def specialised(value: Any, variables: Mapping[str, Any], free: Collection[str], where: object) -> Any:
    """An expression in which all names but the free ones have been replaced by their values; a value if none is left.

    Args:
        free: names that get their values later.

    Raises:
        InputError: as `evaluate`.

    Example:
        >>> specialised("width + ceil(log2(n))", {"width": "2 * bits", "bits": 8}, {"n"}, "here")
        '16 + ceil(log2(n))'
    """
    if not isinstance(value, str) or not _names(value, variables) & set(free):
        return evaluate(value, {**dict.fromkeys(free), **variables}, where)  # errors name the free ones, too
    tree = _parsed(value) or ast.Name(value.strip())

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            if node.id in free or node.id not in variables or node.id in FUNCTIONS:
                return node
            others = {name: found for name, found in variables.items() if name != node.id}
            found = specialised(variables[node.id], others, free, where)
            if isinstance(found, str) and _names(found, {}) & set(free):
                return ast.parse(found, mode="eval").body
            return ast.Constant(found)

    found = Replace().visit(copy.deepcopy(tree))
    names = [node for node in ast.walk(found) if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}  # of a list comprehension
    unknown = sorted({node.id for node in names} - own - {*free, *FUNCTIONS, *CONSTANTS})
    if unknown:
        allowed = sorted({*map(str, variables), *free})
        raise InputError(where, f"unknown name {unknown[0]} in expression {value!r}", allowed)
    return ast.unparse(found)


def names_in(text: str) -> frozenset[str]:
    """All names that an expression uses.

    Example:
        >>> sorted(names_in("2 * bits + (3 if signed else 0)"))
        ['bits', 'signed']
    """
    return frozenset(_names(text, {}))


def _names(text: Any, variables: Mapping[str, Any]) -> set[str]:
    """All names that an expression uses, with those of the variables that it names."""
    tree = (_arithmetic(text) or ast.Name(text.strip())) if isinstance(text, str) else ast.Constant(text)
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name in found & set(variables):
        found = found | _names(variables[name], {k: v for k, v in variables.items() if k != name})
    return found


def _evaluate(value: Any, variables: Mapping[str, Any], where: object, steps: Iterator[int]) -> Any:
    if isinstance(value, list):
        return [_evaluate(v, variables, where, steps) for v in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _NUMBER.match(text):
        return _literal(text, where)
    if text in variables:
        found = variables[text]
        if isinstance(found, View):
            return value  # a node's name is a text, too
        if callable(found):
            return found
        return _evaluate(found, {k: v for k, v in variables.items() if k != text}, where, steps)
    if text in ("INF", "inf"):
        return math.inf
    tree = _arithmetic(text)
    if tree is None or not _has_owner(tree, variables):
        return value
    try:
        return _compute(tree, variables, where, steps)
    except _UnknownNameError as e:
        raise InputError(
            where, f"unknown name {e} in expression {text!r}", sorted(map(str, variables)) or "no variables"
        ) from None
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as e:
        raise InputError(where, f"expression {text!r} cannot be computed: {e}") from None


def _literal(text: str, where: object) -> int | float:
    """The number that a text is."""
    number = float(text)
    if abs(number) > MOST:
        raise InputError(where, f"found {text!r}", f"a number of magnitude at most {float(MOST):g}")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else number


def is_expression(text: str, names: Container[str]) -> bool:
    """Whether `evaluate` computes a string, given variables with these names, and does not keep it as text."""
    text = text.strip()
    tree = _arithmetic(text)
    return bool(_NUMBER.match(text)) or text in names or (tree is not None and _has_owner(tree, names))


def _has_owner(tree: ast.expr, names: Container[str]) -> bool:
    """Whether what stands before each dot is known: ``arch.yaml`` is a text, ``column.get_fanout()`` an expression."""
    owners = (node.value for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Subscript)))
    return all(not isinstance(owner, ast.Name) or owner.id in names for owner in owners)


def _arithmetic(text: str) -> ast.expr | None:
    """The syntax tree of an arithmetic expression; None for other text and for a lone name or constant."""
    return _parsed(text) if len(text) <= MAX_TEXT else None


@functools.lru_cache(maxsize=1024)  # candidates have most expressions in common
def _parsed(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # Python's advice, such as on 1(2), is for its own programs
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return None if isinstance(tree, (ast.Name, ast.Constant)) or not _is_arithmetic(tree) else tree


def _is_arithmetic(tree: ast.expr) -> bool:
    allowed = (
        ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.BoolOp, ast.Call, ast.Name, ast.Constant,
        ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context,
        ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.keyword, ast.JoinedStr, ast.FormattedValue,
        ast.ListComp, ast.comprehension,
    )  # fmt: skip
    return all(isinstance(node, allowed) for node in ast.walk(tree))


def _compute(tree: ast.expr, variables: Mapping[str, Any], where: object, steps: Iterator[int]) -> Any:
    def number(node: ast.expr) -> Any:
        return _number(go(node))

    def go(node: ast.expr) -> Any:
        if next(steps) >= MAX_STEPS:
            raise InputError(where, f"an expression takes more than {MAX_STEPS:,} steps")
        match node:
            case ast.Constant(value=v):
                return v
            case ast.Name(id=name):
                if name not in variables:
                    if name in CONSTANTS:
                        return CONSTANTS[name]
                    raise _UnknownNameError(name)
                if isinstance(variables[name], View) or callable(variables[name]):
                    return variables[name]
                return _evaluate(variables[name], {k: v for k, v in variables.items() if k != name}, where, steps)
            case ast.BinOp(left=a, op=op, right=b) if type(op) in _BINARY:
                return _joined(op, go(a), go(b))
            case ast.UnaryOp(op=op, operand=a) if type(op) in _UNARY:
                return _UNARY[type(op)](number(a))
            case ast.Compare(left=a, ops=[op], comparators=[b]) if type(op) in _COMPARE:
                return _COMPARE[type(op)](go(a), go(b))
            case ast.IfExp(test=t, body=a, orelse=b):
                return go(a) if go(t) else go(b)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(go(v) for v in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(go(v) for v in values)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if function(name) is not None:
                return _called(function(name), [go(a) for a in args], {str(k.arg): go(k.value) for k in keywords})
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return _value(FUNCTIONS[name](*(_argument(name, go(a)) for a in args)))
            case ast.Call(func=ast.Name(id=name)):
                raise _UnknownNameError(name)
            case ast.Call(func=ast.IfExp() as chosen, args=args, keywords=[]) if callable(found := go(chosen)):
                return _called(found, [go(a) for a in args], {})
            case ast.Call(func=ast.Attribute(value=owner, attr=name), args=args, keywords=[]):
                return method(go(owner), name, [go(a) for a in args])
            case ast.Attribute(value=owner, attr=name):
                return field(go(owner), name)
            case ast.Subscript(value=owner, slice=index):
                return item(go(owner), go(index))
            case ast.JoinedStr(values=values):
                return _value("".join(str(go(v)) for v in values))
            case ast.FormattedValue(value=v, conversion=-1, format_spec=None):
                return _value(go(v))
            case ast.ListComp(elt=each, generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=[])]):
                values = go(over)
                if not isinstance(values, (list, tuple)):
                    raise TypeError("only over a list")
                return [_compute(each, {**variables, name: value}, where, steps) for value in values]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [go(i) for i in items]
        raise ValueError("not arithmetic")

    def function(name: str) -> Any:
        """The function of the user that a name, or a variable whose value is a function, stands for."""
        found = variables.get(name)
        if isinstance(found, str) and name not in FUNCTIONS:
            found = _evaluate(found, {k: v for k, v in variables.items() if k != name}, where, steps)
        return found if callable(found) else None

    def field(owner: Any, name: Any) -> Any:
        fields = owner.fields if isinstance(owner, View) else owner
        if not isinstance(fields, dict) or name not in fields:
            raise ValueError(f"there is no {name!r}")
        found = fields[name]
        if isinstance(found, (View, dict)):
            return found
        return _evaluate(found, {k: v for k, v in variables.items() if k != name}, where, steps)

    def item(owner: Any, index: Any) -> Any:
        if isinstance(owner, (View, dict)):
            return field(owner, index)
        if isinstance(owner, list) and isinstance(index, int):
            return owner[index]
        raise TypeError(f"a value of type {type(owner).__name__} has no items")

    def method(owner: Any, name: str, arguments: list[Any]) -> Any:
        fields = owner.fields if isinstance(owner, View) else owner
        if name == "get" and isinstance(fields, dict) and 1 <= len(arguments) <= 2:
            return field(owner, arguments[0]) if arguments[0] in fields else (*arguments, None)[1]
        if isinstance(owner, View) and name in owner.methods:
            return owner.methods[name](*arguments)
        raise ValueError(f"there is no {name}()")

    return go(tree)


def _called(function: Callable[..., Any], arguments: list[Any], named: dict[str, Any]) -> Any:
    """The result of a function of the user."""
    try:
        return function(*arguments, **named)
    except Exception as e:  # whatever the user's program raises
        raise ValueError(f"{getattr(function, '__name__', 'a function')} fails: {type(e).__name__}: {e}") from e


def _joined(op: ast.operator, left: Any, right: Any) -> Any:
    """The result of an operator: of numbers, or of texts and lists that are joined or repeated."""
    texts = (str, list)
    if isinstance(op, ast.Add) and isinstance(left, texts) and type(left) is type(right):
        return _value(left + right)  # type: ignore[operator]
    if isinstance(op, ast.Mult) and isinstance(left, texts) and isinstance(right, int):
        if len(left) * right > MAX_LIST:
            raise OverflowError(f"more than {MAX_LIST:,} items")
        return left * right
    return _number(_BINARY[type(op)](_number(left), _number(right)))


def _argument(function: str, value: Any) -> Any:
    """What a function may get: numbers, and some of them lists or texts."""
    if isinstance(value, str) and function in ("str", "len"):
        return value
    if isinstance(value, list) and function in ("len", "sum", "prod", "min", "max"):
        return value
    return _number(value)


def _value(value: Any) -> Any:
    """What an expression may come to: a number, a text, a list of such."""
    if isinstance(value, (str, list, tuple)):
        if len(value) > MAX_LIST:
            raise OverflowError(f"more than {MAX_LIST:,} items")
        return [_value(item) for item in value] if isinstance(value, (list, tuple)) else value
    return value if value is None or isinstance(value, bool) else _number(value)


def _number(value: Any) -> Any:
    """A value that arithmetic may continue with."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"a value of type {type(value).__name__} is not a number")
    if not abs(value) <= MOST:
        raise OverflowError(f"a number on the way is not finite, or above {float(MOST):g}")
    return value


def _power(base: Any, exponent: Any) -> Any:
    """base ** exponent, refused before it is computed where it would be too large."""
    if base and abs(exponent) * abs(math.log2(abs(base))) > math.log2(MOST) + 1:
        raise OverflowError("a power is too large or too small")
    return base**exponent


def _round(value: Any, digits: Any) -> Any:
    """As Python's, which would compute 10 ** digits for any number of digits."""
    if not -30 <= digits <= 30:
        raise ValueError(f"round to {digits} digits")
    return round(value, digits) if digits else round(value)
