"""Sweeps: every point once, nothing searched twice, nothing lost, and what the tables say."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.instance import read_arch
from dse.sweep import sweep
from dse.sweep.axes import parse_set
from dse.sweep.run import plan_sweep
from dse.sweep.sweep_table import front
from dse.sweep.variants import with_settings
from dse.table.fill import map_workload, missing_batches
from dse.table.plan import make_plan
from dse.table.store import Store
from tests.dse.fakes import FakeEngine
from tests.dse.table.test_fill import NET, edited, searches, stored

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
DEPTHS = {"glb_ifmap.depth": [1024, 4096]}


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    return FakeEngine(log=str(tmp_path / "log"))


@pytest.fixture
def run(engine: Any, tmp_path: Path) -> Any:
    def call(settings: Any = DEPTHS, **changes: Any) -> Any:
        reports: list[Any] = []
        arguments = {"engine": engine, "store": tmp_path / "store.sqlite", "jobs": 1, "only": ["T8", "BC8"]} | changes
        found = sweep(NET, settings, progress=reports.append, **arguments)
        return found, reports[-1]

    return call


# Points ------------------------------------------------------------------------------------------------------------


def test_a_point_is_the_specification_with_an_edited_size(tmp_path: Path) -> None:
    keys = {}
    for path, pattern, replacement, value in [
        ("glb_ifmap.depth", "depth: 8192", "depth: 4096", 4096),
        ("pe_column.meshX", "meshX: 14", "meshX: 7", 7),
        ("variables.technology", 'technology: "45nm"', "technology: 45", 45),
        ("psum_spad.multiple_buffering", r"\{depth: 24,", "{multiple_buffering: 2, depth: 24,", 2),
        ("psum_spad.read_bandwidth_bits", r"\{depth: 24,", "{read_bandwidth_bits: 20, depth: 24,", 20),
    ]:
        by_hand = make_plan(NET, arch=edited(tmp_path, pattern, replacement), engine=FakeEngine())
        altered = make_plan(NET, arch=with_settings(read_arch(ARCH), {path: value}), engine=FakeEngine())
        assert [job.key for job in altered.jobs] == [job.key for job in by_hand.jobs]
        keys[path] = by_hand.jobs[0].key
    assert len(set(keys.values())) == len(keys)


def test_energies_of_each_point_come_from_the_engine() -> None:
    asked = []

    class Asked(FakeEngine):
        def energies(self, spec: Any, *arguments: Any) -> Any:
            asked.append(spec.storage("glb_ifmap").attributes["depth"])
            return super().energies(spec, *arguments)

    plan_sweep(NET, [parse_set("glb_ifmap.depth=1024,4096")], engine=Asked(), only=["T8"],
               candidates="operators_published_energies")  # fmt: skip
    assert asked == [1024, 4096]
    asked.clear()
    plan_sweep(NET, [parse_set("glb_ifmap.depth=1024,4096")], engine=Asked(), only=["T8"])
    assert asked == [1024, 1024, 4096, 4096]  # sums of 36 and of 72 products


def test_the_specification_itself_stays_as_it_is() -> None:
    arch = read_arch(ARCH)
    before = json.dumps(arch.document)
    with_settings(arch, {"glb_ifmap.depth": 64, "pe_row.meshY": 3, "variables.technology": 32})
    assert json.dumps(arch.document) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("glb.depth", "'glb' (allowed: system, dram_weights,"),
        ("glb_ifmap.dept", "has no 'dept' in glb_ifmap (allowed: width, depth, n_banks, datawidth,"),
        ("glb_ifmap.meshX", "has no 'meshX' in glb_ifmap"),
        ("pe_row.depth", "has no 'depth' in pe_row (allowed: meshX, meshY)"),
        ("variables.bits", "has no 'bits' in variables (allowed: version, technology, global_cycle_seconds,"),
        ("variables.act_bits", "each candidate sets it by itself"),
        ("mac.adder_width", "each candidate sets it by itself"),
        ("mac.foo", "has no 'foo' in mac"),
    ],
)
def test_paths_that_cannot_be_set(run: Any, tmp_path: Path, path: Any, message: Any) -> None:
    with pytest.raises(InputError) as refusal:
        run({path: [1, 2]})
    assert message in str(refusal.value)
    assert not (tmp_path / "store.sqlite").exists()


def test_one_row_for_each_point_layer_and_candidate(run: Any, engine: Any) -> None:
    found, report = run({"glb_ifmap.depth": [1024, 4096], "weights_spad.depth": [112, 224, 448]})
    assert len(found.rows) == 6 * 3 * 2 and len(found.summary) == 6 * 2
    assert [r["point"] for r in found.summary] == [n for n in range(1, 7) for _ in range(2)]
    assert {(r["glb_ifmap.depth"], r["weights_spad.depth"]) for r in found.rows} == {
        (g, w) for g in (1024, 4096) for w in (112, 224, 448)
    }
    assert (report.jobs, report.computed, report.duplicates) == (36, 24, 12)
    assert searches(engine) == 24


def test_a_point_has_the_costs_that_map_gives_for_the_same_sizes(run: Any, tmp_path: Path) -> None:
    found, _ = run()
    arch = edited(tmp_path, "depth: 8192", "depth: 4096")
    table = map_workload(NET, arch=arch, engine=FakeEngine(), store=tmp_path / "other.sqlite", jobs=1)
    for layer in table.layers:
        for candidate in ("T8", "BC8"):
            row = dict(found.row(2, layer, candidate))
            assert (row.pop("point"), row.pop("glb_ifmap.depth")) == (2, 4096)
            assert row == table.row(layer, candidate)
    total = found.total(2, "T8")
    assert total["energy_pj"] == pytest.approx(table.total_pj(dict.fromkeys(table.layers, "T8")), rel=1e-12)
    assert total["energy_on_chip_pj"] == pytest.approx(
        table.total_pj(dict.fromkeys(table.layers, "T8"), "on_chip"), rel=1e-12
    )


def test_a_summary_adds_up(run: Any) -> None:
    found, _ = run()
    for row in found.summary:
        levels = [v for c, v in row.items() if c.endswith(".energy_pj")]
        assert len(levels) == 8
        assert row["compute_pj"] + row["leakage_pj"] + sum(levels) == pytest.approx(row["energy_pj"], rel=1e-12)
        assert row["energy_per_mac_pj"] * row["n_ops"] == pytest.approx(row["energy_pj"])
        assert row["delay_s"] == pytest.approx(row["cycles"] * 1e-9)
        assert row["edp_js"] == pytest.approx(row["energy_pj"] * 1e-12 * row["cycles"] * 1e-9)
    psum = {"T8": 23, "BC8": 16}  # of the longest sums, of 72 products
    for row in found.summary:
        spads = 168 * (12 * 16 + 224 * 16 + 24 * psum[row["candidate"]])
        assert row["on_chip_bits"] == 2457 * 120 + row["glb_ifmap.depth"] * 64 + spads


def test_energies_of_a_changed_component_are_estimated_anew(run: Any) -> None:
    found, _ = run({"glb_ifmap.depth": [1024, 65536]})
    small, large = (found.total(n, "T8") for n in (1, 2))
    assert large["glb_ifmap.energy_pj"] > 2 * small["glb_ifmap.energy_pj"]
    assert large["weights_spad.energy_pj"] == small["weights_spad.energy_pj"]


def test_what_points_have_in_common_is_searched_once(run: Any, engine: Any) -> None:
    cycles = [1e-9, 2e-9]
    found, report = run({"variables.global_cycle_seconds": cycles})
    assert (report.jobs, report.computed, searches(engine)) == (12, 4, 4)
    first, second = (found.total(n, "T8") for n in (1, 2))
    assert second["energy_pj"] == first["energy_pj"]
    assert second["delay_s"] == 2 * first["delay_s"]


def test_a_second_sweep_and_a_wider_one_reuse_what_is_stored(run: Any, engine: Any) -> None:
    first, _ = run()
    again, report = run()
    assert (report.to_compute, searches(engine)) == (0, 8)
    assert (again.rows, again.summary) == (first.rows, first.summary)
    _, report = run({"glb_ifmap.depth": [1024, 2048, 4096]})
    assert report.computed == 4


def test_workers_give_the_same_sweep(run: Any, tmp_path: Path) -> None:
    alone, _ = run(engine=FakeEngine())
    shared, report = run(engine=FakeEngine(), store=tmp_path / "other.sqlite", jobs=2)
    assert (shared.rows, shared.summary) == (alone.rows, alone.summary)
    assert report.computed == 8


def test_neighbouring_points_of_a_layer_shape_are_searched_one_after_another() -> None:
    axes = [parse_set("glb_ifmap.depth=1024:8192:x2")]
    plan = plan_sweep(NET, axes, only=["T8", "BC8"], engine=FakeEngine())
    batches = missing_batches([site.plan for site in plan.sites if site.plan], {})
    assert [(b.jobs[0].layer, b.jobs[0].instance.spec.storage("glb_ifmap").capacity) for b in batches] == [
        (layer, depth * 8) for layer in ("second", "first") for depth in (1024, 2048, 4096, 8192)
    ]
    assert {tuple(job.instance.candidate.name for job in batch.jobs) for batch in batches} == {("T8", "BC8")}


def test_settings_in_step_are_points_of_their_own(run: Any) -> None:
    found, _ = run({}, zipped=[{"pe_column.meshX": [7, 14], "pe_row.meshY": [24, 12]}])
    assert [(p.settings["pe_column.meshX"], p.settings["pe_row.meshY"]) for p in found.points] == [(7, 24), (14, 12)]


# Points without costs ----------------------------------------------------------------------------------------------


def test_a_point_outside_the_energy_tables_is_a_row_with_a_reason(run: Any, engine: Any) -> None:
    found, report = run({"weights_spad.depth": [32, 112]})
    for row in found.rows[:6]:
        assert (row["status"], row["weights_spad.depth"], row["e_tx_pj"]) == ("no_energy", 32, None)
        assert row["reason"].startswith("weights_spad: ") and "32 is outside the table" in row["reason"]
    assert found.total(1, "T8")["energy_pj"] is None
    assert found.best("T8")["point"] == 2 and [r["point"] for r in found.totals("T8")] == [2]
    assert [w.point for w in found.winners("T8")] == [2, 2, 2]
    assert (report.jobs, searches(engine)) == (6, 4)


def test_a_value_that_only_some_candidates_can_take(run: Any) -> None:
    settings = {"glb_psum.width": [60, 64, 80]}
    found, _ = run(
        settings, candidates="operators_published_energies"
    )  # partial sums have 20 bit under T8 and 12 bit under BC8
    assert [(r["candidate"], r["status"]) for r in found.summary] == [
        ("T8", "ok"),
        ("BC8", "ok"),
        ("T8", "invalid"),
        ("BC8", "invalid"),
        ("T8", "ok"),
        ("BC8", "invalid"),
    ]
    assert "80 bits is not a multiple of 12" in found.total(3, "BC8")["reason"]


def test_a_value_that_a_candidate_can_take_in_some_layers_only_is_invalid(run: Any) -> None:
    found, _ = run({"glb_psum.width": [120, 80]})  # slots of 15 bit for 36 products under BC8, of 20 bit for 72
    assert found.total(1, "BC8")["status"] == "ok" and found.total(2, "BC8")["status"] == "invalid"
    assert "80 bits is not a multiple of 15" in found.total(2, "BC8")["reason"]


def test_a_sweep_without_a_single_possible_point_is_refused(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 2 points can be mapped; the first: weights_spad.depth=8: .*"
                       r"8 is outside the table \(allowed: 64 to 65536\)"):  # fmt: skip
        run({"weights_spad.depth": [8, 16]})
    assert not (tmp_path / "store.sqlite").exists()


def test_a_layer_without_a_mapping_leaves_no_total(run: Any) -> None:
    found, _ = run({"psum_spad.multiple_buffering": [1, 100]})
    assert [r["status"] for r in found.summary] == ["ok", "ok", "no_mapping", "no_mapping"]
    assert found.total(2, "T8")["energy_pj"] is None
    reason = found.total(2, "T8")["reason"]
    assert reason.startswith("first: ") and "psum_spad" in reason and reason.endswith("(and 2 more layers)")
    assert found.energy_pj(2, "first", "T8") is None
    assert {w.point for w in found.winners("T8")} == {1}


def test_nothing_but_layers_without_mapping(run: Any) -> None:
    found, _ = run({"psum_spad.multiple_buffering": [100]})
    assert found.best("T8") is None and found.pareto("T8") == []
    assert {(w.point, w.energy_pj, w.saving) for w in found.winners("T8")} == {(None, None, None)}


# Tables ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_no_other_point_beats(costs: Any) -> None:
    found = front(costs)
    assert found == sorted(found, key=lambda i: costs[i])
    on_front = {costs[i] for i in found}
    assert len(on_front) == len(found)
    for a, b in set(costs):
        beaten = any(c <= a and d <= b and (c, d) != (a, b) for c, d in costs)
        assert ((a, b) in on_front) == (not beaten)


def test_winners_and_the_best_common_point(run: Any) -> None:
    found, _ = run({"glb_ifmap.depth": [1024, 65536], "pe_column.meshX": [14, 7]})
    best = found.best("T8")
    assert best["energy_pj"] == min(r["energy_pj"] for r in found.totals("T8"))
    for winner in found.winners("T8"):
        energies = [found.energy_pj(p.number, winner.layer, "T8") for p in found.points]
        assert winner.energy_pj == min(energies) and energies[winner.point - 1] == winner.energy_pj
        assert winner.common_pj == energies[best["point"] - 1]
        assert winner.saving == pytest.approx(1 - winner.energy_pj / winner.common_pj)
    with pytest.raises(InputError, match=r"unknown candidate 'T3' \(allowed: T8, BC8\)"):
        found.best("T3")


def test_saved_tables(run: Any, tmp_path: Path) -> None:
    found, _ = run({"weights_spad.depth": [32, 112]})
    for suffix in ("csv", "json", "parquet"):
        found.save(tmp_path / f"rows.{suffix}")
        found.save_summary(tmp_path / f"summary.{suffix}")
    with (tmp_path / "summary.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [(r["point"], r["weights_spad.depth"], r["candidate"], r["status"]) for r in rows] == [
        ("1", "32", "T8", "no_energy"),
        ("1", "32", "BC8", "no_energy"),
        ("2", "112", "T8", "ok"),
        ("2", "112", "BC8", "ok"),
    ]
    assert float(rows[2]["energy_pj"]) == found.total(2, "T8")["energy_pj"]
    with (tmp_path / "rows.csv").open() as f:
        header, *lines = f.read().splitlines()
    assert header.startswith(
        "point,weights_spad.depth,workload,layer,kind,shape,operator,bits,candidate,status,reason,"
    )
    assert len(lines) == len(found.rows)
    assert json.loads((tmp_path / "rows.json").read_text()) == list(found.rows)
    with pytest.raises(InputError, match=r"\.csv, \.parquet, \.json"):
        found.save(tmp_path / "rows.txt")


def test_candidates_of_ones_own(run: Any) -> None:
    found, _ = run(candidates=[c for c in load_candidates() if c.name == "MF4"], only=[])
    assert found.candidates == ("MF4",)
    with pytest.raises(InputError, match="candidate: unknown candidate 'T9'"):
        run(only=["T9"])


# Kill and resume ---------------------------------------------------------------------------------------------------

_SLOW_SWEEP = """
import sys
from dse.sweep import sweep
from tests.dse.fakes import FakeEngine
from tests.dse.table.test_fill import NET
store, log, seconds, jobs, halts = sys.argv[1:]
reports = []
engine = FakeEngine(log=log, seconds=float(seconds), halts=int(halts))
settings = {"glb_ifmap.depth": "1024:8192:x2"}
sweep(NET, settings, only=["T8", "BC8"], engine=engine, store=store, jobs=int(jobs), progress=reports.append)
print(reports[-1].reused, reports[-1].computed)
"""


def start(store: Any, log: Any, seconds: Any, jobs: Any, halts: Any = 0) -> Any:
    folders = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW_SWEEP, store, log, str(seconds), str(jobs), str(halts)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path: Path, jobs: Any) -> None:
    store, log = tmp_path / "store.sqlite", tmp_path / "log"
    killed = start(store, log, 0, jobs, halts=12)
    deadline = time.monotonic() + 120
    while stored(store) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)  # its workers too
    killed.wait()
    killed.stdout.close()
    done = stored(store)
    assert 4 <= done < 16
    resumed = start(store, log, 0, 1)
    _, computed = map(int, resumed.communicate()[0].split())
    assert computed == 16 - done
    assert searches(FakeEngine(log=str(log))) <= 16 + 2 * jobs  # at most the batches under way, again
    with Store(store) as opened:
        assert len(opened) == 16
