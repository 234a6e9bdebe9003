"""The mapper's energy equals that of trying every mapping, on random small problems and hardware."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dse.energy.ert import Ert
from dse.mapper import OBJECTIVES, search
from dse.mapper.space import keep_choices
from dse.problem import CONV_DIMENSIONS, conv_problem
from dse.spec_reader import SpecFile
from tests.dse.mapper.brute_force import cost, every_mapping, least

LARGEST = 8000  # mappings that are tried one by one
TENSORS = ("Weights", "Inputs", "Outputs")


def _memory(name: str, draw: Any, keep: dict[str, list[str]], depth: int | None) -> dict[str, Any]:
    datawidth = 8
    block = draw(st.sampled_from([1, 1, 2, 4]))
    attributes: dict[str, Any] = {"datawidth": datawidth, "width": datawidth * block}
    if depth is not None:
        attributes["depth"] = depth
    for limit in draw(st.sampled_from([(), (), (), ("read_bandwidth",), ("write_bandwidth", "shared_bandwidth")])):
        attributes[limit] = draw(st.sampled_from([0.25, 0.5, 1, 3]))
    node = {"!": "Component", "name": name, "class": "SRAM", "attributes": attributes}
    node["constraints"] = {"dataspace": keep}
    return node


def _constraint(draw: Any) -> dict[str, Any]:
    fixed = draw(st.lists(st.sampled_from(CONV_DIMENSIONS), max_size=3, unique=True))
    constraint: dict[str, Any] = {"factors": [f"{d}{draw(st.sampled_from(['=1', '<=2', '<=3']))}" for d in fixed]}
    if draw(st.integers(0, 3)) == 0:
        constraint["permutation"] = draw(st.permutations(CONV_DIMENSIONS))[: draw(st.integers(1, 8))]
    return constraint


@st.composite
def hardware(draw: Any) -> dict[str, Any]:
    """A chain of two to four memories with one or two fan-outs, in the shapes that architectures have."""
    some = st.lists(st.sampled_from(TENSORS), min_size=1, max_size=3, unique=True)

    def keep(fully: bool) -> dict[str, list[str]]:
        kept = list(TENSORS) if fully else draw(some)
        rest = [t for t in TENSORS if t not in kept]
        if rest and draw(st.integers(0, 9)) == 0:
            rest = rest[1:]  # left open to the mapper
        return {"keep": kept, "bypass": rest}

    nodes: list[dict[str, Any]] = [_memory("dram", draw, keep(True), None)]
    if draw(st.booleans()):
        nodes.append(_memory("buffer", draw, keep(draw(st.booleans())), draw(st.integers(2, 40))))
        if draw(st.booleans()):
            nodes[-1]["constraints"]["temporal"] = _constraint(draw)
    meshes = draw(st.sampled_from([(2, 1), (3, 2), (1, 4), (2, 2), (4, 3)]))
    array = {"!": "Container", "name": "pe", "spatial": {"meshX": meshes[0], "meshY": meshes[1]}}
    if draw(st.booleans()):
        array["constraints"] = {"spatial": _constraint(draw)}
        if draw(st.integers(0, 3)) == 0:
            array["constraints"]["spatial"]["split"] = draw(st.sampled_from([0, 2, 4, 999]))
    nodes.append(array)
    for name in draw(st.sampled_from([["regs"], ["weights", "inputs"], ["regs", "psums"], []])):
        nodes.append(_memory(name, draw, keep(False), draw(st.integers(1, 12))))
        if draw(st.booleans()):
            nodes[-1]["constraints"]["temporal"] = _constraint(draw)
    nodes.append({"!": "Component", "name": "mac", "class": "intmac"})
    return {"architecture": {"version": 0.4, "nodes": nodes}}


@st.composite
def layers(draw: Any) -> dict[str, int]:
    shape = draw(st.sampled_from(["sliding", "channels", "mixed", "grouped", "plane"]))
    sizes = st.sampled_from([2, 3, 4])
    if shape == "sliding":
        layer = {"P": draw(sizes), "R": draw(st.sampled_from([2, 3])), "M": draw(st.sampled_from([1, 2]))}
    elif shape == "channels":
        layer = {"C": draw(sizes), "M": draw(sizes), "Q": draw(st.sampled_from([1, 2]))}
    elif shape == "grouped":
        layer = {"G": draw(st.sampled_from([2, 3])), "Q": draw(sizes), "S": draw(st.sampled_from([1, 2, 3]))}
    elif shape == "plane":
        layer = {
            "P": draw(sizes),
            "Q": draw(sizes),
            "R": draw(st.sampled_from([2, 3])),
            "S": draw(st.sampled_from([1, 2])),
        }
    else:
        layer = {"P": draw(sizes), "Q": 2, "S": draw(st.sampled_from([1, 3]))}
    for coefficient in ("Hstride", "Wstride", "Hdilation"):
        layer[coefficient] = draw(st.sampled_from([1, 1, 2]))
    return layer


def energies(draw: Any, names: list[str], leak: bool) -> Ert:
    pj = st.integers(1, 400).map(lambda n: n / 16)
    tables = {n: {a: draw(pj) for a in ("read", "write", "update")} for n in names}
    for table in tables.values():
        table["leak"] = draw(st.integers(0, 40).map(lambda n: n / 64)) if leak else 0.0
    return Ert({**tables, "mac": {"compute": 0.5}})


def check(data: st.DataObject) -> None:
    problem = conv_problem(data.draw(layers()))
    spec = SpecFile(data.draw(hardware()), "hardware").instance(dimensions=problem.dimensions, tensors=TENSORS)
    ert = energies(data.draw, [s.name for s in spec.storages], data.draw(st.integers(0, 4)) == 0)
    objective = data.draw(st.sampled_from(["energy", "energy", "edp", "delay"]))
    size = sum(1 for _ in zip(every_mapping(spec, problem), range(LARGEST + 1), strict=False))
    if size > LARGEST:
        return
    expected = least(spec, problem, ert, objective)
    found = search(spec, problem, ert, objective)
    if expected is None:
        assert found.mapping is None and found.reason
    else:
        assert found.optimal and found.evaluation is not None
        equal = len(keep_choices(spec, problem)) == 1  # between equal energies cycles decide under one choice only
        count = 2 if objective != "energy" or equal else 1
        assert cost(found.evaluation, objective)[:count] == pytest.approx(expected[:count], rel=1e-9)


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_equals_brute_force(data: st.DataObject) -> None:
    check(data)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_a_search_cut_short_says_so_and_still_answers(
    monkeypatch: pytest.MonkeyPatch, objective: str, nodes: int
) -> None:
    explore = importlib.import_module("dse.mapper.explore")
    monkeypatch.setattr(explore._Walk.explore, "__defaults__", (nodes,))
    problem = conv_problem({"C": 4, "M": 4, "P": 4, "R": 3})
    memory = {"!": "Component", "class": "SRAM"}
    nodes_ = [
        {**memory, "name": "dram", "attributes": {"datawidth": 8, "width": 8}},
        {"!": "Container", "name": "pe", "spatial": {"meshX": 4}},
        {**memory, "name": "regs", "attributes": {"datawidth": 8, "width": 8, "depth": 12},
         "constraints": {"dataspace": {"keep": list(TENSORS)}}},
        {"!": "Component", "name": "mac", "class": "intmac"},
    ]  # fmt: skip
    document = {"architecture": {"version": 0.4, "nodes": nodes_}}
    spec = SpecFile(document, "hardware").instance(dimensions=problem.dimensions, tensors=TENSORS)
    prices = {n: {"read": 1.0, "write": 1.0, "update": 1.0, "leak": 0.0} for n in ("dram", "regs")}
    found = search(spec, problem, Ert({**prices, "mac": {"compute": 0.5}}), objective)
    assert found.mapping is not None and not found.optimal
