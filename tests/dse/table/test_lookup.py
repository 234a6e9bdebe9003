"""Embeddings: their words cross the outermost memory at its price, and nothing is searched or computed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import instance_for, library_for, read_arch
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload, stored_table
from dse.table.plan import make_plan
from dse.table.provenance import workload_digest
from dse.workload.layers import Layer, Workload
from dse.workload.problem import conv_problem
from tests.dse.fakes import FakeEngine

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
EMBEDDING = Layer("wte", "embedding", {"N": 5, "M": 33})
CONV = Layer("conv", "conv", {"C": 4, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3})
WORDS = 5 * 33

ONE_MEMORY = """
architecture:
  version: 0.4
  nodes:
  - !Component
    name: dram
    class: DRAM
    attributes: {{type: "LPDDR4", width: 64, datawidth: 8{bandwidths}}}
  - !Component
    name: mac
    class: typical_mac
    attributes: {{multiplier_width: 8, adder_width: 20}}
variables: {{version: 0.4, technology: "45nm", act_bits: 8, weight_bits: 8, psum_bits: 20}}
"""


def table_of(tmp_path: Path, *layers: Layer, **changes: Any) -> CostTable:
    given = {"engine": FakeEngine(), "store": tmp_path / "store.sqlite", "jobs": 1, **changes}
    return map_workload(Workload("net", layers), **given)


def test_energy_is_that_of_the_packed_words(tmp_path: Path) -> None:
    table = table_of(tmp_path, EMBEDDING, CONV)
    arch = read_arch()
    for candidate in load_candidates():
        row = table.row("wte", candidate.name)
        ert = instance_for(arch, candidate, conv_problem({}), library_for(arch)).ert
        reads = math.ceil(WORDS / (64 // candidate.weight_bits)) * ert.storage("dram_weights")["read"]
        writes = math.ceil(WORDS / (64 // candidate.act_bits)) * ert.storage("dram_ofmap")["update"]
        assert row["dram_weights.Weights.energy_pj"] == pytest.approx(reads, rel=1e-12)
        assert row["dram_ofmap.Outputs.energy_pj"] == pytest.approx(writes, rel=1e-12)
        assert row["e_tx_pj"] == pytest.approx(reads + writes + row["leakage_pj"], rel=1e-12)
        assert (row["dram_weights.Weights.reads"], row["dram_ofmap.Outputs.updates"]) == (WORDS, WORDS)
        assert row["e_tx_on_chip_pj"] == pytest.approx(0.0, abs=1e-6)
        assert (row["n_ops"], row["e_compute_pj"], row["utilisation"], row["optimal"]) == (0, 0.0, 0.0, True)
        assert (row["kind"], row["shape"], row["status"], row["mapping"]) == ("embedding", "N5 M33", "ok", "")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_its_row_is_read_back(tmp_path: Path, suffix: str) -> None:
    table = table_of(tmp_path, EMBEDDING, CONV)
    table.save(tmp_path / f"t{suffix}")
    again = CostTable.load(tmp_path / f"t{suffix}")
    assert again.same_costs(table) and again.shape("wte") == {"N": 5, "M": 33}
    assert again.n_ops.tolist() == [0, CONV.problem.macs]


def test_nothing_is_searched_for_it(tmp_path: Path) -> None:
    engine = FakeEngine(log=str(tmp_path / "log"))
    plan = make_plan(Workload("net", (EMBEDDING, CONV)), engine=engine)
    assert {job.layer for job in plan.jobs} == {"conv"} and len(plan.rows) == 2 * len(plan.jobs)
    alone = table_of(tmp_path, EMBEDDING, engine=engine)
    assert not (tmp_path / "log").exists()
    both = table_of(tmp_path, CONV, EMBEDDING, engine=engine)
    assert both.layers == ("conv", "wte") and both.rows[-1]["e_tx_pj"] == alone.rows[-1]["e_tx_pj"]
    stored = stored_table(Workload("net", (CONV, EMBEDDING)), engine=engine, store=tmp_path / "store.sqlite")
    assert stored.rows == both.rows


def test_columns_stay_in_the_order_of_the_levels(tmp_path: Path) -> None:
    first, last = table_of(tmp_path, EMBEDDING, CONV), table_of(tmp_path, CONV, EMBEDDING)
    assert first.level_columns == last.level_columns
    first.save(tmp_path / "t.csv")
    columns = CostTable.load(tmp_path / "t.csv").level_columns
    assert columns == last.level_columns and (columns[0].level, columns[-1].level) == ("psum_spad", "dram_weights")
    alone = table_of(tmp_path, EMBEDDING)
    assert [c.level for c in alone.level_columns if c.quantity == "reads"] == ["dram_ofmap", "dram_weights"]


@pytest.mark.parametrize(
    ("bandwidths", "cycles"),
    [
        ("", WORDS),
        (", read_bandwidth: 2", math.ceil(WORDS / 2)),
        (", read_bandwidth: 2, write_bandwidth: 0.5", 2 * WORDS),
        (", shared_bandwidth: 0.5", 4 * WORDS),  # what is read and what is written share it
        (", read_bandwidth: 1000, write_bandwidth: 1000", 1),
    ],
)
def test_cycles_come_from_the_bandwidths(tmp_path: Path, bandwidths: str, cycles: int) -> None:
    (tmp_path / "arch.yaml").write_text(ONE_MEMORY.format(bandwidths=bandwidths))
    table = table_of(tmp_path, EMBEDDING, arch=tmp_path / "arch.yaml", candidates=load_candidates()[:1])
    assert table.rows[0]["cycles"] == cycles
    assert table.rows[0]["dram.Weights.reads"] == table.rows[0]["dram.Outputs.updates"] == WORDS


def test_the_slower_of_two_memories_decides(tmp_path: Path) -> None:
    text, count = re.subn(r"(name: dram_ofmap.*?datawidth: act_bits)", r"\1, write_bandwidth: 0.25", ARCH.read_text(),
                          count=1, flags=re.DOTALL)  # fmt: skip
    assert count == 1
    (tmp_path / "slow.yaml").write_text(text)
    assert table_of(tmp_path, EMBEDDING, arch=tmp_path / "slow.yaml").rows[0]["cycles"] == 4 * WORDS


def test_digests_tell_embeddings_apart() -> None:
    others = (
        EMBEDDING,
        Layer("wte", "embedding", {"N": 5, "M": 34}),
        Layer("wte", "linear", {"N": 5, "M": 33}),
        Layer("wpe", "embedding", {"N": 5, "M": 33}),
    )
    assert len({workload_digest(Workload("net", (layer, CONV))) for layer in others}) == 4
