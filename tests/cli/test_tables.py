"""--tables and --leakage: own component tables, ERT and ART files, leakage and areas, with every command."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dse.hardware.candidates import load_candidates
from dse.hardware.instance import read_arch
from dse.page.sweep_data import sweep_data
from dse.table.cost_table import CostTable
from dse.workload.layers import read_workload

HERE = Path(__file__).parents[1] / "dse" / "hardware" / "energy" / "accelergy_tables"
CHIP, PRIMITIVES = HERE / "chip.csv", HERE / "primitives.csv"
FILES = [HERE / name for name in ("arch.yaml", "problem.yaml", "mapping.yaml")]
ARCH, PROBLEM, MAPPING = FILES
LAYER = """
version: 1
name: small
layers:
- {name: one, kind: conv, instance: {C: 8, M: 16, P: 8, Q: 8, R: 3, S: 3}}
- {name: two, kind: conv, instance: {C: 16, M: 8, P: 8, Q: 8, R: 1, S: 1}}
"""
LEAK = 0.0015697299155631543  # pJ a cycle of a dot_unit at 65 nm, the Library's scaling of 0.001 pJ at 40 nm

RECORDED = {  # of the real timeloop-model 4cf6d4c on these files, with energies from Accelergy 0.4
    "energy_pj": 63325.02, "cycles": 1152, "leakage_pj": 23.81,
    "levels": {"unit": 4822.21, "reg A": 158.62, "reg Z": 304.38, "glb B": 672.0, "dram A": 32768.0, "dram B": 16384.0,
               "dram Z": 8192.0},
}  # fmt: skip
RECORDED_ALL = {"energy_pj": 63332.25, "leakage_pj": 31.04}  # with the unit's leakage added to that of `reg`
PRINTED = 0.05  # pJ: eight parts, each with two decimals


def document(run: Any, *arguments: Any) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_leakage_of_memories_is_timeloops(run: Any) -> None:
    found = document(run, "model", *FILES, "--tables", CHIP)
    for name in ("energy_pj", "cycles", "leakage_pj"):
        assert found[name] == pytest.approx(RECORDED[name], abs=PRINTED), name
    energies = {
        f"{level} {tensor}": of["energy_pj"]
        for level, tensors in found["levels"].items()
        if level != "unit"
        for tensor, of in tensors.items()
    }
    assert energies | {"unit": found["levels"]["unit"]["energy_pj"]} == pytest.approx(RECORDED["levels"], abs=PRINTED)


def test_leakage_of_compute_units_is_said_or_counted(run: Any) -> None:
    memories = document(run, "model", *FILES, "--tables", CHIP)
    everything = document(run, "model", *FILES, "--tables", CHIP, "--leakage", "all")
    for name, value in RECORDED_ALL.items():
        assert everything[name] == pytest.approx(value, abs=PRINTED), name
    added = everything["energy_pj"] - memories["energy_pj"]
    assert added == pytest.approx(LEAK * 4 * 1152, rel=1e-6), "four units in all cycles"
    text = run("model", *FILES, "--tables", CHIP)[1]
    assert f"Leakage of the compute units that work, {added / 1e6:.10f} uJ, is not counted, as in Timeloop" in text
    assert "is not counted" not in run("model", *FILES, "--tables", CHIP, "--leakage", "all")[1]


def test_the_mapper_minimises_leakage_of_compute_units(run: Any, tmp_path: Path) -> None:
    # A unit that leaks 20 pJ a cycle makes the faster mapping the better one.
    hot = tmp_path / "hot.csv"
    hot.write_text(CHIP.read_text().replace("*, 0.9, *, 0.001, 640, leak", "*, 0.9, *, 20, 640, leak"))
    cool, mapping = tmp_path / "cool.yaml", tmp_path / "hot.yaml"
    least = document(run, "mapper", ARCH, PROBLEM, "--tables", hot, "--output", cool)
    best = document(run, "mapper", ARCH, PROBLEM, "--tables", hot, "--leakage", "all", "--output", mapping)
    beside = document(run, "model", ARCH, PROBLEM, cool, "--tables", hot, "--leakage", "all")
    assert best["cycles"] < least["cycles"]
    assert best["energy_pj"] < beside["energy_pj"], "the mapping of least energy without this leakage is worse"
    again = document(run, "model", ARCH, PROBLEM, mapping, "--tables", hot, "--leakage", "all")
    assert again["energy_pj"] == pytest.approx(best["energy_pj"])


def test_areas_of_components_and_of_the_chip(run: Any) -> None:
    areas = document(run, "model", *FILES, "--tables", CHIP)["areas_mm2"]
    # The row of 64 x 512 is taken for both: as it is, and of 8 x 16 in each of four PEs.
    assert areas["glb"] == pytest.approx(0.021)
    assert areas["reg"] == pytest.approx(4 * 0.021 * 8 / 64 * 16 / 512)
    assert areas["total"] == pytest.approx(areas["glb"] + areas["reg"] + areas["unit"])
    assert "dram" not in areas
    assert "glb 0.021, reg 0.0003281, unit 0.006676; together 0.028." in run("model", *FILES, "--tables", CHIP)[1]


RUN = {
    "timeloop-mapper.ERT_summary.yaml": """
