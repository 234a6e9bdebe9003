"""The shipped accelerator: every component has the energy worked out by hand, for every candidate."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dse.core.documents import read_yaml
from dse.core.expressions import evaluate
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.components import ComponentLibrary

LIBRARY = ComponentLibrary.load()
ARCH = read_yaml(data_dir("arch_specs") / "eyeriss_168.yaml")
NODES = {node["name"]: node for node in ARCH["architecture"]["nodes"]}
CANDIDATES = load_candidates()
EXTENDED = load_candidates(data_dir("arch_specs") / "operators_extended.yaml")
PUBLISHED = load_candidates("operators_published_widths")
REGISTER_BIT, COMPARATOR = 0.011387169149514056, 0.037286652759575475


def attributes(name: str, variables: dict[str, int]) -> dict[str, object]:
    bindings = {**ARCH["variables"], **variables}
    return {k: evaluate(v, bindings, name) for k, v in NODES[name]["attributes"].items()}


def storages() -> list[str]:
    return [name for name, node in NODES.items() if "class" in node and name != "mac"]


@pytest.mark.parametrize("candidate", EXTENDED, ids=lambda c: c.name)
def test_every_component_of_every_candidate(candidate: Any) -> None:
    assert len(CANDIDATES) == 9
    candidate, energies = candidate.at(576), {}
    for name in storages():
        given = attributes(name, candidate.variables)
        assert given["width"] % given["datawidth"] == 0, f"{name}: Timeloop needs whole words in a row"
        energies[name] = LIBRARY.energies(NODES[name]["class"], given, name)
        assert set(energies[name]) == {"read", "write", "update", "leak"}
        assert min(energies[name][a] for a in ("read", "write", "update")) > 0 == energies[name]["leak"]
        assert energies[name]["update"] == energies[name]["write"]
    assert {e["read"] for n, e in energies.items() if n.startswith("dram")} == {512}
    assert energies["glb_ifmap"]["read"] == 18.2045
    assert energies["ifmap_spad"]["read"] == pytest.approx(16 * REGISTER_BIT + COMPARATOR)  # 0.22 pJ
    assert energies["psum_spad"]["read"] == pytest.approx(candidate.psum_bits * REGISTER_BIT + COMPARATOR)
    assert energies["weights_spad"]["read"] == pytest.approx(0.79, abs=0.005)
    # between the rows of 64 and 128 b, 2048 and 4096 words, in eight banks
    w, d = math.log2(120 / 64), math.log2(2457 / 2048)
    rows = {(0, 0): 8.17069, (0, 1): 13.8024, (1, 0): 25.424, (1, 1): 37.7851}
    by_hand = math.prod(e ** (abs(1 - i - w) * abs(1 - j - d)) for (i, j), e in rows.items())
    assert energies["glb_psum"]["read"] == pytest.approx(by_hand)


def compute(name: str) -> float:
    candidate = next(c for c in (*PUBLISHED, *EXTENDED) if c.name == name).at(576)
    energies = LIBRARY.energies(candidate.compute_class, dict(candidate.compute_attributes), name)
    return sum(n * energies[action] for action, n in candidate.compute_actions)


def test_compute_energies_and_the_papers_ratio() -> None:
    assert compute("T8") == pytest.approx(1.0027035056655433 + 0.16606288343041334)
    assert compute("T4") == pytest.approx(0.25067587641638583 + 0.16606288343041334)
    assert compute("MF8") == compute("MF2") == pytest.approx(2 * 0.099637730058248)
    assert compute("BC8") == compute("BC2") == pytest.approx(0.099637730058248)
    assert compute("T8") / compute("BC8") == pytest.approx(11.73, abs=0.005)  # about 11.5 in Section IV of the paper


def test_compute_energies_of_the_further_operators() -> None:
    full_adder, stage = 0.008303144171520668, 0.3006 / 0.15159 / 5  # Aladdin's shifter over its adder, a stage
    for name, width, stages, adder in (("DS8", 15, 3, 26), ("DS4", 11, 3, 22), ("DS2", 3, 1, 13)):
        assert compute(name) == pytest.approx((width * stages * stage + adder) * full_adder, rel=1e-4)
    assert compute("XN1") == pytest.approx((0.013008 / 0.15159 + 11) * full_adder, rel=1e-4)
    assert compute("XN1") < compute("BC8") < compute("MF8") < compute("DS8") < compute("T8")


def test_an_accumulator_that_suffices_costs_its_bits() -> None:
    bit = 0.008303144171520668
    wide, published = load_candidates(), PUBLISHED
    for name, more in (("T8", 6), ("T4", -3), ("MF8", 2 * 7), ("BC8", 7), ("BC2", 0)):
        of = [dict(next(c for c in given if c.name == name).at(576).compute_attributes) for given in (wide, published)]
        energies = [LIBRARY.energies(next(c for c in wide if c.name == name).compute_class, each, name) for each in of]
        assert energies[0]["compute"] - energies[1]["compute"] == pytest.approx(more * bit, rel=1e-6, abs=1e-9)


def test_the_compute_unit_of_the_file_is_that_of_t8() -> None:
    mac = LIBRARY.energies(NODES["mac"]["class"], attributes("mac", {}), "mac")
    assert mac == {"compute": compute("T8"), "leak": 0}


# Accelergy 0.4 (6911d15) with its Library plug-in on arch_specs/components, six significant digits.
ACCELERGY = {
    ("typical_mac", "compute"): ({"multiplier_width": 8, "adder_width": 20}, 1.16877),
    ("typical_mac", "leak"): ({"multiplier_width": 4, "adder_width": 20}, 0),
    ("multiplication_free_mac", "compute"): ({"adder_width": 12}, 0.199275),
    ("binary_connect_mac", "compute"): ({"adder_width": 12}, 0.0996377),
    ("regfile_spad", "read"): ({"width": 16, "depth": 12}, 0.219481),
    ("regfile_spad", "write"): ({"width": 20, "depth": 24}, 0.26503),
    ("regfile_spad", "update"): ({"width": 20, "depth": 24}, 0.26503),
}


@pytest.mark.parametrize("component_action", ACCELERGY, ids=" ".join)
def test_the_real_accelergy_gives_the_same_energies(component_action: Any) -> None:
    component, action = component_action
    given, recorded = ACCELERGY[component_action]
    assert float(f"{LIBRARY.energies(component, given, component)[action]:.6g}") == recorded


def test_sizes_are_those_of_the_chip() -> None:
    def kilobytes(name: str) -> float:
        given = attributes(name, {})
        return given["width"] * given["depth"] / 8 / 1024

    assert NODES["pe_column"]["spatial"]["meshX"] * NODES["pe_row"]["spatial"]["meshY"] == 168
    assert 99.9 < kilobytes("glb_ifmap") + kilobytes("glb_psum") <= 100
    assert [attributes(n, {})["depth"] for n in ("ifmap_spad", "weights_spad", "psum_spad")] == [12, 224, 24]


def test_timeloop_takes_every_class_for_what_it_is() -> None:
    # its front end and its C++ side look for these in class names
    for name in storages():
        assert any(part in NODES[name]["class"] for part in ("DRAM", "SRAM", "regfile", "smartbuffer", "storage"))
    for name in ["typical_mac", *(c.compute_class for c in CANDIDATES)]:
        assert "mac" in name and not any(part in name for part in ("DRAM", "SRAM", "regfile", "storage"))
