"""What `enos model` and `enos mapper` print beside the counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.cli.common import uj
from dse.sweep.sweep_table import _least

ARCH = """
architecture:
  version: 0.4
  nodes:
  - !Component
    name: dram
    class: DRAM
    attributes: {width: 8, datawidth: 8, read_bandwidth: BANDWIDTH}
  - !Container {name: pe, spatial: {meshX: 14}}
  - !Component
    name: mac
    class: intmac
"""
PROBLEM = """
problem:
  version: 0.4
  shape:
    name: line
    dimensions: [P]
    data_spaces:
    - {name: Inputs, projection: [[[P]]]}
    - {name: Outputs, projection: [[[P]]], read_write: true}
  instance: {P: SIZE}
"""
ERT = """
ERT:
  version: '0.4'
  tables:
  - name: system.dram[1..1]
    actions:
    - {name: read, arguments: {}, energy: 10}
    - {name: write, arguments: {}, energy: 10}
  - name: system.mac[1..1]
    actions:
    - {name: compute, arguments: {}, energy: 1}
"""


@pytest.fixture
def files(tmp_path: Path) -> Any:
    def write(bandwidth: Any = 1000, size: Any = 28) -> Any:
        paths = [tmp_path / name for name in ("arch.yaml", "problem.yaml", "ert.yaml")]
        texts = ARCH.replace("BANDWIDTH", str(bandwidth)), PROBLEM.replace("SIZE", str(size)), ERT
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return write


def test_utilisation_with_and_without_stalls(run: Any, files: Any) -> None:
    arch, problem, ert = files(bandwidth=2)  # 14 inputs a cycle are wanted
    code, out, _ = run("mapper", arch, problem, ert, "--objective", "energy", "--json")
    found = json.loads(out)
    assert code == 0 and found["cycles"] > 2
    used = found["levels"]["mac"]["instances"]
    assert found["utilisation"] == pytest.approx(used / 14)
    assert found["utilisation_with_stalls"] == pytest.approx(28 / 14 / found["cycles"])
    _, out, _ = run("mapper", arch, problem, ert)
    assert f"{28 / 14 / found['cycles']:.1%} with stalls" in out


def test_cycles_in_which_networks_fill_and_drain(run: Any, files: Any) -> None:
    arch, problem, ert = files()
    _, out, _ = run("mapper", arch, problem, ert, "--perfect", "--json")
    ordinary = json.loads(out)
    assert ordinary["network_cycles"] == 0
    arch.write_text(arch.read_text().replace("datawidth: 8,", "datawidth: 8, network_fill_latency: 5,"))
    _, out, _ = run("mapper", arch, problem, ert, "--perfect", "--json")
    found = json.loads(out)
    assert (found["network_cycles"], found["cycles"]) == (5, ordinary["cycles"] + 5)
    _, out, _ = run("mapper", arch, problem, ert, "--perfect")
    assert f"Cycles: {found['cycles']:,}, 5 of them to fill and drain networks" in out


def test_the_physical_count_beside_timeloops(run: Any, files: Any, tmp_path: Path) -> None:
    arch, problem, ert = files(size=55)
    mapping = tmp_path / "mapping.yaml"
    code, _, err = run("mapper", arch, problem, ert, "--objective", "delay", "--output", mapping)
    assert code == 0, err
    assert any("," in str(entry.get("factors")) for entry in yaml.safe_load(mapping.read_text())["mapping"])
    _, out, _ = run("model", arch, problem, mapping, ert)
    assert "Timeloop, which approximates remainders, counts 0.00" in out
    _, out, _ = run("model", arch, problem, mapping, ert, "--json")
    found = json.loads(out)
    # Each of 55 inputs is read once, each of 55 outputs written once, beside 55 operations.
    assert found["energy_pj"] == pytest.approx(55 * (10 + 10 + 1))
    timeloops = json.loads(run("model", arch, problem, mapping, ert, "--count", "timeloop", "--json")[1])
    assert found["timeloop_energy_pj"] == timeloops["energy_pj"]
    assert "timeloop_energy_pj" not in json.loads(run("mapper", *files(size=28), "--perfect", "--json")[1])


FREE = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 8, datawidth: 8, read_bandwidth: 0.5}}
  - !Component {name: buffer, class: SRAM, attributes: {width: 8, datawidth: 8, depth: 4}}
  - !Component {name: mac, class: intmac}
"""
PRODUCT = """
problem:
  shape:
    name: product
    dimensions: [M, K]
    data_spaces:
    - {name: Weights, projection: [[[M]], [[K]]]}
    - {name: Inputs, projection: [[[K]]]}
    - {name: Outputs, projection: [[[M]]], read_write: true}
  instance: {M: 6, K: 4}
"""


@pytest.mark.parametrize("space", ["--perfect", "--imperfect"])
def test_with_a_slack_of_nothing_the_fastest_of_all_equal_energies_is_found(
    run: Any, tmp_path: Path, space: str
) -> None:
    """Memories cost nothing here, so all mappings have one energy, and the buffer may keep any of the tensors."""
    free = yaml.safe_load(ERT)
    (dram, mac) = free["ERT"]["tables"]
    for action in dram["actions"]:
        action["energy"] = 0
    free["ERT"]["tables"] = [dram, {**dram, "name": "system.buffer[1..1]"}, mac]
    paths = [tmp_path / name for name in ("arch.yaml", "problem.yaml", "ert.yaml")]
    for path, text in zip(paths, (FREE, PRODUCT, yaml.safe_dump(free)), strict=True):
        path.write_text(text)

    def found(*options: str) -> Any:
        return json.loads(run("mapper", *paths, space, *options, "--json")[1])

    equal, fastest = found("--slack", "0%"), found("--objective", "delay")
    assert equal["optimal"] and (equal["energy_pj"], equal["cycles"]) == (24, fastest["cycles"])
    assert found("--slack", "0", "--objective", "edp")["cycles"] == fastest["cycles"]
    if space == "--perfect":  # else the test could not fail
        assert found()["cycles"] > fastest["cycles"]


def test_small_energies_beside_large_ones_have_three_digits() -> None:
    assert uj([2.3e9, 1.2345e3, 5.0, None, 0.0]) == ["2300.0", "0.00123", "0.00000500", "-", "0.0"]


def test_of_equal_energies_the_fastest_is_the_best() -> None:
    assert _least([2.0, 1.0, 1.0 + 1e-13, 1.0], [1.0, 30.0, 10.0, 20.0]) == 2
