"""Runs of the modes from end to end: populations that are trained once, cycles, sweeps, and a kill in each of them."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.report.run_page import write_report
from search.report.text import details
from search.runs.config import RunConfig, config_yaml, load_config
from search.runs.results import merged, most_accurate, pareto
from search.runs.run import do_run, open_run
from search.runs.stages import Run, search_epochs
from tests.cli.test_search import in_process
from tests.search.runs.test_run import Process, assert_same, config, start, table

__all__ = ["config", "table"]  # fixtures

STOCHASTIC = ["search.mode=stochastic", "search.samples=7", "candidates=[T8, BC8]", "lambdas=[0.0, 0.5]"]


def changed(tmp_path: Path, *changes: str) -> RunConfig:
    return load_config(tmp_path / "tiny.yaml", changes)


def test_a_population_is_sampled_relearnt_and_selected_on_validation(
    config: RunConfig, table: CostTable, tmp_path: Path
) -> None:
    chosen = changed(tmp_path, *STOCHASTIC)
    results, worked = start(chosen, table, tmp_path / "run")
    run = Run(tmp_path / "run", chosen, table)
    assert len(worked) == sum(map(run.epochs, run.stages)) == 2 * (2 * 3 + 2 * 3 + 2 * 7 * 3)
    assert [(p["seed"], p["lambda"]) for p in results["populations"]] == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5)]
    searched = [p for p in results["networks"] if p["kind"] == "searched"]
    for population, point in zip(results["populations"], searched, strict=True):
        networks = population["networks"]
        assert sum(p["count"] for p in networks) == 7 and 1 < len(networks) <= 4  # two layers, two candidates
        best = next(p for p in networks if p["sample"] == population["selected"])
        assert best["validation_accuracy"] == max(p["validation_accuracy"] for p in networks)
        assert {k: point[k] for k in ("assignment", "energy", "test_accuracy", "above_line")} == {
            k: best[k] for k in ("assignment", "energy", "test_accuracy", "above_line")
        }
        for p in networks:
            assert p["energy"] == pytest.approx(table.total_pj(p["assignment"]) / results["unit_pj"])
            file = f"seed{population['seed']}-lambda{population['lambda']}-sample{p['sample']}.yaml"
            assert yaml.safe_load((run.folder / "assignments" / file).read_text()) == p["assignment"]


def test_what_was_trained_before_is_not_trained_again(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    chosen = changed(tmp_path, *STOCHASTIC)
    start(chosen, table, tmp_path / "run")
    run = Run(tmp_path / "run", chosen, table)
    trained = [s for s in run.stages if s.kind != "search" and run.checkpoint(s).path.exists()]
    for seed in (0, 1):
        distinct = {json.dumps(run.assignment(s)) for s in run.stages if s.kind != "search" and s.seed == seed}
        assert 2 < len(distinct) <= 4 == len(list(itertools.product("TB", repeat=2)))
        assert len([s for s in trained if s.seed == seed]) == len(distinct)
    for stage in run.stages:
        twins = run.twins(stage, run.stages)
        assert all(but_passes(run.record(twin)) == but_passes(run.record(stage)) for twin in twins)


def but_passes(record: dict[str, Any]) -> dict[str, Any]:
    """Without the passes of what a network came from: a baseline comes from no search."""
    result = {k: v for k, v in record["result"].items() if not k.startswith("image_passes")}
    return {**record, "result": result}


def test_the_variational_mode_takes_the_most_probable_or_samples(
    config: RunConfig, table: CostTable, tmp_path: Path
) -> None:
    one = changed(tmp_path, "search.mode=variational", "seeds=[0]")
    results, _ = start(one, table, tmp_path / "one")
    point = results["networks"][-1]
    assert results["populations"] == []
    assert all(max(row, key=row.get) == point["assignment"][layer] for layer, row in point["probabilities"].items())
    several, _ = start(replace(one, search=replace(one.search, samples=3)), table, tmp_path / "several")  # type: ignore[call-arg]
    assert sum(p["count"] for p in several["populations"][0]["networks"]) == 3
    assert several["networks"][-1]["probabilities"] == point["probabilities"]


def test_noise_from_inside_sram_is_reported(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    by = ["search.sampler=mc2ram", "search.macro={burn_in: 9}", "seeds=[0]"]
    results, _ = start(changed(tmp_path, *STOCHASTIC, *by), table, tmp_path / "run")
    assert [(s["seed"], s["lambda"]) for s in results["sampling"]] == [(0, 0.0), (0, 0.5)]
    for s in results["sampling"]:
        assert (s["sampler"], s["numbers"], s["iterations"]) == ("mc2ram", 7 * 2 * 2, 7 * 2 * 2 * 10)  # 2 layers
        assert s["cycles"] == 4 * s["iterations"] and s["energy_pj"] == pytest.approx(0.091 * s["iterations"])
    text = "\n".join(details(results))
    assert "Sampling by mc2ram, lambda 0.5, seed 0: 28 numbers in 280 iterations, 1,120 cycles, 0.02548 nJ" in text
    write_report(tmp_path / "run")
    assert "Sampling by mc2ram, lambda 0.5, seed 0: 28 numbers" in (tmp_path / "run" / "report.html").read_text()
    assert "sampling" not in start(changed(tmp_path, *STOCHASTIC, "seeds=[0]"), table, tmp_path / "exact")[0]


def test_cycles_are_kept(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    chosen = changed(tmp_path, "search.mode=sequential", "search.epochs=null", "seeds=[0]")
    results, worked = start(chosen, table, tmp_path / "run")
    assert search_epochs(Run(tmp_path / "run", chosen, table)) == 3 and len(worked) == 2 * 3 + 3 + 3
    point = results["networks"][-1]
    assert {c["layer"]: c["candidate"] for c in point["cycles"]} == point["assignment"]
    assert [c["cycle"] for c in point["cycles"]] == [1, 2]
    text = "\n".join(details(results))
    assert "Cycles of seed 0, lambda 0.5:" in text and text.count("\n") == 1 + 2 + 1 + 2


def test_a_sweep_gives_the_pareto_set(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    chosen = changed(tmp_path, "lambdas=[0, 0.3, 1, 30]", "search.mode=single_level", "search.alpha_lr=0.3")
    results, _ = start(chosen, table, tmp_path / "run")
    searched = [p for p in results["networks"] if p["kind"] == "searched"]
    assert len(searched) == 8 and {p["seed"] for p in results["pareto"]} == {0, 1}
    kept = {(p["seed"], p["energy"], p["validation_accuracy"]) for p in results["pareto"]}
    for p in searched:
        beaten = any(
            q["seed"] == p["seed"]
            and q["energy"] <= p["energy"]
            and q["validation_accuracy"] >= p["validation_accuracy"]
            and (q["energy"], q["validation_accuracy"]) != (p["energy"], p["validation_accuracy"])
            for q in searched
        )
        assert ((p["seed"], p["energy"], p["validation_accuracy"]) in kept) is not beaten
    assert "Pareto set" in details(results)[-1]


def point(sample: int, energy: float, validation: float, test: float) -> dict[str, Any]:
    return {"seed": 0, "lambda": 1.0, "budget": None, "latency_budget": None, "sample": sample, "energy": energy,
            "validation_accuracy": validation, "test_accuracy": test, "assignment": {"a": f"{energy}"}}  # fmt: skip


def test_samples_are_merged_and_the_test_set_selects_nothing() -> None:
    drawn = [point(1, 0.5, 0.8, 0.1), point(2, 0.7, 0.8, 0.9), point(3, 0.5, 0.8, 0.1), point(4, 0.9, 0.7, 1.0)]
    distinct = merged(drawn)
    assert [(p["sample"], p["count"]) for p in distinct] == [(1, 2), (2, 1), (4, 1)]
    assert most_accurate(distinct)["sample"] == 1  # of equals the cheaper
    assert [p["sample"] for p in pareto(distinct)] == [1]
    assert [p["sample"] for p in pareto([*distinct, point(5, 0.2, 0.1, 0.0)])] == [5, 1]


def test_a_search_without_a_choice_is_refused(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"candidates: leave no layer a choice"):
        open_run(tmp_path / "run", changed(tmp_path, "candidates=[T8]"), table)


@pytest.mark.parametrize(
    ("changes", "line", "jobs"),
    [
        (("search.mode=sequential", "search.epochs=null", "search.cycle_epochs=2"), 5, 1),
        (("search.mode=stochastic", "search.samples=4", "candidates=[T8, BC8]", "seeds=[0]"), 10, 2),
        (("search.mode=variational", "search.sampler=mc2ram", "search.samples=2", "seeds=[0]", "baselines=[T8]"), 5, 1),
    ],
)
def test_killed_and_started_again_gives_the_same(
    config: RunConfig, table: CostTable, tmp_path: Path, changes: tuple[str, ...], line: int, jobs: int
) -> None:
    chosen = changed(tmp_path, *changes)
    (tmp_path / "tiny.yaml").write_text(config_yaml(chosen), encoding="utf-8")
    table.save(tmp_path / "table.csv")
    start(chosen, table, tmp_path / "whole")
    killed = Process(tmp_path, jobs, line)
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not (killed.run / "results.json").exists()
    start(replace(chosen, jobs=jobs), table, killed.run)
    assert_same(killed.run, tmp_path / "whole")


def test_the_commands_show_cycles_and_populations(
    config: RunConfig, table: CostTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.save(tmp_path / "table.csv")
    search = ("search", tmp_path / "tiny.yaml", "--table", tmp_path / "table.csv", "--out", tmp_path / "runs",
              "--set", "seeds=[0]", "--set", "baselines=[T8]", "--device", "cpu")  # fmt: skip
    sequential = ("--set", "name=a", "--set", "search.mode=sequential", "--set", "search.epochs=null")
    code, out, _ = in_process(capsys, *search, *sequential)
    assert code == 0 and "Cycles of seed 0, lambda 0.5:\ncycle  layer  candidate  weight" in out
    code, out, _ = in_process(capsys, *search, "--set", "name=b", "--set", "search.mode=stochastic")
    assert code == 0 and "Population of seed 0, lambda 0.5; * is best on the validation images:\nsample" in out
    drawn, layer = (next(x.split() for x in out.splitlines() if x.startswith(name)) for name in ("drawn ", "conv "))
    assert sum(map(int, drawn[1:])) == 6 and len(layer) == len(drawn) and layer[1] in table.candidates
    for wrong, problem in [
        (("--set", "search.mode=sequential"), "search.epochs: mode sequential does not use it (allowed: mode,"),
        (("--device", "tpu"), "device: found 'tpu'"),
        (("--device", "cuda:99"), "device: 'cuda:99' is not available to torch"),
    ]:
        code, _, err = in_process(capsys, *search, "--set", "name=c", *wrong)
        assert code == 2 and problem in err and err.count("\n") == 1


def test_event_files_come_with_a_run(config: RunConfig, table: CostTable, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    chosen = changed(tmp_path, "seeds=[0]", "baselines=[T8]")
    plain, _ = start(chosen, table, tmp_path / "run")
    run = open_run(tmp_path / "run", replace(chosen, tensorboard=True), table)  # it decides no results
    assert do_run(run, lambda stage, record: None) == plain
    assert {p.name for p in (run.folder / "tensorboard").iterdir()} == {stage.name for stage in run.stages}
