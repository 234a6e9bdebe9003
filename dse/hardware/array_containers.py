"""What CiMLoop's own processor adds to v4: `!ArrayContainer`, the variables that follow from it, and `max_utilization`.

An `!ArrayContainer` is a container of rows (meshY) or columns (meshX) of an array that computes in memory. The array's
size becomes variables of the specification (``ARRAY_WORDLINES``, ``ARRAY_PARALLEL_INPUTS``). Source:
``ArrayProcessor`` in ``workspace/scripts/processors.py`` of CiMLoop (d6e1390).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dse.core import fields
from dse.core.documents import TAG
from dse.core.errors import InputError
from dse.core.expressions import evaluate
from dse.hardware.nodes import named_nodes, node_name

ARRAY = "ArrayContainer"
_ALL_ON_X = 99_999  # `split` of a fan-out whose loops are all on X


def array_variables(nodes: Any, variables: Mapping[str, Any], tensors: Sequence[str], where: str) -> dict[str, Any]:
    """Variables that follow from a specification's array containers; none where ``CIM_ARCHITECTURE`` is not set.

    Args:
        tensors: names of a layer's tensors.

    Raises:
        InputError: a container is both rows and columns, or its size is no whole number; ``MAX_UTILIZATION``, with
            which CiMLoop replaces the layer, is set.

    Example:
        >>> spatial = {"constraints": {"spatial": {"no_reuse": ["Outputs"]}}}
        >>> nodes = [{"!": "ArrayContainer", "name": "column", "spatial": {"meshX": 32}, **spatial}]
        >>> variables = {"CIM_ARCHITECTURE": True, "CIM_UNIT_DEPTH_CELLS": 1, "CIM_UNIT_WIDTH_CELLS": 2}
        >>> array_variables(nodes, variables, ["Outputs"], "macro")
        {'ARRAY_WORDLINES': '1 * (1)', 'ARRAY_BITLINES': '32 * (2)', 'ARRAY_PARALLEL_OUTPUTS': 32}
    """
    if variables.get("MAX_UTILIZATION") not in (None, False, 0):
        problem = "replaces the layer by one that fills the array, which is not supported"
        raise InputError(f"{where}: variables.MAX_UTILIZATION", problem, "false")
    if not variables.get("CIM_ARCHITECTURE"):
        return {}
    rows = columns = 1
    parallel = dict.fromkeys(tensors, 1)
    for node in _arrays(nodes):
        mesh = _mesh(node, variables, f"{where}: {node_name(node)}")
        columns *= mesh["meshX"]
        rows *= mesh["meshY"]
        alone = ((node.get("constraints") or {}).get("spatial") or {}).get("no_reuse") or ()
        for tensor in tensors:
            if tensor in alone or "*" in alone:
                parallel[tensor] *= math.prod(mesh.values())
    cells = {name: variables.get(name, 1) for name in ("CIM_UNIT_DEPTH_CELLS", "CIM_UNIT_WIDTH_CELLS")}
    return {
        "ARRAY_WORDLINES": f"{rows} * ({cells['CIM_UNIT_DEPTH_CELLS']})",
        "ARRAY_BITLINES": f"{columns} * ({cells['CIM_UNIT_WIDTH_CELLS']})",
        **{f"ARRAY_PARALLEL_{tensor.upper()}": count for tensor, count in parallel.items()},
    }


def as_containers(nodes: Any, variables: Mapping[str, Any], where: str) -> Any:
    """A list of nodes with array containers as plain ones, and without `max_utilization`.

    Example:
        >>> nodes = [{"!": "ArrayContainer", "name": "row", "spatial": {"meshY": 8}, "max_utilization": {}}]
        >>> as_containers(nodes, {}, "macro")
        [{'!': 'Container', 'name': 'row', 'spatial': {'meshY': 8}, 'constraints': {'spatial': {'split': 0}}}]
    """
    if not isinstance(nodes, list):
        return nodes
    found = []
    for node in nodes:
        if isinstance(node, dict):
            new = {key: value for key, value in node.items() if key != "max_utilization"}
            if "nodes" in new:
                new["nodes"] = as_containers(new["nodes"], variables, where)
            if new.get(TAG) == ARRAY:
                mesh = _mesh(node, variables, f"{where}: {node_name(node)}")
                constraints = fields.optional_mapping(new.get("constraints"), f"{where}: {node_name(node)}.constraints")
                split = _ALL_ON_X if mesh["meshY"] == 1 else 0
                spatial = {**(constraints.get("spatial") or {}), "split": split}
                new |= {TAG: "Container", "constraints": {**constraints, "spatial": spatial}}
            found.append(new)
        else:
            found.append(node)
    return found


def _arrays(nodes: Any) -> Iterator[dict[str, Any]]:
    return (node for node in named_nodes(nodes) if node.get(TAG) == ARRAY)


def _mesh(node: Mapping[str, Any], variables: Mapping[str, Any], where: str) -> dict[str, int]:
    spatial = fields.optional_mapping(node.get("spatial"), f"{where}.spatial", ("meshX", "meshY"))
    mesh = {}
    for axis in ("meshX", "meshY"):
        size = evaluate(spatial.get(axis, 1), variables, f"{where}.spatial.{axis}")
        whole = int(size) if isinstance(size, float) and size.is_integer() else size
        mesh[axis] = fields.integer(whole, f"{where}.spatial.{axis}")
    if min(mesh.values()) > 1:
        raise InputError(f"{where}.spatial", "an !ArrayContainer has both meshX and meshY", "one of them")
    return mesh
