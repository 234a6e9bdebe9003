"""`enos rtl` with a library of six cells: its files, killed and started again, and one line for bad input."""

from __future__ import annotations

import csv
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.rtl.equivalence import ABC, Proof
from dse.rtl.streams import save_streams, uniform
from tests.conftest import refused
from tests.processes import descendants, needs_proc, until, until_gone

ROOT = Path(__file__).parents[2]
LIBERTY = ROOT / "tests" / "dse" / "rtl" / "small.lib"
Run = Callable[..., tuple[int, str, str]]

needs_programs = [
    pytest.mark.rtl,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("yosys", ABC, "iverilog")), reason="needs Yosys and Icarus Verilog"
    ),
]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A candidate with few cells, operands of its own and a period that the small library's cells reach."""
    (candidate,) = [c for c in load_candidates(data_dir("arch_specs") / "operators.yaml") if c.name == "BC2"]
    save_streams({"BC2": uniform(candidate, 400, 1)}, tmp_path / "operands.npz")
    options = f"--candidates BC2 --cycles 20 --period 100 --operands {tmp_path / 'operands.npz'}"
    return ["rtl", str(LIBERTY), *options.split()]


def rows(path: Path) -> list[dict[str, str]]:
    return [*csv.DictReader(line for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))]


class TestWithPrograms:
    pytestmark = needs_programs

    def test_its_files_and_what_is_done_is_not_done_again(self, run: Run, arguments: list[str], tmp_path: Path) -> None:
        code, out, err = run(*arguments, "--out", str(tmp_path / "out"))
        assert code == 0, err
        assert len(re.findall("synthesis of", err)) == 3 and len(re.findall(" operands$", err, re.M)) == 7
        assert [row["verdict"] for row in rows(tmp_path / "out" / "proofs.csv")] == ["proved"] * 3
        found = rows(tmp_path / "out" / "energies.csv")
        assert {(r["core"], r["accumulator_bits"]) for r in found if r["operands"] == "network"} == {
            ("mac_core", "12"), ("mac_core", "20"), ("mac_core, plain", "12"), ("single", "12")
        }  # fmt: skip
        table = rows(tmp_path / "out" / "table.csv")
        assert [(r["component"], r["width_bits"], r["width_b_bits"]) for r in table] == [
            ("core_binary_connect", "2", "12"), ("core_binary_connect", "2", "20")
        ]  # fmt: skip
        transitions = rows(tmp_path / "out" / "BC2_network.csv")
        (measured,) = [r for r in found if r["core"] == "mac_core" and r["operands"] == "network"
                       and r["accumulator_bits"] == "12"]  # fmt: skip
        by_hand = sum(float(t["rise_fj"]) * int(t["rises"]) + float(t["fall_fj"]) * int(t["falls"])
                      for t in transitions) / int(measured["operations"]) / 1000  # fmt: skip
        assert float(measured["e_op_pj"]) == pytest.approx(by_hand, rel=1e-4)

        assert run(*arguments, "--out", str(tmp_path / "out")) == (0, out, "")  # nothing is left to do
        (tmp_path / "out" / "BC2_network.csv").write_text("damaged", "utf-8")
        code, same, err = run(*arguments, "--out", str(tmp_path / "out"))
        assert (code, same, err) == (0, out, "BC2 on mac_core, 12 bits, network operands\n")
        assert rows(tmp_path / "out" / "BC2_network.csv") == transitions

    def test_other_widths_are_a_wide_core(self, run: Run, arguments: list[str], tmp_path: Path) -> None:
        code, _, err = run(*arguments, "--out", str(tmp_path / "out"), "--long", "22", "--short", "16")
        assert code == 0, err
        table = rows(tmp_path / "out" / "table.csv")
        assert [(r["component"], r["width_b_bits"]) for r in table] == [
            ("wide_core_binary_connect", "16"), ("wide_core_binary_connect", "22")
        ]  # fmt: skip

    def test_a_netlist_that_differs_from_its_source_is_an_error(
        self, run: Run, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proof = Proof("refuted", 1, 1, "output acc[3]", 0.0)
        monkeypatch.setattr("dse.rtl.session.prove", lambda *arguments: proof)
        code, out, err = run(*arguments, "--out", str(tmp_path / "out"))
        message = "proofs.csv: mac_core: netlist and source differ: output acc[3]"
        assert (code, out) == (2, "") and message in err.splitlines()[-1]
        assert not (tmp_path / "out" / "energies.csv").exists()

    @needs_proc
    @pytest.mark.parametrize(
        "number,program", [(signal.SIGKILL, "yosys"), (signal.SIGTERM, "yosys-abc"), (signal.SIGKILL, "vvp")]
    )
    def test_killed_and_started_again_it_does_only_what_is_missing(
        self, run: Run, arguments: list[str], tmp_path: Path, number: signal.Signals, program: str
    ) -> None:
        """Killed while a program of it runs, of which none is left."""
        out = tmp_path / "out"
        log = tmp_path / "log"
        with log.open("w") as errors:
            process = subprocess.Popen([sys.executable, "-m", "dse.cli", *arguments, "--out", str(out)], cwd=ROOT,
                                       stdout=subprocess.DEVNULL, stderr=errors)  # fmt: skip
        children: set[int] = set()

        def runs() -> bool:
            assert process.poll() is None, log.read_text()
            children.update(descendants(process.pid))
            return any(name_of(pid) == program for pid in children)

        until(runs)
        children.update(descendants(process.pid))
        process.send_signal(number)
        assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
        until_gone(children)
        done = {path.stem for path in (out / "steps").glob("*.json")}
        before = [line for line in log.read_text().splitlines() if " of " in line or " on " in line]
        code, text, err = run(*arguments, "--out", str(out))
        assert code == 0, err
        again = err.splitlines()
        assert before[-1] == again[0] and not {*before[:-1]} & {*again}  # the step that was killed, and those after it
        assert len(done) == len(before) - 1
        fresh = run(*arguments, "--out", str(tmp_path / "fresh"))
        assert fresh[1] == text
        assert (tmp_path / "fresh" / "energies.csv").read_text() == (out / "energies.csv").read_text()

    @pytest.mark.parametrize(
        "old,new,message",
        [
            ('ff (S, SN) { next_state : "DIN"; clocked_on : "PH"; }', "", "Yosys fails: ERROR: "),
            ("capacitance : 0.001;", "", "lacks capacitance"),
            ("library (small) {", "module (small) {", "has 0 groups 'library'"),
        ],
    )
    def test_a_library_that_lacks_something_is_one_line(
        self, run: Run, arguments: list[str], tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        text = LIBERTY.read_text("utf-8")
        assert old in text
        (tmp_path / "bad.lib").write_text(text.replace(old, new), "utf-8")
        arguments[1] = str(tmp_path / "bad.lib")
        code, _, err = run(*arguments, "--out", str(tmp_path / "out"))
        assert code == 2 and message in err and err.splitlines()[-1].startswith("error: "), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("none.lib",), "none.lib"),
        (("text.lib",), "text.lib"),
        ((str(LIBERTY), "--out", "file/below"), "file/below: cannot be written: not a directory"),
        ((str(LIBERTY), "--long", "16"), "--long: found 16 (allowed: 17 to 62 bits)"),
        ((str(LIBERTY), "--short", "19"), "--short: found 19 (allowed: 4 to 18 bits"),
        ((str(LIBERTY), "--candidates", "T8,T9"), "--candidates: unknown candidate 'T9'"),
    ],
)
def test_bad_input_is_one_line(run: Run, options: tuple[str, ...], message: str, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("yosys", ABC, "iverilog", "vvp"):  # which it looks for first; none of them is run
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("text.lib").write_text("not a library")
    assert message in refused(run("rtl", *options))


def test_missing_programs_are_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(run("rtl", str(LIBERTY))) == "error: yosys: is not installed; see docs/rtl.md\n"


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
