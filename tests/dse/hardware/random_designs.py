"""Random v4 specifications with what people write: branches, merges, macros of constraints, expressions."""

from __future__ import annotations

import random
from typing import Any

import yaml

from dse.hardware.constraints import for_layer
from dse.hardware.spec import Spec
from dse.workload.problem import CONV_DIMENSIONS, CONV_SHAPE, Problem

TENSORS = ("Weights", "Inputs", "Outputs")
SIZES = (1, 2, 3, 4, 6, 8)


def design(seed: int) -> dict[str, Any]:
    """A specification with `architecture`, `variables`, `constraints` and `problem`; tags are under the key ``"!"``.

    Every memory of a branch keeps only what no other branch keeps, so that the front end accepts most of them.
    """
    rng = random.Random(seed)
    instance = {d: rng.choice(SIZES) for d in CONV_DIMENSIONS}
    names = _Names()
    nodes: list[Any] = [_container(rng, names), _memory(rng, names, TENSORS, top=True)]
    for _ in range(rng.randint(1, 3)):
        nodes += rng.choice((_chain, _parallel, _hierarchy))(rng, names)
    nodes.append({"!": "Component", "name": names.new("mac"), "class": "intmac"})
    variables = {"version": 0.4, "technology": "45nm", "global_cycle_seconds": 1e-9, "wide": 64, "half": "wide // 2"}
    document: dict[str, Any] = {
        "architecture": {"version": 0.4, "nodes": nodes},
        "variables": variables,
        "problem": {"version": 0.4, "shape": CONV_SHAPE, "instance": instance},
    }
    if rng.random() < 0.3:
        target = {"type": "temporal", "target": nodes[1]["name"], "permutation": list("NGCM")}
        nodes[1].setdefault("constraints", {}).pop("temporal", None)
        document["constraints"] = {"version": 0.4, "targets": [target]}
    return document


class _Names:
    def __init__(self) -> None:
        self._next = 0
        self.nothing = False

    def new(self, kind: str) -> str:
        self._next += 1
        return f"{kind}{self._next}"


def _chain(rng: random.Random, names: _Names) -> list[Any]:
    found = [_memory(rng, names, TENSORS)]
    return [_container(rng, names, fanout=True), *found] if rng.random() < 0.6 else found


def _hierarchy(rng: random.Random, names: _Names) -> list[Any]:
    tag = rng.choice(("Hierarchical", "Pipelined"))
    return [{"!": tag, "nodes": [*_chain(rng, names), *_chain(rng, names)]}]


def _parallel(rng: random.Random, names: _Names) -> list[Any]:
    """Branches that keep disjoint tensors; what none keeps goes to a `!Nothing`."""
    tensors = list(TENSORS)
    rng.shuffle(tensors)
    cut = rng.randint(1, 2)
    branches: list[Any] = []
    for kept in (tensors[:cut], tensors[cut:]):
        keep = {"dataspace": {"keep": sorted(kept)}}
        choice = rng.random()
        if choice < 0.3 and not names.nothing:  # the front end gives all the same name, and so refuses two
            branches.append({"!": "Nothing", "constraints": keep})
            names.nothing = True
            continue
        memory = _memory(rng, names, ())
        memory["constraints"] = {**memory.get("constraints", {}), **keep}
        memory.pop("spatial", None)
        memory["constraints"].pop("spatial", None)
        branches.append({"!": "Hierarchical", "nodes": [_container(rng, names, fanout=True), memory]}
                        if choice < 0.5 else memory)  # fmt: skip
    return [{"!": "Parallel", "nodes": branches}]


def _container(rng: random.Random, names: _Names, fanout: bool = False) -> dict[str, Any]:
    node: dict[str, Any] = {"!": "Container", "name": names.new("part")}
    if fanout:
        mesh = {"meshX": rng.choice((2, 4, "half // 8")), "meshY": rng.choice((1, 2))}
        node |= {"spatial": mesh, "constraints": {"spatial": _spatial(rng)}}
    if rng.random() < 0.4:
        inherited = ({"read_bandwidth": 4}, {"read_bandwidth": "wide / 8"}, {"has_power_gating": True})
        node["attributes"] = rng.choice(inherited)
    return node


