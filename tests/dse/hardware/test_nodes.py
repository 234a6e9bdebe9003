"""Branches, macros of constraints and the flat form: what is read is what the real front end makes of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import parse_yaml, read_text
from dse.core.errors import InputError
from dse.hardware.constraints import largest_share
from dse.hardware.spec import Fanout, Spec
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import Problem, conv_problem, problem_from_document
from tests.dse.hardware.random_designs import as_text, compared, design

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.yaml"))
"""``N.yaml`` is the flat form that the real front end made of `design(N)`."""

TREE = """
architecture:
  version: 0.4
  nodes:
  - !Container {name: system, attributes: {datawidth: 8}}
  - !Component {name: dram, class: DRAM, attributes: {width: 64}}
  - !Parallel
    nodes:
    - !Hierarchical
      nodes:
      - !Container {name: row, spatial: {meshX: 4}}
      - !Component
        name: inputs
        class: storage
        subclass: smartbuffer_RF
        attributes: {width: 16, depth: 12}
        constraints: {dataspace: {keep: [Inputs]}}
    - !Component
      name: weights
      class: storage
      attributes: {width: 16, depth: rows * 2}
      constraints: {dataspace: {keep: [Weights]}}
    - !Nothing {constraints: {dataspace: {keep: [Outputs]}}}
  - !Component {name: mac, class: intmac}
