"""Safe YAML in and out: line-accurate syntax errors, Timeloop's `!Component` tags, duplicate keys refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dse.errors import InputError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_JINJA = re.compile(r"\{[{%].{0,60}")  # such as {{ include_text('components.yaml') }} in Timeloop's examples

TAG = "!"  # key under which a node's YAML tag (Component, Container, Parallel) is kept


class _Loader(_Base):  # type: ignore[misc]
    """Safe loader that keeps Timeloop's tags and refuses duplicate keys, which YAML would silently merge."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<":
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"duplicate key {key!r}", problem_mark=key_node.start_mark)
                seen.add(key)
        self.flatten_mapping(node)
        return {self.construct_object(k, deep=True): self.construct_object(v, deep=True) for k, v in node.value}


def _tagged(loader: Any, suffix: str, node: Any) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.MarkedYAMLError(problem=f"tag !{suffix} needs a mapping", problem_mark=node.start_mark)
    return {TAG: suffix, **loader.construct_mapping(node, deep=True)}


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    result: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return result


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, where: object) -> Any:
    """The document in `text`; mappings tagged `!Name` carry the tag under the key ``"!"``.

    Raises:
        InputError: on a syntax error, with the line it stands on.
    """
    if template := _JINJA.search(text):
        raise InputError(
            f"{where}: line {text.count(chr(10), 0, template.start()) + 1}",
            f"jinja templates are not read: {template[0].strip()}",
            "plain YAML; render the template first, or give included files with --include",
        )
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise InputError(f"{where}: line {line}", f"not readable as YAML: {e.problem}") from None
    except yaml.YAMLError as e:
        raise InputError(where, f"not readable as YAML: {' '.join(str(e).split())}") from None


def read_text(path: Path | str) -> str:
    """The text of a file; InputError if it is missing, a folder, not readable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(path, f"cannot be read: {(e.strerror or str(e)).lower()}") from None
    except UnicodeDecodeError:
        raise InputError(path, "is not a UTF-8 text file") from None


def read_yaml(path: Path | str) -> Any:
    """The document in a YAML file (see `parse_yaml`)."""
    return parse_yaml(read_text(path), path)
