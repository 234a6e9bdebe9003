"""Reading specifications: what is not understood is refused by name, whatever its value; what is, is right."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.core.fields import shown
from dse.hardware.constraints import for_layer, searchable
from dse.hardware.spec import Storage
from dse.hardware.spec_reader import SpecFile
from dse.workload.problem import problem_from_document

ARCH = """
variables: {width: 16}
components:
  version: 0.4
  classes:
  - {name: my_mac, attributes: {lanes: 2}, actions: [{name: compute}]}
architecture:
  version: 0.4
  nodes:
  - !Container {name: system, attributes: {technology: 45nm}}
  - !Component
    name: dram
    class: DRAM
    attributes: {width: width, datawidth: 8}
    constraints: {dataspace: {keep: [W, I, Z]}, temporal: {factors: [K=1]}}
  - !Container {name: pe, spatial: {meshX: 4, meshY: 2}, constraints: {spatial: {permutation: [K], split: 2}}}
  - !Component
    name: buf
    class: SRAM
    attributes: {width: width, depth: 64, datawidth: 8, read_bandwidth: 2}
    constraints: {dataspace: {}, temporal: {}}
  - !Component {name: mac, class: my_mac, attributes: {}}
"""
PROBLEM = {
    "instance": {"M": 4, "K": 6, "N": 3},
    "shape": {
        "dimensions": ["M", "K", "N"],
        "data_spaces": [
            {"name": "W", "projection": [[["M"]], [["K"]]]},
            {"name": "I", "projection": [[["K"]], [["N"]]]},
            {"name": "Z", "projection": [[["M"]], [["N"]]], "read_write": True},
        ],
    },
}
LAYER = problem_from_document(PROBLEM, "p")
DRAM, PE, BUF, MAC = (f"architecture/nodes/{i}" for i in (1, 2, 3, 4))


def changed(path: str, value: object) -> Any:
    document = copy.deepcopy(parse_yaml(ARCH, "a"))
    *outer, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    at = document
    for key in outer:
        at = at[key]
    at[last] = value
    return document


def read(document: object) -> Any:
    return SpecFile(document, "a").instance(problem=LAYER)


def with_change(path: str, value: object) -> Any:
    return read(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # Constraints: unknown ones, and those that change the mapspace even where they are empty
        (f"{BUF}/constraints", "text", "constraints: found 'text' (allowed: a mapping with dataspace"),
        (f"{BUF}/constraints", float("nan"), "constraints: found nan"),
        (f"{BUF}/constraints/temporal", "text", "constraints.temporal: found 'text'"),
        (f"{BUF}/constraints/temporal/permutaton", [], "unknown field 'permutaton'; did you mean 'permutation'?"),
        (f"{BUF}/constraints/temporal/no_reuse", ["X"], "temporal.no_reuse: unknown tensor 'X'"),
        (f"{BUF}/constraints/temporal/rmw_first_update", ["X"], "temporal.rmw_first_update: unknown tensor 'X'"),
        (f"{BUF}/constraints/temporal/remainders", 2, "remainders: found 2, which is not supported"),
        (f"{BUF}/constraints/temporal/default_max_factor", -3, "default_max_factor: found -3"),
        (f"{BUF}/constraints/temporal/factors", ["K=2", "K<=3"], "K is given twice: K=2 and K<=3"),
        (f"{BUF}/constraints/temporal/factors", [{"K": 2}], "factors: found {'K': 2} (allowed: X=n, X<=n or X>=n"),
        (f"{BUF}/constraints/temporal/factors", ["K=" + "9" * 5000], "a dimension of M, K, N"),
        (f"{BUF}/constraints/temporal/factors", ["K<=0"], "found 'K<=0' (allowed: a factor of at least 1"),
        (f"{BUF}/constraints/temporal/permutation", [["K"]], "permutation[0]: found ['K']"),
        (f"{PE}/constraints/spatial/split", "abc", "split: found 'abc' (allowed: a whole number"),
        (f"{PE}/constraints/spatial/no_link_transfer", ["w"], "unknown tensor 'w'; did you mean 'W'?"),
        (f"{BUF}/constraints/dataspace/no_coalesce", ["X"], "dataspace.no_coalesce: unknown tensor 'X'"),
        (f"{BUF}/constraints/dataspace", {"keep": ["W"], "keep_only": ["I"]}, "W is both kept and bypassed"),
        (f"{BUF}/constraints/targets", [], "unknown field 'targets'"),
        # Attributes
        (f"{BUF}/attributes", "text", "attributes: found 'text' (allowed: a mapping)"),
        (f"{BUF}/attributes/read_bandwith", None, "unknown attribute 'read_bandwith'; did you mean 'read_bandwidth'?"),
        (f"{BUF}/attributes/dept", 3, "unknown attribute 'dept'; did you mean 'depth'?"),
        (f"{BUF}/attributes/instances", 4, "attributes.instances: found 4: the instances of a node follow from"),
        (f"{BUF}/attributes/cluster_size", 4, "16 bits hold no word of 8 bits for each of 4 instances (cluster_size)"),
        (f"{BUF}/attributes/reduction_supported", False, "memories that cannot update are not modelled"),
        (f"{BUF}/attributes/wire_energy", 1, "wire_energy: found 1: networks between levels cost nothing here"),
        (f"{BUF}/attributes/metadata_storage_width", 8, "compressed data are not modelled"),
        (f"{BUF}/attributes/network_read", "net", "network_read: found 'net': networks between levels are not"),
        (f"{BUF}/attributes/network_fill_latency", 1.5, "network_fill_latency: found 1.5"),
        (f"{BUF}/attributes/has_power_gating", "no", "has_power_gating: found 'no' (allowed: true or false)"),
        (f"{BUF}/attributes/power_gated_at", "dran", "power_gated_at: unknown level 'dran'; did you mean 'dram'?"),
        (f"{BUF}/attributes/bandwidth", -1, "bandwidth: found -1 (allowed: a number above 0)"),
        (f"{BUF}/attributes/read_bandwidth", float("nan"), "read_bandwidth: found nan"),
        (f"{BUF}/attributes/read_bandwidth_bits", 64, "read_bandwidth_bits and read_bandwidth are the same bandwidth"),
        (f"{BUF}/attributes/write_bandwidth_bits", 0, "write_bandwidth_bits: found 0 (allowed: a number above 0)"),
        (f"{BUF}/attributes/shared_bandwidth_bits", True, "shared_bandwidth_bits: found True (allowed: a number"),
        (f"{BUF}/attributes/write_bandwidth_bit", 8, "did you mean 'write_bandwidth_bits'?"),
        (f"{BUF}/attributes/multiple_buffering", float("nan"), "multiple_buffering: found nan"),
        (f"{BUF}/attributes/block_size", 4, "16 bits are not 8 x 4 x 1 (datawidth x block_size x cluster_size)"),
        (f"{BUF}/attributes/word_bits", 8, "word_bits and datawidth are the same attribute"),
        (f"{BUF}/attributes/datawidth", None, "16 bits is not a multiple of 16"),
        (f"{PE}/attributes", {"multiple_buffering": 2}, "does not pass this attribute of a container to its memories"),
        (f"{PE}/attributes", {"tecnology": 2}, "unknown attribute 'tecnology'; did you mean 'technology'?"),
        (f"{MAC}/attributes", {"lane": 2}, "unknown attribute 'lane'; did you mean 'lanes'?"),
        # Nodes and classes
        (f"{BUF}/class", "SimpleMulticast", "network class 'SimpleMulticast' is not supported"),
        (f"{BUF}/class", "XY_NoC", "network class 'XY_NoC' is not supported"),
        (f"{BUF}/class", "SRM", "unknown class 'SRM'; did you mean 'SRAM'?"),
        (f"{BUF}/class", [], "class: found [] (allowed: a name)"),
        (f"{BUF}/class", "intmac", "compute class 'intmac' before the last node"),
        (f"{MAC}/class", "SRAM", "there is no compute unit: the last node is a memory of class 'SRAM'"),
        (f"{BUF}/name", "dram", "a second node is named 'dram'"),
        (f"{BUF}/enabled", "false", "enabled: found 'false' (allowed: true or false)"),
        (f"{BUF}/spatial", {"meshZ": 2}, "spatial: unknown field 'meshZ'; did you mean 'mesh"),
        (f"{BUF}/subnodes", [], "unknown field 'subnodes'"),
        # The document
        ("architecture/node", [], "architecture: unknown field 'node'; did you mean 'nodes'?"),
        ("mapping", [{"target": "buf"}], "mapping[0]: field 'type' is missing"),
        ("mapping", [{"target": "bux", "type": "temporal"}], "mapping[0]: the target 'bux' is no node"),
        ("ERT", {"tables": [1]}, "ERT: is not read from a specification"),
        ("globals", {"environment_variables": {"A": 1}}, "globals.environment_variables.A: is not supported"),
        ("mapspace", {"template": "rubin"}, "mapspace.template: unknown value 'rubin'"),
        ("variables", [1], "variables[0]: found 1 (allowed: a mapping)"),
        ("archtecture", {}, "unknown top-level key 'archtecture'; did you mean 'architecture'?"),
    ],
    ids=shown,
)
def test_what_is_not_understood_is_refused_by_name(path: Any, value: Any, message: Any) -> None:
    document = changed(path, value)
    if value is None and path.endswith("datawidth"):
        document["variables"]["width"] = 8
        message = "8 bits is not a multiple of 16 (datawidth, the default)"
    with pytest.raises(InputError) as e:
        read(document)
    assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{BUF}/constraints/temporal/no_reuse", []),
        (f"{BUF}/constraints/temporal/must_iterate_over_dataspaces", None),
        (f"{BUF}/constraints/temporal/maximize_dims", []),
        (f"{BUF}/constraints/temporal/default_min_factor", 1),
        (f"{BUF}/constraints/dataspace/no_coalesce", []),
        (f"{BUF}/constraints/max_overbooked_proportion", {"proportion": None}),
        (f"{BUF}/attributes/cluster_size", 1),
        (f"{BUF}/attributes/allow_overbooking", False),
        (f"{BUF}/attributes/n_ports", 2),
        (f"{BUF}/attributes/metadata_storage_depth", 0),
        (f"{BUF}/required_actions", ["read"]),
        ("globals", {"version": 0.4, "environment_variables": {}, "accelergy_plug_ins": ["somewhere"]}),
        ("mapper", {"algorithm": "random"}),
        ("mapping", []),
    ],
)
def test_neutral_keys_change_nothing(path: Any, value: Any) -> None:
    assert with_change(path, value).canonical() == read(parse_yaml(ARCH, "a")).canonical() or "min_factor" in path


def test_a_missing_datawidth_is_timeloops_default() -> None:
    document = changed(f"{BUF}/attributes", {"width": 32, "depth": 4})
    buf = read(document).storage("buf")
    assert (buf.datawidth, buf.block_size, buf.capacity) == (16, 2, 8)


def test_attributes_that_expressions_use_are_variables() -> None:
    document = changed("architecture/nodes/0/attributes", {"rows": 32})
    document["architecture"]["nodes"][3]["attributes"]["depth"] = "rows * 2"
    assert read(document).storage("buf").capacity == 128


def test_an_attribute_that_is_like_no_other_is_read_by_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with_change(f"{BUF}/attributes/dram", 1)
    assert "attributes.dram is read by nothing" in caplog.text


def test_an_old_bandwidth_is_half_for_reads_and_half_for_writes() -> None:
    document = changed(f"{BUF}/attributes/bandwidth", 6)
    assert (read(document).storage("buf").read_bandwidth, read(document).storage("buf").write_bandwidth) == (2, 3)


def test_bits_per_cycle_are_words_of_the_memory() -> None:
    document = changed(f"{BUF}/attributes", {"width": 16, "depth": 64, "read_bandwidth_bits": 12,
                                             "write_bandwidth_bits": 64, "shared_bandwidth_bits": 6})  # fmt: skip
    for datawidth, words in ((4, (3, 16, 1.5)), (8, (1.5, 8, 0.75))):
        document["architecture"]["nodes"][3]["attributes"]["datawidth"] = datawidth
        buf = read(document).storage("buf")
        assert (buf.read_bandwidth, buf.write_bandwidth, buf.shared_bandwidth) == words
    document["architecture"]["nodes"][3]["attributes"]["bandwidth"] = 6  # for what is not given
    assert read(document).storage("buf").read_bandwidth == 1.5


def test_what_is_kept_alone_and_what_is_bypassed_alone() -> None:
    keep = with_change(f"{BUF}/constraints/dataspace", {"keep_only": ["W"]}).storage("buf").keep
    assert keep == {"W": True, "I": False, "Z": False}
    keep = with_change(f"{BUF}/constraints/dataspace", {"bypass_only": []}).storage("buf").keep
    assert keep == {"W": True, "I": True, "Z": True}
    keep = with_change(f"{BUF}/constraints/dataspace", {"keep_only": []}).storage("buf").keep
    assert not any(keep.values()) and len(keep) == 3
    assert with_change(f"{BUF}/constraints/dataspace", {"keep": ["*"]}).storage("buf").keep == dict.fromkeys(
        "WIZ", True
    )


def test_factors_alone_and_the_place_of_loops_of_one_iteration() -> None:
    loops = with_change(f"{BUF}/constraints/temporal", {"factors_only": ["K=2", "N<=3"]}).storage("buf").temporal
    assert loops.factors == {"K": 2, "M": 1} and loops.at_most == {"N": 3} and loops.inner == ("M",)
    loops = with_change(f"{BUF}/constraints/temporal", {"factors_only": []}).storage("buf").temporal
    assert loops.factors == {"M": 1, "K": 1, "N": 1}
    loops = with_change(f"{BUF}/constraints/temporal", {"factors": ["N=1"], "permutation": ["K", "_", "M"]})
    assert (loops.storage("buf").temporal.inner, loops.storage("buf").temporal.outer) == (("N", "K"), ("M",))


def layer(**sizes: Any) -> Any:
    return problem_from_document(PROBLEM | {"instance": PROBLEM["instance"] | sizes}, "p")


def test_dimensions_of_size_one_move_a_split() -> None:
    """`permutation: [K], split: 2`: with M and N of size 1 both stand before K, which then lies on Y."""
    spec = read(parse_yaml(ARCH, "a"))
    assert spec.levels[1].spatial.inner == ("K",)
    assert for_layer(spec, layer(M=1, N=1)).levels[1].spatial.inner == ("N", "M", "K")
    assert for_layer(spec, layer(N=1)).levels[1].spatial.inner == ("N", "K")


def test_an_open_permutation_on_one_axis_is_in_the_order_of_dimensions() -> None:
    document = changed(f"{PE}/constraints/spatial", {"split": 1})
    document["architecture"]["nodes"][2]["spatial"] = {"meshX": 4}
    assert for_layer(read(document), LAYER).levels[1].spatial.inner == ("M", "K", "N")
    document["architecture"]["nodes"][2]["spatial"] = {"meshX": 4, "meshY": 2}
    assert for_layer(read(document), LAYER).levels[1].spatial.inner == ()


def test_factors_above_the_dimension_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    document = changed(f"{DRAM}/constraints/temporal/factors", ["K=0", "M=5", "N=3"])
    document["architecture"]["nodes"][3]["constraints"]["temporal"]["factors"] = ["N=3"]
    spec = for_layer(read(document), LAYER)
    assert spec.storage("dram").temporal.factors == {"K": 6, "N": 1} and spec.storage("buf").temporal.factors == {
        "N": 3
    }
    assert "dram: the constraint M=5 exceeds the size of M, 4: it is ignored" in caplog.messages
    assert "dram: the constraint N=3 exceeds the 1 that factors further in leave of N, 3: it is 1" in caplog.messages


def test_latencies_of_containers_count_for_every_level_inside() -> None:
    """Timeloop adds up the networks of all memories, and a fan-out is one that keeps nothing."""
    document = changed(f"{PE}/attributes", {"network_fill_latency": 3})
    document["architecture"]["nodes"][1]["attributes"]["network_drain_latency"] = 10
    assert read(document).network_latency == 10 + 3 + 3


def nodes(*texts: str) -> Any:
    document = parse_yaml(ARCH, "a")
    chain = ", ".join(texts)
    document["architecture"]["nodes"] = parse_yaml(f"[{chain}, !Component {{name: mac, class: mac}}]", "n")
    spec = read(document)
    return {s.name: (s.power_gate, spec.gated_together(s)) for s in spec.storages}


def memory(name: str, more: str = "", fields: str = "") -> str:
    return f"!Component {{name: {name}, class: SRAM, attributes: {{width: 16{more}}}{fields}}}"


def test_power_gates_are_those_of_the_front_end() -> None:
    gating, pe = ", has_power_gating: true", "!Container {name: pe, spatial: {meshX: 4}}"
    wide = ", spatial: {meshX: 4}"
    # The node after one that has power gating is the gate of all that follow.
    assert nodes(memory("a", gating), memory("b"), memory("c", fields=wide)) == {
        "a": (None, 1), "b": (None, 1), "c": ("b", 4)
    }  # fmt: skip
    # A container hands its own gate on, and if it has none, it cuts the chain.
    assert nodes(memory("a", gating), memory("b"), pe, memory("c")) == dict.fromkeys("abc", (None, 1))
    assert nodes(memory("a"), pe, memory("b", ", power_gated_at: a")) == {"a": (None, 1), "b": ("a", 4)}
    gated = "!Container {name: pe, spatial: {meshX: 4}, attributes: {power_gated_at: a}}"
    assert nodes(memory("a"), gated, memory("b")) == {"a": (None, 1), "b": ("a", 4)}
    # A gate further in is as fine as its memory's instances.
    assert nodes(memory("a", ", power_gated_at: b"), pe, memory("b")) == {"a": ("b", 1), "b": (None, 1)}


def test_the_mapper_refuses_what_its_bounds_do_not_hold_for() -> None:
    gated = read(changed(f"{BUF}/attributes/power_gated_at", "dram"))
    with pytest.raises(InputError, match=r"buf.power_gated_at: dram: the native mapper does not support"):
        searchable(gated, LAYER)
    plain = read(parse_yaml(ARCH, "a"))
    through = tuple(
        dataclasses.replace(v, no_coalesce=frozenset("W")) if isinstance(v, Storage) else v for v in plain.levels
    )
    with pytest.raises(InputError, match="architecture: no level merges accesses to W, so Timeloop stops"):
        searchable(dataclasses.replace(plain, levels=through), LAYER)
