"""Loop nests are read back from the table's text as they were written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.page.nest import Loop, NestLevel, parse_nest
from dse.table.cost_table import CostTable

SHIPPED = data_dir("arch_specs").parent / "results" / "squeezenet_cifar" / "table.csv"


def test_levels_axes_and_remainders() -> None:
    assert parse_nest("dram[P4,1 M2] | array[x: C2 S3, y: R3] | idle[] | spad[Q2]") == (
        NestLevel("dram", (Loop("P", 4, last=1), Loop("M", 2))),
        NestLevel("array", (Loop("C", 2, "x"), Loop("S", 3, "x"), Loop("R", 3, "y"))),
        NestLevel("spad", (Loop("Q", 2),)),
    )


@pytest.mark.parametrize("text", ["", "free text", "dram[P4", "dram[P]", "dram[P4]] | x", "dram[z: P4]", "dram[4P]"])
def test_other_text_is_no_nest(text: Any) -> None:
    assert parse_nest(text) is None


def test_every_mapping_of_the_shipped_table_covers_its_operations() -> None:
    for row in CostTable.load(SHIPPED).rows:
        # iterations of each dimension, from the inside out: of a full run of its loops, and of the last one
        sizes: dict[str, tuple[int, int]] = {}
        for level in reversed(parse_nest(row["mapping"])):
            for loop in reversed(level.loops):
                full, last = sizes.get(loop.dimension, (1, 1))
                shorter = loop.bound if loop.last is None else loop.last
                sizes[loop.dimension] = loop.bound * full, (shorter - 1) * full + last
        product = math.prod(last for _, last in sizes.values())
        assert product == row["n_ops"], row["layer"]