def _memory(rng: random.Random, names: _Names, tensors: tuple[str, ...], top: bool = False) -> dict[str, Any]:
    attributes: dict[str, Any] = {"width": rng.choice(("wide", 64, "half * 2")), "datawidth": 8}
    if not top and rng.random() < 0.15:
        attributes["has_power_gating"] = True
    if rng.random() < 0.2:
        attributes["write_bandwidth"] = 2
    if not top:
        attributes["depth"] = rng.choice((512, "wide * 16", 4096))
    node: dict[str, Any] = {
        "!": "Component",
        "name": names.new("memory"),
        "class": "DRAM" if top else rng.choice(("storage", "SRAM", "regfile")),
        "attributes": attributes,
    }
    if not top and rng.random() < 0.4:
        node["subclass"] = "smartbuffer_SRAM"
    constraints: dict[str, Any] = {"temporal": _temporal(rng)} if rng.random() < 0.7 else {}
    if tensors and not top and rng.random() < 0.6:
        kept = rng.sample(TENSORS, rng.randint(0, 3))
        key = rng.choice(("keep_only", "bypass_only", "keep"))
        constraints["dataspace"] = {key: ["*"] if key == "keep" and len(kept) == 3 else sorted(kept)}
    if tensors and not top and rng.random() < 0.2:
        constraints.setdefault("dataspace", {})["no_coalesce"] = rng.sample(TENSORS, 1)
    if constraints:
        node["constraints"] = constraints
    return node


def _loops(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kind = rng.random()
    some = rng.sample(CONV_DIMENSIONS, rng.randint(1, 3))
    if kind < 0.3:
        found["factors"] = [f"{d}={rng.choice((0, 1, 1, 2))}" for d in some]
    elif kind < 0.5:
        found["factors_only"] = [f"{d}<={rng.choice((2, 4))}" for d in some] if rng.random() < 0.7 else []
    elif kind < 0.65:
        found["no_iteration_over_dataspaces"] = rng.sample(TENSORS, 1)
    if rng.random() < 0.2:
        found["no_reuse"] = rng.sample(TENSORS, 1)
    if rng.random() < 0.5:
        found["permutation"] = rng.sample(CONV_DIMENSIONS, rng.randint(1, 8))
    return found


def _temporal(rng: random.Random) -> dict[str, Any]:
    found = _loops(rng)
    if rng.random() < 0.2:
        found["rmw_first_update"] = ["*"] if rng.random() < 0.5 else ["Outputs"]
    if not found.keys() & {"factors", "factors_only", "no_iteration_over_dataspaces"} and rng.random() < 0.3:
        found |= {"maximize_dims": [["C", "M"], ["R"]], "maximize_dims_capacity": rng.choice((4, "half", 24))}
    return found


def _spatial(rng: random.Random) -> dict[str, Any]:
    found = _loops(rng)
    if not found.keys() & {"factors", "factors_only", "no_iteration_over_dataspaces"} and rng.random() < 0.5:
        found["maximize_dims"] = rng.choice((["C", "M"], [["R", "S"], ["M"]]))
    if rng.random() < 0.3:
        found["split"] = rng.choice((0, 2, 999))
    return found


class _Tagged(dict[str, Any]):
    tag: str


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Tagged, lambda dumper, node: dumper.represent_mapping(node.tag, dict(node)))


def as_text(document: dict[str, Any]) -> str:
    """A specification as people write it: with tags, and with quotes around what is no expression."""

    def tagged(value: Any) -> Any:
        if isinstance(value, list):
            return [tagged(item) for item in value]
        if not isinstance(value, dict):
            return value
        inner = {key: tagged(item) for key, item in value.items() if key != "!"}
        if "!" not in value:
            return inner
        node = _Tagged(inner)
        node.tag = f"!{value['!']}"
        return node

    return yaml.dump(tagged(document), Dumper=_Dumper, sort_keys=False).replace("45nm", '"45nm"')


def compared(spec: Spec, problem: Problem) -> list[Any]:
    """Everything in a specification that decides counts and mapspace for a layer.

    Loops of one iteration that a permutation names first are only counted, by `split`: their order is left out.
    """
    found = for_layer(spec, problem).canonical()["levels"]
    for level in found:
        loops = next(part for part in level if isinstance(part, list) and len(part) == 6)
        ones = {d for d, factor in loops[0] if factor == 1} | {d for d, bound in problem.bound.items() if bound == 1}
        loops[3] = (sorted(d for d in loops[3] if d in ones), [d for d in loops[3] if d not in ones])
    return list(found)
