"""The specifications of a sweep's points: a parsed specification with changed values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from dse.core.documents import TAG
from dse.core.errors import InputError, unknown
from dse.hardware.accelerator import Accelerator, Mode
from dse.hardware.candidate import Candidate
from dse.hardware.nodes import named_nodes, node_name
from dse.hardware.spec_reader import SpecFile
from dse.sweep.axes import Axis, Value

VARIABLES = "variables"
_MESH = ("meshX", "meshY")
_WORDS = ("type", "technology")
_BANDWIDTHS = tuple(f"{kind}_bandwidth{unit}" for unit in ("", "_bits") for kind in ("read", "write", "shared"))
_OPTIONAL = ("multiple_buffering", *_BANDWIDTHS, *_WORDS)
"""Attributes of a memory that a specification may leave out and a sweep may still set."""


def modes_with(accelerator: Accelerator, path: str) -> list[Mode]:
    """The computing modes whose specification has the node or variable of a path; all if none has it.

    Example:
        >>> from dse.hardware.accelerator import read_accelerator
        >>> hybrid = read_accelerator("hybrid")
        >>> [[m.label for m in modes_with(hybrid, path)] for path in ("glb_psum.depth", "variables.macros")]
        [['digital', 'cim'], ['cim']]
    """
    node, _, name = path.partition(".")
    found = [
        mode
        for mode in accelerator.modes
        if (name in mode.arch.variables if node == VARIABLES else node in map(node_name, named_nodes(mode.arch.nodes)))
    ]
    return found or list(accelerator.modes)


def with_mode(accelerator: Accelerator, mode: Mode, settings: Mapping[str, Value]) -> Mode:
    """A computing mode with new values at those of these paths that it has.

    Raises:
        InputError: a value that one of its operators cannot have.
    """
    own = {path: value for path, value in settings.items() if mode in modes_with(accelerator, path)}
    return mode.with_arch(with_settings(mode.arch, own)) if own else mode


def check_paths(arch: SpecFile, paths: Iterable[str], candidates: Iterable[Candidate]) -> None:
    """Checks that a sweep can vary these paths of the specification.

    Raises:
        InputError: a node, attribute or variable is unknown, or candidates set it, so a sweep has no effect on it.
    """
    fixed = _set_by_candidates(arch, candidates)
    for path in paths:
        node, _, name = path.partition(".")
        if path in fixed:
            raise InputError(f"sweep: {path}", "each candidate sets it by itself", hint="edit the operators file")
        settable = _settable(arch, node)
        if name not in settable:
            allowed = [name for name in settable if f"{node}.{name}" not in fixed]
            raise InputError(f"sweep: {path}", f"{arch.where} has no {name!r} in {node}", allowed or None)


def check_words(arch: SpecFile, axes: Iterable[Axis], own: Container[str]) -> None:
    """Checks that words are given where the specification has a word, not where it has a number.

    Args:
        own: the paths that the specification has.

    Raises:
        InputError: naming path, word and the specification's value.
    """
    for axis in axes:
        for path, values in zip(axis.paths, zip(*axis.steps, strict=True), strict=True):
            if path not in own:
                continue
            word = next((value for value in values if isinstance(value, str)), None)
            found = _found(arch, path)
            if word is not None and (isinstance(found, (int, float)) or (found is None and not _takes_word(path))):
                there = "a number" if found is None else f"a number, as {found}"
                raise InputError(f"sweep: {path}", f"found {word!r}", there)


def _takes_word(path: str) -> bool:
    return path.rpartition(".")[2] in _WORDS


def _found(arch: SpecFile, path: str) -> Any:
    """What the specification has at a path; None for nothing."""
    name, _, field = path.partition(".")
    if name == VARIABLES:
        return arch.variables.get(field)
    node = next(n for n in named_nodes(arch.nodes) if node_name(n) == name)
    return (node.get("spatial" if field in _MESH else "attributes") or {}).get(field, 1 if field in _MESH else None)


def with_settings(arch: SpecFile, settings: Mapping[str, Value]) -> SpecFile:
    """A copy of the specification with new values at these paths, which `check_paths` has accepted."""
    document = {**arch.document, VARIABLES: dict(arch.variables)}
    nodes = arch.nodes
    for path, value in settings.items():
        name, _, field = path.partition(".")
        if name == VARIABLES:
            document[VARIABLES][field] = value
        else:
            part = "spatial" if field in _MESH else "attributes"
            nodes = [_with_setting(node, name, part, field, value) for node in nodes]
    document["architecture"] = {**document["architecture"], "nodes": nodes}
    return SpecFile(document, arch.where).with_tables(arch.tables)


def _with_setting(node: Any, name: str, part: str, field: str, value: Value) -> Any:
    """A node, or the node in this branch that has the name, with a new value."""
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("nodes"), list):
        return {**node, "nodes": [_with_setting(inner, name, part, field, value) for inner in node["nodes"]]}
    return {**node, part: {**(node.get(part) or {}), field: value}} if node_name(node) == name else node


def _settable(arch: SpecFile, node: str) -> list[str]:
    """Names that a sweep may set in a node or in the variables."""
    if node == VARIABLES:
        return [str(name) for name in arch.variables]
    nodes = {node_name(n): n for n in named_nodes(arch.nodes)}
    if node not in nodes:
        raise unknown("sweep", f"node of {arch.where}", node, [*nodes, VARIABLES])
    found = nodes[node]
    names = [str(name) for name in found.get("attributes") or {}]
    if found is not _last(arch) and found.get(TAG) == "Component":
        names += [name for name in _OPTIONAL if name not in names]
    if found.get(TAG) == "Container" or found.get("spatial"):
        names += _MESH
    return names


def _set_by_candidates(arch: SpecFile, candidates: Iterable[Candidate]) -> set[str]:
    """Paths whose values in the specification a candidate replaces."""
    compute = node_name(_last(arch))
    return {
        path
        for candidate in candidates
        for path in (
            *(f"{VARIABLES}.{name}" for name in candidate.variables),
            *(f"{compute}.{name}" for name, _ in candidate.compute_attributes),
        )
    }


def _last(arch: SpecFile) -> Any:
    """The compute unit's node."""
    return [*named_nodes(arch.nodes), None][-2] if any(named_nodes(arch.nodes)) else None
