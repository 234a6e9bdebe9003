"""The page's numbers are the table's, and what it says of a table without levels or mappings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.page import indices, page_data
from dse.page.table_data import reference_candidate, uniform_networks, unit
from dse.table.cost_table import CostTable
from tests.dse.page.tables import CANDIDATES, LAYERS, REASON, small_table

SHIPPED = data_dir("arch_specs").parent / "results" / "squeezenet_cifar" / "table.csv"


def page_total(data: Any, assignment: Any) -> Any:
    """What the page's script adds up, in its order."""
    total = 0.0
    for layer, k in zip(data["layers"], assignment, strict=True):
        total += layer["cells"][k]["pj"]
    return total


@pytest.mark.parametrize("transmission", ["all", "on_chip"])
def test_totals_are_those_of_the_table_to_the_last_bit(transmission: Any) -> None:
    table = CostTable.load(SHIPPED)
    data = page_data(table, transmission)
    mixed = {layer: table.candidates[(7 * i) % 9] for i, layer in enumerate(table.layers)}
    for assignment in (mixed, dict.fromkeys(table.layers, "T8"), dict.fromkeys(table.layers, "BC2")):
        assert page_total(data, indices(table, assignment)) == table.total_pj(assignment, transmission)
    assert data["reference"] == 0
    assert data["reference_pj"] == table.total_pj(dict.fromkeys(table.layers, "T8"), transmission)


def test_a_cell_has_its_row() -> None:
    table = small_table()
    data = page_data(table)
    row, cell = table.row("wide.3x3", "MF8"), data["layers"][2]["cells"][2]
    assert cell["pj"] == pytest.approx(row["e_compute_pj"] + row["e_tx_pj"], rel=1e-15)
    assert (cell["compute_pj"], cell["tx_pj"]) == (row["e_compute_pj"], row["e_tx_pj"])
    assert (cell["cycles"], cell["utilisation"], cell["optimal"]) == (302, 0.52, True)
    assert cell["parts"] == [row[f"{part}.energy_pj"] for part in ("spad.Weights", "glb.Inputs", "dram.Inputs")]
    assert [(p["level"], p["tensor"]) for p in data["parts"]] == [
        ("spad", "Weights"), ("glb", "Inputs"), ("dram", "Inputs")]  # fmt: skip
    assert data["nests"][cell["nest"]] == [
        ["dram", [["Q", 4, "", None], ["P", 3, "", 1]]],
        ["glb", [["M", 2, "", None]]],
        ["inter_pe_spatial", [["C", 2, "x", None], ["S", 3, "x", None], ["R", 3, "y", None]]],
        ["spad", [["Q", 2, "", None]]],
    ]
    assert data["layers"][2]["n_ops"] == 3000


def test_levels_off_the_chip_are_found_from_the_energies() -> None:
    assert small_table().off_chip == {"dram"}
    assert CostTable.load(SHIPPED).off_chip == {"dram_ifmap", "dram_ofmap", "dram_weights"}
    wrong = tuple(r | {"e_tx_on_chip_pj": r["e_tx_pj"] / 3} if r["status"] == "ok" else r for r in small_table().rows)
    assert CostTable(wrong).off_chip == set()


def test_only_what_counts_is_in_the_on_chip_energy() -> None:
    table = small_table()
    cell = page_data(table, "on_chip")["layers"][0]["cells"][0]
    row = table.row("stem", "T8")
    assert cell["tx_pj"] == row["e_tx_on_chip_pj"]
    assert cell["not_counted_pj"] == row["e_tx_pj"] - row["e_tx_on_chip_pj"]


def test_no_mapping_is_a_reason_and_no_number() -> None:
    data = page_data(small_table())
    assert data["layers"][1]["cells"][3] == {"reason": REASON}
    assert [n["candidate"] for n in uniform_networks(small_table())] == ["T8", "T4", "MF8"]


def test_a_reference_without_all_mappings_is_none() -> None:
    table = small_table(lacking=[("head", "T8")])
    assert reference_candidate(table) is None
    assert page_data(table)["reference_pj"] is None


def test_a_table_without_levels_or_loop_nests() -> None:
    data = page_data(small_table(levels=False, mapping="by hand"))
    cell = data["layers"][0]["cells"][0]
    assert (data["parts"], cell["parts"], cell["rest_pj"]) == ([], [], 0.0)
    assert data["nests"] == ["by hand"]
    assert page_data(small_table(mapping=""))["layers"][0]["cells"][0]["nest"] is None


def test_what_the_levels_leave_is_leakage() -> None:
    table = small_table()
    leaking = dataclasses.replace(
        table,
        rows=tuple(
            r | {"e_tx_pj": r["e_tx_pj"] + 50.0, "leakage_pj": 50.0} if r["status"] == "ok" else r for r in table.rows
        ),
    )
    assert page_data(leaking)["layers"][0]["cells"][0]["rest_pj"] == pytest.approx(50.0)
    assert page_data(table)["layers"][0]["cells"][0]["rest_pj"] == 0.0


def test_units_follow_the_largest_energy() -> None:
    assert [unit(pj)["name"] for pj in (0.0, 999.0, 1e3, 999e3, 1e6, 1e12)] == ["pJ", "pJ", "nJ", "nJ", "µJ", "µJ"]
    data = page_data(small_table(scale=1.0))
    assert data["layer_unit"] == {"name": "nJ", "pj": 1e3}
    assert len(data["layers"]) == len(LAYERS) and [c["name"] for c in data["candidates"]] == [c[2] for c in CANDIDATES]
