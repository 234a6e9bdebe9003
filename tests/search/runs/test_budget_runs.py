"""Runs within a budget of energy or latency, in every mode, and with the space and pins of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.costs import expected_share, share
from search.objective import EnergyBudget
from search.report.text import details
from search.runs.config import RunConfig, config_yaml, load_config
from search.runs.run import open_run
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.training.checkpoint import Checkpoint, Record
from tests.cli.test_search import in_process
from tests.search.runs.test_run import config, start, table
from tests.search.strategies.helpers import DATA, settings_of, small_model

__all__ = ["config", "table"]  # fixtures


def changed(tmp_path: Path, *changes: str) -> RunConfig:
    return load_config(tmp_path / "tiny.yaml", ["seeds=[0]", "baselines=[T8]", *changes])


every_mode = pytest.mark.parametrize(
    "mode",
    [
        ("search.mode=single_level",),
        ("search.mode=bilevel",),
        ("search.mode=sequential", "search.epochs=null"),
        ("search.mode=stochastic", "search.samples=3"),
        ("search.mode=variational",),
    ],
)


@every_mode
def test_every_mode_meets_the_budget(
    config: RunConfig, table: CostTable, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    chosen = changed(tmp_path, "energy_budgets=[0.5]", "lambdas=[]", *mode)
    assert load_config(write(tmp_path, chosen)) == chosen
    results, _ = start(chosen, table, tmp_path / "run")
    point = results["networks"][-1]
    assert (point["lambda"], point["budget"]) == (None, 0.5)
    assert 0.98 * 0.5 <= point["energy"] <= 0.5
    assert point["energy_discretised"] == pytest.approx(point["energy"]) == share(table, point["assignment"])
    for population in results["populations"]:
        assert population["budget"] == 0.5 and all(0.49 <= p["energy"] <= 0.5 for p in population["networks"])
    names = {path.name for path in (tmp_path / "run" / "assignments").iterdir()}
    assert names == {f"seed0-budget0.5-sample{i}.yaml" for i in (1, 2, 3)} or names == {"seed0-budget0.5.yaml"}


def with_subwords(table: CostTable) -> CostTable:
    """Cycles fall with the precision, as with subword parallelism."""
    return CostTable(tuple({**row, "cycles": row["cycles"] * row["bits"]} for row in table.rows))


@every_mode
def test_every_mode_meets_a_budget_of_cycles(
    config: RunConfig, table: CostTable, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    table = with_subwords(table)
    chosen = changed(tmp_path, "latency_budgets=[0.65]", "lambdas=[]", *mode)
    assert load_config(write(tmp_path, chosen)) == chosen
    results, _ = start(chosen, table, tmp_path / "run")
    baseline, point = results["networks"]
    assert baseline["latency"] == 1
    assert (point["lambda"], point["budget"], point["latency_budget"]) == (None, None, 0.65)
    assert 0.98 * 0.65 <= point["latency"] <= 0.65
    assert point["latency"] == point["latency_discretised"] == share(table, point["assignment"], "latency")
    assert point["latency_expected"] == pytest.approx(expected_share(table, point["probabilities"], "latency"))
    for population in results["populations"]:
        assert population["latency_budget"] == 0.65
        assert all(0.637 <= p["latency"] <= 0.65 for p in population["networks"])
    names = {path.name for path in (tmp_path / "run" / "assignments").iterdir()}
    assert names == {f"seed0-latency0.65-sample{i}.yaml" for i in (1, 2, 3)} or names == {"seed0-latency0.65.yaml"}
    row = next(x.split() for x in "\n".join(details(results)).splitlines() if x.startswith("searched, latency"))
    assert row[-3:] == ["0", f"{point['latency_expected']:.3f}", f"{point['latency']:.3f}"]


def write(tmp_path: Path, chosen: RunConfig) -> Path:
    path = tmp_path / "again.yaml"
    path.write_text(config_yaml(chosen), encoding="utf-8")
    return path


def search_within(path: Path, stop_after: int | None = None) -> tuple[list[list[float]], float]:
    """Operator weights and lambda after three epochs within a budget; stopped before, if that is asked for."""

    def on_epoch(record: Record) -> None:
        if record["epoch"] == stop_after:
            raise KeyboardInterrupt

    regulariser = EnergyBudget(0.4)
    learner = Learner(small_model(), DATA, settings_of("bilevel"), regulariser, 0, Checkpoint(path), on_epoch)
    STRATEGIES["bilevel"](learner)
    return [alpha.tolist() for alpha in learner.model.alphas()], regulariser.lam


def test_a_search_that_was_stopped_goes_on_with_its_lambda(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search_within(tmp_path / "stopped.pt", stop_after=2)
    assert search_within(tmp_path / "stopped.pt") == search_within(tmp_path / "whole.pt")


def test_the_command_takes_budgets_in_place_of_lambdas(
    config: RunConfig, table: CostTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.save(tmp_path / "table.csv")
    search = ("search", tmp_path / "tiny.yaml", "--table", tmp_path / "table.csv", "--out", tmp_path / "runs",
              "--set", "seeds=[0]", "--set", "baselines=[T8]")  # fmt: skip
    code, out, _ = in_process(capsys, *search, "--energy-budget", "0.35", "--energy-budget", "0.5")
    assert code == 0 and "searched, budget 0.35" in out and "searched, budget 0.5" in out and "lambda" not in out
    assert "Pareto set" in out
    code, _, err = in_process(capsys, *search, "--set", "name=other", "--energy-budget", "0.1")
    assert code == 2 and "energy budget: 0.1 is below the cheapest assignment (allowed: at least 0.25)" in err
    assert not (tmp_path / "runs" / "other").exists()


def test_the_command_takes_budgets_of_cycles(
    config: RunConfig, table: CostTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_subwords(table).save(tmp_path / "table.csv")
    table.save(tmp_path / "equal.csv")
    search = ("search", tmp_path / "tiny.yaml", "--out", tmp_path / "runs", "--set", "seeds=[0]",
              "--set", "baselines=[]", "--set", "energy_budgets=[0.8]")  # fmt: skip
    both = ("--latency-budget", "0.65", "--energy-budget", "0.5")
    code, out, _ = in_process(capsys, *search, "--table", tmp_path / "table.csv", *both)
    assert code == 0 and "searched, latency budget 0.65" in out and "searched, budget 0.5" in out
    assert "lambda" not in out and "budget 0.8" not in out  # what the configuration searches is replaced
    assert "Latency: cycles, as shares of the all-typical 8-bit network's:" in out
    equal = (*search, "--table", tmp_path / "equal.csv", "--set", "name=other")
    code, _, err = in_process(capsys, *equal, "--latency-budget", "0.65")
    assert code == 2 and "latency budget: 0.65 is below the cheapest assignment (allowed: at least 1)" in err
    assert not (tmp_path / "runs" / "other").exists()
    code, out, _ = in_process(capsys, *equal, "--energy-budget", "0.5")
    assert code == 0 and "Latency" not in out  # all networks take equally long


def test_space_and_pins_restrict_the_search(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    chosen = changed(tmp_path, "space={space: operators, bits: 4}", "pins={first: T8}")
    assert load_config(write(tmp_path, chosen)) == chosen
    results, _ = start(chosen, table, tmp_path / "run")
    probabilities = results["networks"][-1]["probabilities"]
    assert [list(row) for row in probabilities.values()] == [["T8"], ["T4", "MF4", "BC4"]]
    with pytest.raises(InputError, match=r"candidates: leave no layer a choice"):
        open_run(tmp_path / "other", changed(tmp_path, "pins={first: T8, last: T8}"), table)


def test_budgets_alone_search_no_lambda(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text("name: x\nenergy_budgets: [0.4, 0.6]\n", encoding="utf-8")
    found = load_config(path)
    assert (found.lambdas, found.energy_budgets) == ((), (0.4, 0.6))
    path.write_text("name: x\nlatency_budgets: [0.7]\n", encoding="utf-8")
    found = load_config(path)
    assert (found.lambdas, found.energy_budgets, found.latency_budgets) == ((), (), (0.7,))