variables: {version: 0.4, rows: row.get_fanout()}
"""
LAYER = conv_problem({"C": 4, "M": 8})


def read(document: Any, problem: Problem = LAYER) -> Spec:
    return SpecFile(document, "a").instance(problem=problem)


def tree() -> Any:
    return parse_yaml(TREE, "a")


def nodes(document: Any) -> Any:
    return document["architecture"]["nodes"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_tree_is_the_chain_that_the_front_end_makes_of_it(path: Path) -> None:
    document = design(int(path.stem))
    problem = problem_from_document(document["problem"], "p")
    ours = SpecFile(document, "tree").instance(problem=problem)
    flat = SpecFile(parse_yaml(read_text(path), path), path).instance(problem=problem)
    assert compared(ours, problem) == compared(flat, problem)


def test_text_and_document_of_a_random_design_are_the_same() -> None:
    document = design(3)
    problem = problem_from_document(document["problem"], "p")
    again = parse_yaml(as_text(document), "text")
    assert compared(read(again, problem), problem) == compared(read(document, problem), problem)


def test_each_branch_of_a_parallel_bypasses_what_the_others_keep() -> None:
    found = read(tree())
    assert [level.name for level in found.levels] == ["dram", "inter_row_spatial", "inputs", "weights"]
    assert found.storage("inputs").keep == {"Inputs": True, "Weights": False, "Outputs": False}
    assert found.storage("weights").keep == {"Weights": True, "Inputs": False, "Outputs": False}
    assert found.storage("inputs").component == "smartbuffer_RF"
    assert found.storage("weights").capacity == 4 * 2 * 2  # rows of 16 bit


def changed(at: str, value: Any) -> Any:
    document = tree()
    here = nodes(document)
    *outer, last = [int(key) if key.isdigit() else key for key in at.split("/")]
    for key in outer:
        here = here[key]
    here[last] = value
    return document


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ("2/nodes/2/constraints/dataspace/keep", ["Inputs"], "nodes[2].nodes[2]: keeps Inputs, as branch 0 does"),
        ("2/nodes/2/constraints/dataspace/keep", [], "no branch of the !Parallel keeps Outputs; add !Nothing"),
        ("2/nodes/1/spatial", {"meshX": 2}, "a component with a fan-out directly in a !Parallel"),
        ("2/nodes/1/name", "inputs", "a second node is named 'inputs'"),
        ("2/nodes/0/nodes", 3, "nodes[2].nodes[0].nodes: found 3 (allowed: a list)"),
        ("2/!", "Sideways", "the tag 'Sideways' is not supported (allowed: !Component, !Container, !Hierarchical"),
        ("1/sparse_optimizations", {"action_optimization": [1]}, "sparse optimisations (Sparseloop) are not modelled"),
        ("0/networks", [{"name": "n"}], "networks as nodes are not modelled"),
        ("2/nodes/1/attributes/depth", "row.get_width()", "there is no get_width()"),
        ("2/nodes/1/attributes/depth", "system.attributes.depth", "there is no 'depth'"),
    ],
)  # fmt: skip
def test_what_the_front_end_refuses_or_is_not_modelled_is_named(at: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as e:
        read(changed(at, value))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_container_in_a_parallel_is_refused_as_by_the_front_end() -> None:
    document = tree()
    nodes(document)[2]["nodes"][0] = {"!": "Container", "name": "row"}
    with pytest.raises(InputError, match="a container directly in a !Parallel"):
        read(document)


def test_what_says_nothing_changes_nothing() -> None:
    for at, value in (("1/sparse_optimizations", {"action_optimization": []}), ("0/networks", []), ("1/ignore_me", 3)):
        assert read(changed(at, value)) == read(tree())


def test_a_disabled_node_is_not_there() -> None:
    document = changed("2/nodes/1/enabled", False)
    nodes(document)[2]["nodes"][2]["constraints"]["dataspace"]["keep"] = ["Outputs", "Weights"]
    assert [s.name for s in read(document).storages] == ["dram", "inputs"]


def test_constraints_that_stand_outside_are_those_of_the_node() -> None:
    inside = changed("2/nodes/1/constraints/temporal", {"factors": ["C=2"]})
    outside = tree()
    outside["extra_constraints"] = {"targets": [{"type": "temporal", "target": "weights", "factors": ["C=2"]}]}
    mapping = tree() | {"mapping": [{"type": "temporal", "target": "weights", "factors": ["C=2"]}]}
    assert read(inside) == read(outside) == read(mapping)


def test_the_dense_reading_leaves_out_only_what_is_sparse(caplog: pytest.LogCaptureFixture) -> None:
    document = changed("1/sparse_optimizations", {"action_optimization": [{"type": "gating"}]})
    nodes(document)[1]["attributes"]["metadata_datawidth"] = 4
    before = copy.deepcopy(document)
    assert SpecFile(document, "a", dense=True).instance(problem=LAYER) == read(tree())
    assert "read as dense, without the sparse optimisations of dram" in caplog.text
    assert document == before


def test_variables_are_attributes_of_every_node() -> None:
    document = tree()
    document["variables"]["datawidth"] = 4
    del nodes(document)[0]["attributes"]
    assert [s.datawidth for s in read(document).storages] == [4, 4, 4]


def test_variables_may_be_a_list_that_agrees() -> None:
    document = tree()
    document["variables"] = [{"version": 0.4}, document["variables"], {"rows": "row.get_fanout()"}]
    assert read(document) == read(tree())
    document["variables"].append({"rows": 3})
    with pytest.raises(InputError, match=r"variables\[3\]: rows is 3, and was 'row.get_fanout\(\)' before"):
        read(document)


def test_a_size_without_a_limit() -> None:
    assert read(changed("2/nodes/1/attributes/depth", "INF")).storage("weights").capacity is None


@pytest.mark.parametrize("capacity", range(1, 40))
def test_the_largest_share_of_two_dimensions_is_never_above_the_capacity(capacity: int) -> None:
    sizes = {"C": 12, "M": 10}
    found = largest_share(sizes, capacity)
    assert found["C"] * found["M"] <= capacity
    divisors = [(c, m) for c in range(1, 13) for m in range(1, 11) if 12 % c == 0 and 10 % m == 0]
    assert found["C"] * found["M"] >= max(c * m for c, m in divisors if c * m <= capacity)


def test_a_fan_out_of_a_component_has_the_spatial_constraints() -> None:
    document = tree()
    nodes(document)[3] |= {"spatial": {"meshY": 2}, "constraints": {"spatial": {"factors_only": ["M<=2"]}}}
    fanout = read(document).levels[-1]
    assert isinstance(fanout, Fanout) and (fanout.mesh_x, fanout.mesh_y) == (1, 2)
    assert fanout.spatial.at_most == {"M": 2} and fanout.spatial.factors["C"] == 1
