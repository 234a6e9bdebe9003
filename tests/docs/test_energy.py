"""The layer that docs/energy.md works by hand is what the program computes, number by number."""

from __future__ import annotations

import pytest

from dse.hardware.candidates import load_candidates
from dse.hardware.instance import Instance, instance_for, library_for, read_arch
from dse.table.columns import Row
from dse.table.fill import map_workload
from dse.table.plan import load_workload
from dse.workload.layers import Workload
from tests.docs.arithmetic import calculations, number, shown_as, value
from tests.docs.blocks import DOCS, ROOT, blocks, table

PAGE = (DOCS / "energy.md").read_text(encoding="utf-8")
LAYER, CANDIDATE = "fire5.squeeze", load_candidates("operators_published_widths")[0]


@pytest.fixture(scope="module")
def workload() -> Workload:
    whole = load_workload("squeezenet")
    return Workload(whole.name, tuple(layer for layer in whole.layers if layer.name == LAYER))


@pytest.fixture(scope="module")
def instance(workload: Workload) -> Instance:
    arch = read_arch()
    return instance_for(arch, CANDIDATE, workload.layers[0].problem, library_for(arch))


@pytest.fixture(scope="module")
def row(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Row:
    store = tmp_path_factory.mktemp("energy") / "store.sqlite"
    found = map_workload(workload, candidates=[CANDIDATE], store=store, jobs=1, remainders=False)
    return found.row(LAYER, "T8")


@pytest.mark.parametrize("name", calculations(PAGE))
def test_each_calculation_gives_its_result(name: str) -> None:
    expression, result = calculations(PAGE)[name]
    assert shown_as(value(expression), result)


def test_the_interpolated_rows_are_those_of_the_table() -> None:
    lines = (ROOT / "arch_specs" / "tables" / "components_45nm.csv").read_text(encoding="utf-8").splitlines()
    for start, shown in (
        ("sram,45nm,16,,128,1,read", "0.550105"), ("sram,45nm,16,,256,1,read", "0.860424"),
        ("sram,45nm,16,,128,1,write", "1.142238"), ("sram,45nm,16,,256,1,write", "1.342562"),
        ("register,45nm,1,,,,read", "0.011387169"), ("comparator,45nm,4,,,,compare", "0.037286653"),
        ("multiplier,45nm,8,8,,,multiply", "1.002703506"), ("adder,45nm,20,,,,add", "0.166062883"),
    ):  # fmt: skip
        (line,) = (line for line in lines if line.startswith(start + ","))
        assert shown_as(float(line.split(",")[7]), shown) and shown in PAGE


def test_energies_of_an_access_are_those_of_the_reference_table(instance: Instance) -> None:
    rows = {r["level"]: r for r in table(PAGE, "The energies of an access")}
    assert set(rows) == {s.name for s in instance.spec.storages}
    for storage in instance.spec.storages:
        shown, energies = rows[storage.name], instance.ert.storage(storage.name)
        assert int(shown["width, bits"]) == storage.attributes["width"]
        assert int(shown["word, bits"]) == storage.attributes["datawidth"]
        assert int(shown["words per access"]) == storage.block_size
        assert shown_as(energies["read"], shown["read"]) and shown_as(energies["write"], shown["write"])
        assert energies["update"] == energies["write"]
    assert shown_as(instance.e_op_pj, calculations(PAGE)["E_OP"][1])


def test_the_mapping_is_the_optimum(row: Row) -> None:
    (block,) = (b for b in blocks(PAGE) if b.language == "mapping")
    assert row["optimal"] and row["mapping"] == block.text.strip()
    assert row["n_ops"] == number(calculations(PAGE)["N_OP"][1])


def test_the_counts_are_those_of_the_row(row: Row) -> None:
    found, level, tensor = {}, "", ""
    for r in table(PAGE, "## Counts"):
        level, tensor = r["level"] or level, r["tensor"] or tensor
        found[f"{level}.{tensor}.{r['count']}"] = number(r["words"])
        assert value(r["derivation"].rpartition(": ")[2]) == number(r["words"]), r
    counts = {c: n for c, n in row.items() if c.count(".") == 2 and not c.endswith("_pj") and c not in found}
    assert not any(counts.values()), "counts that the page leaves out are 0"
    assert found == {c: row[c] for c in found}


def test_the_energies_are_those_of_the_row(row: Row) -> None:
    rows = table(PAGE, "## Energies")
    energies = {c.split(".")[0]: e for c, e in row.items() if c.count(".") == 2 and c.endswith(".energy_pj")}
    assert {r["level"] for r in rows} == set(energies)
    for r in rows:
        assert shown_as(energies[r["level"]], r["pJ"])
        assert value(r["calculation"]) == pytest.approx(number(r["pJ"]), rel=1e-5)
    results = {name: number(result) for name, (_, result) in calculations(PAGE).items()}
    assert row["e_tx_on_chip_pj"] == pytest.approx(results["on chip"], abs=3)
    assert row["e_tx_pj"] == pytest.approx(results["E_TX"], abs=3)
    assert row["e_compute_pj"] == pytest.approx(results["N_OP x E_OP"], abs=3)
    assert f"{row['e_tx_pj']:,.2f} pJ for E_TX" in PAGE
