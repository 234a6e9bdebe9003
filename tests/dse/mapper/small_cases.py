"""Random small layers on random small accelerators, of every kind that the mapper takes, few enough to try them all.

The generator draws through `Pick`, so that hypothesis (which shrinks what fails) and a seeded random number generator
(which is fast) make cases from the same code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec, Storage
from dse.hardware.spec_reader import SpecFile
from dse.mapper import OBJECTIVES
from dse.workload.problem import CONV_SHAPE, Problem, problem_from_document

T = TypeVar("T")


class Pick:
    """Draws from a sequence, each element as likely as any other; an element that stands twice is twice as likely."""

    def __init__(self, of: Callable[[Sequence[Any]], Any]) -> None:
        self._of = of

    @staticmethod
    def seeded(seed: int) -> Pick:
        return Pick(random.Random(seed).choice)

    def of(self, options: Sequence[T]) -> T:
        return self._of(options)  # type: ignore[no-any-return]

    def one_in(self, n: int) -> bool:
        return self.of(range(n)) == n - 1  # the first is what hypothesis shrinks to

    def subset(self, options: Sequence[T], odds: int = 2) -> list[T]:
        return [x for x in options if self.one_in(odds)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        left = list(options)
        return [left.pop(self.of(range(len(left)))) for _ in options]


@dataclass(frozen=True)
class Case:
    """A question to the mapper."""

    spec: Spec
    problem: Problem
    ert: Ert
    objective: str
    documents: tuple[dict[str, Any], dict[str, Any]]  # architecture and problem, as a user would write them


def draw_case(pick: Pick) -> Case:
    kind = pick.of(sorted(_PROBLEMS))
    shape, instance = _PROBLEMS[kind](pick)
    document = {"problem": {"version": 0.4, "shape": shape, "instance": instance}}
    problem = problem_from_document(document["problem"], kind)
    tensors = tuple(s.name for s in problem.data_spaces)
    architecture = _architecture(pick, problem, tensors)
    spec = SpecFile(architecture, "hardware").instance(problem=problem)
    ert = _energies(pick, [s.name for s in spec.storages])
    return Case(spec, problem, ert, pick.of(["energy", *OBJECTIVES]), (architecture, document))


def limited(case: Case, pick: Pick) -> Case:
    """The same question with levels that limit reuse, in one way or in several."""
    tensors = [s.name for s in case.problem.data_spaces]
    ways = pick.subset(("no_reuse", "alone", "rmw_first_update", "no_coalesce", "cluster_size", "bandwidth_scale"))
    levels: list[Storage | Fanout] = []
    for level in case.spec.levels:
        if isinstance(level, Fanout):
            alone = pick.subset(tensors, odds=3) if "alone" in ways else []
            levels.append(replace(level, no_reuse=frozenset(alone)))
            continue
        changes: dict[str, Any] = {}
        for way in ("no_reuse", "rmw_first_update", "no_coalesce"):
            if way in ways:
                odds = 10 if way == "no_coalesce" and not levels else 3  # some level must merge accesses
                changes[way] = frozenset(pick.subset(tensors, odds))
        if "cluster_size" in ways and level.capacity is not None:
            instances = case.spec.instances[level.name]
            changes["cluster_size"] = pick.of([n for n in range(1, instances + 1) if instances % n == 0])
        if "bandwidth_scale" in ways:
            changes["bandwidth_scale"] = {t: pick.of([0.25, 0.5, 2.0, 3.0]) for t in pick.subset(tensors)}
            changes["read_bandwidth"] = level.read_bandwidth or pick.of([0.25, 0.5, 1.0])
        levels.append(replace(level, **changes))
    return replace(case, spec=replace(case.spec, levels=tuple(levels)))


def _convolution(pick: Pick) -> tuple[dict[str, Any], dict[str, int]]:
    instance = dict.fromkeys(CONV_SHAPE["dimensions"], 1)
    for d in pick.of(["PR", "PRM", "CMQ", "CMP", "GQS", "GPR", "PQRS", "PQS", "GC", "NCM", "GM", "NP", "PRC"]):
        instance[d] = pick.of([2, 2, 3, 4, 5, 6] if d not in "RS" else [2, 3, 4])
    coefficients = {c: pick.of([1, 1, 1, 2, 3]) for c in ("Hstride", "Wstride", "Hdilation", "Wdilation")}
    return CONV_SHAPE, instance | coefficients


def _matmul(pick: Pick) -> tuple[dict[str, Any], dict[str, int]]:
    shape = {
        "name": "matmul", "dimensions": ["B", "I", "J", "K"],
        "data_spaces": [
            {"name": "Left", "projection": [[["B"]], [["I"]], [["K"]]]},
            {"name": "Right", "projection": [[["B"]], [["K"]], [["J"]]]},
            {"name": "Result", "projection": [[["B"]], [["I"]], [["J"]]], "read_write": True},
        ],
    }  # fmt: skip
    return shape, {d: pick.of([1, 2, 2, 3, 4, 6]) for d in "BIJK"}


def _einsum(pick: Pick) -> tuple[dict[str, Any], dict[str, int]]:
    """Two to four tensors, axes of one to three dimensions; few dimensions are on two axes of a tensor."""
    dimensions = list("ABCD")[: pick.of([2, 3, 3, 4])]
    coefficients = [{"name": "k", "default": pick.of([1, 2, 3])}, {"name": "l", "default": 1}]

    def projection() -> list[list[list[str]]]:
        axes: list[list[list[str]]] = []
        for d in pick.shuffled(dimensions):
            if pick.one_in(3) and dimensions != ["A"]:
                continue
            term = [d, *pick.of([[], [], ["k"], ["l"]])]
            if axes and pick.one_in(3):
                axes[-1].append(term)
            else:
                axes.append([term])
            if pick.one_in(12):
                axes.append([[d, *pick.of([[], ["k"]])]])  # a dimension on two axes
        return axes or [[[dimensions[0]]]]

    count = pick.of([1, 2, 2, 3])
    spaces: list[dict[str, Any]] = [{"name": f"T{i}", "projection": projection()} for i in range(count)]
    spaces.append({"name": "Z", "projection": projection(), "read_write": True})
    shape = {"name": "einsum", "dimensions": dimensions, "coefficients": coefficients, "data_spaces": spaces}
    return shape, {d: pick.of([1, 2, 2, 3, 4, 6]) for d in dimensions}


_PROBLEMS: dict[str, Callable[[Pick], tuple[dict[str, Any], dict[str, int]]]] = {
    "conv": _convolution, "conv again": _convolution, "einsum": _einsum, "matmul": _matmul,
}  # fmt: skip


def _architecture(pick: Pick, problem: Problem, tensors: tuple[str, ...]) -> dict[str, Any]:
    """Two to four memories with up to two fan-outs between them and below, innermost the compute unit."""
    memories = pick.of([2, 2, 3, 3, 4])
    fanouts = pick.subset(range(1, memories + 1), odds=pick.of([2, 3]))[:2]
    nodes: list[dict[str, Any]] = []
    for i in range(memories + 1):
        if i in fanouts:
            nodes.append(_fanout(pick, f"array{i}", problem))
        if i < memories:
            nodes.append(_memory(pick, f"memory{i}", problem, tensors, outermost=i == 0))
    storages = [node for node in nodes if node["!"] == "Component"]
    for t in tensors:  # each must be kept somewhere
        if all(t in node["constraints"]["dataspace"]["bypass"] for node in storages):
            storages[-1]["constraints"]["dataspace"]["bypass"].remove(t)
    nodes.append({"!": "Component", "name": "mac", "class": "intmac"})
    return {"architecture": {"version": 0.4, "nodes": nodes}}


def _memory(pick: Pick, name: str, problem: Problem, tensors: tuple[str, ...], *, outermost: bool) -> dict[str, Any]:
    block = pick.of([1, 1, 1, 2, 4])
    attributes: dict[str, Any] = {"datawidth": 8, "width": 8 * block}
    if not outermost:
        attributes["depth"] = pick.of([2, 3, 4, 6, 9, 12, 20, 40, 1000])
    if pick.one_in(8):
        attributes[pick.of(["network_fill_latency", "network_drain_latency"])] = pick.of([1, 7])
    for limit in pick.of([(), (), (), (), ("read_bandwidth",), ("write_bandwidth",), ("shared_bandwidth",)]):
        attributes[limit] = pick.of([0.25, 0.5, 1, 3])
    ways = ["keep"] * 12 + ["bypass", "open"] if outermost else ["keep", "keep", "bypass", "bypass", "open"]
    place = {t: pick.of(ways) for t in tensors}
    constraints: dict[str, Any] = {
        "dataspace": {way: [t for t in tensors if place[t] == way] for way in ("keep", "bypass")}
    }
    if pick.one_in(3):
        constraints["temporal"] = _loops(pick, problem)
    node = {"!": "Component", "name": name, "class": "DRAM" if outermost else "SRAM", "attributes": attributes}
    return node | {"constraints": constraints}


def _fanout(pick: Pick, name: str, problem: Problem) -> dict[str, Any]:
    x, y = pick.of([(2, 1), (3, 1), (4, 1), (1, 2), (1, 4), (2, 2), (3, 2), (2, 4), (4, 3)])
    node = {"!": "Container", "name": name, "spatial": {"meshX": x, "meshY": y}}
    constraint = _loops(pick, problem) if pick.one_in(3) else {}
    silent = pick.subset([s.name for s in problem.data_spaces], odds=3) if pick.one_in(4) else []
    if silent:
        constraint["no_link_transfer"] = silent
    if "permutation" in constraint and pick.one_in(2):
        constraint["split"] = pick.of([0, 1, 2, 4, 999])
    if constraint:
        node["constraints"] = {"spatial": constraint}
    return node


def _loops(pick: Pick, problem: Problem) -> dict[str, Any]:
    """Constraints of a level's loops: exact and largest factors, the beginning of the order or all of it."""
    constraint: dict[str, Any] = {}
    factors = []
    for d in pick.subset(problem.dimensions, odds=3):
        n = problem.bound[d]
        divisors = [k for k in range(1, n + 1) if n % k == 0]
        relation = pick.of(["=", "=", "<=", "<=", ">="])
        factors.append(f"{d}{relation}{pick.of(divisors if relation == '=' else [1, 2, 3])}")
    if factors:
        constraint["factors"] = factors
    if pick.one_in(8):
        constraint["default_max_factor"] = pick.of([1, 2, 4])
    if pick.one_in(3):
        order = pick.shuffled(problem.dimensions)[: pick.of(range(1, len(problem.dimensions) + 1))]
        gap = pick.of([len(order), len(order), *range(len(order))])  # what comes behind "_" is outermost
        constraint["permutation"] = order if gap == len(order) else [*order[:gap], "_", *order[gap:]]
    return constraint


def _energies(pick: Pick, memories: list[str]) -> Ert:
    """Energies of any ratio; inner memories are often, but not always, cheaper."""
    ordered = pick.one_in(2)
    tables: dict[str, dict[str, float]] = {}
    for i, name in enumerate(memories):
        scale = 400 // 5 ** (i if ordered else 0) + 1
        tables[name] = {a: pick.of([1, 2, 3, 5, 8, 13, 40]) * scale / 64 for a in ("read", "write", "update")}
        if pick.one_in(4):
            tables[name]["write"] = tables[name]["update"] = tables[name]["read"]
    leaks = pick.one_in(4)
    for table in tables.values():
        table["leak"] = pick.of([0, 1, 5, 20]) / 32 if leaks else 0.0
    return Ert({**tables, "mac": {"compute": 0.5}})
