"""Runs in the sensitivity mode: nothing is trained by the search, and budgets are met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.costs import share
from search.runs.inputs import network_of
from search.runs.run import check_fit, do_run, open_run
from search.sensitivity.calibrate import fit_layer
from search.sensitivity.measure import try_layer
from search.supernet import uniform
from tests.search.runs.test_warm import changed, folder

__all__ = ["folder"]

MODE = ("search=null", "search.mode=sensitivity", "search.images=64", "search.corrections=4")


@pytest.fixture
def table(folder: Path, make_table: Any) -> CostTable:
    found: CostTable = make_table(network_of(changed(folder)))
    return found


@pytest.mark.parametrize("limit", ["energy_budgets=[0.4, 0.6]", "latency_budgets=[1.0]"])
def test_budgets_are_met_and_uniforms_are_not_better(folder: Path, table: CostTable, limit: str) -> None:
    config = changed(folder, *MODE, "lambdas=[]", limit)
    run = open_run(folder / "run", config, table)
    do_run(run, lambda *_: None, 1)
    for stage in run.stages:
        if stage.kind == "search":
            result, history = (run.record(stage)[part] for part in ("result", "history"))
            (assignment,) = result["assignments"]
            quantity = "energy" if stage.budget is not None else "latency"
            budget = stage.budget or stage.latency_budget
            assert share(table, assignment, quantity) <= budget * (1 + 1e-9)
            assert len(history) == 1 and history[0]["measured_loss"] >= 0
            assert result["energy_expected"] == pytest.approx(share(table, assignment))  # every layer is decided


def test_a_lambda_weighs_energy(folder: Path, table: CostTable) -> None:
    config = changed(folder, *MODE, "lambdas=[0.0, 1000.0]")
    run = open_run(folder / "run", config, table)
    do_run(run, lambda *_: None, 1)
    free, dear = (run.record(s)["result"] for s in run.stages if s.kind == "search")
    assert dear["assignments"][0] == uniform(table, "BC2")  # the cheapest
    assert free["energies_discretised"][0] > dear["energies_discretised"][0]


def test_budgets_of_a_seed_share_the_measurements(
    folder: Path, table: CostTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[str] = []
    first, first_fit = try_layer, fit_layer

    def counted(bench: Any, part: Any) -> Any:
        layers.append(part[1])
        if len(layers) == 4 and dies:
            raise LookupError  # a kill: both layers are fitted, and one is measured
        return first(bench, part)

    def counted_fit(fitting: Any, layer: str) -> Any:
        layers.append(f"fit {layer}")
        return first_fit(fitting, layer)

    config = changed(folder, *MODE, "lambdas=[]", "energy_budgets=[0.4, 0.6]")
    whole = open_run(folder / "whole", config, table)
    do_run(whole, lambda *_: None, 1)
    monkeypatch.setattr("search.sensitivity.measure.try_layer", counted)
    monkeypatch.setattr("search.sensitivity.study.fit_layer", counted_fit)
    run, dies = open_run(folder / "run", config, table), True
    with pytest.raises(LookupError):
        do_run(run, lambda *_: None, 1)
    assert layers == ["fit conv", "fit fc", "conv", "fc"]
    dies = False
    do_run(run, lambda *_: None, 1)
    assert layers[4:] == ["fc"]  # once for both budgets, and not again what was done
    for stage in run.stages:
        if stage.kind == "search":
            assert run.record(stage)["result"]["assignments"] == whole.record(stage)["result"]["assignments"]
            (ours,), (theirs,) = run.record(stage)["history"], whole.record(stage)["history"]
            assert {k: v for k, v in ours.items() if k != "seconds"} == {
                k: v for k, v in theirs.items() if k != "seconds"
            }


def test_trained_weights_are_needed(folder: Path, table: CostTable) -> None:
    config = changed(folder, *MODE, "pretrain=null")
    with pytest.raises(InputError, match=r"^search.mode: sensitivity measures trained weights, and there are none"):
        check_fit(open_run(folder / "run", config, table))
