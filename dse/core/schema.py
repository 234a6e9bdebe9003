"""Our own files as types: pydantic validates them, every wrong field is one InputError, and editors get a JSON schema.

A file's type is a `pydantic.dataclasses.dataclass` with `CONFIG`. Its fields use the kinds of this module, which
convert nothing silently: ``"8"`` is not a number and 1 is not a truth value. Timeloop's and Accelergy's files are read
with `dse.core.fields` instead, for their forms follow no schema of ours.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import GroupedMetadata, Interval, Len
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    ConfigDict,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from dse.core import fields
from dse.core.errors import InputError, did_you_mean
from dse.core.fields import shown

T = TypeVar("T")

# Docstrings of fields are read for a JSON schema alone: pydantic would read every class's source at each start.
CONFIG = ConfigDict(extra="forbid", defer_build=True)

Text = Annotated[str, Strict(), Len(1)]
Name = Annotated[str, BeforeValidator(lambda value: fields.name(value, ""))]
"""Text of one line, or a number that is taken as text: a layer may be called 1."""
Flag = Annotated[bool, Strict()]


@dataclass(frozen=True)
class whole(GroupedMetadata):  # noqa: N801  # reads as a word of an annotation: Annotated[int, whole(1)]
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int = 2**31

    def __iter__(self) -> Iterator[object]:
        yield Strict()
        yield Interval(ge=self.least, le=self.most)


@dataclass(frozen=True)
class number(GroupedMetadata):  # noqa: N801
    """A finite number from `least` to `most`; `above`: the least itself is refused."""

    least: float
    most: float
    above: bool = False

    def __iter__(self) -> Iterator[object]:
        yield Strict()
        yield AllowInfNan(False)
        yield Interval(gt=self.least, le=self.most) if self.above else Interval(ge=self.least, le=self.most)
        yield BeforeValidator(_yaml_number)


@dataclass(frozen=True)
class exactly(GroupedMetadata):  # noqa: N801
    """One whole number, as a version; `Literal` would take true for 1."""

    value: int

    def __iter__(self) -> Iterator[object]:
        yield BeforeValidator(self._check)
        yield WithJsonSchema({"const": self.value})

    def _check(self, value: object) -> object:
        if type(value) is not int or value != self.value:
            raise InputError("", f"found {shown(value)}", str(self.value))
        return value


@dataclass(frozen=True)
class one_of(GroupedMetadata):  # noqa: N801
    """One of some texts, where a Literal cannot name them."""

    names: tuple[str, ...]

    def __iter__(self) -> Iterator[object]:
        yield BeforeValidator(self._check)
        yield WithJsonSchema({"enum": list(self.names)})

    def _check(self, value: object) -> object:
        if value not in self.names:
            raise InputError("", f"found {shown(value)}{did_you_mean(str(value), self.names)}", self.names)
        return value


@dataclass(frozen=True)
class checked(GroupedMetadata):  # noqa: N801
    """What a function accepts: it returns the value, or raises an InputError whose place is inside the field."""

    check: Callable[[Any], object]

    def __iter__(self) -> Iterator[object]:
        yield AfterValidator(self.check)


def _expression(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError("", f"found {shown(value)}", "a number or an expression")
    return value


Expression = Annotated[
    Any, BeforeValidator(_expression), WithJsonSchema({"type": ["number", "string"], "title": "number or expression"})
]
"""A number, or text that `dse.core.expressions` evaluates."""


def _yaml_number(value: object) -> object:
    if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a point, as text
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise InputError(f"[{i}]", f"{value!r} is in the list twice")
    return values


UNIQUE = AfterValidator(_once)
"""A list without repetition."""


def validated(kind: Callable[..., T], document: object, where: object, *, strict: bool = False) -> T:
    """`document`, as YAML or JSON gives it, as a value of the type.

    Args:
        where: the file, or the file and a field, that errors name.
        strict: of types without the kinds of this module: ``"1"`` and true are not numbers.

    Raises:
        InputError: the first wrong field, with what is allowed there.
    """
    try:
        value: T = _adapter(kind).validate_python(document, strict=strict or None)
        return value
    except ValidationError as e:
        raise _error(kind, e, str(where)) from None


def json_schema(kind: object) -> dict[str, Any]:
    """The JSON schema of a file's type, which editors complete and check fields with, and show its docstrings."""
    schema = _adapter(kind).json_schema()
    for of in _types_within(kind):
        described = schema if of is kind else schema.get("$defs", {}).get(of.__name__, {})
        texts = _docstrings(of)
        for name, field in of.__pydantic_fields__.items():
            key = field.alias or name
            if name in texts and key in described.get("properties", {}):
                described["properties"][key].setdefault("description", texts[name])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _types_within(kind: Any) -> set[Any]:
    """The types with fields that a type is made of, itself included."""
    found: set[Any] = set()
    waiting = [kind]
    while waiting:
        of = waiting.pop()
        fields = getattr(of, "__pydantic_fields__", None)
        if fields is None:
            waiting += get_args(of)
        elif of not in found:
            found.add(of)
            waiting += [field.annotation for field in fields.values()]
    return found


