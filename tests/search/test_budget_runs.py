"""Runs within an energy budget, in every mode, and with the space and pins of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import InputError
from dse.table import CostTable
from search.checkpoint import Checkpoint, Record
from search.config import RunConfig, config_yaml, load_config
from search.costs import share
from search.objective import EnergyBudget
from search.runs import open_run
from search.strategies import STRATEGIES
from search.strategies.learner import Learner
from tests.search.strategies.helpers import DATA, settings_of, small_model
from tests.search.test_cli import in_process
from tests.search.test_runs import config, start, table

__all__ = ["config", "table"]  # fixtures


def changed(tmp_path: Path, *changes: str) -> RunConfig:
    return load_config(tmp_path / "tiny.yaml", ["seeds=[0]", "baselines=[T8]", *changes])


@pytest.mark.parametrize(
    "mode",
    [
        ("search.mode=single_level",),
        ("search.mode=bilevel",),
        ("search.mode=sequential", "search.epochs=null"),
        ("search.mode=stochastic", "search.samples=3"),
        ("search.mode=variational",),
    ],
)
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
