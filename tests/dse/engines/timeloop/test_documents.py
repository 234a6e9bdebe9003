"""What the front end is given says the same as what it was made from."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import yaml

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.engines.timeloop.front_end import energy_tables, with_reuse
from dse.engines.timeloop.v4_documents import problem_v4, v4_specification
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import Ert
from dse.hardware.instance import candidate_spec, read_arch
from dse.hardware.spec import Fanout
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import conv_problem, problem_from_document
from tests.dse.engines.timeloop.recordings import small_inputs

LAYER = {"N": 2, "G": 3, "C": 4, "M": 8, "P": 6, "Q": 5, "R": 3, "S": 3, "Hstride": 2, "Wdilation": 2, "Hdilation": 4}
CONSTRAINED = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 64, datawidth: 8, read_bandwidth: 1.0e-5}}
  - !Component
    name: shared
    class: SRAM
    spatial: {meshX: 2}
    attributes: {entries: 1001, width: 64, datawidth: 8, shared_bandwidth: 4}
    constraints:
      dataspace: {keep: [Weights]}
      temporal: {factors: [C=2, M<=4, P>=2], permutation: [R, S, _, N]}
      spatial: {factors: [M<=2], permutation: [M, C], split: 1, no_link_transfer: [Inputs]}
  - !Component {name: mac, class: intmac, attributes: {}}
"""


def reread(spec: Any, problem: Any) -> Any:
    text = v4_specification(spec, problem)
    document = parse_yaml(text, "text")
    found = SpecFile({"architecture": document["architecture"]}, "text")
    layer = problem_from_document({"shape": {}, "instance": {}} | document["problem"], "text: problem")
    return found.instance(problem=problem), layer


def without_units(spec: Any, problem: Any) -> Any:
    """What decides counts and mapspace, without the place of loops of one iteration in the orders of loops."""

    def stripped(level: Any) -> Any:
        name = "spatial" if isinstance(level, Fanout) else "temporal"
        loops = getattr(level, name)
        inner, outer = (
            tuple(d for d in order if problem.bound[d] > 1 and loops.factors.get(d) != 1)
            for order in (loops.inner, loops.outer)
        )
        return dataclasses.replace(level, **{name: dataclasses.replace(loops, inner=inner, outer=outer)})

    return dataclasses.replace(spec, levels=tuple(map(stripped, spec.levels))).canonical()


def constrained() -> Any:
    problem = conv_problem(LAYER)
    arch = SpecFile(parse_yaml(CONSTRAINED, "arch"), "arch")
    return arch.instance(problem=problem), problem


def machines() -> Any:
    yield constrained()
    yield small_inputs()[:2]
    problem = conv_problem(LAYER)
    for candidate in load_candidates():
        yield candidate_spec(read_arch(), candidate, problem), problem


@pytest.mark.parametrize(("spec", "problem"), list(machines()))
def test_the_specification_says_the_same(spec: Any, problem: Any) -> None:
    found, layer = reread(spec, problem)
    assert without_units(found, problem) == without_units(spec, problem)
    assert [s.datawidth for s in found.storages] == [s.datawidth for s in spec.storages]
    assert found.compute.name == spec.compute.name
    assert layer.canonical() == problem.canonical()


def test_permutations_are_written_as_they_are() -> None:
    """The front end puts loops of one iteration that are not listed innermost, as `constraints.for_layer` does."""
    spec, _ = constrained()
    problem = conv_problem(LAYER | {"G": 1, "S": 1})
    nodes = parse_yaml(v4_specification(spec, problem), "text")["architecture"]["nodes"]
    constraints = next(n for n in nodes if n["name"] == "shared")["constraints"]
    assert (constraints["spatial"]["split"], constraints["spatial"]["permutation"]) == (1, ["M", "C"])
    assert constraints["temporal"]["permutation"] == ["R", "S", "_", "N"]


def test_latencies_and_power_gates_are_handed_on() -> None:
    text = CONSTRAINED.replace("shared_bandwidth: 4", "network_fill_latency: 3, power_gated_at: dram")
    spec = SpecFile(parse_yaml(text.replace("read_bandwidth: 1.0e-5", "network_drain_latency: 4"), "a"), "a").instance(
        problem=conv_problem(LAYER)
    )
    found, _ = reread(spec, conv_problem(LAYER))
    assert found.network_latency == spec.network_latency == 7
    assert [found.gated_together(s) for s in found.storages] == [1, 2]


def test_all_text_is_quoted() -> None:
    spec, problem = small_inputs()[:2]
    for token in yaml.scan(v4_specification(spec, problem, {"algorithm": "random"})):
        if isinstance(token, yaml.ScalarToken) and token.style is None:
            assert re.fullmatch(r"[-+.\de]+|true|false", token.value), token.value


