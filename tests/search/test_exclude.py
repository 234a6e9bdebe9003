"""Layers that are left out of a search: they compute in floating point, and their energy is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.costs import excluded_layers, excluded_rows, share
from search.export.qdq import quantised_layers
from search.layers.mixed_layer import PlainLayer
from search.report.page_data import run_data
from search.report.run_page import write_report
from search.report.text import details
from search.runs.config import load_config
from search.runs.inputs import network_of
from search.runs.results import labels
from search.runs.run import do_run, open_run
from search.supernet import searchable, uniform
from tests.search.tiny import tiny

ROOT = Path(__file__).parents[2]
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_an_excluded_layer_computes_as_it_did(make_table: Any) -> None:
    network = tiny().module
    model = searchable(network, make_table(tiny()), exclude=["fc"])
    inputs = torch.randn(4, 96)
    assert model.network.fc(inputs).equal(network.fc(inputs))  # type: ignore[operator, union-attr]
    assert isinstance(model.network.fc, PlainLayer) and model.undecided() == ["conv"]
    fixed = model.discretise({"conv": "BC2", "fc": "T8"})
    assert fixed.fc(inputs).equal(network.fc(inputs))  # type: ignore[operator]
    assert any(p is model.network.fc.layer.weight for p in model.thetas())  # it learns
    with pytest.raises(InputError, match=r"assignment.fc: unknown candidate 'BC2' \(allowed: T8\)"):
        model.discretise({"conv": "BC2", "fc": "BC2"})


def test_its_energy_counts_as_that_of_t8(make_table: Any) -> None:
    table: CostTable = make_table(tiny())
    model = searchable(tiny().module, table, candidates=["T4"], exclude=["fc"])
    assert float(model.energy().detach()) == pytest.approx(share(table, {"conv": "T4", "fc": "T8"}))
    assert uniform(table, "BC2", ["f*"]) == {"conv": "BC2", "fc": "T8"} and excluded_rows(table, []) == {}
    model = searchable(tiny().module, table, exclude=["fc"])
    for budget in (0.7, 0.9):
        assert share(table, model.assignment(budget)) <= budget
    with pytest.raises(InputError, match=r"energy budget"):
        model.check_budget(0.9 * share(table, {"conv": "BC2", "fc": "T8"}))


def test_without_rows_nothing_is_counted(make_table: Any) -> None:
    table: CostTable = make_table(tiny())
    alone = CostTable(tuple(row for row in table.rows if row["layer"] == "conv"))
    model = searchable(tiny().module, alone, exclude=["fc"])
    assert list(model.assignment()) == ["conv"] and isinstance(model.network.fc, torch.nn.Linear)
    assert model.discretise({"conv": "T4"})(IMAGES).shape == (4, 10)
    with pytest.warns(UserWarning, match=r"has no rows for fc"):
        searchable(tiny().module, alone)


def test_names_and_patterns(make_table: Any) -> None:
    assert excluded_layers(["a.*"], ["a.b", "a.b#2", "c"]) == {"a.b"}
    with pytest.raises(InputError, match=r"exclude\[1\]: no layer is called 'head' \(allowed: conv, fc\)"):
        searchable(tiny().module, make_table(tiny()), exclude=["fc", "head"])
    with pytest.raises(InputError, match=r"exclude: leaves no layer to search"):
        searchable(tiny().module, make_table(tiny()), exclude=["*"])


def test_an_exported_network_keeps_it_in_floating_point(make_table: Any) -> None:
    network = tiny().module
    model = searchable(network, make_table(tiny()), exclude=["fc"])
    fixed = model.discretise({"conv": "T4", "fc": "T8"})
    fixed(IMAGES)
    exported = quantised_layers(fixed)
    assert type(exported.fc) is torch.nn.Linear and not isinstance(exported.conv, torch.nn.Conv2d)
    assert exported.fc.weight.equal(network.fc.weight)  # type: ignore[union-attr, arg-type]


def test_a_run_trains_it_in_every_network(tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "run.yaml").write_text("""
name: excluded
threads: 1
jobs: 1
network: {factory: "tests.search.tiny:tiny"}
data: {name: digits, subset: 200, augment: false}
exclude: [fc]
seeds: [0]
baselines: [T8, BC2]
search: {epochs: 2, warmup_epochs: 1, batch_size: 40, lr: 0.01}
relearn: {epochs: 1, batch_size: 40, lr: 0.01}
""", encoding="utf-8")  # fmt: skip
    config = load_config(tmp_path / "run.yaml")
    table: CostTable = make_table(network_of(config))
    run = open_run(tmp_path / "run", config, table)
    results = do_run(run, lambda stage, record: None)
    bc2, found = results["networks"][1:]
    assert results["excluded"] == {"fc": "T8"} and found["assignment"]["fc"] == "T8"
    assert bc2["energy"] == pytest.approx(share(table, {"conv": "BC2", "fc": "T8"}))
    data = run_data(results, table, labels(results), found)["networks"][1]
    assert data["energy_pj"] == pytest.approx(table.total_pj({"conv": "BC2", "fc": "T8"}))
    assert any("left out of the search, in floating point, and counted as T8: fc" in text for text in details(results))
    assert write_report(run.folder).is_file()
