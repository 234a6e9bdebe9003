"""Levels that limit reuse: recorded Timeloop runs, read from the v4 files that were written for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.spec import Fanout, Spec
from dse.hardware.spec_reader import SpecFile
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Mapping, parse_directives
from dse.model.physical import physical
from dse.workload.problem import Problem, problem_from_document

RUNS = sorted((Path(__file__).parents[2] / "golden" / "reuse").glob("*.json"))
TWO = """
architecture:
  version: 0.4
  nodes:
    - !Component {name: dram, class: DRAM, attributes: {datawidth: 8, width: 8}}
    - !Component {name: buf, class: SRAM, attributes: {datawidth: 8, width: 8, depth: 100}}
    - !Component {name: mac, class: compute}
problem:
  version: 0.4
  shape:
    name: dot
    dimensions: [K]
    data_spaces:
      - {name: A, projection: [[[K]]]}
      - {name: Z, projection: [], read_write: true}
  instance: {K: 6}
"""


def read(text: str) -> tuple[Spec, Problem]:
    document = parse_yaml(text, "specification")
    problem = problem_from_document(document["problem"], "specification")
    return SpecFile(document, "specification").instance(problem=problem), problem


def recorded(path: Path) -> tuple[Spec, Problem, Mapping, Ert, dict[str, Any]]:
    case = json.loads(path.read_text())
    spec, problem = read(case["specification"])
    return (
        spec,
        problem,
        parse_directives(spec, problem, case["mapping"], path),
        Ert(case["energies"]),
        case["recorded"],
    )


def plain(spec: Spec) -> Spec:
    """The same levels without limits."""
    none = {"no_coalesce": frozenset(), "rmw_first_update": frozenset(), "cluster_size": 1, "bandwidth_scale": {}}
    levels = (
        dataclasses.replace(v, no_reuse=frozenset(), **({} if isinstance(v, Fanout) else none)) for v in spec.levels
    )
    return dataclasses.replace(spec, levels=tuple(levels))


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_a_recorded_run(path: Path) -> None:
    spec, problem, mapping, ert, expected = recorded(path)
    found: Evaluation = evaluate(spec, problem, mapping, ert)
    assert (found.cycles, found.computes) == (expected["cycles"], expected["computes"])
    assert found.leakage_pj == pytest.approx(expected["leakage_pj"], rel=0, abs=0.005001 * len(spec.levels))
    assert {level: set(of) for level, of in found.levels.items()} == {
        level: set(of) for level, of in expected["levels"].items()
    }
    for level, tensors in expected["levels"].items():
        for tensor, accesses in tensors.items():
            ours = vars(found.levels[level][tensor])
            near = {"energy_pj": pytest.approx(accesses["energy_pj"], rel=0, abs=0.005001)}
            assert ours == {**accesses, **near}, (level, tensor)
    without = evaluate(plain(spec), problem, mapping, ert)
    assert (without.energy_pj, without.cycles) != (found.energy_pj, found.cycles)  # the limits are what is tested


def test_every_limit_is_recorded() -> None:
    names = {field.partition(".")[2] for path in RUNS for field in recorded(path)[0].special}
    assert names == {"no_coalesce", "no_reuse", "rmw_first_update", "cluster_size", "bandwidth_scale"}
    assert len(RUNS) == 33
    assert sum(bool(recorded(path)[2].remainders) for path in RUNS) == 7


def test_a_tensor_that_no_level_merges_stops_timeloop() -> None:
    spec, problem = read(TWO.replace("width: 8}}", "width: 8}, constraints: {dataspace: {no_coalesce: [A]}}}"))
    mapping = Mapping({"dram": (), "buf": (("K", 6),)}, {}, {}, {"dram": frozenset("AZ"), "buf": frozenset("Z")})
    with pytest.raises(InputError, match=r"mapping: Timeloop fails: every level that keeps A lets all accesses thr"):
        evaluate(spec, problem, mapping, Ert({}))


def test_the_physical_count_of_remainders_refuses_limits() -> None:
    spec, problem = read(TWO.replace("depth: 100}", "depth: 100}, constraints: {temporal: {no_reuse: [A]}}"))
    keep = {"dram": frozenset("AZ"), "buf": frozenset("AZ")}
    ragged = Mapping({"dram": (("K", 2),), "buf": (("K", 4),)}, {}, {}, keep, {("dram", "K"): 2, ("buf", "K"): 2})
    with pytest.raises(InputError, match=r"remainders: buf.no_reuse is not counted under remainders; `enos model"):
        physical(spec, problem, ragged, Ert({}))


@pytest.mark.parametrize(
    ("attributes", "block"),
    [
        ("datawidth: 8, width: 64, cluster_size: 4", 2),
        ("datawidth: 8, width: 24, cluster_size: 2", 1),  # 12 bits hold one word of 8
        ("datawidth: 8, width: 64, cluster_size: 4, block_size: 2", 2),
        ("datawidth: 8, cluster_size: 4", 1),
    ],
)
def test_a_cluster_shares_the_width_of_its_memory(attributes: str, block: int) -> None:
    array = "- !Container {name: pe, spatial: {meshX: 8}}\n    - !Component {name: buf"
    text = TWO.replace("datawidth: 8, width: 8, depth", f"{attributes}, depth").replace(
        "- !Component {name: buf", array
    )
    spec, _ = read(text)
    assert (spec.storage("buf").block_size, spec.storage("buf").capacity) == (block, 100 * block)
    # 8 instances: as many clusters as possible work.
    sharing = [spec.sharing(spec.storage("buf"), used) for used in (1, 2, 4, 8)]
    clusters = 8 // spec.storage("buf").cluster_size
    assert sharing == [max(1.0, used / clusters) for used in (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("datawidth: 8, width: 64, cluster_size: 3", "buf.cluster_size: its 1 instances do not make clusters of 3"),
        ("datawidth: 8, width: 16, cluster_size: 4", "16 bits hold no word of 8 bits for each of 4 instances"),
        ("datawidth: 8, width: 64, cluster_size: 4, block_size: 4", "64 bits are not 8 x 4 x 4"),
        ("datawidth: 8, width: 8, cluster_size: true", "cluster_size: found True"),
        ("datawidth: 8, width: 8, per_dataspace_bandwidth_consumption_scale: {X: 2}", "unknown tensor 'X'"),
        ("datawidth: 8, width: 8, per_dataspace_bandwidth_consumption_scale: {A: true}", "scale.A: found True"),
        ("datawidth: 8, width: 8, per_dataspace_bandwidth_consumption_scale: 2", "scale: found 2"),
    ],
)
def test_what_is_no_cluster_or_scale_is_refused(attributes: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(TWO.replace("datawidth: 8, width: 8, depth", f"{attributes}, depth"))
    assert message in str(caught.value)


def test_first_writes_that_read_are_counted_physically() -> None:
    spec, problem = read(TWO.replace("depth: 100}", "depth: 100}, constraints: {temporal: {rmw_first_update: [Z]}}"))
    keep = {"dram": frozenset("AZ"), "buf": frozenset("AZ")}
    ragged = Mapping({"dram": (("K", 2),), "buf": (("K", 4),)}, {}, {}, keep, {("dram", "K"): 2, ("buf", "K"): 2})
    prices = {"read": 1.0, "write": 1.0, "update": 1.0, "leak": 0.0}
    ert = Ert({"dram": prices, "buf": prices, "mac": {"compute": 1.0}})
    found = physical(spec, problem, ragged, ert).levels["buf"]["Z"]
    before = physical(plain(spec), problem, ragged, ert).levels["buf"]["Z"]
    # One sum of 6 products that comes to the buffer once: its first write reads, and it is filled before.
    assert (found.reads, found.fills, found.updates) == (6, 1, 6)
    assert (before.reads, before.fills, before.updates) == (5, 0, 6)
