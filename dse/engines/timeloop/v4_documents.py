"""What Timeloop's Python front end reads: a v4 specification of an accelerator and a layer, with resolved numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dse.hardware.spec import Compute, Fanout, LoopConstraint, Spec, Storage
from dse.workload.problem import Problem

VERSION = 0.4
TOP = "enos_system"

METRICS = {"energy": ["energy"], "edp": ["edp"], "delay": ["delay", "energy"]}
"""Timeloop's `optimization_metrics` for each objective; a later metric decides among equals."""


class _Node(dict[str, Any]):
    """A node with a YAML tag."""

    def __init__(self, tag: str, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.tag = tag


class _Dumper(yaml.SafeDumper):
    """Quotes all text, so that the front end evaluates none of it as an expression."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Node, lambda dumper, node: dumper.represent_mapping(node.tag, dict(node)))
_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def v4_specification(
    spec: Spec, problem: Problem, mapper: Mapping[str, Any] | None = None, every_depth: bool = False
) -> str:
    """The v4 specification of a layer on an accelerator, as YAML.

    Components are of Timeloop's own classes: what an access costs comes with the energy table of a run.

    Args:
        every_depth: gives each memory a depth, 1 where its capacity is not a number of rows or has no limit. The front
            end of timeloop-python ada06ac (2025) and later refuses a memory without one.
    """
    document: dict[str, Any] = {
        "architecture": {"version": VERSION, "nodes": _nodes(spec, every_depth)},
        "problem": {"version": VERSION, **problem_v4(problem)},
    }
    if mapper is not None:
        document["mapper"] = {"version": VERSION, **mapper}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=200)


def problem_v4(problem: Problem) -> dict[str, Any]:
    """`shape` and `instance`; a coefficient other than 1 is named after its value: ``k2``."""
    values = sorted({abs(c) for tensor in problem.data_spaces for axis in tensor.axes for _, c in axis if c != 1})

    def term(dimension: str, coefficient: int) -> list[str]:
        return [dimension] if coefficient == 1 else [dimension, f"k{coefficient}"]

    spaces = [
        {
            "name": tensor.name,
            "projection": [[term(d, c) for d, c in axis] for axis in tensor.axes],
            **({"read_write": True} if tensor.read_write else {}),
        }
        for tensor in problem.data_spaces
    ]
    shape = {
        "name": "layer",
        "dimensions": list(problem.dimensions),
        "coefficients": [{"name": f"k{value}", "default": value} for value in values],
        "data_spaces": spaces,
    }
    return {"shape": shape, "instance": {**problem.bound, **{f"k{value}": value for value in values}}}


def _nodes(spec: Spec, every_depth: bool) -> list[_Node]:
    """The nodes. A fan-out becomes a container, or a part of the component whose name it has: names are unique."""
    nodes = [_Node("!Container", {"name": TOP})]
    for level in (*spec.levels, spec.compute):
        if isinstance(level, Fanout):
            nodes.append(_Node("!Container", _fanout(level)))
            continue
        node = _compute(level) if isinstance(level, Compute) else _storage(level, every_depth)
        if level is spec.storages[0] and spec.network_latency:  # Timeloop adds up those of all levels
            node["attributes"]["network_fill_latency"] = spec.network_latency
        if nodes[-1]["name"] == node["name"]:
            own = nodes.pop()
            constraints = {**node.get("constraints", {}), **own.get("constraints", {})}
            node = _Node(node.tag, {**node, **own, **({"constraints": constraints} if constraints else {})})
        nodes.append(node)
    return nodes


def _fanout(fanout: Fanout) -> dict[str, Any]:
    """The fields of the node that Timeloop turns into a level of the fan-out's name."""
    spatial = _loops(fanout.spatial)
    if fanout.no_link_transfer:
        spatial["no_link_transfer"] = sorted(fanout.no_link_transfer)
    if fanout.no_reuse:
        spatial["no_reuse"] = sorted(fanout.no_reuse)
    return {
        "name": fanout.name.removeprefix("inter_").removesuffix("_spatial"),
        "spatial": {"meshX": fanout.mesh_x, "meshY": fanout.mesh_y},
        **({"constraints": {"spatial": spatial}} if spatial else {}),
    }


def capacity_fields(storage: Storage) -> dict[str, int]:
    """A memory's capacity: ``depth``, in rows; ``entries``, in words, where it is no number of rows; none: no limit."""
    if storage.capacity is None:
        return {}
    depth, rest = divmod(storage.capacity, storage.block_size)
    return {"entries": storage.capacity} if rest else {"depth": depth}


def _storage(storage: Storage, every_depth: bool) -> _Node:
    unlimited = storage.capacity is None
    attributes: dict[str, Any] = {
        "datawidth": storage.datawidth,
        "width": storage.datawidth * storage.block_size * storage.cluster_size,
        "block_size": storage.block_size,
    }
    capacity = capacity_fields(storage)
    attributes |= {"depth": 1} if every_depth and "depth" not in capacity else capacity
    for name in ("read_bandwidth", "write_bandwidth", "shared_bandwidth"):
        if (bandwidth := getattr(storage, name)) is not None:
            attributes[name] = bandwidth
    if storage.cluster_size > 1:
        attributes["cluster_size"] = storage.cluster_size
    if storage.bandwidth_scale:
        attributes["per_dataspace_bandwidth_consumption_scale"] = dict(storage.bandwidth_scale)
    if storage.power_gate is not None:
        attributes["power_gated_at"] = storage.power_gate
    constraints: dict[str, Any] = {}
    kept = {
        word: [tensor for tensor, keep in storage.keep.items() if keep is value]
        for word, value in (("keep", True), ("bypass", False))
    }
    if any(kept.values()):
        constraints["dataspace"] = {word: tensors for word, tensors in kept.items() if tensors}
    if storage.no_coalesce:
        constraints.setdefault("dataspace", {})["no_coalesce"] = sorted(storage.no_coalesce)
    temporal = _loops(storage.temporal)
    for name in ("no_reuse", "rmw_first_update"):
        if tensors := getattr(storage, name):
            temporal[name] = sorted(tensors)
    if temporal:
        constraints["temporal"] = temporal
    return _Node(
        "!Component",
        {
            "name": storage.name,
            "class": "DRAM" if unlimited else "storage",
            "attributes": attributes,
            **({"constraints": constraints} if constraints else {}),
        },
    )


def _compute(compute: Compute) -> _Node:
    return _Node("!Component", {"name": compute.name, "class": "compute", "attributes": {"datawidth": 8}})


def _loops(constraint: LoopConstraint) -> dict[str, Any]:
    """Constraints on the loops of a level. Loops of one iteration that are not listed the front end puts innermost."""
    factors = [
        f"{dimension}{relation}{value}"
        for relation, bounds in (("=", constraint.factors), ("<=", constraint.at_most), (">=", constraint.at_least))
        for dimension, value in bounds.items()
        if (relation, value) != (">=", 1)
    ]
    found: dict[str, Any] = {"factors": factors} if factors else {}
    if constraint.inner or constraint.outer:
        found["permutation"] = [*constraint.inner, *(["_", *constraint.outer] if constraint.outer else [])]
    if constraint.split is not None:
        found["split"] = constraint.split
    return found