ERT_summary:
  version: '0.4'
  table_summary:
  - name: system.glb[1..1]
    actions: [{name: read, energy: 7}, {name: write, max_energy: 9, min_energy: 1, average_energy: 5}]
    primitive_estimation(s): [{name: storage, estimator: CactiSRAM}]
  - {name: "system.dram[1..1]", actions: [{name: read, energy: 100}, {name: write, energy: 100}]}
  - {name: "system.reg[1..4]", actions: [{name: read, energy: 1}, {name: write, energy: 1}, {name: leak, energy: 2}]}
  - {name: "system.unit[1..4]", actions: [{name: mac_random, energy: 3}, {name: leak, energy: 1}]}
""",
    "timeloop-mapper.ART.yaml": """
ART: {version: 0.4, tables: [{name: "system.glb[1..1]", area: 5000.0}, {name: "system.reg[1..4]", area: 10},
      {name: "system.unit[1..4]", area: 100}, {name: "system.inter_pe_spatial[1..1]", area: 1}]}
""",
    "timeloop-mapper.oaves.csv": "1,2\n",
    "timeloop-mapper.map.yaml": "mapping: []\n",
}


def test_the_folder_of_a_run_as_tables_or_as_ert(run: Any, tmp_path: Path) -> None:
    for name, text in RUN.items():
        (tmp_path / name).write_text(text)
    flat = tmp_path / "arch.yaml"
    text = ARCH.read_text().replace("row_buffer", "SRAM").replace("dot_unit", "intmac")
    for attribute in (", global_cycle_seconds: 1e-9", ", resolution: 8"):
        text = text.replace(attribute, "")
    flat.write_text(text)
    as_tables = document(run, "model", flat, PROBLEM, MAPPING, "--tables", tmp_path)
    as_ert = document(run, "model", flat, PROBLEM, MAPPING, tmp_path)
    assert as_tables == as_ert
    assert as_ert["leakage_pj"] == 2 * 4 * 1152
    assert as_ert["levels"]["glb"]["B"]["energy_pj"] == 1024 / 8 * 7 + 256 / 8 * 9, "the largest of several"
    assert as_ert["areas_mm2"] == pytest.approx({"glb": 0.005, "reg": 4e-5, "unit": 4e-4, "total": 0.00544})
    everything = document(run, "model", flat, PROBLEM, MAPPING, tmp_path, "--leakage", "all")
    assert everything["leakage_pj"] == (2 + 1) * 4 * 1152


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(LAYER)
    return path


def test_an_edited_table_is_not_answered_by_an_old_result(run: Any, workload: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    shutil.copy(PRIMITIVES, own)
    arguments = ["map", workload, "--candidate", "T8", "--perfect", "--tables", own]
    arguments += ["--store", tmp_path / "store.sqlite", "--jobs", 1]
    first = document(run, *arguments)
    assert first["computed"] == 2 and document(run, *arguments)["computed"] == 0
    row = "45nm, 64, 8192, *, LEAK, 400000, leak"
    own.write_text(own.read_text().replace(row.replace("LEAK", "0.5"), row.replace("LEAK", "0.9")))
    second = document(run, *arguments)
    assert second["computed"] == 2
    leakages = [sum(row["leakage_pj"] for row in found["rows"]) for found in (first, second)]
    assert leakages[1] > leakages[0] > 0


def test_areas_and_leakage_of_a_network(run: Any, workload: Path, tmp_path: Path) -> None:
    store, output = tmp_path / "store.sqlite", tmp_path / "table.csv"
    arguments = ["map", workload, "--perfect", "--tables", PRIMITIVES, "--store", store, "--jobs", 1]
    arguments += ["--candidate", "T8", "--candidate", "BC8"]
    code, out, err = run(*arguments, "--output", output)
    assert code == 0, err
    table = CostTable.load(output)
    assert table.provenance is not None
    areas = table.provenance.areas_mm2
    # 168 PEs: an 8 x 8 multiplier, and an adder for the layer with the longest sums
    longest = max(math.prod(dict(layer.problem.bound)[d] for d in "CRS") for layer in read_workload(workload).layers)
    t8, bc8 = (c.accumulator_bits(longest) for c in load_candidates() if c.name in ("T8", "BC8"))
    assert areas["T8"]["mac"] == pytest.approx(168e-6 * (6000 * 8 / 32 * 8 / 32 + 280 * t8 / 32))
    assert areas["BC8"]["mac"] == pytest.approx(168e-6 * 280 * bc8 / 32)
    # 224 words of 16 bits in each PE, scaled from 8192 words of 64 bits
    assert areas["T8"]["weights_spad"] == pytest.approx(168e-6 * 400000 * 16 / 64 * 224 / 8192)
    total = sum(area for area in areas["T8"].values() if area is not None)
    assert "area" in out and f"together {total:.4g}." in out
    leak = table.provenance.compute_leakage_pj
    assert leak["BC8"] == pytest.approx(0.002 * bc8 / 32)
    assert leak["T8"] == pytest.approx(0.1 * 8 / 32 * 8 / 32 + 0.002 * t8 / 32)
    assert "Leakage of compute units, at most T8 " in out and "--leakage all counts it" in out
    everything = document(run, *arguments, "--leakage", "all")
    assert everything["computed"] == 4, "with the leakage of compute units other results"
    rows = {(row["layer"], row["candidate"]): row for row in everything["rows"]}
    for row in table.rows:
        more = rows[row["layer"], row["candidate"]]
        assert more["leakage_pj"] > row["leakage_pj"] and more["e_compute_pj"] == row["e_compute_pj"]
    assert (
        f"together {sum(areas['BC8'].values()):.4g}."
        in run(  # type: ignore[arg-type]
            "table", *arguments[1:7], "--candidate", "BC8", "--breakdown", "BC8"
        )[1]
    )


def test_a_sweep_over_words_has_areas_and_names_what_changes_nothing(run: Any, workload: Path, tmp_path: Path) -> None:
    drams = ",".join(f"{name}.type" for name in ("dram_weights", "dram_ifmap", "dram_ofmap"))
    summary = tmp_path / "summary.json"
    arguments = ["sweep", workload, "--perfect", "--tables", PRIMITIVES, "--store", tmp_path / "store.sqlite"]
    arguments += ["--jobs", 1, "--candidate", "T8", "--set", f"{drams}=LPDDR4,HBM2,hbm2"]
    arguments += ["--set", "glb_ifmap.depth=2048,8192", "--figures", tmp_path / "figures", "--summary", summary]
    code, out, err = run(*arguments)
    assert code == 0, err
    assert f"{drams}=hbm2 changes nothing: the hardware is that of HBM2." in out
    assert "glb_ifmap.depth=8192 changes nothing" not in out
    assert "Energy-area front: " in out and "area" in out
    rows = json.loads(summary.read_text())
    rows = rows["rows"] if isinstance(rows, dict) else rows
    assert [row["dram_ifmap.type"] for row in rows[::2]] == ["LPDDR4", "HBM2", "hbm2"]
    small, large = rows[0]["area_mm2"], rows[1]["area_mm2"]
    assert large - small == pytest.approx(0.4 * (1 - 2048 / 8192))
    assert rows[2]["energy_pj"] < rows[0]["energy_pj"] and rows[2]["energy_pj"] == rows[4]["energy_pj"]
    assert (tmp_path / "figures" / "pareto.svg").read_text().count("area (mm2)") == 1
    page = sweep_data(summary)
    assert page["axes"] == ["glb_ifmap.depth", "area_mm2"]
    assert [point["x"][1] for point in page["points"]] == [row["area_mm2"] for row in rows]
    found = document(run, *arguments[:-4])
    assert found["changes_nothing"] == [f"{drams}=hbm2 changes nothing: the hardware is that of HBM2."]
    front = [rows[number - 1] for number in found["pareto_area"]["T8"]]
    assert all(a["energy_pj"] <= b["energy_pj"] and a["area_mm2"] > b["area_mm2"]
               for a, b in pairwise(front))  # fmt: skip
    assert min(rows, key=lambda row: (row["energy_pj"], row["area_mm2"]))["point"] == found["pareto_area"]["T8"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "none.csv"], "error: none.csv: cannot be read"),
        (["--leakage", "some"], "'some' is not one of 'memories', 'all'"),
        (["--set", "glb_ifmap.depth=large,8192"], "glb_ifmap.depth: found 'large' (allowed: a number, as 8192)"),
        (["--set", "pe_column.meshX=wide"], "pe_column.meshX: found 'wide' (allowed: a number"),
        (["--set", "dram_ifmap.type=a*b"], "found 'a*b' (allowed: numbers a,b,c; a range"),
    ],
)
def test_what_is_refused(run: Any, workload: Path, tmp_path: Path, arguments: Any, message: Any) -> None:
    more = [] if "--set" in arguments else ["--set", "glb_ifmap.depth=8192"]
    code, _, err = run("sweep", workload, *arguments, *more, "--store", tmp_path / "s.sqlite")
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_an_ert_has_one_energy_for_one_accelerator(run: Any, workload: Path, tmp_path: Path) -> None:
    ert = tmp_path / "ERT.yaml"
    ert.write_text("ERT: {version: 0.4, tables: [{name: s.glb_psum, actions: [{name: read, energy: 20}, "
                   "{name: write, energy: 21}]}]}\n")  # fmt: skip
    common = ["--tables", ert, "--perfect", "--store", tmp_path / "s.sqlite", "--jobs", 1]
    found = document(run, "map", workload, "--candidate", "T8", *common)
    assert found["computed"] == 2
    unit = "ERT: {version: 0.4, tables: [{name: s.mac, actions: [{name: mac, energy: 2}]}]}"
    ert.write_text(unit)
    assert document(run, "map", workload, "--candidate", "T8", *common)["totals"][0]["e_op_pj"] == 2
    code, _, err = run("map", workload, *common)
    assert code == 2 and "ERT.yaml: mac: has one energy for accelerators that differ: " in err
    ert.write_text("ERT: {version: 0.4, tables: [{name: s.glb_psum, actions: [{name: read, energy: 20}, "
                   "{name: write, energy: 21}]}]}")  # fmt: skip
    code, _, err = run("sweep", workload, "--candidate", "T8", "--set", "glb_psum.depth=1000,2000", *common)
    assert code == 2 and "depth is 1000 and 2000" in err


def test_a_class_without_a_table_says_what_to_do(run: Any) -> None:
    code, _, err = run("model", *FILES)
    assert code == 2 and err.count("\n") == 1
    assert "unknown class 'row_buffer'" in err and "--tables FILE" in err


def test_tables_from_python() -> None:
    arch = read_arch(ARCH, [CHIP])
    assert arch.library.actions("row_buffer") == ("read", "write", "update", "leak")
    assert read_arch(ARCH).library.actions("row_buffer") is None


def test_the_scale_of_a_node_multiplies_the_energies_of_its_class(run: Any, tmp_path: Path) -> None:
    scaled = tmp_path / "arch.yaml"
    scaled.write_text(
        ARCH.read_text().replace("    class: row_buffer\n", "    class: row_buffer\n    energy_scale: 3\n", 1)
    )
    plain = document(run, "model", *FILES, "--tables", CHIP)["levels"]
    found = document(run, "model", scaled, PROBLEM, MAPPING, "--tables", CHIP)["levels"]
    assert found["glb"]["B"]["energy_pj"] == pytest.approx(3 * plain["glb"]["B"]["energy_pj"])
    assert found["reg"] == plain["reg"]
