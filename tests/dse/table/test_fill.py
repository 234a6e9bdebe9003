"""The pipeline: every row once, nothing twice, nothing lost when it is killed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.core.shipped import data_dir
from dse.hardware.candidates import load_candidates
from dse.hardware.energy.ert import Ert
from dse.table.cost_table import CostTable
from dse.table.fill import map_workload, stored_table
from dse.table.plan import make_plan
from dse.table.store import Store
from dse.workload.layers import Layer, Workload
from tests.dse.fakes import FakeEngine
from tests.processes import until

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
SMALL = {"N": 1, "G": 1, "C": 4, "M": 8, "P": 6, "Q": 6, "R": 3, "S": 3}
NET = Workload(
    "net",
    (
        Layer("first", "conv", SMALL),
        Layer("second", "conv", SMALL | {"C": 8}),
        Layer("like_first", "conv", SMALL),
    ),
)


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    return FakeEngine(log=str(tmp_path / "log"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return tmp_path / "store.sqlite"


def searches(engine: Any) -> Any:
    log = Path(engine.log)
    return len(log.read_text().splitlines()) if log.exists() else 0


def run(engine: Any, store: Any, **changes: Any) -> Any:
    reports: list[Any] = []
    arguments = {"engine": engine, "store": store, "jobs": 1, "progress": reports.append} | changes
    return map_workload(NET, **arguments), reports[-1]


def edited(tmp_path: Path, pattern: Any, replacement: Any, source: Any = ARCH) -> Any:
    """A copy of a file with one place changed."""
    text, count = re.subn(pattern, replacement, source.read_text())
    assert count == 1
    path = tmp_path / f"edited_{source.name}"
    path.write_text(text)
    return path


def test_one_row_for_each_layer_and_candidate_in_order(engine: Any, store: Any) -> None:
    table, report = run(engine, store)
    candidates = [c.name for c in load_candidates()]
    assert [(r["layer"], r["candidate"]) for r in table.rows] == [(x.name, c) for x in NET.layers for c in candidates]
    assert (report.jobs, report.reused, report.duplicates, report.computed) == (27, 0, 9, 18)
    assert searches(engine) == 18  # layers of the same shape are mapped once
    assert table.rows[0]["e_tx_pj"] == table.rows[18]["e_tx_pj"]


def test_energies_of_a_row_add_up(engine: Any, store: Any) -> None:
    table, _ = run(engine, store)
    for row in table.rows:
        assert row["n_ops"] == {"second": 2}.get(row["layer"], 1) * 4 * 8 * 36 * 9
        assert row["e_compute_pj"] == pytest.approx(row["n_ops"] * row["e_op_pj"], rel=1e-12)
        levels = {c: v for c, v in row.items() if c.endswith(".energy_pj")}
        on_chip = sum(v for c, v in levels.items() if not c.startswith("dram"))
        assert row["e_tx_pj"] == pytest.approx(sum(levels.values()), rel=1e-12)
        assert row["e_tx_on_chip_pj"] == pytest.approx(on_chip, rel=1e-9)
        assert 0 < on_chip < row["e_tx_pj"]
        assert row["weights_spad.Weights.reads"] == row["n_ops"]
        assert row["utilisation"] == 1 / 168
        assert row["mapping"].startswith("dram_weights[")


def test_energy_of_an_operation_comes_from_the_components(engine: Any, store: Any) -> None:
    table, _ = run(engine, store, candidates="operators_published_energies")
    e_op = {c: table.mean_e_op_pj(c) for c in table.candidates}
    assert 11 < e_op["T8"] / e_op["BC8"] < 12.5
    assert e_op["MF8"] == pytest.approx(2 * e_op["BC8"])


def test_a_second_run_computes_nothing_and_gives_the_same_table(engine: Any, store: Any) -> None:
    first, _ = run(engine, store)
    second, report = run(engine, store)
    assert (report.reused, report.to_compute, searches(engine)) == (27, 0, 18)
    assert second.rows == first.rows
    assert stored_table(NET, engine=engine, store=store).rows == first.rows


def test_saved_tables_are_read_back(engine: Any, store: Any, tmp_path: Path) -> None:
    table, _ = run(engine, store)
    for suffix in ("csv", "json", "parquet"):
        table.save(tmp_path / f"table.{suffix}")
        assert CostTable.load(tmp_path / f"table.{suffix}").rows == table.rows


def test_workers_give_the_same_table(store: Any, tmp_path: Path) -> None:
    alone, _ = run(FakeEngine(), store)
    shared, report = run(FakeEngine(), tmp_path / "other.sqlite", jobs=2)
    assert shared.rows == alone.rows
    assert report.computed == 18


@pytest.mark.parametrize("jobs", [1, 2])
def test_wrong_input_that_only_the_engine_sees_is_one_error(store: Any, jobs: Any) -> None:
    with pytest.raises(InputError, match="unknown objective 'beauty'"):
        map_workload(NET, engine=_Picky(), store=store, jobs=jobs, objective="beauty")


class _Picky(FakeEngine):
    def search(self, spec: Any, problem: Any, ert: Any, objective: Any, remainders: Any = True, **_: Any) -> None:
        raise InputError("objective", f"found {objective!r}", "energy")


def test_damaged_rows_are_computed_again(engine: Any, store: Any) -> None:
    first, _ = run(engine, store)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE results SET payload = '{}' WHERE rowid IN (1, 2)")
        connection.execute("UPDATE results SET payload = replace(payload, '7', '8') WHERE rowid = 3")
    again, report = run(engine, store)
    assert report.computed == 3
    assert again.rows == first.rows


def test_a_sound_row_of_another_form_is_computed_again(engine: Any, store: Any) -> None:
    run(engine, store)
    with Store(store) as opened:
        opened.write(make_plan(NET, engine=engine).jobs[0].key, {"energy_pj": 1})
    _, report = run(engine, store)
    assert (report.computed, report.duplicates) == (1, 1)


def test_an_edited_depth_changes_the_table(engine: Any, store: Any, tmp_path: Path) -> None:
    first, _ = run(engine, store)
    edited_arch = edited(tmp_path, r"depth: 224,", "depth: 448,")
    table, report = run(engine, store, arch=edited_arch)
    assert report.computed == 18  # the energies of a deeper scratchpad are others
    assert table.rows[0]["e_tx_pj"] > first.rows[0]["e_tx_pj"]
    _, report = run(engine, store)
    assert report.reused == 27


def test_what_decides_nothing_does_not_change_keys(engine: Any, tmp_path: Path) -> None:
    keys = [job.key for job in make_plan(NET, engine=engine).jobs]
    renamed = Workload("other", tuple(Layer(f"x{x.name}", "conv", x.instance) for x in NET.layers))
    commented = edited(tmp_path, r"\Avariables:|(?<=\n)variables:", "# a comment\nvariables:")
    assert [job.key for job in make_plan(renamed, engine=engine).jobs] == keys
    assert [job.key for job in make_plan(NET, engine=engine, arch=commented).jobs] == keys
    assert len(set(keys)) == 18


def test_engine_version_and_objective_change_keys() -> None:
    plans = [
        make_plan(NET, engine=FakeEngine()),
        make_plan(NET, engine=FakeEngine(version="2")),
        make_plan(NET, engine=FakeEngine(name="other")),
        make_plan(NET, engine=FakeEngine(), objective="delay"),
    ]
    assert len({plan.jobs[0].key for plan in plans}) == 4


def test_energies_come_from_the_engine_and_are_part_of_the_key() -> None:
    class Doubled(FakeEngine):
        def energies(self, *arguments: Any) -> Any:
            ert = super().energies(*arguments)
            return Ert({c: {a: 2 * e for a, e in actions.items()} for c, actions in ert.tables.items()})

    single, doubled = make_plan(NET, engine=FakeEngine()).jobs[0], make_plan(NET, engine=Doubled()).jobs[0]
    assert doubled.instance.e_op_pj == 2 * single.instance.e_op_pj
    assert doubled.key != single.key


def test_a_layer_without_a_mapping_is_a_row_with_a_reason(engine: Any, store: Any, tmp_path: Path) -> None:
    # An input scratchpad of one word that must hold two tensors.
    arch = edited(
        tmp_path,
        r"\{depth: 12, width: 16, datawidth: act_bits\}"
        r"(\s+constraints:\s+dataspace: \{keep: \[Inputs)\], bypass: \[Outputs, ",
        r"{depth: 1, width: act_bits, datawidth: act_bits}\1, Weights], bypass: [Outputs",
    )
    arch = edited(tmp_path, r"\[OutputsWeights\]", "[Outputs]", arch)
    narrow = [c for c in load_candidates() if c.name == "T8"]
    table, report = run(engine, store, arch=arch, candidates=narrow)
    row = table.rows[0]
    assert row["status"] == "no_mapping"
    assert "ifmap_spad" in row["reason"]
    assert row["e_tx_pj"] is None and row["cycles"] is None and row["e_compute_pj"] is None
    assert not [c for c in row if c.endswith(".energy_pj")]
    _, report = run(engine, store, arch=arch, candidates=narrow)
    assert report.reused == 3
    table.save(tmp_path / "table.csv")
    assert CostTable.load(tmp_path / "table.csv").energy_pj()[0, 0] == float("inf")


def test_a_table_from_an_incomplete_store_names_what_is_missing(engine: Any, store: Any) -> None:
    run(engine, store, candidates=load_candidates()[:2])
    with pytest.raises(InputError, match="lacks 21 of 27 rows of net"):
        stored_table(NET, engine=engine, store=store)
    with pytest.raises(InputError, match="lacks 27 of 27"):
        stored_table(NET, engine=engine, store=store.with_name("none.sqlite"))


def test_unknown_component_class_and_engine(engine: Any, store: Any, tmp_path: Path) -> None:
    arch = edited(tmp_path, r"class: SRAM_spad", "class: SRAM_imaginary")
    with pytest.raises(InputError, match="SRAM_imaginary"):
        run(engine, store, arch=arch)
    with pytest.raises(InputError, match=r"engine: unknown engine 'guess' \(allowed: native, timeloop\)"):
        run("guess", store)


def test_an_operators_file_with_an_unknown_action(engine: Any, store: Any, tmp_path: Path) -> None:
    operators = edited(
        tmp_path,
        r"attributes: \{multiplier_width: bits, adder_width: psum_bits\}\n      actions: \{compute: 1\}",
        "attributes: {multiplier_width: bits, adder_width: psum_bits}\n      actions: {ponder: 1}",
        data_dir("arch_specs") / "operators.yaml",
    )
    with pytest.raises(InputError, match="typical_mac has no action 'ponder'"):
        run(engine, store, candidates=operators)


_SLOW_RUN = """
import sys
from pathlib import Path
from tests.dse.fakes import FakeEngine
from tests.dse.table.test_fill import NET
from dse.table.fill import map_workload
store, log, seconds, jobs, halts = sys.argv[1:]
reports = []
engine = FakeEngine(log=log, seconds=float(seconds), halts=int(halts))
map_workload(NET, engine=engine, store=store, jobs=int(jobs), progress=reports.append)
print(reports[-1].reused, reports[-1].computed)
"""


def start(store: Any, log: Any, seconds: Any, jobs: Any = 1, halts: Any = 0) -> Any:
    folders = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW_RUN, store, log, str(seconds), str(jobs), str(halts)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )


def stored(store: Any) -> Any:
    if not store.exists():
        return 0
    try:
        with Store(store, create=False) as opened:
            return len(opened)
    except InputError:  # the other process is just making it
        return 0


def test_a_killed_run_goes_on_where_it_stopped(store: Any, tmp_path: Path) -> None:
    killed = start(store, tmp_path / "log", 0, halts=10)
    until(lambda: stored(store) >= 5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    done = stored(store)
    assert 5 <= done < 18
    resumed = start(store, tmp_path / "log", 0)
    reused, computed = map(int, resumed.communicate()[0].split())
    assert computed == 18 - done
    assert reused >= done
    assert searches(FakeEngine(log=str(tmp_path / "log"))) <= 18 + 1  # at most the one that was being searched, again


def test_two_runs_at_once_share_a_store(store: Any, tmp_path: Path) -> None:
    both = [start(store, tmp_path / f"log{i}", 0.02) for i in range(2)]
    assert [run.wait(60) for run in both] == [0, 0]
    for run in both:
        run.stdout.close()
    assert stored(store) == 18
    assert (
        map_workload(NET, engine=FakeEngine(), store=store).rows
        == map_workload(NET, engine=FakeEngine(), store=tmp_path / "other.sqlite", jobs=1).rows
    )


def test_accumulators_are_as_wide_as_the_sums_of_their_layer(engine: Any, store: Any, tmp_path: Path) -> None:
    text = (data_dir("arch_specs") / "operators_published_energies.yaml").read_text()
    text = text.replace("psum_bits: 12", "psum_bits: 6 + ceil(log2(reduction))")
    (tmp_path / "wide.yaml").write_text(text.replace("adder_width: 12", "adder_width: psum_bits"))
    plan = make_plan(NET, candidates=tmp_path / "wide.yaml", engine=engine)
    jobs = {(job.layer, job.instance.candidate.name): job for job in plan.jobs}
    widths = {name: job.instance.spec.compute.attributes["adder_width"] for name, job in jobs.items()}
    assert [widths[layer, "BC8"] for layer in ("first", "second", "like_first")] == [
        12,
        13,
        12,
    ]  # of 36 and 72 products
    assert {widths[layer, "T8"] for layer in ("first", "second", "like_first")} == {20}
    assert jobs["first", "BC8"].key == jobs["like_first", "BC8"].key
    narrow = make_plan(NET, candidates="operators_published_energies", engine=engine)
    keys = {(job.layer, job.instance.candidate.name): job.key for job in narrow.jobs}
    assert keys["first", "BC8"] == jobs["first", "BC8"].key and keys["second", "BC8"] != jobs["second", "BC8"].key
    table, _ = run(engine, store, candidates=tmp_path / "wide.yaml")
    first, second = (table.row(layer, "BC8") for layer in ("first", "second"))
    assert first["e_op_pj"] < table.mean_e_op_pj("BC8") < second["e_op_pj"]
    assert table.energy_pj()[1, 6] == pytest.approx(second["e_compute_pj"] + second["e_tx_pj"], rel=1e-12)
