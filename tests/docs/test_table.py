"""docs/table.md describes the table that the program writes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from pyarrow import parquet

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.table.columns import COLUMNS
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload
from dse.workload.layers import Layer, Workload
from tests.docs.blocks import DOCS, ROOT, table
from tests.docs.runner import Runner

PAGE = (DOCS / "table.md").read_text(encoding="utf-8")
TYPES = {"text": str, "whole number": int, "number": float, "true, false": bool}
LEVELS = "These columns are followed by four"


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> CostTable:
    """A layer that has a mapping under T8, and one whose row is made by an accelerator that it does not fit."""
    folder = tmp_path_factory.mktemp("table")
    text = (data_dir("arch_specs") / "eyeriss_168.yaml").read_text(encoding="utf-8")
    head, name, tail = text.partition("name: ifmap_spad")
    tail = tail.replace("keep: [Inputs], bypass: [Outputs, Weights]", "keep: [Inputs, Weights], bypass: [Outputs]", 1)
    (folder / "small.yaml").write_text((head + name + tail).replace("depth: 12, width: 16", "depth: 1, width: 8"))
    rows: list[dict[str, object]] = []
    for layer, arch in (("fits", None), ("does_not", folder / "small.yaml")):
        workload = Workload("net", (Layer(layer, "conv", {"C": 4, "M": 8, "P": 4, "Q": 4, "R": 3, "S": 3}),))
        found = map_workload(
            workload, arch=arch, candidates=load_candidates()[:1], store=folder / "store", jobs=1, remainders=False
        )
        rows += found.rows
    assert [row["status"] for row in rows] == ["ok", "no_mapping"]
    return CostTable(tuple(rows))


def test_the_documented_columns_are_those_of_the_program(costs: CostTable) -> None:
    rows = table(PAGE, "## Columns")
    assert {r["column"]: TYPES[r["type"]] for r in rows} == COLUMNS
    assert [r["column"] for r in rows] == list(COLUMNS)
    written = list(costs.rows[0])
    assert written[: len(COLUMNS)] == list(COLUMNS)
    suffixes = [r["column"].removeprefix("LEVEL.TENSOR.") for r in table(PAGE, LEVELS)]
    levels = [c.rsplit(".", 1) for c in written[len(COLUMNS) :]]
    assert [suffix for _, suffix in levels] == suffixes * (len(levels) // len(suffixes))
    assert {name.split(".")[1] for name, _ in levels} == {"Weights", "Inputs", "Outputs"}
    assert [levels[0][0], levels[-1][0]] == ["psum_spad.Outputs", "dram_weights.Weights"], "innermost first"


def test_units_are_in_the_names() -> None:
    for r in [*table(PAGE, "## Columns"), *table(PAGE, LEVELS)]:
        assert (r["unit"] == "pJ") == r["column"].endswith("_pj")


def test_values_have_the_documented_types(costs: CostTable) -> None:
    kinds = {r["column"]: TYPES[r["type"]] for r in table(PAGE, "## Columns")}
    of_levels = {r["column"].rsplit(".", 1)[1]: TYPES[r["type"]] for r in table(PAGE, LEVELS)}
    for column, found in costs.rows[0].items():
        assert type(found) is (kinds.get(column) or of_levels[column.rsplit(".", 1)[1]]), column


def test_totals_are_formed_as_the_page_says(costs: CostTable) -> None:
    row = costs.rows[0]
    levels = {c: e for c, e in row.items() if c.count(".") == 2 and c.endswith(".energy_pj")}
    assert row["e_tx_pj"] == pytest.approx(sum(levels.values()), rel=1e-12)
    on_chip = sum(e for c, e in levels.items() if not c.startswith("dram"))
    assert row["e_tx_on_chip_pj"] == pytest.approx(on_chip, rel=1e-12)
    assert row["e_compute_pj"] == pytest.approx(row["n_ops"] * row["e_op_pj"], rel=1e-12)


def test_a_row_without_a_mapping_has_no_costs(costs: CostTable) -> None:
    row = costs.rows[1]
    text = PAGE[PAGE.index("Costs are empty") : PAGE.index("`mapping` is an empty text")]
    empty = {c for c in row if row[c] is None}
    assert {f"`{c}`" in text for c in empty} == {True} and text.count("`") == 2 * len(empty)
    assert row["reason"] and row["mapping"] == "" and not any(c.count(".") for c in row)


def test_the_formats_are_as_described(costs: CostTable, tmp_path: Path) -> None:
    for suffix in ("csv", "json", "parquet"):
        costs.save(tmp_path / f"t.{suffix}")
    loaded = [CostTable.load(tmp_path / f"t.{suffix}") for suffix in ("csv", "json", "parquet")]
    assert loaded[0].rows == loaded[2].rows
    assert loaded[1].rows[0] == loaded[0].rows[0] and loaded[1].rows[1]["cycles"] is None
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["optimal"], second["optimal"], second["cycles"]) == ("True", "", "")
    assert float(first["e_tx_pj"]) == costs.rows[0]["e_tx_pj"]
    rows = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert rows[1]["cycles"] is None and set(rows[1]) == set(COLUMNS)
    kinds = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "t.parquet")}
    assert {kinds[c] for c in COLUMNS} == {"string", "int64", "double", "bool"}


def test_the_example(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "results" / "squeezenet_cifar" / "table.csv", tmp_path / "table.csv")
    assert Runner(tmp_path, tmp_path / "tools").page(DOCS / "table.md") == 3
