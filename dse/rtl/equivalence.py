"""Proofs that two circuits compute the same: registers are matched by name, the logic between them is compared by SAT.

If two machines have the same outputs and the same next values of all registers, for all inputs and all values of the
registers, they cannot be told apart from any state on. Nothing is simulated: the comparison is that of ABC, which finds
equal points inside of the two circuits (SAT sweeping), so that multipliers of some bits are proved in seconds.
"""

from __future__ import annotations

import itertools
import re
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from dse.core.errors import InputError
from dse.core.programs import run_program
from dse.rtl.machine import Machine, Register, read_machine, write_blif
from dse.rtl.synthesis import elaboration, programs_needed, run_yosys

ABC = "yosys-abc"
LIMIT_SECONDS = 600

Verdict = Literal["proved", "refuted", "undecided"]


@dataclass(frozen=True)
class Proof:
    """What came out: `outputs` and `registers` are those compared, `detail` says where the two differ.

    `seconds` are those of a processor.
    """

    verdict: Verdict
    registers: int
    outputs: int
    detail: str
    seconds: float


def elaborate(
    top: str, parameters: Mapping[str, int], folder: Path, *, word_level: bool = False,
    sources: Sequence[Path] | None = None,
) -> Machine:  # fmt: skip
    """A module of the source as gates and registers, without any optimisation by Yosys.

    Args:
        word_level: after the steps of synthesis that work on words, which the netlist then shares with it. A product
            of 8 bits that is written as ``*`` becomes another array of adders there, which SAT cannot compare in
            minutes; every later step is compared all the same.

    Raises:
        InputError: Yosys is not installed or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    steps = ["synth -flatten -top core -run begin:fine"] if word_level else ["proc", "flatten", "opt_clean"]
    script = [*elaboration(top, parameters, sources), *steps, "dffunmap", "techmap", "aigmap", "opt_clean"]
    script.append("write_json elaborated.json")
    run_yosys("\n".join(script), folder, "elaboration")
    return read_machine(folder / "elaborated.json", "core")


def prove(
    reference: Machine, other: Machine, folder: Path, clock: str = "clk", *, cases: Sequence[str] = (),
    fixed: Mapping[str, bool] = MappingProxyType({}),
) -> Proof:  # fmt: skip
    """Compares two machines of the same ports; `folder` gets their logic and the log.

    Every register of the reference needs one of the other with a name in common. Several of the reference may be one
    of the other, as where synthesis has merged them.

    Args:
        cases: names of registers; the proof is made for each combination of their values, which makes each of them
            easier.
        fixed: values of registers for which alone the proof is made.

    Raises:
        InputError: ABC is not installed, or there is no such register.
    """
    programs_needed(ABC)
    before = _cpu_seconds()

    def ended(verdict: Verdict, detail: str = "") -> Proof:
        return Proof(verdict, len(other.registers), len(other.outputs), detail, _cpu_seconds() - before)

    if {*reference.inputs} != {*other.inputs} or {*reference.outputs} != {*other.outputs}:
        return ended("refuted", "the ports differ")
    matched = [_match(register, other.registers) for register in reference.registers]
    alone = [min(r.names, default="?") for r, m in zip(reference.registers, matched, strict=True) if m is None]
    alone += [min(r.names, default="?") for i, r in enumerate(other.registers) if i not in matched]
    if alone:
        return ended("undecided", f"no counterpart of the register {alone[0]}")
    counterparts = [m for m in matched if m is not None]
    by_name = {
        name: m for register, m in zip(reference.registers, counterparts, strict=True) for name in register.names
    }
    for name in (*cases, *fixed):
        if name not in by_name:
            raise InputError("cases", f"found the register {name}", sorted(by_name))
    folder.mkdir(parents=True, exist_ok=True)
    for values in itertools.product((False, True), repeat=len(cases)):
        chosen = {**fixed, **dict(zip(cases, values, strict=True))}
        constants = {by_name[name]: value for name, value in chosen.items()}
        write_blif(reference, counterparts, range(len(counterparts)), clock, folder / "reference.blif", constants)
        write_blif(other, range(len(other.registers)), counterparts, clock, folder / "other.blif", constants)
        verdict, detail = _compare(folder, reference)
        if verdict != "proved":
            where = ", ".join(f"{name} = {int(value)}" for name, value in chosen.items())
            return ended(verdict, f"{detail} where {where}" if where else detail)
    return ended("proved")


def _compare(folder: Path, reference: Machine) -> tuple[Verdict, str]:
    command = f"cec -T {LIMIT_SECONDS} -C 1000000 reference.blif other.blif"
    code, text = run_program([ABC, "-c", command], folder, folder / "proof.log")
    if "Networks are equivalent" in text:
        return "proved", ""
    if "NOT EQUIVALENT" in text:
        return "refuted", _first_difference(text, reference)
    if "UNDECIDED" in text.upper():
        return "undecided", f"ABC found neither in {LIMIT_SECONDS} s"
    raise InputError(folder / "proof.log", f"{ABC} ends with code {code}", "a verdict")


def _cpu_seconds() -> float:
    """Of all programs that have ended: of a machine with other work, the time that passes says little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _match(register: Register, others: Sequence[Register]) -> int | None:
    for i, other in enumerate(others):
        if register.names & other.names:
            return i
    return None


def _first_difference(text: str, reference: Machine) -> str:
    found = re.search(r"(?:Output|PO)\s+(\S+?):", text)
    name = found[1] if found else ""
    if name.startswith("next_"):
        return f"next value of the register {min(reference.registers[int(name[5:])].names)}"
    return f"output {name.removeprefix('out_')}" if name else "see proof.log"
