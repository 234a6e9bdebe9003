"""Runs from end to end with networks, data, losses and metrics of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.core.errors import InputError
from search.export.network_folder import _chosen
from search.report.run_page import summary, write_report
from search.report.text import details
from search.runs.config import RunConfig, config_yaml, load_config
from search.runs.inputs import network_of
from search.runs.records import read_results
from search.runs.run import do_run, open_run
from search.runs.stages import Run
from tests.search.own_tasks import squares

ROOT = Path(__file__).parents[3]

RUN = """
name: own
threads: 1
jobs: 1
network: {{factory: "tests.search.own_tasks:{network}"}}
data: {data}
lambdas: [0.5]
seeds: [0]
baselines: [T8, BC4, T2]
search: {{mode: single_level, epochs: 2, warmup_epochs: 1, batch_size: 20, lr: 0.02}}
relearn: {{epochs: 2, batch_size: 20, lr: 0.02}}
"""


TAUGHT = {"pretrain": "{epochs: 1}", "distill": "{weight: 0.5}"}


def configured(tmp_path: Path, network: str, data: str, **more: str) -> RunConfig:
    text = RUN.format(network=network, data=data) + "".join(f"{k}: {v}\n" for k, v in more.items())
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "own.yaml")


def done(config: RunConfig, tmp_path: Path, make_table: Any) -> tuple[dict[str, Any], Run]:
    run = open_run(tmp_path / "run", config, make_table(network_of(config)))
    return do_run(run, lambda stage, record: None), run


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def factory(name: str) -> str:
    return f'{{factory: "tests.search.own_tasks:{name}"}}'


def test_a_resnet20_is_searched_on_data_of_ones_own(tmp_path: Path, make_table: Any) -> None:
    data = '{factory: "tests.search.own_tasks:squares", args: {n: 80}}'
    config = configured(tmp_path, "resnet20", data)
    results, run = done(config, tmp_path, make_table)
    assert results["data"] == {"name": "tests.search.own_tasks:squares", "train": 72, "validation": 8, "test": 40,
                               "subset": None, "notice": None}  # fmt: skip
    assert len(results["networks"][-1]["assignment"]) == 22 and "metric" not in results
    assert all(0 <= p["test_accuracy"] <= 1 for p in results["networks"])
    (tmp_path / "again.yaml").write_text(config_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config
    assert write_report(run.folder).is_file()


def test_a_segmentation_is_judged_by_its_mean_iou(tmp_path: Path, make_table: Any) -> None:
    config = configured(tmp_path, "segmentation", factory("masks"), metric="mean_iou")
    results, run = done(config, tmp_path, make_table)
    assert results["metric"] == {"name": "mean_iou", "higher_is_better": True, "percent": True}
    t8, found = results["networks"][0], results["networks"][-1]
    assert 1 / 3 < t8["test_metric"] <= 1 and "test_accuracy" not in t8  # more than all background gives
    assert {"validation_metric_discretised", "gain"} < set(found)
    assert "%" in summary(results) and write_report(run.folder).is_file()
    assert read_results(run.folder / "results.json")["networks"] == results["networks"]


def test_of_a_regression_the_smallest_error_is_best_everywhere(tmp_path: Path, make_table: Any) -> None:
    config = configured(tmp_path, "regression", factory("sums"), loss="mse", metric="mse")
    results, run = done(replace(config, lambdas=(0.1, 5.0)), tmp_path, make_table)
    t8, _, t2, found, other = results["networks"]
    assert t8["test_metric"] < t2["test_metric"]  # 8 bits learn more than 2
    over = next(p for p in results["networks"] if p.get("candidate") == found["over"])
    assert found["gain"] == pytest.approx(over["test_metric"] - found["test_metric"])
    least = min(found, other, key=lambda p: p["validation_metric"])
    assert _chosen(run, None).lam == least["lambda"]
    text = "\n".join([summary(results), *details(results)])
    assert f"{found['test_metric']:.4g}" in text and "%" not in text
    assert "in mse" in write_report(run.folder).read_text(encoding="utf-8")
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all("validation_metric" in e for e in entries if "epoch" in e)


def test_a_language_learns_its_next_tokens(tmp_path: Path, make_table: Any) -> None:
    config = configured(tmp_path, "language", factory("counting"), loss="next_token", metric="perplexity")
    results, _ = done(config, tmp_path, make_table)
    assert results["networks"][0]["test_metric"] < 7  # of seven tokens that are as probable


@pytest.mark.parametrize(
    ("network", "data", "more"),
    [
        ("segmentation", "masks", {"metric": "mean_iou"}),
        ("segmentation", "masks", {"metric": "mean_iou", "loss": "tests.search.own_tasks:weighted"}),
        ("language", "counting", {"loss": "next_token", "metric": "perplexity"}),
    ],
)
def test_whatever_gives_class_scores_learns_from_a_teacher(
    network: str, data: str, more: dict[str, str], tmp_path: Path, make_table: Any
) -> None:
    texts = {"pretrain": "{epochs: 1, batch_size: 20, lr: 0.02}", "distill": "{weight: 0.5}", **more}
    config = replace(configured(tmp_path, network, factory(data), **texts), baselines=("T2",))
    _, run = done(config, tmp_path, make_table)
    plain = replace(config, distill=None)
    _, alone = done(plain, tmp_path / "plain", make_table)
    first, other = (json.loads((r.folder / "stages" / "seed0-baseline-T2.json").read_text())["history"][0]["loss"]
                    for r in (run, alone))  # fmt: skip
    assert first != other, "the divergence from the teacher is in the loss"


def test_an_npz_file_is_searched_on(tmp_path: Path, make_table: Any) -> None:
    parts = squares(60)
    np.savez(tmp_path / "squares.npz", x_train=parts["train"][0].numpy(), y_train=parts["train"][1].numpy(),
             x_test=parts["test"][0].numpy(), y_test=parts["test"][1].numpy())  # fmt: skip
    config = configured(tmp_path, "resnet20", f'{{path: "{tmp_path / "squares.npz"}"}}')
    run = Run(tmp_path / "run", config, make_table(network_of(config)))
    assert open_run(tmp_path / "run", config, run.table) == run
    assert config.data.label == "squares.npz"


def test_what_cannot_fit_is_found_before_training(tmp_path: Path, make_table: Any) -> None:
    for network, data, more, problem in [
        ("regression", "sums", {}, r"^loss: found 'cross_entropy', but the targets of .*:sums are numbers"),
        ("regression", "sums", {"loss": "mse"}, r"^metric: found 'accuracy', but the .*mse, mae, pack"),
        ("segmentation", "squares", {}, r"^network: gives \(2, 3, 8, 8\) for 2 images"),
        ("resnet20", "sums", {"loss": "mse", "metric": "mse"}, r"does not run|takes images"),
        ("language", "counting", {"loss": "next_token", "metric": "mse"}, r"^metric: found 'mse', but the targets"),
        (
            "one_channel",
            "masks",
            {"loss": "tests.search.own_tasks:of_one_channel", "metric": "mean_iou", **TAUGHT},
            r"^distill: the network gives \(2, 1, 8, 8\), no scores of two or more classes",
        ),
        ("language", "nothing", {}, r"^data.factory 'tests.search.own_tasks:nothing': .* has no 'nothing'"),
    ]:
        config = configured(tmp_path, network, factory(data), **more)
        with pytest.raises(InputError, match=problem) as caught:
            open_run(tmp_path / "run", config, make_table(network_of(config)))
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
