"""The Verilog of the cores against the integer reference, in Icarus Verilog."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.rtl.operands import Accumulator
from tests.dse.rtl.programs import CANDIDATES, mixed_program, packed_program, single_program

pytestmark = [
    pytest.mark.rtl,
    pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog (iverilog)"),
]
RTL = data_dir("arch_specs") / "rtl"
SOURCES = sorted(RTL.glob("*.v"))


def simulate(
    sources: Iterable[Path], top: str, program: dict[str, Any], folder: Path, parameters: dict[str, int] | None = None
) -> int:
    """Runs the bench; returns how many of its tests failed."""
    pytest.importorskip("cocotb", reason="needs cocotb")
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "program.json"
    file.write_text(json.dumps(program), "utf-8")
    runner = get_runner("icarus")
    runner.build(sources=[*sources], hdl_toplevel=top, parameters=parameters or {}, build_dir=folder, always=True,
                 build_args=["-g2005"], timescale=("1ns", "1ps"),
                  log_file=folder / "build.log")  # fmt: skip
    with contextlib.suppress(SystemExit):  # cocotb's way to say that a test failed
        runner.test(hdl_toplevel=top, test_module="tests.dse.rtl.bench", build_dir=folder, test_dir=folder,
                    results_xml=str(folder / "results.xml"), extra_env={"RTL_PROGRAM": str(file)},
                    log_file=folder / "test.log")  # fmt: skip
    ran, failed = get_results(folder / "results.xml")
    assert ran == 1, (folder / "test.log").read_text("utf-8")
    return failed


@pytest.mark.parametrize("saturate,zero_skip,isolate", [(0, 1, 1), (1, 1, 1), (0, 0, 0), (1, 0, 1)])
def test_every_mode_adds_what_the_reference_adds_with_modes_that_change(
    saturate: int, zero_skip: int, isolate: int, tmp_path: Path
) -> None:
    program = mixed_program(saturate, "saturate" if saturate else "wrap")
    parameters = {"SATURATE": saturate, "ZERO_SKIP": zero_skip, "ISOLATE": isolate}
    assert simulate(SOURCES, "mac_core", program, tmp_path, parameters) == 0


@pytest.mark.parametrize("name,saturate", [(n, i % 2) for i, n in enumerate(CANDIDATES)])
@pytest.mark.parametrize("signed", [0, 1])
def test_the_core_of_one_operator_adds_what_the_reference_adds(
    name: str, saturate: int, signed: int, tmp_path: Path
) -> None:
    candidate = CANDIDATES[name]
    program = single_program(candidate, bool(signed), 3, "saturate" if saturate else "wrap")
    parameters = {
        "BITS": candidate.bits,
        "WIDTH": Accumulator().width(candidate.operator),
        "SIGNED_X": signed,
        "SATURATE": saturate,
    }
    assert simulate(SOURCES, f"mac_{candidate.operator}", program, tmp_path, parameters) == 0


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("signed", [False, True])
def test_packed_words_that_saturate_are_clipped_once_a_cycle(name: str, signed: bool, tmp_path: Path) -> None:
    program, different = packed_program(CANDIDATES[name], signed, 2)
    assert bool(different) == (name not in ("T8", "BC8"))  # which add one term in a cycle
    parameters = {"SATURATE": 1, "SHORT": program["short"]}
    assert simulate(SOURCES, "mac_core", program, tmp_path, parameters) == 0


FAULTS = [
    ("baugh_wooley_array.v", "carry & ~first_column[i+j+1]", "carry"),
    ("baugh_wooley_array.v", "(signed_x & top[i]) ^ top[j]", "top[j]"),
    ("add_subtract.v", "half & negate_w[2]", "1'b0"),
    ("add_subtract.v", "nonzero & {4{~binary}}", "{4{~binary}}"),
    ("accumulator_adder.v", "wide & low[SHORT]", "low[SHORT]"),
    ("mac_core.v", "{LONG{~start}}", "{LONG{1'b1}}"),
]


@pytest.mark.parametrize("file,right,wrong", FAULTS, ids=[f"{f}:{r}" for f, r, _ in FAULTS])
def test_a_fault_in_the_source_is_noticed(file: str, right: str, wrong: str, tmp_path: Path) -> None:
    for source in SOURCES:
        text = source.read_text("utf-8")
        assert source.name != file or right in text
        (tmp_path / source.name).write_text(text.replace(right, wrong) if source.name == file else text, "utf-8")
    parameters = {"ZERO_SKIP": 0}  # which would hide some
    sources = sorted(tmp_path.glob("*.v"))
    assert simulate(sources, "mac_core", mixed_program(5, "wrap"), tmp_path / "run", parameters) == 1
    log = (tmp_path / "run" / "test.log").read_text("utf-8")
    assert "AssertionError: cycle " in log or "contains non-0/1 values" in log


@pytest.mark.skipif(shutil.which("verilator") is None, reason="needs Verilator")
@pytest.mark.parametrize("top", ["mac_core", "mac_typical", "mac_multiplication_free", "mac_binary_connect"])
def test_verilator_has_no_warning(top: str) -> None:
    for values in itertools.product((0, 1), (0, 1)):
        parameters = [f"-G{name}={value}" for name, value in zip(("SATURATE", "ZERO_SKIP"), values, strict=True)]
        # UNOPTFLAT is about the speed of a simulation: rows of the array are elements of one variable.
        command = ["verilator", "--lint-only", "-Wall", "-Wno-UNOPTFLAT", "--language", "1364-2005", "-y", str(RTL)]
        linted = subprocess.run([*command, *parameters, str(RTL / f"{top}.v")], capture_output=True, text=True)
        assert linted.returncode == 0, linted.stderr
