"""The numbers of `docs/chips.md`, from the table that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.hardware.energy.components import ComponentLibrary
from dse.hardware.energy.scaling import scale
from tests.docs.blocks import DOCS, blocks, table

PAGE = (DOCS / "chips.md").read_text(encoding="utf-8")


def test_the_pages_table_gives_the_pages_numbers(tmp_path: Path) -> None:
    shown = next(block for block in blocks(PAGE) if block.title == "chip.csv")
    (tmp_path / "chip.csv").write_text(shown.text)
    library = ComponentLibrary.load([tmp_path / "chip.csv"])
    size = {"width": 32, "depth": 4096, "technology": "45nm"}
    calculation = next(block for block in blocks(PAGE) if block.language == "calculation")
    lines = [line.split(" = ") for line in calculation.text.splitlines()]
    said = {line[0]: float(line[-1].replace(",", "")) for line in lines}
    assert library.energies("SRAM", size, "x")["read"] == pytest.approx(said["read"], abs=5e-5)
    assert library.area("SRAM", size, "x") == pytest.approx(said["area"])
    slow = library.energies("SRAM", size | {"global_cycle_seconds": 2e-9}, "x")["leak"]
    assert slow == pytest.approx(0.5 * 2 * said["read"] / 20, rel=1e-4)


def test_the_pages_rules_are_those_of_the_program() -> None:
    factor = {"linear": 2.0, "power of 0.78": 2**0.78, "2 for each bit": 2.0**4, "square": 4.0, "none": 1.0}
    for row in table(PAGE, "**Library.**"):
        energy, _, leak = row["energy and leakage"].partition("; leakage ")
        if row["attribute"] == "technology":
            continue
        for name in row["attribute"].split(", "):
            for quantity, rule in (("energy", energy), ("leak", leak or energy), ("area", row["area"])):
                expected = None if rule == "cannot be scaled" else pytest.approx(factor[rule])
                assert scale(name, 4, 8, quantity) == expected, (name, quantity)
