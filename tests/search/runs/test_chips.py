"""A run with layers in memory, tested on simulated chips: configuration, results, text and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from search.report.run_page import on_chips, write_report
from search.report.text import chip_table, details
from search.runs.config import RunConfig, load_config
from search.runs.inputs import network_of
from search.runs.records import read_results
from search.runs.run import do_run, open_run

ROOT = Path(__file__).parents[3]
COMPONENT = "{class: intmac, attributes: {width: bits}, actions: {compute: 1}}"
OPERATORS = f"""
bits: [8, 4]
operators:
  typical: {{short: T, act_bits: bits, weight_bits: bits, psum_bits: 20, component: {COMPONENT}}}
  multiplication_free:
    {{short: MF, act_bits: bits, weight_bits: bits, psum_bits: 20, component: {COMPONENT},
      macro: {{rows: 31, adc_bits: 4, full_scale: 31}}}}
  binary_connect:
    {{short: BC, act_bits: bits, weight_bits: 1, psum_bits: 20, component: {COMPONENT},
      macro: {{rows: 31, adc_bits: 3, full_scale: 31}}}}
"""
RUN = """
threads: 1
jobs: 1
name: tiny
network: {factory: "tests.search.tiny:tiny"}
data: {name: digits, subset: 400, augment: false}
lambdas: [0.5]
baselines: [T8, MF8, BC4]
seeds: [0]
search: {epochs: 2, warmup_epochs: 1, batch_size: 40, lr: 0.01}
relearn: {epochs: 2, batch_size: 40, lr: 0.01}
pins: {first: MF8}
"""


def configured(folder: Path, text: str) -> RunConfig:
    (folder / "operators.yaml").write_text(OPERATORS, encoding="utf-8")
    (folder / "run.yaml").write_text(f"{text}\noperators: {folder / 'operators.yaml'}\n", encoding="utf-8")
    return load_config(folder / "run.yaml")


def test_a_run_tests_networks_in_memory_on_chips(
    tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = RUN.replace("relearn: {epochs: 2", "relearn: {epochs: 8")
    config = configured(tmp_path, f"{text}\nchips: {{number: 3, mismatch: 0.3, offset: 0.2}}")
    table = make_table(network_of(config), config.operators)
    results = do_run(open_run(tmp_path / "run", config, table), lambda stage, record: None)
    by_name = {p.get("candidate", "searched"): p for p in results["networks"]}
    assert "chips" not in by_name["T8"]
    assert results["chips"] == {"number": 3, "mismatch": 0.3, "offset": 0.2, "calibration": 0}
    for name in ("MF8", "BC4", "searched"):
        found = by_name[name]["chips"]
        assert len(found["values"]) == 3 and found["worst"] == min(found["values"])
        assert found["worst"] <= found["mean"] <= max(found["values"])
    assert any(len(set(p["chips"]["values"])) > 1 for p in by_name.values() if "chips" in p)  # chips differ
    again = read_results(tmp_path / "run" / "results.json")
    assert again["chips"] == results["chips"]
    assert chip_table(again) in "\n".join(details(again))
    assert len(chip_table(again).splitlines()) >= 4
    assert "3 simulated chips" in on_chips(again)[0] and "all BC4, seed 0" in on_chips(again)[0]
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "3 simulated chips, with a mismatch of cells of 30.0%" in page
    json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("mode", ["single_level", "stochastic", "variational", "sequential", "sensitivity"])
def test_all_modes_search_candidates_in_memory(
    mode: str, tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = {
        "single_level": "{mode: single_level, epochs: 2, warmup_epochs: 1, batch_size: 100}",
        "stochastic": "{mode: stochastic, epochs: 2, warmup_epochs: 1, batch_size: 100, samples: 1}",
        "variational": "{mode: variational, epochs: 2, warmup_epochs: 1, batch_size: 100, samples: 1}",
        "sequential": "{mode: sequential, batch_size: 100}",
        "sensitivity": "{mode: sensitivity}",
    }[mode]
    text = RUN.replace("search: {epochs: 2, warmup_epochs: 1, batch_size: 40, lr: 0.01}", f"search: {settings}")
    if mode == "sensitivity":
        text = text.replace("lambdas: [0.5]", "energy_budgets: [0.7]").replace("pins: {first: MF8}", "")
        text += "\npretrain: {epochs: 1}\n"
    config = configured(tmp_path, text.replace("[T8, MF8, BC4]", "[T8]"))
    results = do_run(
        open_run(tmp_path / "run", config, make_table(network_of(config), config.operators)), lambda stage, record: None
    )
    assert any(p["kind"] == "searched" for p in results["networks"])


@pytest.mark.parametrize(
    ("chips", "message"),
    [
        ("{number: 0}", "chips.number: found 0"),
        ("{mismatch: 2}", "chips.mismatch: found 2"),
        ("{offset: -1}", "chips.offset: found -1"),
        ("{noise: 1}", "chips: .*noise"),
        ("{number: 2}\ncandidates: [T8]\nbaselines: [T8]\npins: {}", "chips: found, but no candidate of the run"),
    ],
)
def test_wrong_chips_are_refused(chips: str, message: str, tmp_path: Path) -> None:
    lines = [x for x in RUN.splitlines() if "candidates" not in chips or not x.startswith(("baselines", "pins"))]
    with pytest.raises(InputError, match=message):
        configured(tmp_path, "\n".join(lines) + f"\nchips: {chips}")