def test_coefficients_are_named_after_their_values() -> None:
    document = problem_v4(conv_problem(LAYER))
    assert document["shape"]["coefficients"] == [{"name": "k2", "default": 2}, {"name": "k4", "default": 4}]
    assert document["instance"]["k2"] == 2 and document["instance"]["C"] == 4


def flat(*locals_: Any) -> Any:
    entries = [{"name": f"{name}[1..4]", "class": kind} for name, kind in locals_]
    return {"architecture": {"subtree": [{"name": "top", "local": entries}]}}


ALL = [("dram", "DRAM"), ("inter_shared_spatial", "dummy_storage"), ("shared", "storage"), ("mac", "compute")]
ENERGIES = {"dram": {"read": 5, "write": 6}, "shared": {"read": 1, "write": 2, "leak": 0.5}, "mac": {"compute": 3}}


def test_every_level_of_the_flat_form_gets_our_energies() -> None:
    spec, _ = constrained()
    tables = energy_tables(spec, flat(*ALL), Ert(ENERGIES))
    assert [t["name"] for t in tables["ERT"]["tables"]] == [f"top.{name}[1..1]" for name, _ in ALL]
    energies = [{a["name"]: a["energy"] for a in t["actions"]} for t in tables["ERT"]["tables"]]
    assert energies == [
        {"read": 5, "write": 6, "update": 6, "leak": 0},
        {"read": 0, "write": 0, "update": 0, "leak": 0},
        {"read": 1, "write": 2, "update": 2, "leak": 0.5},
        {"compute": 3, "leak": 0},
    ]
    assert [t["name"] for t in tables["ART"]["tables"]] == [t["name"] for t in tables["ERT"]["tables"]]


def test_a_level_without_energies_is_refused() -> None:
    spec, _ = constrained()
    with pytest.raises(InputError, match="the front end dropped it"):
        energy_tables(spec, flat(*ALL[:2], ALL[3]), Ert(ENERGIES))
    with pytest.raises(InputError, match="level extra: the front end made a level"):
        energy_tables(spec, flat(*ALL, ("extra", "storage")), Ert(ENERGIES))
    with pytest.raises(InputError, match="has no table for 'shared'"):
        energy_tables(spec, flat(*ALL), Ert({k: v for k, v in ENERGIES.items() if k != "shared"}))


LIMITS = {
    "no_coalesce": frozenset(["Inputs"]),
    "no_reuse": frozenset(["Weights", "Outputs"]),
    "rmw_first_update": frozenset(["Outputs"]),
    "cluster_size": 2,
    "bandwidth_scale": {"Inputs": 0.5},
}


def test_levels_that_limit_reuse_are_written_as_they_are() -> None:
    spec, problem = constrained()
    levels = (
        spec.levels[0],
        dataclasses.replace(spec.levels[1], no_reuse=frozenset(["Outputs"])),
        dataclasses.replace(spec.levels[2], **LIMITS),
    )
    limited = dataclasses.replace(spec, levels=levels)
    found, _ = reread(limited, problem)
    assert found.special == limited.special == ("inter_shared_spatial.no_reuse", *(f"shared.{n}" for n in SPECIAL))
    assert without_units(found, problem) == without_units(limited, problem)


SPECIAL = ("no_coalesce", "no_reuse", "rmw_first_update", "bandwidth_scale", "cluster_size")


def test_timeloop_model_is_told_what_limits_reuse() -> None:
    spec, _ = constrained()
    shared = dataclasses.replace(spec.levels[2], **LIMITS)
    fanout = dataclasses.replace(spec.levels[1], no_reuse=frozenset(["Outputs"]))
    limited = dataclasses.replace(spec, levels=(spec.levels[0], fanout, shared))
    kinds = {
        "datatype": {"no_coalesce": ["Inputs"]},
        "temporal": {"no_reuse": ["Outputs", "Weights"], "rmw_first_update": ["Outputs"]},
    }
    for kind, expected in kinds.items():
        told = with_reuse({"target": "shared", "type": kind}, limited)
        assert told == {"target": "shared", "type": kind, **expected}
    told = with_reuse({"target": fanout.name, "type": "spatial"}, limited)
    assert told == {
        "target": fanout.name, "type": "spatial", "no_link_transfer": ["Inputs"], "no_reuse": ["Outputs"]
    }  # fmt: skip
    assert with_reuse({"target": "dram", "type": "temporal"}, limited) == {"target": "dram", "type": "temporal"}
