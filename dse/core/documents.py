"""Safe YAML and JSON in: errors with their line, Timeloop's `!Component` tags, limits no hand-written file meets.

What the readers get are mappings with text or numbers as keys, lists, text, numbers, truth values and None, nested at
most `MAX_DEPTH` deep: whatever they do with it ends soon, and each value can be shown in a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dse.core import fields
from dse.core.errors import InputError
from dse.core.files import system_errors

T = TypeVar("T")

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

JINJA = re.compile(r"\{[{%].{0,60}|\{#.*?#\}")
"""The start of what Jinja2 renders, such as ``{{ include_text('components.yaml') }}`` in Timeloop's examples."""

TAG = "!"  # key under which a node's YAML tag (Component, Container, Parallel) is kept

MAX_DEPTH = 64
"""Mappings and lists within one another."""

MAX_NODES = 200_000
"""Values of a YAML document; what an alias (``*name``) repeats counts again."""

MAX_BYTES = 64 * 2**20
"""Length of a text file."""

MAX_YAML = 8 * 2**20
"""Characters of a YAML document."""

_MAX_BITS = 256  # of an integer; far above every quantity, far below what Python refuses to write out

_YAML = "tag:yaml.org,2002:"
_CORE = ("null", "bool", "int", "float", "str", "seq", "map")


class _Rules:
    """What is added to a safe loader: it keeps Timeloop's tags and refuses what the readers would stumble over.

    Refused are duplicate keys, which YAML would silently merge, keys that are neither text nor numbers, documents
    above the limits, and the types that hand-written files do not need (sets, dates, binary data). A date without a
    tag is text.
    """

    def get_single_node(self: Any) -> Any:
        root = super().get_single_node()  # type: ignore[misc]
        if root is not None:
            _check_size(root)
        return root

    def construct_object(self: Any, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)  # type: ignore[misc]
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):  # of a tag that does not fit
            kind = str(node.tag).removeprefix(_YAML)
            raise _problem(f"{_start(node)} is no {kind}", node) from None
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise _problem("an integer has more than 77 digits", node)
        return value

    def construct_mapping(self: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _problem(f"{_start(node)} is not a mapping", node)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, (str, int, float)) or key != key:
                raise _problem(f"the key {_start(key_node)} is neither text nor a number", key_node)
            if key in seen:
                raise _problem(f"duplicate key {key_node.value!r}", key_node)
            seen.add(key)
        return {self.construct_object(k, deep=True): self.construct_object(v, deep=True) for k, v in node.value}


class _Loader(_Rules, _Base):  # type: ignore[misc]
    pass


