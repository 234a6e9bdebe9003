"""The top-level keys of a specification: which there are, in one file or several, and what each may say.

The nodes under `architecture` are read by `dse.hardware.spec_reader`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dse.core import fields
from dse.core.errors import InputError
from dse.core.templates import read_template
from dse.hardware import attributes as names
from dse.hardware.flat_form import from_flat, is_flat
from dse.hardware.nodes import node_name

_log = logging.getLogger(__name__)

_TOP_LEVEL: Mapping[str, tuple[str, ...] | None] = {  # keys, and their allowed fields; None: checked elsewhere
    "architecture": ("version", "nodes"),
    "variables": None,
    "components": None,
    "constraints": ("version", "targets"),
    "problem": None,  # the layer, where it is not in a file of its own
    "mapper": None,  # ignored: settings of the search are options of commands
    "ART": None,  # areas: see the tables of costs
    "mapspace": ("version", "template"),
    "globals": ("version", "environment_variables", "expression_custom_functions", "accelergy_plug_ins"),
    "sparse_optimizations": None,
    "mapping": None,  # constraints in another form
    "ERT": None,
}
_PARTS = ("components", "constraints", "mapping", "globals")
"""Keys that the front end finds in a longer key, too: `compound_components`, `extra_mapping_constraints`."""

_EMPTY: Mapping[str, str] = {  # keys that would change results unless they are empty
    "ERT": "give the table of energies as a file of its own",
    "sparse_optimizations": "leave it out, or read the design as dense with --dense",
}


def read_top_level(path: Path | str, jinja: Mapping[str, Any] | None) -> dict[str, Any]:
    """The top-level keys of a file.

    Example:
        >>> _ = Path("arch.yaml").write_text("variables: {version: 0.4, bits: 8}")
        >>> read_top_level("arch.yaml", None)
        {'variables': {'version': 0.4, 'bits': 8}}
    """
    document = read_template(path, jinja)
    if not isinstance(document, dict):
        raise InputError(path, "has no top-level keys", sorted(_TOP_LEVEL))
    return top_keys(document, path)


def top_keys(document: dict[str, Any], where: object) -> dict[str, Any]:
    """A document with the front end's names of its keys, as v4 if it is flat, and with the parts of a key joined.

    Raises:
        InputError: an unknown key, or parts that do not go together.

    Example:
        >>> top_keys({"compound_components": {"classes": [[{"name": "a"}]]}, "macros_ignore": 1}, "a")
        {'components': {'classes': [{'name': 'a'}]}}
    """
    if is_flat(document):
        document = from_flat(document, where)
    found: dict[str, Any] = {}
    for key, value in fields.mapping(document, where).items():
        if "ignore" in key:
            continue
        name = key if key in _TOP_LEVEL else next((part for part in _PARTS if part in key), key)
        new = {"targets": value} if name == "constraints" and isinstance(value, list) else value
        if name == "components" and isinstance(new, dict) and isinstance(new.get("classes"), list):
            new = {**new, "classes": _flat(new["classes"])}
        found[name] = joined(name, found[name], new, where) if name in found else new
    fields.only(found, tuple(_TOP_LEVEL), where, "top-level key")
    return found


def _flat(items: list[Any]) -> list[Any]:
    return [inner for item in items for inner in (_flat(item) if isinstance(item, list) else [item])]


def variables_of(found: Any, where: str) -> dict[str, Any]:
    """Top-level variables: a mapping, or a list of mappings that agree where they name the same.

    Example:
        >>> variables_of([{"version": 0.4}, {"bits": 8}], "a: variables")
        {'version': 0.4, 'bits': 8}
    """
    parts = found if isinstance(found, list) else [found]
    joined: dict[str, Any] = {}
    for i, part in enumerate(parts):
        at = f"{where}[{i}]" if isinstance(found, list) else where
        for name, value in fields.optional_mapping(part, at).items():
            if name in joined and joined[name] != value:
                raise InputError(at, f"{name} is {fields.shown(value)}, and was {fields.shown(joined[name])} before")
            joined[name] = value
    return joined


def histograms_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with the histograms of the layer's values, which CiMLoop's processor takes from the `problem`.

    Example:
        >>> histograms_of({"problem": {"histograms": {"Inputs": [0, 1]}}})
        {'INPUTS_HIST': [0, 1]}
    """
    problem = document.get("problem")
    found = problem.get("histograms") if isinstance(problem, dict) else None
    return {f"{str(tensor).upper()}_HIST": values for tensor, values in (found or {}).items()}