def _docstrings(of: type) -> dict[str, str]:
    """The texts below the fields of a class and of those that it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(of.__mro__):
        if not is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in itertools.pairwise(body.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(documented))):
                    texts[name] = inspect.cleandoc(documented)
    return texts


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _error(kind: object, error: ValidationError, where: str) -> InputError:
    """The first of pydantic's errors as one of ours."""
    first = error.errors(include_url=False)[0]
    path, schema, parent = _walk(_adapter(kind).json_schema(), first["loc"])
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return raised.at(_place(where, path, raised.where))
    if first["type"] == "missing":
        return InputError(_place(where, path[:-1]), f"field {path[-1]!r} is missing")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        fields = tuple(parent.get("properties", ()))
        near = did_you_mean(str(path[-1]), fields)
        return InputError(_place(where, path[:-1]), f"unknown field {path[-1]!r}{near}", fields)
    allowed = _allowed(schema)
    near = did_you_mean(str(first["input"]), allowed) if isinstance(allowed, tuple) else ""
    return InputError(_place(where, path), f"found {shown(first['input'])}{near}", allowed)


def _place(where: str, path: tuple[str | int, ...], inside: str = "") -> str:
    """``run.yaml: search.epochs``; `inside` is a place within the last field."""
    fields = ""
    for part in path:
        fields += f"[{part}]" if isinstance(part, int) else f".{part}"
    fields = fields.removeprefix(".") + (inside if inside.startswith(("[", ":")) or not inside else f".{inside}")
    return ": ".join(filter(None, (where, fields.removeprefix("."))))


def _walk(root: dict[str, Any], location: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], Any, Any]:
    """The fields that a location of pydantic names, the schema of the last one, and that of what holds it."""
    path: list[str | int] = []
    node, parent = _resolved(root, root), {}
    for part in location:
        if "discriminator" in node:  # the location names the variant, which is not a field
            node = _resolved(root, {"$ref": node["discriminator"]["mapping"][part]})
            continue
        if part == "[key]":
            break
        parent = node
        if isinstance(part, int):
            child = node.get("items", {})
        else:
            child = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        node = _resolved(root, child if isinstance(child, dict) else {})
        path.append(part)
    return tuple(path), node, parent


def _resolved(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A node without references and without the null that an optional field may be."""
    if "anyOf" in node:
        node = next(branch for branch in node["anyOf"] if branch.get("type") != "null")
    return root["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _allowed(schema: dict[str, Any]) -> str | tuple[str, ...]:
    """What a schema allows, in a few words, or its values."""
    if "enum" in schema or "const" in schema:
        return tuple(map(str, schema.get("enum", [schema.get("const")])))
    if "discriminator" in schema:
        return "a mapping"
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    kind = schema.get("type")
    if kind in ("integer", "number"):
        what = "a whole number" if kind == "integer" else "a number"
        limits = "" if least is None else f" {'above' if 'exclusiveMinimum' in schema else 'from'} {least:g}"
        return what + limits + ("" if most is None else f" {'up ' if 'exclusiveMinimum' in schema else ''}to {most:g}")
    names = {"boolean": "true, false", "string": "a text", "array": "a list", "object": "a mapping"}
    text = names.get(str(kind), "")
    if schema.get("minItems") or schema.get("minProperties"):
        text += " with at least one entry"
    return f"{text} with {', '.join(schema['properties'])}" if schema.get("properties") else text
