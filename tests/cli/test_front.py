"""`--slack` and `--front` of the commands."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.errors import InputError
from dse.hardware.instance import find_arch
from dse.mapper import front as mapper_front
from dse.table.plan import make_plan
from tests.conftest import refused
from tests.dse.model.test_golden import GOLDEN

pytestmark = pytest.mark.usefixtures("own_store")
ARCH = find_arch(None)
LAYER = tuple(GOLDEN / name for name in ("arch.yaml", "problem.yaml", "ert.yaml"))


def mapped(run: Any, *options: Any) -> Any:
    code, out, err = run("mapper", *LAYER, *options, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_slack_spends_energy_on_speed(run: Any) -> None:
    least, within = mapped(run), mapped(run, "--slack", "1%")
    assert least["energy_pj"] < within["energy_pj"] <= 1.01 * least["energy_pj"]
    assert within["cycles"] < least["cycles"] and within["optimal"]
    assert mapped(run, "--slack", "0.01") == mapped(run, "--slack", "1 %") == within
    assert mapped(run, "--slack", "0") == least


def test_few_working_units_are_pointed_out_where_a_slack_would_help(run: Any) -> None:
    hint = "of the compute units are idle: --slack 1% takes the fastest mapping within 1% of this energy, --front shows"
    assert hint in run("mapper", *LAYER)[1]
    for options in (("--slack", "1%"), ("--objective", "delay")):
        code, out, _ = run("mapper", *LAYER, *options)
        assert code == 0 and hint not in out


def test_the_front_of_a_layer_as_table_json_and_files(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    code, out, _ = run("mapper", *LAYER, "--perfect", "--front", "--output", file)
    assert code == 0 and "All points of the front, proven optimal among perfect factors." in out
    found = mapped(run, "--perfect", "--front", "10")
    points = found["points"]
    assert found["complete"] and all(point["optimal"] for point in points)
    assert [(a["energy_pj"] < b["energy_pj"], a["cycles"] > b["cycles"]) for a, b in itertools.pairwise(points)] == [
        (True, True)
    ] * (len(points) - 1)
    assert points[0]["energy_pj"] == pytest.approx(mapped(run, "--perfect")["energy_pj"], rel=1e-12)
    assert points[-1]["cycles"] == mapped(run, "--perfect", "--objective", "delay")["cycles"]
    assert sorted(path.name for path in tmp_path.glob("best*")) == [f"best-{i + 1}.yaml" for i in range(len(points))]
    for number, point in enumerate(points, 1):
        written = tmp_path / f"best-{number}.yaml"
        assert f"Mapping: {written}" in out and yaml.safe_load(written.read_text())["mapping"] == point["mapping"]
        _, text, _ = run("model", *LAYER[:2], written, LAYER[2], "--json")
        again = json.loads(text)
        assert (again["energy_pj"], again["cycles"]) == (point["energy_pj"], point["cycles"])
        assert again["utilisation_with_stalls"] == point["utilisation_with_stalls"]
        assert point["edp_pj_cycles"] == point["energy_pj"] * point["cycles"]


def test_a_shorter_front_says_that_there_are_more_points(run: Any) -> None:
    code, out, _ = run("mapper", *LAYER, "--front", "2")
    assert code == 0
    line = "Some points of the front, each proven optimal among mappings with remainders; --front all finds the others."
    assert line in out
    assert len(mapped(run, "--front", "2")["points"]) == 2 < len(mapped(run, "--front", "all")["points"])


def test_the_front_of_a_network(run: Any, workload: Any, tmp_path: Path) -> None:
    code, out, _ = run("map", workload, "--front", "all", "--jobs", "1", "--output", tmp_path / "front.csv")
    assert code == 0 and out.startswith("Energy-delay front of net, all T8:\n")
    assert "All points of the front, proven optimal." in out and "0 of 2 rows from the store, 2 computed" in out
    code, out, _ = run("map", workload, "--front", "all", "--json")
    found = json.loads(out)
    assert (found["computed"], found["rows_from_store"], found["complete"]) == (0, 2, True)
    with (tmp_path / "front.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [float(row["energy_pj"]) for row in rows] == [point["energy_pj"] for point in found["points"]]
    fronts = {layer["layer"]: layer["points"] for layer in found["layers"]}
    for point in found["points"]:
        chosen = [fronts[layer][point[f"{layer}.point"] - 1] for layer in fronts]
        assert point["energy_pj"] == pytest.approx(sum(one["energy_pj"] for one in chosen), rel=1e-12)
        assert point["cycles"] == sum(one["cycles"] for one in chosen)
    assert found["points"][0]["energy_ratio"] == found["points"][0]["cycles_ratio"] == 1.0


def test_a_network_that_was_stopped_keeps_the_fronts_it_has(
    run: Any, workload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = mapper_front.front, []

    def once(*arguments: Any, **settings: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise InputError("layer", "stopped here")
        return original(*arguments, **settings)

    monkeypatch.setattr(mapper_front, "front", once)
    assert "layer: stopped here" in refused(run("map", workload, "--front", "--jobs", "1"))
    code, out, _ = run("map", workload, "--front", "--jobs", "1")
    assert code == 0 and "1 of 2 rows from the store, 1 computed" in out and len(calls) == 3


def test_the_front_of_another_candidate(run: Any, workload: Any) -> None:
    options = ("map", workload, "--front", "2", "--jobs", "1")
    points = [
        json.loads(run(*options, *one, "--json")[1]) for one in ((), ("--candidate", "T8"), ("--candidate", "T4"))
    ]
    assert [found["candidate"] for found in points] == ["T8", "T8", "T4"]
    assert points[0]["points"] == points[1]["points"] and points[1]["computed"] == 0
    assert points[2]["points"][0]["energy_pj"] < points[1]["points"][0]["energy_pj"]
    two = ("--candidate", "T8", "--candidate", "T4")
    assert "--candidate: is given 2 times (allowed: once, with --front)" in refused(run(*options, *two))
    assert "--candidate: unknown candidate 'T3'" in refused(run(*options, "--candidate", "T3"))


def test_a_slack_is_part_of_a_store_key_only_where_there_is_one(workload: Any) -> None:
    keys = [
        [job.key for job in make_plan(workload, **options).jobs]
        for options in ({}, {"slack": 0.0}, {"slack": 0}, {"slack": 0.01}, {"slack": 0.02})
    ]
    assert keys[0] == keys[1] == keys[2]
    assert len({tuple(k) for k in keys}) == 3


def test_map_table_and_sweep_take_a_slack(run: Any, workload: Any, tmp_path: Path) -> None:
    tables = [tmp_path / name for name in ("least.csv", "within.csv", "stored.csv", "sweep.csv")]
    common = (workload, "--jobs", "1")
    assert run("map", *common, "--output", tables[0])[0] == 0
    assert refused(run("table", workload, "--slack", "5%", "--output", tables[2])).startswith("error: ")
    assert run("map", *common, "--slack", "5%", "--output", tables[1])[0] == 0
    assert run("table", workload, "--slack", "0.05", "--output", tables[2])[0] == 0
    config = tmp_path / "sweep.yaml"
    config.write_text(f"workload: {workload}\nset: {{glb_ifmap.depth: [8192]}}\nslack: 5%\n")
    code, out, err = run("sweep", "--config", config, "--jobs", "1", "--output", tables[3])
    assert code == 0 and "18 of 18 rows from the store" in out, err
    assert "slack" not in tables[0].read_text() and "# slack: 0.05\n" in tables[1].read_text()
    assert tables[1].read_text() == tables[2].read_text()
    least, within = (list(csv.DictReader(line for line in t.open() if line[0] != "#")) for t in tables[:2])
    faster = [int(a["cycles"]) > int(b["cycles"]) for a, b in zip(least, within, strict=True)]
    assert any(faster) and all(row["optimal"] == "True" for row in within)
    for a, b in zip(least, within, strict=True):
        energies = [float(row["e_compute_pj"]) + float(row["e_tx_pj"]) for row in (a, b)]
        assert energies[1] <= 1.05 * energies[0] * (1 + 1e-12) and int(b["cycles"]) <= int(a["cycles"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slack", "-1%"), "--slack: found '-1%' (allowed: a share of the least energy, 0 to 1 or 0% to 100%)"),
        (("--slack", "nan"), "--slack: found 'nan'"),
        (
            ("--slack", "1%", "--objective", "edp"),
            "--slack: does not go with objective 'edp' (allowed: objective energy)",
        ),
        (("--front", "1"), "--front: found '1' (allowed: a whole number of points, at least 2, or all)"),
        (("--front", "0"), "--front: found '0'"),
        (("--front", "2.5"), "--front: found '2.5'"),
        (("--front", "--slack", "1%"), "--slack: does not go with --front"),
        (("--front", "--objective", "energy"), "--objective: does not go with --front"),
    ],
)
def test_what_goes_together_is_said(run: Any, options: Any, message: str) -> None:
    assert message in refused(run("mapper", *LAYER, *options))


def test_files_after_the_front_are_not_taken_for_its_points(run: Any, workload: Any) -> None:
    assert "give it after the files, or as --front=10" in refused(run("map", "--front", workload))
    assert run("map", "--front=2", workload, "--jobs", "1")[0] == 0


@pytest.mark.parametrize("value", ["true", "-0.1", "101%", "nan", "[1]"])
def test_a_slack_in_a_sweep_file_is_a_share(run: Any, tmp_path: Path, value: str) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(f"workload: squeezenet\nset: {{glb_ifmap.depth: [8192]}}\nslack: {value}\n")
    assert f"{config}: slack: found " in refused(run("sweep", "--config", config))


def test_a_network_with_a_layer_that_does_not_fit_has_no_front(run: Any, workload: Any, tmp_path: Path) -> None:
    arch = tmp_path / "arch.yaml"
    old, new = "keep: [Inputs], bypass: [Outputs, Weights]}", "keep: [Inputs, Weights], bypass: [Outputs]}"
    head, spad, tail = ARCH.read_text().partition("name: ifmap_spad")
    text = head + spad + tail.replace(old, new, 1)
    arch.write_text(text.replace("depth: 12, width: 16,", "depth: 1, width: act_bits,"))
    line = refused(run("map", workload, "--front", "--arch", arch, "--jobs", "1"))
    assert "net: first, T8: no mapping: " in line and "ifmap_spad" in line
