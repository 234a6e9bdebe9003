"""Cycles, use of the array, memory and traffic of a network are those of its rows."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload
from dse.table.performance import (
    LayerTime,
    Performance,
    has_embeddings,
    idle_layers,
    layer_times,
    performance,
)
from dse.workload.layers import Layer, Workload, write_workload
from tests.dse.fakes import FakeEngine
from tests.dse.table.test_totals import table as older_table

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
CONV = {"C": 4, "M": 8, "P": 8, "Q": 8, "R": 3, "S": 3}
NET = Workload(
    "net",
    (
        Layer("wte", "embedding", {"N": 6, "M": 10}),
        Layer("conv", "conv", CONV),
        Layer("depthwise", "conv", {"G": 8, "C": 1, "M": 1, "P": 8, "Q": 8, "R": 3, "S": 3}),
        Layer("conv#2", "conv", CONV),
        Layer("attn.matmul_1", "matmul", {"G": 2, "N": 8, "C": 4, "M": 8}),
        Layer("fc", "linear", {"N": 1, "C": 32, "M": 10}),
    ),
)
WEIGHTS = 4 * 8 * 9 + 8 * 9 + 32 * 10  # the second call of conv has the same, and a product of activations has none


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> CostTable:
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    return map_workload(NET, candidates=load_candidates()[::6], store=store, jobs=1, remainders=False)


def test_a_network_takes_what_its_layers_take(table: CostTable) -> None:
    assert table.candidates == ("T8", "BC8")
    for candidate in table.candidates:
        found = performance(table, candidate)
        rows = [table.row(layer, candidate) for layer in table.layers]
        assert found.operations == sum(layer.macs for layer in NET.layers)
        assert found.cycles == sum(row["cycles"] for row in rows) > rows[0]["cycles"]
        assert found.utilisation_with_stalls == pytest.approx(found.operations / 168 / found.cycles)
        computing = sum(row["n_ops"] / (168 * row["utilisation"]) for row in rows[1:])
        assert found.utilisation == pytest.approx(found.operations / 168 / computing)
        assert found.utilisation > found.utilisation_with_stalls  # the array waits for the embedding


def test_weights_are_counted_once_in_the_words_of_their_candidate(table: CostTable) -> None:
    assert performance(table, "T8").weight_bytes == WEIGHTS
    assert performance(table, "BC8").weight_bytes == math.ceil(WEIGHTS / 8)
    mixed = {**dict.fromkeys(table.layers, "BC8"), "fc": "T8"}
    assert performance(table, mixed).weight_bytes == math.ceil((WEIGHTS - 320) / 8) + 320


def test_traffic_is_that_of_the_memories_off_the_chip(table: CostTable) -> None:
    for candidate, weight_bits in (("T8", 8), ("BC8", 1)):
        bits = 0
        for row in (table.row(layer, candidate) for layer in table.layers):
            bits += weight_bits * row["dram_weights.Weights.reads"]
            for name in ("dram_ifmap.Inputs.reads", "dram_ofmap.Outputs.updates", "dram_ofmap.Outputs.reads"):
                bits += 8 * (row.get(name) or 0)
        assert performance(table, candidate).off_chip_bytes == math.ceil(bits / 8)


def test_stalls_are_told_apart_from_idle_units(tmp_path: Path) -> None:
    text, count = re.subn(r"(name: dram_weights.*?datawidth: weight_bits)", r"\1, read_bandwidth: 0.01",
                          ARCH.read_text(), count=1, flags=re.DOTALL)  # fmt: skip
    assert count == 1
    (tmp_path / "slow.yaml").write_text(text)
    options: dict[str, Any] = {"candidates": load_candidates()[:1], "store": tmp_path / "store", "jobs": 1}
    net = Workload("net", (NET.layers[1],))
    fast, slow = (
        performance(map_workload(net, arch=arch, remainders=False, **options), "T8")
        for arch in (None, tmp_path / "slow.yaml")
    )
    assert fast.utilisation == fast.utilisation_with_stalls
    assert slow.utilisation is not None and slow.utilisation_with_stalls is not None
    assert slow.utilisation_with_stalls < slow.utilisation / 2


@pytest.mark.parametrize("bandwidth", ["read_bandwidth_bits", "shared_bandwidth_bits"])
def test_a_bus_of_some_bits_moves_narrow_words_faster(tmp_path: Path, bandwidth: str) -> None:
    text, count = re.subn(r"(name: dram_weights.*?datawidth: weight_bits)", rf"\1, {bandwidth}: 0.16",
                          ARCH.read_text(), count=1, flags=re.DOTALL)  # fmt: skip
    assert count == 1
    (tmp_path / "bus.yaml").write_text(text)
    candidates = [c for c in load_candidates() if c.name in ("T8", "T4")]
    net = Workload("net", (NET.layers[1],))
    table = map_workload(net, arch=tmp_path / "bus.yaml", candidates=candidates, store=tmp_path / "store", jobs=1,
                         remainders=False)  # fmt: skip
    cycles = {}
    for candidate in candidates:
        row = table.row("conv", candidate.name)
        bits = row["dram_weights.Weights.reads"] * candidate.weight_bits
        cycles[candidate.name] = row["cycles"]
        assert row["cycles"] == pytest.approx(bits / 0.16, abs=1)
    assert cycles["T4"] == pytest.approx(cycles["T8"] / 2, abs=1)


def test_the_time_of_each_layer(table: CostTable) -> None:
    for candidate in table.candidates:
        times = layer_times(table, candidate)
        assert [time.layer for time in times] == list(table.layers)
        assert sum(time.cycles or 0 for time in times) == performance(table, candidate).cycles
        for time, layer in zip(times, NET.layers, strict=True):
            assert time.utilisation == table.row(layer.name, candidate)["utilisation"]
            assert time.utilisation_with_stalls == pytest.approx(layer.macs / 168 / (time.cycles or 0))
            assert time.network_cycles == 0
    without = CostTable(tuple({**row, "status": "no_mapping"} for row in table.rows), table.provenance)
    assert layer_times(without, "T8")[1] == LayerTime("conv", None, None, None, None)
    (first, *_) = layer_times(CostTable(table.rows, None), "T8")
    assert (first.network_cycles, first.utilisation_with_stalls) == (None, None)


def test_cycles_of_networks_are_said(tmp_path: Path, run: Any) -> None:
    text, count = re.subn(r"(name: glb_ifmap.*?datawidth: act_bits)", r"\1, network_fill_latency: 1000",
                          ARCH.read_text(), count=1, flags=re.DOTALL)  # fmt: skip
    assert count == 1
    (tmp_path / "slow.yaml").write_text(text)
    write_workload(Workload("net", NET.layers[:2]), tmp_path / "net.yaml")
    options = ("--arch", tmp_path / "slow.yaml", "--store", tmp_path / "store", "--candidate", "T8", "--perfect")
    output = tmp_path / "table.csv"
    code, out, err = run("map", tmp_path / "net.yaml", *options, "--jobs", "1", "--output", output)
    assert code == 0, err
    assert "Networks fill and drain in 1,000 of the cycles of each layer that is mapped." in out
    wte, conv = layer_times(CostTable.load(output), "T8")
    assert (wte.network_cycles, conv.network_cycles) == (0, 1000) and (conv.cycles or 0) > 1000
    assert conv.utilisation_with_stalls is not None and conv.utilisation is not None
    assert conv.utilisation_with_stalls < conv.utilisation
    lines = run("table", tmp_path / "net.yaml", *options, "--breakdown", "T8")[1].splitlines()
    (line,) = (line.split() for line in lines[lines.index("Cycles of each layer under T8, and PEs that work:") :]
               if line.startswith("conv"))  # fmt: skip
    assert line == ["conv", f"{conv.cycles:,}", "1,000", f"{conv.utilisation:.1%}",
                    f"{conv.utilisation_with_stalls:.1%}"]  # fmt: skip


def test_layers_on_few_units_are_named_if_they_take_long(table: CostTable) -> None:
    def changed(**by_layer: tuple[float, int]) -> CostTable:
        rows = []
        for row in table.rows:
            share, cycles = by_layer[row["layer"].split(".")[0].split("#")[0]]
            rows.append({**row, "utilisation": share, "cycles": cycles})
        return CostTable(tuple(rows), table.provenance)

    found = idle_layers(
        changed(wte=(0, 100), conv=(0.07, 200), depthwise=(0.25, 300), attn=(0.1, 39), fc=(0.2, 400)), "T8"
    )
    assert [(i.layer, i.of) for i in found] == [("fc", 168), ("conv", 168), ("conv#2", 168)]  # the slowest first
    cycles = 100 + 200 + 300 + 200 + 39 + 400
    assert found[0].share == 400 / cycles and found[0].pes == pytest.approx(0.2 * 168)
    busy = changed(wte=(0, 1), conv=(0.3, 200), depthwise=(0.25, 300), attn=(0.26, 100), fc=(1.0, 400))
    assert idle_layers(busy, "T8") == ()


def test_nothing_is_said_that_is_not_known(table: CostTable) -> None:
    none = dict.fromkeys(("cycles", "utilisation", "e_tx_pj")) | {"status": "no_mapping"}
    lacking = CostTable(tuple({**r, **none} if r["layer"] == "fc" else r for r in table.rows), table.provenance)
    assert performance(lacking, "T8") == Performance(
        performance(table, "T8").operations, None, None, None, performance(table, "T8").weight_bytes, None
    )
    assert idle_layers(lacking, "T8") == ()
    old = performance(older_table(), "T8")
    assert (old.operations, old.cycles, old.utilisation) == (20, 20, 1.0)
    assert (old.utilisation_with_stalls, old.weight_bytes, old.off_chip_bytes) == (None, None, None)
    with pytest.raises(InputError, match="'T3'"):
        performance(table, "T3")


def test_which_tables_have_embeddings(table: CostTable) -> None:
    assert has_embeddings(table)
    assert not has_embeddings(CostTable(tuple(r for r in table.rows if r["layer"] != "wte"), table.provenance))
    assert not has_embeddings(older_table())


def test_a_network_of_lookups_uses_no_unit(tmp_path: Path) -> None:
    net = Workload("net", NET.layers[:1])
    alone = performance(map_workload(net, engine=FakeEngine(), store=tmp_path / "store", jobs=1), "T8")
    assert (alone.operations, alone.utilisation, alone.utilisation_with_stalls) == (0, None, 0.0)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_file_keeps_what_is_needed(table: CostTable, tmp_path: Path, suffix: str) -> None:
    table.save(tmp_path / f"t{suffix}")
    again = CostTable.load(tmp_path / f"t{suffix}")
    assert performance(again, "BC8") == performance(table, "BC8")
    assert again.provenance == table.provenance and table.provenance is not None
    assert table.provenance.cycle_seconds == 1e-9
    without = CostTable(table.rows, dataclasses.replace(table.provenance, cycle_seconds=None))
    without.save(tmp_path / f"t{suffix}")
    assert CostTable.load(tmp_path / f"t{suffix}").provenance == without.provenance
