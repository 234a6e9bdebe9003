"""Small layers of which the real `timeloop-model` (4cf6d4c) has said cycles, energies or counts."""

from __future__ import annotations

from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import spec_for
from dse.hardware.spec_reader import SpecFile
from dse.model.evaluation import evaluate
from dse.model.mapping import parse_directives
from dse.workload.problem import problem_from_document

MATMUL = """
instance: {K: 6, M: 4, N: 3}
shape:
  dimensions: [M, K, N]
  data_spaces:
  - {name: W, projection: [[[M]], [[K]]]}
  - {name: I, projection: [[[K]], [[N]]]}
  - {name: Z, projection: [[[M]], [[N]]], read_write: true}
"""
CHAIN = """
architecture:
  version: 0.4
  nodes:
  - !Component {{name: dram, class: DRAM, attributes: {{datawidth: 8, width: 8{dram}}}}}
  {fanout}
  - !Component {{name: buf, class: SRAM, attributes: {{datawidth: 8, width: 8, depth: 1000{buf}}}}}
  - !Component {{name: mac, class: intmac, attributes: {{datawidth: 8}}}}
"""


def evaluated(problem: str, directives: str, leak: tuple[float, float] = (0.0, 0.0), **parts: str) -> Any:
    layer = problem_from_document(parse_yaml(problem, "p"), "p")
    text = CHAIN.format(**{"dram": "", "buf": "", "fanout": ""} | parts)
    spec = spec_for(SpecFile(parse_yaml(text, "a"), "a"), layer)
    energies = {
        "dram": {"read": 10.0, "write": 10.0, "update": 10.0, "leak": leak[0]},
        "buf": {"read": 1.0, "write": 1.0, "update": 1.0, "leak": leak[1]},
        "mac": {"compute": 1.0, "leak": 7.0},  # Timeloop charges no leakage of compute units
    }
    return evaluate(spec, layer, parse_directives(spec, layer, parse_yaml(directives, "m"), "m"), Ert(energies))


@pytest.mark.parametrize(
    ("parts", "cycles"),
    [
        ({}, 72),
        ({"dram": ", bandwidth: 1"}, 120),
        ({"buf": ", bandwidth: 2"}, 205),
        ({"buf": ", network_fill_latency: 100"}, 172),
        ({"buf": ", network_drain_latency: 100"}, 172),
    ],
)
def test_cycles(parts: Any, cycles: Any) -> None:
    directives = """
    - {target: buf, type: temporal, factors: M2 K6 N1, permutation: KMN}
    - {target: dram, type: temporal, factors: M2 K1 N3, permutation: NMK}
    """
    assert evaluated(MATMUL, directives, **parts).cycles == cycles


@pytest.mark.parametrize(
    ("parts", "energy"),
    [
        ({}, 984.0),
        ({"buf": ", power_gated_at: dram"}, 1002.0),
        ({"buf": ", has_power_gating: true"}, 984.0),
        ({"dram": ", has_power_gating: true"}, 984.0),
    ],
)
def test_power_gating(parts: Any, energy: Any) -> None:
    """Two of four buffers work: switched together, all four leak 0.25 pJ a cycle."""
    directives = """
    - {target: inter_pe_spatial, type: spatial, factors: M2 K1 N1, permutation: MKN, split: 3}
    - {target: buf, type: temporal, factors: M2 K6 N1, permutation: KMN}
    - {target: dram, type: temporal, factors: M1 K1 N3, permutation: NMK}
    """
    fanout = "- !Container {name: pe, spatial: {meshX: 4}}"
    assert evaluated(MATMUL, directives, (0.5, 0.25), fanout=fanout, **parts).energy_pj == energy


def test_nothing_leaks_while_networks_fill() -> None:
    directives = "[{target: buf, type: temporal, factors: M4 K6 N3, permutation: KMN}]"
    found = evaluated(MATMUL, directives, (0.5, 0.25), buf=", network_fill_latency: 100")
    assert (found.cycles, found.leakage_pj) == (172, 72 * 0.75)


