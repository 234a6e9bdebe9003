"""How searched networks are compared with uniform ones, on points made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.table.cost_table import CostTable
from search.runs.config import RunConfig, config_yaml, load_config
from search.runs.results import (
    NO_UNIFORM,
    NONE_AS_CHEAP,
    above_line,
    best_uniform,
    better_throughout,
    gain_over_uniform,
    means,
    most_accurate,
    pareto,
    staircase,
    unequal_passes,
    with_gains,
)
from search.runs.stages import Run
from search.training.measures import ACCURACY, Measure, measure_of
from tests.search.tiny import tiny

MSE = Measure("mse", higher_is_better=False, percent=False)


def uniform(
    candidate: str, energy: float, validation: float, test: float, seed: int = 0, **more: Any
) -> dict[str, Any]:
    return {"kind": "baseline", "seed": seed, "candidate": candidate, "energy": energy,
            "validation_accuracy": validation, "test_accuracy": test, **more}  # fmt: skip


def found(energy: float, test: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"kind": "searched", "seed": seed, "energy": energy, "validation_accuracy": 0.5, "test_accuracy": test,
            "lambda": 1.0, "budget": None, "latency_budget": None, "sample": None, "assignment": {},
            **more}  # fmt: skip


UNIFORM = [
    uniform("T8", 1.0, 0.90, 0.89), uniform("T4", 0.53, 0.85, 0.80), uniform("BC8", 0.49, 0.84, 0.83),
    uniform("BC4", 0.33, 0.70, 0.71), uniform("T2", 0.35, 0.60, 0.65), uniform("T4", 0.53, 0.99, 0.99, seed=1),
]  # fmt: skip


def test_the_best_uniform_network_is_chosen_on_validation_and_compared_on_test() -> None:
    assert gain_over_uniform(found(0.6, 0.84), UNIFORM) == {"gain": pytest.approx(0.04), "over": "T4"}
    assert gain_over_uniform(found(0.5, 0.84), UNIFORM)["over"] == "BC8"  # T4 needs more energy
    assert gain_over_uniform(found(0.36, 0.5), UNIFORM) == {"gain": pytest.approx(-0.21), "over": "BC4"}


def test_no_more_energy_means_the_same_to_the_last_digits_of_a_sum() -> None:
    chosen = best_uniform(found(0.53 * (1 - 1e-12), 0.8), UNIFORM)
    assert chosen is not None and chosen["candidate"] == "T4"
    chosen = best_uniform(found(0.53 * (1 - 1e-6), 0.8), UNIFORM)
    assert chosen is not None and chosen["candidate"] == "BC8"


def test_of_equal_uniform_networks_the_cheaper_is_compared_with() -> None:
    same = [uniform("T8", 1.0, 0.8, 0.7), uniform("T4", 0.5, 0.8, 0.6)]
    assert gain_over_uniform(found(1.0, 0.65), same) == {"gain": pytest.approx(0.05), "over": "T4"}


def test_without_a_uniform_network_as_cheap_there_is_a_reason_and_no_gain() -> None:
    assert gain_over_uniform(found(0.3, 0.9), UNIFORM) == {"gain": None, "over": None, "gain_reason": NONE_AS_CHEAP}
    assert gain_over_uniform(found(0.3, 0.9, seed=7), UNIFORM)["gain_reason"] == NO_UNIFORM


def test_of_an_error_the_smaller_is_better_everywhere() -> None:
    points = [{**p, "validation_metric": 1 - p["validation_accuracy"], "test_metric": 1 - p["test_accuracy"]}
              for p in [*UNIFORM, found(0.6, 0.84)]]  # fmt: skip
    baselines, own = points[:-1], points[-1]
    assert gain_over_uniform(own, baselines, MSE) == {"gain": pytest.approx(0.04), "over": "T4"}
    seed0 = [b for b in baselines if b["seed"] == 0]
    assert staircase(seed0, MSE) == [(e, pytest.approx(1 - v)) for e, v in staircase(UNIFORM[:5])]
    two = [{**own, "validation_metric": v} for v in (0.3, 0.2)]
    assert most_accurate(two, MSE)["validation_metric"] == 0.2
    assert [p["validation_metric"] for p in pareto([{**two[0], "energy": 0.7}, two[1]], MSE)] == [0.2]
    assert better_throughout([own], [{**seed0[1], "validation_metric": 0.1}], MSE) == ["T4"]
    assert better_throughout([own], [{**seed0[1], "validation_metric": 0.9}], MSE) == []
    assert above_line(own, [(0.5, 0.3), (0.7, 0.5)], MSE) == pytest.approx(0.4 - 0.16)


def test_the_staircase_steps_where_validation_improves() -> None:
    assert staircase(UNIFORM[:5]) == [(0.33, 0.71), (0.49, 0.83), (0.53, 0.80), (1.0, 0.89)]
    assert staircase([]) == []


def test_the_staircase_is_what_gains_are_over() -> None:
    for energy in (0.33, 0.4, 0.49, 0.52, 0.53, 0.9, 1.0, 2.0):
        step = max((s for s in staircase(UNIFORM[:5]) if s[0] <= energy), key=lambda s: s[0])
        assert gain_over_uniform(found(energy, 0.5), UNIFORM)["gain"] == pytest.approx(0.5 - step[1])


def test_means_are_of_each_candidate() -> None:
    t4 = next(p for p in means(UNIFORM) if p["candidate"] == "T4")
    assert (t4["validation_accuracy"], t4["test_accuracy"]) == (pytest.approx(0.92), pytest.approx(0.895))


def test_left_of_the_line_nothing_is_above_it() -> None:
    line = [(0.49, 0.8), (1.0, 0.9)]
    assert above_line(found(0.48, 0.85), line) is None
    assert above_line(found(0.49, 0.85), line) == pytest.approx(0.05)
    assert above_line(found(1.5, 0.85), line) == pytest.approx(-0.05)
    assert above_line(found(0.6, 0.85), []) is None


def test_results_of_earlier_versions_get_their_gains() -> None:
    population = {"seed": 0, "selected": 1, "networks": [{"energy": 0.6, "test_accuracy": 0.9}]}
    networks = [*UNIFORM, found(0.6, 0.84, above_line=0.1), found(0.4, 0.84, above_line=0.1)]
    old: dict[str, Any] = {"networks": networks, "populations": [population]}
    new = with_gains(old)
    assert [p.get("over") for p in new["networks"][-2:]] == ["T4", "BC4"]
    # the widest uniform networks there are T8 and BC8, so the line begins at 0.49
    assert [p["above_line"] for p in new["networks"][-2:]] == [0.1, None]
    assert new["populations"][0]["networks"][0]["gain"] == pytest.approx(0.1)
    assert "gain" not in old["networks"][-1] and with_gains(new) == new
    assert measure_of(old) == ACCURACY


def test_unequal_image_passes_are_said() -> None:
    baselines = [uniform("T4", 0.5, 0.8, 0.8, image_passes=40_000)]
    searched = {**found(0.6, 0.9, image_passes=60_000), "over": "T4"}
    text = unequal_passes([searched], baselines)
    assert text is not None and "60,000" in text and "40,000 for all T4" in text
    assert unequal_passes([{**searched, "image_passes": 40_000}], baselines) is None
    assert unequal_passes([{**searched, "image_passes": None}], baselines) is None
    assert unequal_passes([searched], [uniform("T4", 0.5, 0.8, 0.8)]) is None


def test_by_default_all_candidates_that_can_be_mapped_are_baselines(tmp_path: Path, make_table: Any) -> None:
    table: CostTable = make_table(tiny())
    rows = [{**r, "status": "failed"} if (r["layer"], r["candidate"]) == ("fc", "MF2") else r for r in table.rows]
    every = Run(tmp_path, RunConfig(name="x"), table).baselines
    assert every == ("T8", "T4", "T2", "MF8", "MF4", "MF2", "BC8", "BC4", "BC2")
    assert "MF2" not in Run(tmp_path, RunConfig(name="x"), CostTable(tuple(rows))).baselines
    assert {s.candidate for s in Run(tmp_path, RunConfig(name="x"), table).stages if s.kind == "baseline"} == {*every}
    (tmp_path / "run.yaml").write_text("name: x\nbaselines: paper", encoding="utf-8")
    config = load_config(tmp_path / "run.yaml")
    assert Run(tmp_path, config, table).baselines == ("T8", "MF8", "BC8")
    (tmp_path / "again.yaml").write_text(config_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config
