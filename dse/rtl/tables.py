"""Measured energies as rows of a table of components."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.tables import COLUMNS
from dse.rtl.measure import Row

TECHNOLOGY = "45nm"


def write_component_table(rows: Iterable[Row], path: Path, comments: Sequence[str]) -> None:
    """Energies of the reconfigurable core with a network's operands, for `--operators operators_rtl --tables PATH`.

    The technology is that of the shipped accelerator's tables, with which they are used.
    """
    operators = {c.name: c for c in load_candidates(data_dir("arch_specs") / "operators.yaml")}
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if row.core == "mac_core" and row.operands == "network":
                candidate = operators[row.candidate]
                writer.writerow([f"core_{candidate.operator}", TECHNOLOGY, candidate.bits, "", "", "", "compute",
                                 f"{row.e_op_pj:.6g}", "enos rtl"])  # fmt: skip