class _AnchorsTwice(_Rules, yaml.SafeLoader):
    """As `_Loader`, slower; an anchor may be set again, and then names the new value, as in later versions of YAML."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        return super().compose_node(parent, index)


class _WholeList(list[Any]):
    """A list with the tag ``!nomerge``: nothing is appended to it."""


class _WholeMapping(dict[Any, Any]):
    """A mapping with the tag ``!nomerge``: nothing is added to it."""


def _tagged(loader: Any, suffix: str, node: Any) -> Any:
    if suffix == "nomerge" and isinstance(node, yaml.SequenceNode):
        return _WholeList(loader.construct_sequence(node, deep=True))
    if suffix == "include_loaded" and isinstance(node, yaml.ScalarNode) and node.value in loader.included:
        return loader.included[node.value]
    if not isinstance(node, yaml.MappingNode):
        if isinstance(node, yaml.ScalarNode) and suffix in ("include", "includedir"):
            raise _problem(f"the tag !{suffix} is of an old form; write {{{{ include({node.value!r}) }}}}", node)
        if suffix in ("Nothing", "Container") and isinstance(node, yaml.ScalarNode) and not node.value:
            return {TAG: suffix}
        raise _problem(f"tag !{suffix} needs a mapping", node)
    mapping = loader.construct_mapping(node, deep=True)
    return _WholeMapping(mapping) if suffix == "nomerge" else {TAG: suffix, **mapping}


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    result: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return result


def _sequence(loader: Any, node: Any) -> list[Any]:
    result: list[Any] = loader.construct_sequence(node, deep=True)
    return result


def _refused(loader: Any, suffix: str, node: Any) -> None:
    raise _problem(f"the tag {suffix!r} is not known here", node)


def _configure(loader: Any, base: Any) -> None:
    loader.yaml_constructors = {f"{_YAML}{kind}": base.yaml_constructors[f"{_YAML}{kind}"] for kind in _CORE}
    loader.yaml_multi_constructors = {}
    left_out = [f"{_YAML}{kind}" for kind in ("timestamp", "value", "merge")]
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in left_out]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    loader.add_multi_constructor("!", _tagged)
    loader.add_multi_constructor("", _refused)
    loader.add_constructor(f"{_YAML}map", _mapping)
    loader.add_constructor(f"{_YAML}seq", _sequence)


_configure(_Loader, _Base)
_configure(_AnchorsTwice, yaml.SafeLoader)


def _loaded(text: str, included: Mapping[str, Any]) -> Any:
    try:
        document = _constructed(_Loader, text, included)
    except yaml.composer.ComposerError as e:
        if "duplicate anchor" not in f"{e.context} {e.problem}":
            raise
        document = _constructed(_AnchorsTwice, text, included)
    if "<<" not in text and "nomerge" not in text and not included:
        return document
    return _plain(_merged(_flat(document)))


def _constructed(kind: Any, text: str, included: Mapping[str, Any]) -> Any:
    loader = kind(text)
    loader.included = included
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _flat(value: Any) -> Any:
    """A document without ``<<``: each mapping has what it merges in that way; a ``<<<`` of that is one of its own."""
    if isinstance(value, list):
        return type(value)(map(_flat, value))
    if not isinstance(value, dict):
        return value
    found = type(value)((key, _flat(inner)) for key, inner in value.items())
    return _with(found, found.pop("<<"), deep=False) if "<<" in found else found


def _merged(value: Any) -> Any:
    """A document without ``<<<``: each is replaced by what it merges in depth.

    As the front end does it (`merge_check` in ``accelergy/utils/yaml.py``), which has a rule of its own for lists: a
    list that stands after ``<<<`` in the same mapping is not continued by the list that is merged. What the front end
    merges into a part that ``<<`` shares with other places it changes there, too; here each place keeps its own.
    """
    if isinstance(value, list):
        return type(value)(map(_merged, value))
    if not isinstance(value, dict):
        return value
    found = type(value)(value)
    for key, before in value.items():
        found[key] = _merged(found[key] if isinstance(before, dict) else before)
        if key == "<<<":
            found = _with(found, found.pop(key), deep=True)
    return found


def _with(into: dict[Any, Any], more: Any, deep: bool) -> dict[Any, Any]:
    """A mapping with what another one, or each of a list, has and it lacks; if `deep`, lists of both are joined."""
    if isinstance(more, list):
        together: dict[Any, Any] = {}
        for one in more:
            together = _with(together, one, deep)
        more = together
    if not isinstance(more, dict):
        raise _NotMergedError(f"<< merges {fields.shown(more)}, which is not a mapping or a list of mappings")
    found = type(into)(into)
    for key, value in more.items():
        own = found.get(key)
        if key not in found:
            found[key] = value
        elif not deep or isinstance(own, (_WholeList, _WholeMapping)):
            continue
        elif isinstance(own, dict) and isinstance(value, dict):
            found[key] = _with(own, value, deep)
        elif isinstance(own, list) and isinstance(value, list):
            found[key] = own + value
    return found


class _NotMergedError(yaml.YAMLError):
    pass


def _plain(document: Any) -> Any:
    """A document of mappings and lists alone; a YAMLError where it has become too large or too deep."""
    count = 0

    def plain(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > MAX_NODES:
            raise _NotMergedError(f"more than {MAX_NODES:,} values, merged and included ones counted each time")
        if depth > MAX_DEPTH:
            raise _NotMergedError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            return {key: plain(inner, depth + 1) for key, inner in value.items()}
        return [plain(inner, depth + 1) for inner in value] if isinstance(value, list) else value

    return plain(document, 0)


def _check_size(root: Any) -> None:
    """Refuses a document of too many values or levels; a value that contains itself has too many levels."""
    count, left = 0, [(root, 1)]
    while left:
        node, depth = left.pop()
        count += 1
        if count > MAX_NODES:
            raise _problem(f"more than {MAX_NODES:,} values, those that aliases repeat included", root)
        if isinstance(node, yaml.ScalarNode):
            continue
        if depth > MAX_DEPTH:
            raise _problem(f"nested more than {MAX_DEPTH} deep", node)
        inner = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        left += [(part, depth + 1) for part in inner]


def _problem(text: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)


def _start(node: Any) -> str:
    """A node in a message: the text of a scalar, shortened, else what it is."""
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
    return repr(node.value if len(node.value) <= 40 else f"{node.value[:40]}...")


def parse_yaml(text: str, where: object, included: Mapping[str, Any] | None = None) -> Any:
    """The document in `text`; mappings tagged `!Name` carry the tag under the key ``"!"``.

    Args:
        included: of a template that has been rendered, the documents that it includes, by name
            (`dse.core.templates`). Such a text may also merge mappings by ``<<<``.

    Raises:
        InputError: on a syntax error, with the line it stands on; also a document above the limits of this module.
    """
    if len(text) > MAX_YAML:
        raise InputError(where, f"has {len(text):,} characters", f"at most {MAX_YAML:,}")
    if included is None and (template := JINJA.search(text)):
        raise InputError(
            f"{where}: line {text.count(chr(10), 0, template.start()) + 1}",
            f"jinja templates are not read here: {template[0].strip()}",
            hint="render the template first",
        )
    try:
        return _loaded(text, {} if included is None else included)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise InputError(f"{where}: line {line}", f"not readable as YAML: {e.problem}") from None
    except yaml.YAMLError as e:
        raise InputError(where, f"not readable as YAML: {' '.join(str(e).split())}") from None
    except UnicodeEncodeError:
        raise InputError(where, "not readable as YAML: a half of a UTF-16 pair is not a character") from None
    except RecursionError:
        raise InputError(where, f"not readable as YAML: nested more than {MAX_DEPTH} deep") from None


def parse_json(text: str, where: object) -> Any:
    """The document in JSON text.

    Raises:
        InputError: on a syntax error; a key given twice, NaN and Infinity, and what is above the limits.
    """
    try:
        document = json.loads(
            text, object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
        )
        _check_depth(document)
    except json.JSONDecodeError as e:
        raise InputError(f"{where}: line {e.lineno}", f"not readable as JSON: {e.msg}") from None
    except RecursionError:
        raise InputError(where, f"not readable as JSON: nested more than {MAX_DEPTH} deep") from None
    except ValueError as e:
        raise InputError(where, f"not readable as JSON: {e}") from None
    return document


def _check_depth(document: Any) -> None:
    level = [document]  # the lists and mappings that are so deep
    for _ in range(MAX_DEPTH + 1):
        level = [v for v in level if isinstance(v, (dict, list))]
        if not level:
            return
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    raise RecursionError


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_BITS * 3 // 10:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def read_text(path: Path | str) -> str:
    """The text of a file, with ends of lines as on Unix and without a byte order mark.

    Raises:
        InputError: it is missing, a folder, not readable, not UTF-8, or larger than `MAX_BYTES`.
    """
    data = readable(path, _read_bytes)
    if len(data) > MAX_BYTES:
        raise InputError(path, "is too large", f"at most {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(path, "is not a UTF-8 text file") from None


def readable(path: Path | str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file; InputError if the operating system refuses."""
    try:
        with system_errors(path, "cannot be read"):
            return read(Path(path))
    except InputError:
        raise
    except ValueError as e:
        if "null" not in str(e):
            raise
        raise InputError(repr(str(path)), "is not a file's name: it has a null character") from None


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)  # a device such as /dev/zero has no end


def read_yaml(path: Path | str) -> Any:
    """The document in a YAML file (see `parse_yaml`)."""
    return parse_yaml(read_text(path), path)


def read_json(path: Path | str) -> Any:
    """The document in a JSON file (see `parse_json`)."""
    return parse_json(read_text(path), path)