def check_top_level(document: dict[str, Any], where: object, run_functions: bool) -> None:
    """Refuses what would change results and is not read, by its name.

    Example:
        >>> try:
        ...     check_top_level({"ERT": {"tables": [1]}}, "a.yaml", False)
        ... except InputError as e:
        ...     print(e)
        a.yaml: ERT: is not read from a specification; give the table of energies as a file of its own
    """
    for key, value in document.items():
        allowed = _TOP_LEVEL[key]
        if allowed is not None:
            fields.optional_mapping(value, f"{where}: {key}", allowed)
        says_nothing = isinstance(value, dict) and not any(v for k, v in value.items() if k != "version")
        if key in _EMPTY and value not in (None, []) and not says_nothing:
            raise InputError(f"{where}: {key}", "is not read from a specification", hint=_EMPTY[key])
    template = (document.get("mapspace") or {}).get("template", "uber")
    fields.one_of(template, f"{where}: mapspace.template", ("uber", "ruby"))
    settings = document.get("globals") or {}
    for name in fields.optional_mapping(
        settings.get("environment_variables"), f"{where}: globals.environment_variables"
    ):
        if not name.startswith(_DISPLAY):
            raise InputError(f"{where}: globals.environment_variables.{name}", "is not supported", hint="leave it out")
    functions = f"{where}: globals.expression_custom_functions"
    files = fields.optional_sequence(settings.get("expression_custom_functions"), functions, fields.text)
    if files and not run_functions:
        problem = f"{files[0]} is a program in Python, which can do anything: it is not run"
        raise InputError(functions, problem, hint="look into it, then allow it with --functions")


_DISPLAY = ("TIMELOOP_HIDE_", "TIMELOOP_OUTPUT_", "ACCELERGY_")
"""Environment variables that change what Timeloop prints, or where Accelergy looks for tables; counts stay the same."""


def as_dense(document: dict[str, Any], where: object) -> dict[str, Any]:
    """A specification without its sparse optimisations and the attributes of compressed data; a warning names them.

    Example:
        >>> node = {"name": "buffer", "sparse_optimizations": {"action_optimization": [1]}}
        >>> as_dense({"architecture": {"nodes": [node]}}, "a.yaml")
        {'architecture': {'nodes': [{'name': 'buffer'}]}}
    """
    left_out: list[str] = []

    def node(found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        kept = {key: value for key, value in found.items() if key != "sparse_optimizations"}
        if len(kept) < len(found):
            left_out.append(node_name(found) or "a node")
        attributes = kept.get("attributes")
        if isinstance(attributes, dict):
            kept["attributes"] = {key: value for key, value in attributes.items() if key not in names.SPARSE}
        if isinstance(kept.get("nodes"), list):
            kept["nodes"] = [node(inner) for inner in kept["nodes"]]
        return kept

    found = {key: value for key, value in document.items() if key != "sparse_optimizations"}
    if len(found) < len(document):
        left_out.append("sparse_optimizations")
    found["architecture"] = node(found["architecture"])
    if left_out:
        _log.warning("%s: read as dense, without the sparse optimisations of %s", where, ", ".join(left_out))
    return found


def joined(key: str, before: Any, value: Any, where: object) -> Any:
    """The value of a top-level key that two files, or two keys of a file, have.

    Example:
        >>> joined("components", {"classes": [1]}, {"classes": [2]}, "b.yaml")
        {'classes': [1, 2]}
    """
    if key == "variables" and isinstance(before, list) | isinstance(value, list):
        return [*(before if isinstance(before, list) else [before]), *(value if isinstance(value, list) else [value])]
    lists = {"components": "classes", "constraints": "targets", "globals": "expression_custom_functions"}
    if key == "mapping" and isinstance(before, list) and isinstance(value, list):
        return before + value
    if key not in ("variables", *lists) or not isinstance(before, dict) or not isinstance(value, dict):
        raise InputError(where, f"another file also has {key!r}", "each key in one file")
    inner = lists.get(key)
    if key == "globals":
        variables = [part.get("environment_variables") or {} for part in (value, before)]
        value = {**value, "environment_variables": {**variables[0], **variables[1]}}
        before = {**before, "environment_variables": value["environment_variables"]}
    for name in value:
        if name in before and before[name] != value[name] and name not in ("version", inner):
            raise InputError(f"{where}: {key}", f"another file also has {name!r}", "each name once")
    both: list[Any] = (
        [
            item
            for part in (before, value)
            for item in fields.optional_sequence(part.get(inner), f"{where}: {key}.{inner}", fields.anything)
        ]
        if inner
        else []
    )
    return {**value, **before, **({inner: both} if inner else {})}
