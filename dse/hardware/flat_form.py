"""The flat form of a specification, which Timeloop's programs read and every run leaves: as a v4 specification.

A run of Timeloop writes it as ``parsed-processed-input.yaml``. It has a list of levels, each with its number of
instances, instead of nodes: a fan-out is a level of the class `dummy_storage` of which each instance has several of the
next level. Its constraints, and the mapping of a run of `timeloop-model`, name levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dse.core import fields
from dse.core.documents import TAG
from dse.core.errors import InputError

_RANGE = re.compile(r"\[\d+\.\.(\d+)\]$")
_FANOUT = re.compile(r"inter_(.+)_spatial")
_DUMMY = "dummy_storage"
_MESH = ("meshX", "meshY")
_KEPT = ("problem", "mapper", "mapspace", "globals", "ERT", "ART", "variables")


def is_flat(document: Any) -> bool:
    """Whether a document is of the flat form.

    Example:
        >>> is_flat({"architecture": {"version": 0.4, "subtree": []}}), is_flat({"architecture": {"nodes": []}})
        (True, False)
    """
    architecture = document.get("architecture") if isinstance(document, dict) else None
    return isinstance(architecture, dict) and "subtree" in architecture


def from_flat(document: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The v4 specification that a flat one says the same as, without the `mapping` of a run.

    Raises:
        InputError: more than one subtree, a number of instances that is not a multiple of the one further out, and a
            fan-out below a memory, which the front end writes as a level of its own.

    Example:
        >>> local = [
        ...     {"name": "dram[1..1]", "class": "DRAM", "attributes": {"width": 8, "datawidth": 8}},
        ...     {"name": "inter_row_spatial[1..1]", "class": "dummy_storage", "attributes": {"meshX": 1}},
        ...     {"name": "mac[1..4]", "class": "intmac", "attributes": {"meshX": 4}},
        ... ]
        >>> flat = {"architecture": {"version": 0.4, "subtree": [{"name": "top", "local": local}]}}
        >>> [(node["!"], node["name"]) for node in from_flat(flat, "run")["architecture"]["nodes"]]
        [('Component', 'dram'), ('Container', 'row'), ('Component', 'mac')]
    """
    at = f"{where}: architecture"
    architecture = fields.mapping(document["architecture"], at, ("version", "subtree"))
    subtrees = fields.sequence(architecture["subtree"], f"{at}.subtree", fields.anything)
    if len(subtrees) != 1:
        raise InputError(f"{at}.subtree", f"has {len(subtrees)} entries", "one, with all levels in `local`")
    top = fields.mapping(subtrees[0], f"{at}.subtree[0]", ("name", "attributes", "local", "subtree"), ("local",))
    if top.get("subtree"):
        raise InputError(f"{at}.subtree[0].subtree", "is not supported", "all levels in `local` of one subtree")
    shared = _attributes(top, f"{at}.subtree[0]")
    local = fields.sequence(top["local"], f"{at}.subtree[0].local", _level)
    nodes = [
        node
        for i, level in enumerate(local)
        for node in [_node(level, local[i + 1] if i + 1 < len(local) else level, f"{at}.subtree[0].local[{i}]")]
        if node is not None
    ]
    found = {key: value for key, value in document.items() if key in _KEPT}
    found["architecture"] = {"version": architecture.get("version", 0.4), "nodes": nodes}
    found["variables"] = {**(found.get("variables") or {}), **shared}
    found["constraints"] = {"targets": _targets(document, where)}
    if sparse := (document.get("sparse_optimizations") or {}).get("targets"):
        found["sparse_optimizations"] = {"targets": sparse}
    components = document.get("compound_components") or document.get("components")
    return {**found, "components": components} if components else found


def _level(entry: Any, where: str) -> dict[str, Any]:
    allowed = ("name", "class", "subclass", "attributes", "required_actions", "enabled", "area_scale", "energy_scale",
               "area_share", "energy_share", "constraints")  # fmt: skip
    level = dict(fields.mapping(entry, where, allowed, ("name", "class")))
    name = fields.name(level["name"], f"{where}.name")
    attributes = dict(fields.optional_mapping(level.get("attributes"), f"{where}.attributes"))
    mesh = {axis: fields.integer(attributes.pop(axis, 1), f"{where}.attributes.{axis}") for axis in _MESH}
    return level | {"name": _RANGE.sub("", name), "attributes": attributes, "mesh": mesh}


def _attributes(level: Mapping[str, Any], where: str) -> dict[str, Any]:
    attributes = fields.optional_mapping(level.get("attributes"), f"{where}.attributes")
    return {name: value for name, value in attributes.items() if name not in _MESH and value is not None}


def _node(level: Mapping[str, Any], inner: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The node of a level; None for a level of a fan-out that has none."""
    mesh = {}
    for axis in _MESH:
        size, rest = divmod(inner["mesh"][axis], level["mesh"][axis])
        if rest:
            problem = f"{inner['name']} has {inner['mesh'][axis]} instances on {axis[-1]}, {level['name']} "
            raise InputError(where, f"{problem}{level['mesh'][axis]}", "a multiple of those further out")
        mesh[axis] = size
    fanout = _FANOUT.fullmatch(level["name"]) if level["class"] == _DUMMY else None
    if fanout:
        return {TAG: "Container", "name": fanout[1], "spatial": mesh} if max(mesh.values()) > 1 else None
    if max(mesh.values()) > 1:
        problem = f"{level['name']} has a fan-out of {mesh['meshX']} x {mesh['meshY']} without a level of its own"
        raise InputError(where, problem, "a level inter_NAME_spatial of class dummy_storage between them")
    kept = {key: level[key] for key in ("subclass", "energy_scale", "enabled") if level.get(key) is not None}
    attributes = {name: value for name, value in level["attributes"].items() if value is not None}
    if attributes.get("power_gated_at") == level["name"]:
        del attributes["power_gated_at"]
    return {TAG: "Component", "name": level["name"], "class": level["class"], "attributes": attributes, **kept}


def _targets(document: Mapping[str, Any], where: object) -> list[dict[str, Any]]:
    """The constraints, those of fan-outs by the names of their containers."""
    at = f"{where}: architecture_constraints"
    constraints = fields.optional_mapping(document.get("architecture_constraints"), at, ("version", "targets"))
    found = []
    for i, entry in enumerate(fields.optional_sequence(constraints.get("targets"), f"{at}.targets", fields.anything)):
        target = dict(fields.mapping(entry, f"{at}.targets[{i}]", required=("target", "type")))
        fanout = _FANOUT.fullmatch(str(target["target"]))
        if fanout is None:
            found.append(target)
        elif target["type"] == "spatial":
            found.append(target | {"target": fanout[1]})
    return found
