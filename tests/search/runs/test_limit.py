"""Runs that stop at a limit of time and go on, and the plan of what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from search.runs.config import RunConfig
from search.runs.forecast import describe, plan
from search.runs.inputs import compute
from search.runs.limit import Limit, OutOfTimeError
from search.runs.run import do_run, open_run
from search.training.cuda_graphs import GraphedLoss
from search.training.train import Compute
from tests.cli.test_search import enos
from tests.search.conftest import synthetic_table
from tests.search.runs.test_run import TINY
from tests.search.tiny import tiny


def test_a_limit_leaves_no_time_for_an_epoch_that_would_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("search.runs.limit.time.monotonic", lambda: now[0])
    limit = Limit(1)
    limit.check(True, {"seconds": 50.0})
    limit.check(False, {"seconds": 5.0})
    now[0] = 54.0
    limit.check(False, {"seconds": 4.0})
    with pytest.raises(OutOfTimeError):
        limit.check(True, {"seconds": 1.0})  # another one took 50 s
    now[0] = 56.0
    with pytest.raises(OutOfTimeError):
        limit.check(False, {})
    now[0] = 1e9
    Limit(None).check(True, {"seconds": 1e9})


class After(Limit):
    """Ends a run behind a number of entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.left = entries

    def check(self, searching: bool, entry: object) -> None:
        self.left -= 1
        if self.left <= 0:
            raise OutOfTimeError


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    from search.runs.config import load_config

    (tmp_path / "tiny.yaml").write_text(TINY.replace("[0, 1]", "[0]"), encoding="utf-8")
    return load_config(tmp_path / "tiny.yaml")


def without_seconds(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_stops_often_finds_what_it_finds_at_once(config: RunConfig, tmp_path: Path, jobs: int) -> None:
    assert stopped_often(config, tmp_path, jobs) == without_seconds(tmp_path / "whole")


def stopped_often(config: RunConfig, tmp_path: Path, jobs: int) -> list[dict[str, object]]:
    """Metrics of a run that was stopped several times; the same run at once is in ``whole``."""
    table = synthetic_table(tiny())
    do_run(open_run(tmp_path / "whole", config, table), lambda *_: None)
    stops = 0
    for entries in range(3, 60, 2) if jobs == 1 else range(3, 60, 4):  # workers take seconds to start
        try:
            do_run(open_run(tmp_path / "parts", config, table), lambda *_: None, jobs, After(entries))
        except OutOfTimeError:
            stops += 1
            continue
        break
    assert stops >= (3 if jobs == 1 else 2)  # of several workers, some have ended when the limit is noticed
    return without_seconds(tmp_path / "parts")


def test_the_plan_counts_what_is_done_and_writes_nothing(config: RunConfig, tmp_path: Path) -> None:
    from search.runs.stages import Run

    table, folder = synthetic_table(tiny()), tmp_path / "run"
    before = plan(Run(folder, config, table))
    assert not folder.exists() and {p.done for p in before} == {0} and {p.seconds for p in before} == {None}
    assert "not known" in describe(before)[-1]
    with pytest.raises(OutOfTimeError):
        do_run(open_run(folder, config, table), lambda *_: None, 1, After(6))  # a search and two epochs of a baseline
    found = plan(Run(folder, config, table))
    assert [(p.stage.kind, p.done, p.epochs) for p in found] == [
        ("search", 3, 3), ("baseline", 2, 3), ("baseline", 0, 3), ("relearn", 0, 3)
    ]  # fmt: skip
    assert all(p.seconds is not None for p in found)
    (first,) = {(p.steps, p.images) for p in found}
    assert first[1] == 40 * first[0]
    assert "about" in describe(found)[-1]
    assert "not within" in describe(found, 1e-6)[1] and "not within" not in describe(found, 1e6)[1]


def test_minutes_and_plan_on_the_command_line(tmp_path: Path) -> None:
    synthetic_table(tiny()).save(tmp_path / "table.csv")
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    given = ("search", tmp_path / "tiny.yaml", "--table", tmp_path / "table.csv", "--out", tmp_path / "runs")
    planned = enos(*given, "--plan")
    assert planned.returncode == 0 and "seed1-relearn-0.5" in planned.stdout and not (tmp_path / "runs").exists()
    stopped = enos(*given, "--minutes", 1e-6)
    assert stopped.returncode == 0 and "command resumes" in stopped.stdout and "0 of 8 stages" in stopped.stdout
    for minutes in (0, "nan", "inf", "soon"):
        refused = enos(*given, "--minutes", minutes)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--minutes" in refused.stderr
    away = enos(*given, "--device", "cuda:99")
    assert away.returncode == 2 and "device: 'cuda:99' is not available" in away.stderr


def test_graphs_are_for_gpus(config: RunConfig) -> None:
    assert not compute(config).graphs
    assert not isinstance(Compute(graphs=True).losses(tiny().module), GraphedLoss)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["bilevel", "sequential", "variational"])
def test_a_run_on_a_gpu_that_stops_often_finds_what_it_finds_at_once(
    config: RunConfig, tmp_path: Path, mode: str
) -> None:
    from dataclasses import replace

    from search.strategies.settings import Sequential, Variational

    settings = config.search
    if mode != "bilevel":
        kind = Sequential if mode == "sequential" else Variational
        settings = kind(warmup_epochs=1, batch_size=40, lr=0.01)
    on_gpu = replace(config, device="cuda", search=settings)
    torch.manual_seed(0)
    assert stopped_often(on_gpu, tmp_path, 1) == without_seconds(tmp_path / "whole")


def test_results_name_a_gpu_and_a_reduced_precision(config: RunConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    assert [replace(config, device=d, amp=a).reduced for d in ("cpu", "cuda:0") for a in (None, True, False)] == [
        False, True, False, True, True, False
    ]  # fmt: skip
    table = synthetic_table(tiny())
    for amp, named in ((None, None), (True, {"device": "cpu", "precision": "bfloat16"})):
        found = do_run(open_run(tmp_path / str(amp), replace(config, amp=amp), table), lambda *_: None)
        assert found.get("computed") == named
