"""Recorded runs of Timeloop, checked from their folder alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.engines.timeloop.recorded import check_run, read_run
from dse.hardware.energy.ert import Ert
from dse.hardware.spec_reader import SpecFile
from dse.model.child_accesses import steps_before_2025, steps_of
from dse.model.evaluation import evaluate
from dse.model.mapping import parse_directives
from dse.workload.problem import conv_problem
from tests.conftest import refused

RUN = Path(__file__).parent / "recorded" / "run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_every_number_of_a_recorded_run_is_the_engines() -> None:
    found = check_run(read_run(RUN))
    assert not found.differences
    assert found.native.leakage_pj > 0 and found.native.cycles > found.run.problem.macs / 8
    assert found.best is not None and found.best.energy_pj <= found.run.recorded.energy_pj


def test_the_command_says_what_differs(run: Any, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("check", folder)
    assert (code, err) == (0, "") and "no difference" in out
    edit(folder / "timeloop-mapper.ERT.yaml", "energy: 3.21", "energy: 3.22")
    code, out, _ = run("check", folder, "--output", tmp_path / "found.csv")
    assert code == 1 and "buffer Inputs energy_pj: native" in out
    assert ",,buffer,Inputs,energy_pj," in (tmp_path / "found.csv").read_text()
    document = json.loads(run("check", folder, "--mapper", "0", "--json")[1])
    assert document["differences"] and document["best_energy_pj"] is None and not document["by_old_rule"]


def test_a_run_of_the_model_has_its_mapping_in_its_input(folder: Path) -> None:
    mapping = parse_yaml((folder / "timeloop-mapper.map.yaml").read_text(), "map")
    (folder / "timeloop-mapper.map.yaml").unlink()
    with pytest.raises(InputError, match=r"has no \*.map.yaml, and parsed-processed-input.yaml has no mapping"):
        read_run(folder)
    with (folder / "parsed-processed-input.yaml").open("a") as file:
        file.write(f"mapping: {json.dumps(mapping['mapping'])}\n")
    assert not check_run(read_run(folder)).differences


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("parsed-processed-input.yaml", "problem:", "problems:", "no `problem` key"),
        (
            "parsed-processed-input.yaml",
            "- name: mac[1..8]",
            "- name: mac[1..8]\n      meshX: 3",
            "unknown field 'meshX'",
        ),
        ("parsed-processed-input.yaml", "meshX: 8", "meshX: 0", "attributes.meshX: found 0"),
        (
            "parsed-processed-input.yaml",
            "class: dummy_storage",
            "class: SRAM",
            "has a fan-out of 8 x 1 without a level",
        ),
        ("timeloop-mapper.stats.txt", "Summary Stats", "Summary", "is incomplete: no summary"),
    ],
)
def test_what_is_wrong_in_a_run_is_named(folder: Path, file: str, before: str, after: str, message: str) -> None:
    edit(folder / file, before, after)
    with pytest.raises(InputError) as e:
        read_run(folder)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_folder_without_a_run_is_one_line(run: Any, tmp_path: Path, folder: Path) -> None:
    assert "parsed-processed-input.yaml: cannot be read: no such file" in refused(run("check", tmp_path))
    (folder / "timeloop-mapper.stats.txt").unlink()
    assert "run: has no files *.stats.txt (allowed: one run of Timeloop" in refused(run("check", folder))
    assert "a recorded run has its own accelerator" in refused(run("check", folder, "--arch", "eyeriss_168"))


TWO_LEVELS = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 8, datawidth: 8}}
  - !Component {name: buffer, class: SRAM, attributes: {width: 8, datawidth: 8}}
  - !Component {name: mac, class: intmac}
"""


@pytest.mark.parametrize(("before_2025", "reads"), [(False, 156_600), (True, 157_296)])
def test_windows_behind_a_stationary_loop_were_fetched_whole_before_2025(before_2025: bool, reads: int) -> None:
    """The reads of inputs from DRAM in the published run of the Eyeriss-like example (May 2024), and those of today."""
    layer = conv_problem({"C": 3, "M": 32, "P": 112, "Q": 112, "R": 3, "S": 3, "Hstride": 2, "Wstride": 2})
    spec = SpecFile(parse_yaml(TWO_LEVELS, "a"), "a").instance(problem=layer)
    entries = [
        {"target": "dram", "type": "temporal", "factors": "M4 Q2 P8", "permutation": "MQP"},
        {"target": "buffer", "type": "temporal", "factors": "P14 Q56 C3 R3 S3 M8", "permutation": "SRCMPQ"},
    ]
    mapping = parse_directives(spec, layer, entries, "m")
    prices = {"read": 1.0, "write": 1.0}
    ert = Ert({"dram": prices, "buffer": prices, "mac": {"compute": 1.0}})
    found = evaluate(spec, layer, mapping, ert, before_2025=before_2025)
    assert found.levels["dram"]["Inputs"].reads == reads


@pytest.mark.parametrize("outside", [[(4, (1,))], [(4, (1,)), (3, (4,))], [(3, (0,)), (5, (0,))], [(5, (2,))]])
def test_both_rules_agree_where_no_stationary_step_comes_before_a_moving_one(outside: Any) -> None:
    words = [
        sum(times * needed for times, needed, _ in rule((3,), outside, False)) for rule in (steps_of, steps_before_2025)
    ]
    assert words[0] == words[1]
