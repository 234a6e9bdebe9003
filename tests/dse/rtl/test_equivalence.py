"""Proofs: netlists compute what their sources do, sources what the specification says, and faults are found."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.rtl.equivalence import ABC, elaborate, prove
from dse.rtl.library import read_library
from dse.rtl.machine import Machine, netlist_machine
from dse.rtl.measure import has_product, single_core
from dse.rtl.operands import Accumulator
from dse.rtl.synthesis import Instance, Netlist, specification, synthesise
from tests.dse.rtl.programs import CANDIDATES
from tests.dse.rtl.test_mac_core import FAULTS

pytestmark = [
    pytest.mark.rtl,
    pytest.mark.skipif(not shutil.which("yosys") or not shutil.which(ABC), reason=f"needs Yosys and {ABC}"),
]
LIBERTY = Path(__file__).with_name("small.lib")
LIBRARY = read_library(LIBERTY)
RTL = data_dir("arch_specs") / "rtl"
CORES = {"mac_core": ("mac_core", {}), "saturate": ("mac_core", {"SATURATE": 1, "LONG": 26, "SHORT": 20})} | {
    name: single_core(candidate, Accumulator()) for name, candidate in CANDIDATES.items()
}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Netlist]:
    folder = tmp_path_factory.mktemp("core")
    return elaborate("mac_core", {}, folder), synthesise("mac_core", {}, LIBERTY, folder)


@pytest.mark.parametrize("name", CORES)
def test_a_netlist_is_proved_to_compute_what_its_source_does(name: str, tmp_path: Path) -> None:
    top, parameters = CORES[name]
    netlist = synthesise(top, parameters, LIBERTY, tmp_path)
    source = elaborate(top, parameters, tmp_path, word_level=has_product(top))
    proof = prove(source, netlist_machine(netlist, LIBRARY), tmp_path)
    assert (proof.verdict, proof.detail) == ("proved", "")
    assert proof.registers == sum(i.cell == "FLOP" for i in netlist.instances) > proof.outputs


def test_another_gate_in_the_netlist_is_found(core: tuple[Machine, Netlist], tmp_path: Path) -> None:
    source, netlist = core
    gates = [i for i in netlist.instances if i.cell == "ND"]
    for gate in (gates[0], gates[len(gates) // 2], gates[-1]):
        wrong = [replace(i, cell="NR") if i is gate else i for i in netlist.instances]
        proof = prove(source, netlist_machine(replace(netlist, instances=tuple(wrong)), LIBRARY), tmp_path)
        assert proof.verdict == "refuted"
        assert re.fullmatch(r"next value of the register \S+|output \S+", proof.detail)


def test_a_wrong_connection_is_found_and_named(core: tuple[Machine, Netlist], tmp_path: Path) -> None:
    """The highest bit of the accumulator keeps its value."""
    source, netlist = core
    top = next(i for i in netlist.instances if i.cell == "FLOP" and i.nets["Q"] == netlist.outputs["acc[19]"])
    stuck = Instance(top.name, top.cell, {**top.nets, "DIN": top.nets["Q"]})
    instances = tuple(stuck if i is top else i for i in netlist.instances)
    proof = prove(source, netlist_machine(replace(netlist, instances=instances), LIBRARY), tmp_path)
    assert (proof.verdict, proof.detail) == ("refuted", "next value of the register acc[19]")


def test_another_function_of_a_cell_is_found(core: tuple[Machine, Netlist], tmp_path: Path) -> None:
    text = LIBERTY.read_text("utf-8")
    assert 'function : "A ^ B"' in text
    (tmp_path / "wrong.lib").write_text(text.replace('function : "A ^ B"', 'function : "A | B"'), "utf-8")
    library = read_library(tmp_path / "wrong.lib")
    assert prove(core[0], netlist_machine(core[1], library), tmp_path).verdict == "refuted"


def test_registers_without_counterpart_and_other_ports_are_not_proved(
    core: tuple[Machine, Netlist], tmp_path: Path
) -> None:
    source, netlist = core
    unnamed = prove(source, netlist_machine(replace(netlist, names={}), LIBRARY), tmp_path)
    assert unnamed.verdict == "undecided" and unnamed.detail.startswith("no counterpart of the register ")
    outputs = {name: net for name, net in netlist.outputs.items() if name != "acc[0]"}
    fewer = prove(source, netlist_machine(replace(netlist, outputs=outputs), LIBRARY), tmp_path)
    assert (fewer.verdict, fewer.detail) == ("refuted", "the ports differ")


def test_a_register_with_another_clock_is_refused(core: tuple[Machine, Netlist]) -> None:
    inputs = {**core[1].inputs, "clk": core[1].inputs["reset"]}
    with pytest.raises(InputError, match="cell FLOP: clocked_on 'PH' is no rising edge of clk"):
        netlist_machine(replace(core[1], inputs=inputs), LIBRARY)


MODES = ("typical_r", "binary_r", "precision_r[0]", "precision_r[1]")


@pytest.mark.parametrize("file,right,wrong", [f for f in FAULTS if f[0] != "baugh_wooley_array.v"],
                         ids=[f"{f}:{r}" for f, r, _ in FAULTS if f != "baugh_wooley_array.v"])  # fmt: skip
def test_a_fault_in_the_source_contradicts_the_specification(file: str, right: str, wrong: str, tmp_path: Path) -> None:
    for source in RTL.glob("*.v"):
        text = source.read_text("utf-8")
        assert source.name != file or right in text
        (tmp_path / source.name).write_text(text.replace(right, wrong) if source.name == file else text, "utf-8")
    specified = elaborate("mac_core_specification", {"ZERO_SKIP": 0}, tmp_path, sources=[specification()])
    faulty = elaborate("mac_core", {"ZERO_SKIP": 0}, tmp_path, sources=sorted(tmp_path.glob("*.v")))
    assert prove(specified, faulty, tmp_path, cases=MODES).verdict == "refuted"


@pytest.mark.parametrize("mode", list(itertools.product((False, True), repeat=len(MODES))))
def test_the_source_computes_what_the_specification_says(mode: tuple[bool, ...], tmp_path: Path) -> None:
    """In each mode, for all words, signs, forms and values of the accumulator."""
    specified = elaborate("mac_core_specification", {}, tmp_path, sources=[specification()])
    fixed = dict(zip(MODES, mode, strict=True))
    proof = prove(specified, elaborate("mac_core", {}, tmp_path), tmp_path, fixed=fixed)
    assert (proof.verdict, proof.detail) == ("proved", "")
