"""`--count drain,padding`: beside the ordinary numbers, which stay as they are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.shipped import data_dir
from dse.workload.layers import Layer, read_workload, write_workload
from dse.workload.problem import CONV_DIMENSIONS, problem_document

ARCH = data_dir("arch_specs") / "eyeriss_168.yaml"
DEPTHWISE = dict.fromkeys(CONV_DIMENSIONS, 1) | {"G": 12, "P": 7, "Q": 7, "R": 3, "S": 3}
IMAGE = {"H": 7, "W": 7, "Hpad": 1, "Wpad": 1}
ZEROS = 12 * (9 * 9 - 7 * 7)


@pytest.fixture
def layer(tmp_path: Path) -> Any:
    def write(**image: Any) -> Path:
        path = tmp_path / "layer.yaml"
        path.write_text(yaml.safe_dump(problem_document({**DEPTHWISE, **image})))
        return path

    return write


def test_mapper_and_model_say_what_is_left_out(run: Any, layer: Any, tmp_path: Path) -> None:
    problem, mapping = layer(**IMAGE), tmp_path / "mapping.yaml"
    options = ("--perfect", "--output", mapping)
    ordinary = json.loads(run("mapper", ARCH, problem, *options, "--json")[1])
    found = json.loads(run("mapper", ARCH, problem, *options, "--json", "--count", "drain,padding")[1])
    counted = found.pop("counted")
    assert found == ordinary
    inputs = ordinary["levels"]["dram_ifmap"]["Inputs"]
    zeros = counted["padding"]["levels"]["dram_ifmap"]["Inputs"]
    assert inputs["reads"] == 12 * 81 and zeros["reads"] == -ZEROS  # each word is read once
    assert zeros["energy_pj"] == pytest.approx(-inputs["energy_pj"] * ZEROS / (12 * 81), rel=0.02)  # whole blocks
    drained = counted["drain"]["levels"]
    assert drained["glb_psum"]["Outputs"]["reads"] == 12 * 49
    more = sum(tensors["Outputs"]["energy_pj"] for tensors in drained.values())
    assert counted["drain"]["energy_pj"] == pytest.approx(more) and more > 0
    assert counted["with_all_pj"] == pytest.approx(ordinary["energy_pj"] + more + counted["padding"]["energy_pj"])
    modelled = json.loads(run("model", ARCH, problem, mapping, "--json", "--count", "timeloop, padding, drain")[1])
    assert modelled["counted"]["drain"] == counted["drain"]
    text = run("mapper", ARCH, problem, *options, "--count", "padding")[1]
    assert f"padding  dram_ifmap Inputs       {-ZEROS}" in text and "Energy with padding counted: " in text
    assert "counted" not in run("mapper", ARCH, problem, *options)[1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("paddin", "--count: found 'paddin'; did you mean 'padding'? (allowed: timeloop, physical, drain, padding)"),
        ("drain,drain", "--count: drain is given twice (allowed: each once)"),
        ("drain,", "--count: found '' (allowed: timeloop"),
        ("physical,timeloop", "--count: timeloop and physical exclude each other (allowed: one of them)"),
        ("padding", "padding: the layer does not say how large Inputs is along R and P (allowed: H and Hpad in the"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_one_line(run: Any, layer: Any, tmp_path: Path, value: str,
                                                       message: str) -> None:  # fmt: skip
    mapping = tmp_path / "mapping.yaml"
    assert run("mapper", ARCH, layer(), "--perfect", "--output", mapping)[0] == 0
    code, _, err = run("model", ARCH, layer(), mapping, "--count", value)
    assert code == 2 and message in err and err.count("\n") == 1


def test_the_mapper_refuses_before_it_searches(run: Any, layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.engines.native.NativeEngine.search", None)
    for option in ("padding", "timeloop"):
        assert run("mapper", ARCH, layer(), "--count", option)[0] == 2
    code, _, err = run("mapper", ARCH, layer(**IMAGE), "--front", "--count", "padding")
    assert code == 2 and "--count: does not go with --front" in err


NET = """
version: 1
layers:
- {name: padded, kind: conv, instance: {C: 2, M: 4, P: 6, Q: 6, R: 3, S: 3, H: 6, W: 6}}
- {name: not padded, kind: conv, instance: {C: 2, M: 4, P: 6, Q: 6, R: 3, S: 3, H: 8, W: 8}}
- {name: wte, kind: embedding, instance: {N: 4, M: 8}}
"""


def test_a_network_in_all(run: Any, tmp_path: Path) -> None:
    net = tmp_path / "net.yaml"
    net.write_text(NET)
    options = ("--perfect", "--candidate", "T8", "--candidate", "BC4", "--store", tmp_path / "s.sqlite", "--jobs", "1")
    ordinary = json.loads(run("map", net, *options, "--json")[1])
    found = json.loads(run("map", net, *options, "--json", "--count", "padding,drain")[1])
    counted = found.pop("counted")
    for document in (ordinary, found):
        del document["rows_from_store"], document["computed"]
    assert found == ordinary  # layers of one shape share a row of the store, whatever their padding
    for candidate, block in (("T8", 8), ("BC4", 16)):  # words of an access of 64 bits
        (padded,) = (r for r in ordinary["rows"] if (r["layer"], r["candidate"]) == ("padded", candidate))
        assert padded["dram_ifmap.Inputs.reads"] == 2 * 64
        saved = 1 - math.ceil(2 * 36 / block) / (2 * 64 / block)
        assert counted[candidate]["padding"] == pytest.approx(-saved * padded["dram_ifmap.Inputs.energy_pj"])
        assert counted[candidate]["drain"] > 0
    text = run("map", net, *options, "--count", "drain")[1]
    total = ordinary["totals"][0]["compute_pj"] + ordinary["totals"][0]["transmission_pj"]
    share = counted["T8"]["drain"] / total
    (line,) = (x for x in text.split("What Timeloop's conventions leave out")[1].splitlines() if "all T8" in x)
    assert line.endswith(f"+{share:.1%}")


def test_the_breakdown_has_it_by_level(run: Any, tmp_path: Path) -> None:
    net = tmp_path / "net.yaml"
    net.write_text(NET)
    options = ("--perfect", "--candidate", "T8", "--store", tmp_path / "s.sqlite")
    counted = json.loads(run("map", net, *options, "--jobs", "1", "--json", "--count", "drain,padding")[1])["counted"][
        "T8"
    ]
    code, out, err = run("table", net, *options, "--breakdown", "T8", "--count", "drain,padding")
    assert code == 0, err
    lines = out.split("What Timeloop's conventions leave out of each layer under T8, uJ:\n")[1].splitlines()
    assert (
        lines[0].split()[-1] == "padding" and lines[1].split()[-1] == "dram_ifmap" and lines[2].split()[-1] == "Inputs"
    )
    rows = {line.split("  ")[0]: line.split()[-len(lines[0].split()) :] for line in lines[4:]}
    assert float(rows["padded"][-1]) == pytest.approx(counted["padding"] / 1e6, rel=1e-3)
    assert float(rows["not padded"][-1]) == 0
    assert sum(map(float, rows["sum"])) == pytest.approx(sum(counted.values()) / 1e6, rel=1e-2)
    code, _, err = run("table", net, *options, "--output", tmp_path / "t.csv", "--count", "drain")
    assert code == 2 and "--count: has nothing to go with; give --breakdown CANDIDATE too" in err


def test_a_network_that_does_not_say_its_images_is_not_mapped(run: Any, tmp_path: Path) -> None:
    net, store = tmp_path / "net.yaml", tmp_path / "s.sqlite"
    net.write_text(NET.replace(", H: 8, W: 8", ""))
    code, _, err = run("map", net, "--store", store, "--count", "padding")
    assert code == 2 and err.startswith("error: net: not padded: padding: the layer does not say how large Inputs is")
    assert err.count("\n") == 1 and not store.exists()
    net.write_text(NET.replace("H: 8", "H: true"))
    code, _, err = run("map", net, "--store", store)
    assert code == 2 and "layers[1].instance.H: found True (allowed: a whole number" in err


def test_a_workload_keeps_the_sizes_of_images(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET)
    read = read_workload(tmp_path / "net.yaml")
    assert read.layers[0].image == {"H": 6, "W": 6} and "H" not in read.layers[0].instance
    write_workload(read, tmp_path / "again.yaml")
    again = read_workload(tmp_path / "again.yaml")
    assert again.layers == read.layers and dict(again.layers[0].problem.image) == {"H": 6, "W": 6}
    assert Layer("a", "conv", {"C": 2}).image == {}
