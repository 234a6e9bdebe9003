"""Measured energies as rows of a table of components."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.tables import COLUMNS
from dse.rtl.equivalence import Proof
from dse.rtl.measure import Core, Row, has_product
from dse.rtl.operands import Accumulator

TECHNOLOGY = "45nm"


def write_component_table(
    rows: Iterable[Row], accumulator: Accumulator, path: Path, comments: Sequence[str]
) -> None:  # fmt: skip
    """Energies of the reconfigurable core with a network's operands, by bits of words and of the accumulator.

    With the paper's accumulator they are those of `--operators operators_rtl --tables PATH`, with another one those of
    `--operators operators_rtl_wide --tables PATH`.
    The technology is that of the shipped accelerator's tables, with which they are used.
    """
    core = "core" if accumulator == Accumulator() else "wide_core"
    operators = {c.name: c for c in load_candidates(data_dir("arch_specs") / "operators.yaml")}
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if row.core == "mac_core" and row.operands == "network":
                of = operators[row.candidate]
                writer.writerow([f"{core}_{of.operator}", TECHNOLOGY, of.bits, row.accumulator_bits, "", "",
                                 "compute", f"{row.e_op_pj:.6g}", "enos rtl"])  # fmt: skip


def write_cores(cores: Mapping[str, Core], path: Path) -> None:
    """Area, number of cells and critical path of each core."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["core", "area um2", "cells", "critical ns"])
        for name, core in cores.items():
            numbers = f"{core.area:.0f}", len(core.netlist.instances), f"{core.timing.critical_ns:.2f}"
            writer.writerow([name.replace(",", ""), *numbers])


def write_proofs(proofs: Mapping[str, Proof], path: Path, comments: Sequence[str]) -> None:
    """What came out of the proof of each netlist against its source; seconds are those of a processor."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["core", "compared with", "verdict", "registers", "outputs", "seconds", "detail"])
        for name, p in proofs.items():
            reference = "source after word-level steps" if has_product(name.partition(",")[0]) else "source"
            numbers = reference, p.verdict, p.registers, p.outputs, f"{p.seconds:.1f}"
            writer.writerow([name.replace(",", ""), *numbers, p.detail])