def test_a_dimension_on_two_axes_of_a_tensor() -> None:
    """A diagonal move keeps what the boxes share: 9 words, then 5 new ones three times."""
    problem = """
    instance: {A: 4, R: 3}
    shape:
      dimensions: [A, R]
      data_spaces:
      - {name: T, projection: [[[A], [R]], [[A], [R]]]}
      - {name: Z, projection: [[[A]]], read_write: true}
    """
    directives = """
    - {target: buf, type: temporal, factors: A1 R3, permutation: RA}
    - {target: dram, type: temporal, factors: A4 R1, permutation: AR}
    """
    found = evaluated(problem, directives)
    assert (found.levels["dram"]["T"].reads, found.energy_pj) == (24, 348.0)


def test_a_specification_without_a_compute_unit() -> None:
    text = CHAIN.format(dram="", buf="", fanout="").replace(
        "  - !Component {name: mac", "  - !Component {enabled: false, name: mac"
    )
    layer = problem_from_document(parse_yaml(MATMUL, "p"), "p")
    with pytest.raises(InputError, match="there is no compute unit: the last node is a memory of class 'SRAM'"):
        spec_for(SpecFile(parse_yaml(text, "a"), "a"), layer)


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("text", "not a mapping (allowed: a list of directives"),
        ("{mapping: [], maping: []}", "unknown field 'maping'; did you mean 'mapping'?"),
        ("[3]", "mapping[0]: found 3 (allowed: a mapping with target, type)"),
        ("[{target: [], type: temporal}]", "mapping[0].target: found [] (allowed: a name)"),
        ("[{target: bux, type: temporal}]", "mapping[0].target: unknown level 'bux'; did you mean 'buf'?"),
        ("[{target: buf, type: temporl}]", "unknown type 'temporl'; did you mean 'temporal'?"),
        ("[{target: buf, type: {a: 1}}]", "mapping[0].type: found {'a': 1} (allowed: text)"),
        ("[{target: buf, type: temporal, split: 3}]", "unknown field 'split'"),
        ("[{target: buf, type: spatial, split: abc}]", "mapping[0].split: found 'abc'"),
        ("[{target: buf, type: temporal, factors: {K: 2}}]", "factors: found {'K': 2} (allowed: a list)"),
        ("[{target: buf, type: temporal, factors: [[K, 2]]}]", "factors: found ['K', 2] (allowed: dimension and"),
        (f"[{{target: buf, type: temporal, factors: K{'9' * 5000}}}]", "allowed: dimension and factor"),
        ("[{target: buf, type: temporal, factors: K6, permutation: K-M}]", "permutation: unknown dimension '-'"),
        ("[{target: buf, type: temporal, permutation: {K: 1}}]", "permutation: found {'K': 1} (allowed: a list)"),
        (
            "[{target: buf, type: datatype, bypass: [W]}, {target: dram, type: datatype, bypass: [W]}, "
            "{target: buf, type: temporal, factors: K0 M0 N0}]",
            "no memory keeps W",
        ),
        ("[{target: buf, type: datatype, keep: W}]", "keep: found 'W' (allowed: a list)"),
        ("[{target: buf, type: datatype, keep: [w]}]", "unknown tensor 'w'; did you mean 'W'?"),
        ("[{target: buf, type: datatype, no_coalesce: []}]", "unknown field 'no_coalesce'"),
        (
            "[{target: buf, type: temporal, factors: K6}, {target: buf, type: temporal}]",
            "mapping[1]: a second temporal directive for buf",
        ),
    ],
)
def test_mappings_that_are_none(directives: Any, message: Any) -> None:
    with pytest.raises(InputError) as e:
        evaluated(MATMUL, directives)
    assert message in str(e.value) and len(str(e.value)) < 300


def test_a_factor_of_zero_is_all_of_the_dimension() -> None:
    directives = "[{target: buf, type: temporal, factors: 'M0 K0 N=0', permutation: K M N}]"
    assert evaluated(MATMUL, directives).cycles == 72
