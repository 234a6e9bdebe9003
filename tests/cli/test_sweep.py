"""`enos sweep` as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.sensitivity.sensitivities import Sensitivities
from tests.conftest import refused

pytestmark = pytest.mark.usefixtures("own_store", "quick")
DEPTHS = ("--set", "glb_ifmap.depth=1024:4096:x2", "--jobs", "1")


def test_points_best_front_and_winners_are_printed(run: Any, workload: Any) -> None:
    code, out, _ = run("sweep", workload, *DEPTHS, "--candidate", "T8", "--candidate", "BC4")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("Energy per MAC of net, pJ")
    assert lines[2].split() == ["point", ".depth", "KB", "T8", "BC4"]
    assert [line.split()[1] for line in lines[4:7]] == ["1024", "2048", "4096"]
    assert out.count("*") == 3  # the legend, and one for each candidate
    assert "T8: best for all layers is point 1, glb_ifmap.depth=1024: " in out
    assert "0 of 12 rows from the store, 12 computed; 0 share the mapping of a layer of the same shape." in out
    code, out, _ = run("sweep", workload, *DEPTHS, "--candidate", "T8")
    assert "6 of 6 rows from the store, nothing recomputed." in out


def test_map_and_sweep_share_what_they_find(run: Any, workload: Any) -> None:
    run("map", workload, "--jobs", "1")
    code, out, _ = run("sweep", workload, "--set", "glb_ifmap.depth=8192", "--jobs", "1")
    assert code == 0 and "18 of 18 rows from the store, nothing recomputed." in out


def test_files_and_json(run: Any, workload: Any, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("rows.csv", "rows.parquet", "sum.csv", "sum.json")}
    figures = tmp_path / "figures"
    arguments = ["--output", files["rows.csv"], "--output", files["rows.parquet"], "--summary", files["sum.csv"]]
    code, out, _ = run(
        "sweep", workload, *DEPTHS, *arguments, "--summary", files["sum.json"], "--figures", figures, "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["points"][2] == {"point": 3, "glb_ifmap.depth": 4096}
    assert len(found["summary"]) == 27 and found["pareto"]["T8"] == [1]
    assert found["winners"]["BC2"][0] == {
        "layer": "first", "point": 1, "energy_pj": found["winners"]["BC2"][0]["energy_pj"], "saving": 0,
    }  # fmt: skip
    assert json.loads(files["sum.json"].read_text()) == found["summary"]
    with files["rows.csv"].open() as f:
        assert len(list(csv.DictReader(f))) == 3 * 2 * 9
    assert files["rows.parquet"].exists() and files["sum.csv"].exists()
    # All candidates are swept, and one of them is drawn: T8.
    names = ["energy_T8_glb_ifmap.depth", "pareto", "winners_T8"]
    assert sorted(f.name for f in figures.iterdir()) == sorted(n + s for n in names for s in (".png", ".svg"))


def test_the_mapspace_of_a_sweep_file_and_options_over_it(run: Any, workload: Any, tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"

    def computed(said: str, *options: str) -> Any:
        config.write_text(f"workload: {workload}\ncandidates: [T8]\nset: {{glb_ifmap.depth: 1024}}\n{said}")
        code, out, _ = run("sweep", "--config", config, *options, "--jobs", "1", "--json")
        assert code == 0
        return json.loads(out)["computed"]

    assert computed("remainders: false") == 2
    assert computed("imperfect: false") == computed("", "--perfect") == computed("imperfect: true", "--perfect") == 0
    assert computed("remainders: false", "--imperfect") == 2
    assert computed("") == computed("imperfect: true") == 0


def test_a_sweep_file_and_options_over_it(run: Any, workload: Any, tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(
        f"workload: {workload}\ncandidates: [T8]\n"
        "set: {glb_ifmap.depth: '1024:4096:x2', weights_spad.depth: [112, 224]}\n"
    )

    def points(*arguments: Any) -> Any:
        code, out, _ = run("sweep", *arguments, "--config", config, "--jobs", "1", "--json")
        assert code == 0
        found = json.loads(out)
        return len(found["points"]), list(found["pareto"])

    assert points() == (6, ["T8"])
    assert points("--set", "glb_ifmap.depth=64", "--candidate", "BC8") == (2, ["BC8"])
    assert points("--set", "pe_row.meshY=6,12") == (12, ["T8"])
    line = refused(run("sweep", "--config", config, "--set", "weights_spad.depth,glb_ifmap.depth=64"))
    assert "glb_ifmap.depth is set by" in line or "weights_spad.depth is set by" in line
    assert "unknown file or shipped workload" in refused(run("sweep", "squeezenot", "--config", config))
    config.write_text("sets: {}")
    assert "unknown field 'sets'" in refused(run("sweep", workload, "--config", config))


def test_many_points_are_cut_down_to_those_worth_having(run: Any, workload: Any, tmp_path: Path) -> None:
    code, out, _ = run(
        "sweep", workload, "--set", "glb_ifmap.depth=1:150:+1", "--candidate", "T8", "--jobs", "1", "--summary",
        tmp_path / "sum.csv",
    )  # fmt: skip
    assert code == 0
    assert "(149 more points; --summary FILE has them all)" in out
    assert "(and 43 more; --summary FILE has them all)" in out  # depths from 1 to 63 have no energy
    assert len((tmp_path / "sum.csv").read_text().splitlines()) == 151


def test_points_without_costs_are_listed_once(run: Any, workload: Any) -> None:
    settings = ["--set", "weights_spad.depth=16,32,112", "--set", "glb_ifmap.depth=1024,2048"]
    code, out, _ = run("sweep", workload, *settings, "--jobs", "1", "--candidate", "T8", "--candidate", "BC8")
    assert code == 0
    reasons = [line for line in out.splitlines() if line.startswith("no_energy: ")]
    assert len(reasons) == 2
    assert reasons[0].startswith("no_energy: points 1, 2 under T8, BC8: weights_spad: ")
    assert "16 is outside the table (allowed: 64 to 65536)" in reasons[0]


def test_layers_without_a_mapping_are_said(run: Any, workload: Any) -> None:
    settings = ["--set", "psum_spad.multiple_buffering=100", "--candidate", "T8"]
    code, out, _ = run("sweep", workload, *settings, "--jobs", "1")
    assert code == 0
    assert "no_mapping: point 1 under T8: first: " in out and "best for all" not in out


def test_wrong_arguments(run: Any, workload: Any, own_store: Any, tmp_path: Path) -> None:
    assert "no workload is given" in refused(run("sweep", *DEPTHS))
    assert "nothing varies" in refused(run("sweep", workload))
    assert "--jobs" in refused(run("sweep", workload, "--set", "glb_ifmap.depth=64", "--jobs", "0"))
    assert "'glb'" in refused(run("sweep", workload, "--set", "glb.depth=64"))
    assert "starts above its stop" in refused(run("sweep", workload, "--set", "glb_ifmap.depth=64:32:x2"))
    assert "100,000,000 points" in refused(
        run("sweep", workload, "--set", "glb_ifmap.depth=1:10000:+1", "--set", "glb_psum.depth=1:10000:+1")
    )
    assert "none of the 2 points can be mapped" in refused(run("sweep", workload, "--set", "glb_ifmap.depth=8,9"))
    assert "unknown candidate 'T3'" in refused(run("sweep", workload, *DEPTHS, "--candidate", "T3"))
    assert ".csv, .parquet, .json" in refused(run("sweep", workload, *DEPTHS, "--output", tmp_path / "t.txt"))
    assert "no such folder" in refused(run("sweep", workload, *DEPTHS, "--figures", tmp_path / "no" / "where"))
    assert "unknown engine 'guess'" in refused(run("sweep", workload, *DEPTHS, "--engine", "guess"))
    assert not own_store.exists()


def sensitivities(folder: Path) -> Path:
    names = ("T8", "T4", "BC2")
    losses, layers = np.array([[1.0, 1.1, 1.5], [1.0, 1.2, 1.4]]), ("first", "second")
    found = Sensitivities(
        "net", "T8", 1.0, 0.9, layers, names, losses, np.full((2, 3), 0.5), {name: name for name in layers}, 100
    )
    found.save(folder / "s.json")
    return folder / "s.json"


def test_sensitivities_give_an_assignment_for_each_point_and_budget(run: Any, workload: Any, tmp_path: Path) -> None:
    measured, table = sensitivities(tmp_path), tmp_path / "front.csv"
    arguments = ("sweep", workload, *DEPTHS, "--sensitivities", measured, "--budget", "0.7", "--budget", "2")
    code, out, _ = run(*arguments, "--front", table)
    assert code == 0
    assert out.splitlines()[0].startswith("Predicted increase of the loss of net within an energy (nats; * least).")
    assert "Front over points and assignments: " in out and f"Table: {table}" in out
    code, out, _ = run(*arguments, "--json")
    document = json.loads(out)
    assigned = document["assigned"]
    assert [entry["budget"] for entry in assigned["budgets"]] == [2, 0.7]
    free = assigned["budgets"][0]["points"][0]
    assert free["assignment"] == {"first": "T8", "second": "T8"} and free["increase"] == 0
    assert {row["candidate"] for row in document["summary"]} == {"T8", "T4", "BC2"}
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == len(assigned["front"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--budget", "0.5"], "error: --budget: goes with --sensitivities; `enos assign` writes"),
        (["--front", "f.csv"], "error: --front: goes with --sensitivities"),
        (["--sensitivities", "S", "--budget", "0.01"], "error: --budget: 0.01 is below the cheapest assignment"),
        (["--sensitivities", "S", "--budget", "nan"], "error: --budget: found nan (allowed: a number above 0)"),
        (["--sensitivities", "S", "--candidate", "T8"], "error: --candidate: leaves out T4, which "),
        (["--sensitivities", "S", "--front", "f.txt"], "error: f.txt: cannot write a table as '.txt'"),
    ],
)
def test_wrong_use_of_sensitivities(run: Any, workload: Any, tmp_path: Path, arguments: list[str], line: str) -> None:
    measured = sensitivities(tmp_path)
    given = [str(measured) if a == "S" else a for a in arguments]
    assert refused(run("sweep", workload, *DEPTHS, *given)).startswith(line)


def test_sensitivities_of_another_network(run: Any, workload: Any, tmp_path: Path) -> None:
    measured = sensitivities(tmp_path)
    measured.write_text(measured.read_text().replace("second", "third"))
    line = refused(run("sweep", workload, *DEPTHS, "--sensitivities", measured))
    assert line.startswith("error: workload net: unknown layer 'second'")
