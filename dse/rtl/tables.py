"""Measured energies as rows of a table of components."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.tables import COLUMNS
from dse.rtl.measure import Row
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
