"""Runs from trained weights: what starts from what, that a pretraining is done once, and that passes are equal."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dse.core.errors import InputError
from dse.table.cost_table import CostTable
from search.runs import work as work_module
from search.runs.config import RunConfig, load_config
from search.runs.forecast import describe, plan
from search.runs.inputs import dataset, network_of
from search.runs.limit import OutOfTimeError
from search.runs.records import read_results
from search.runs.run import do_run, open_run
from search.runs.stages import Run, Stage, teacher_of
from search.runs.work import do_stage
from search.strategies.settings import MODES
from search.training.train import accuracy
from search.training.weights import read_weights
from tests.search.runs.test_limit import After
from tests.search.runs.test_run import ROOT, SMALL, Process, assert_same, start

WARM = f"""{SMALL}
seeds: [0]
pretrain: {{epochs: 3, batch_size: 40, lr: 0.02}}
search: {{epochs: 2, warmup_epochs: 1, batch_size: 40, lr: 0.01}}
relearn: {{epochs: 2, batch_size: 40, lr: 0.01}}
"""
STILL = 1e-12
"""A learning rate that leaves weights where they are."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ENOS_STORE", str(tmp_path / "store.sqlite"))
    (tmp_path / "tiny.yaml").write_text(WARM, encoding="utf-8")
    return tmp_path


@pytest.fixture
def table(folder: Path, make_table: Any) -> CostTable:
    found: CostTable = make_table(network_of(changed(folder)))
    return found


def changed(folder: Path, *changes: str) -> RunConfig:
    return load_config(folder / "tiny.yaml", changes)


def conv(run: Run, stage: Stage) -> Tensor:
    """The weights of the first layer behind a stage."""
    parts = torch.load(run.checkpoint(stage).path, weights_only=True)["parts"]
    part: dict[str, Tensor] = parts["model" if stage.kind == "search" else "network"]
    (found,) = (value for name, value in part.items() if name.endswith("conv.layer.weight"))
    return found


def fresh(config: RunConfig, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return network_of(config).module.get_parameter("conv.weight").detach()


def near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-6)


def of_kind(run: Run, kind: str) -> Stage:
    return next(stage for stage in run.stages if stage.kind == kind)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_starts_from_the_pretrained_weights(folder: Path, table: CostTable, mode: str) -> None:
    epochs = {"sequential": [], "sensitivity": ["search.calibration_steps=0"]}.get(mode, ["search.epochs=2"])
    config = changed(folder, "search=null", f"search.mode={mode}", "search.warmup_epochs=1", "search.batch_size=40",
                     *epochs, f"search.lr={STILL}", f"relearn.lr={STILL}", "baselines=[BC8]")  # fmt: skip
    start(config, table, folder / "run")
    run = Run(folder / "run", config, table)
    assert [stage.kind for stage in run.stages][:2] == ["pretrain", "search"]
    pretrained = read_weights(run.weights_file(0))["conv.weight"]
    assert not near(pretrained, fresh(config))
    for kind in ("pretrain", "search", "relearn", "baseline"):
        assert near(conv(run, of_kind(run, kind)), pretrained), kind


@pytest.mark.parametrize(
    ("search_from", "relearn_from", "baselines"),
    [
        ("scratch", "pretrained", "pretrained"),
        ("pretrained", "scratch", "scratch"),
        ("pretrained", "search", "pretrained"),
    ],
)
def test_each_part_starts_where_it_is_told(
    folder: Path, table: CostTable, search_from: str, relearn_from: str, baselines: str
) -> None:
    rate = 0.01 if relearn_from == "search" else STILL
    config = changed(folder, f"search.from={search_from}", f"relearn.from={relearn_from}", f"search.lr={rate}",
                     f"relearn.lr={STILL}")  # fmt: skip
    start(config, table, folder / "run")
    run = Run(folder / "run", config, table)
    found = {kind: conv(run, of_kind(run, kind)) for kind in ("search", "relearn", "baseline")}
    weights = {"scratch": fresh(config), "pretrained": read_weights(run.weights_file(0))["conv.weight"],
               "search": found["search"]}  # fmt: skip
    assert not near(weights["scratch"], weights["pretrained"])
    if relearn_from == "search":
        assert not near(weights["search"], weights["pretrained"])
    else:
        assert near(found["search"], weights[search_from])
    assert near(found["relearn"], weights[relearn_from])
    assert near(found["baseline"], weights[baselines])


def test_killed_at_any_moment_and_started_again_gives_the_same(
    folder: Path, table: CostTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.save(folder / "table.csv")
    start(changed(folder), table, folder / "whole")
    monkeypatch.setenv("ENOS_STORE", str(folder / "other" / "store.sqlite"))  # where no pretraining is kept
    for line in (2, 3, 6):  # within the pretraining, behind its last epoch but before its record, within a search
        killed = Process(folder, 1, line)
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert not (killed.run / "results.json").exists()
    start(changed(folder), table, killed.run)
    assert_same(killed.run, folder / "whole")
    assert list((folder / "other" / "pretrained").iterdir())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "sensitivity"])
def test_a_search_of_drawn_candidates_that_is_resumed_finds_the_same(folder: Path, table: CostTable, mode: str) -> None:
    epochs = [] if mode == "sequential" else ["search.epochs=3"]
    config = changed(folder, "search=null", f"search.mode={mode}", "search.warmup_epochs=1", "search.batch_size=40",
                     *epochs, "search.paths=2", "baselines=[]", "energy_budgets=[0.5]", "lambdas=[]")  # fmt: skip
    whole, _ = start(config, table, folder / "whole")
    for entries in (5, 2):  # after the first epoch of the search, which is reported again, and the second
        with pytest.raises(OutOfTimeError):
            do_run(open_run(folder / "run", config, table), lambda *_: None, 1, After(entries))
    resumed, _ = start(config, table, folder / "run")
    assert resumed == whole
    every, _ = start(replace(config, search=replace(config.search, paths=None)), table, folder / "every")
    assert every["networks"][0]["image_passes"] == whole["networks"][0]["image_passes"]
    runs = (Run(folder / name, config, table) for name in ("whole", "every"))
    drawn, all_of_them = (run.record(of_kind(run, "search"))["history"][0]["loss"] for run in runs)
    assert drawn != all_of_them


def test_workers_wait_for_the_pretraining_and_find_the_same(folder: Path, table: CostTable) -> None:
    config = changed(folder, "seeds=[0, 1]", "distill.weight=0.5")
    start(config, table, folder / "whole")
    shutil.rmtree(folder / "pretrained")
    run = open_run(folder / "run", config, table)
    do_run(run, lambda stage, record: None, jobs=2)
    assert_same(run.folder, folder / "whole")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The settings of every training that is begun."""
    found: list[object] = []
    learn = work_module.learn  # type: ignore[attr-defined]

    def counted(network: Any, data: Any, settings: Any, *rest: Any) -> Any:
        found.append(settings)
        return learn(network, data, settings, *rest)

    monkeypatch.setattr(work_module, "learn", counted)
    return found


def test_a_pretraining_is_done_once_for_all_runs(folder: Path, table: CostTable, trainings: list[object]) -> None:
    config = changed(folder)
    first, _ = start(config, table, folder / "a")
    assert trainings.count(config.pretrain) == 1
    again, worked = start(config, table, folder / "b")
    assert trainings.count(config.pretrain) == 1
    assert again == first and worked.count("seed0-pretrain-T8") == 3
    trainings.clear()
    others = ["lambdas=[0.1]", "baselines=[T4]", "relearn.epochs=1", "search.mode=single_level", "name=z", "distill={}",
              "transmission=on_chip", "candidates=[T8, BC8]"]  # fmt: skip
    for i, change in enumerate(others):
        pretrain(changed(folder, change), table, folder / f"same{i}")
    assert not trainings
    # The last but one makes the same network, but arguments may change what no weight shows.
    changes = ["pretrain.lr=0.03", "pretrain.epochs=2", "pretrain.candidate=T4", "pretrain.schedule=constant",
               "seeds=[1]", "data.subset=300", "data.augment=true", "layers.quantiser=lsq",
               "network.args={width: 6, image: 8}", "amp=true"]  # fmt: skip
    for i, change in enumerate(changes):
        pretrain(changed(folder, change), table, folder / f"other{i}")
        assert len(trainings) == i + 1, change


def pretrain(config: RunConfig, table: CostTable, folder: Path) -> None:
    """The first stage of a run."""
    run = open_run(folder, config, table)
    do_stage(run, run.stages[0], lambda record: None)


def test_damaged_entries_are_computed_again(folder: Path, table: CostTable, trainings: list[object]) -> None:
    config = changed(folder)
    first, _ = start(config, table, folder / "a")
    (entry,) = (folder / "pretrained").iterdir()
    whole = entry.read_bytes()
    middle = len(whole) // 2
    for i, damaged in enumerate((b"", whole[:-1], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])):
        entry.write_bytes(damaged)
        again, _ = start(config, table, folder / f"b{i}")
        assert again == first and trainings.count(config.pretrain) == i + 2
        assert [file.name for file in (folder / "pretrained").iterdir()] == [entry.name]  # nothing half-written
        start(config, table, folder / f"c{i}")
        assert trainings.count(config.pretrain) == i + 2


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(
    folder: Path, table: CostTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("ENOS_STORE", str(folder / "file" / "store.sqlite"))
    start(changed(folder), table, folder / "run")
    assert "is not kept for other runs" in caplog.text


def test_networks_of_equal_passes_are_compared(folder: Path, table: CostTable) -> None:
    # 40 images a step; the search has a validation batch for each step behind its warm-up.
    config = changed(folder, "search.epochs=4")
    results, worked = start(config, table, folder / "run")
    run = Run(folder / "run", config, table)
    images = 40 * (len(dataset(config, 0).train) // 40)
    parts = {"pretrain": 3 * images, "search": (4 + 3) * images, "relearn": 2 * images}
    *baselines, searched = results["networks"]
    assert searched["image_passes_of"] == parts and searched["image_passes"] == 12 * images
    for point in baselines:
        assert point["image_passes_of"] == {"pretrain": 3 * images, "search": 0, "relearn": 9 * images}
        assert point["image_passes"] == searched["image_passes"]
    assert worked.count("seed0-baseline-BC8") == 9
    assert run.record(of_kind(run, "search"))["result"]["image_passes"] == 10 * images
    (pretrained,) = results["pretrained"]
    assert pretrained["image_passes"] == 3 * images and pretrained["candidate"] == "T8"
    assert read_results(folder / "run" / "results.json") == {"populations": [], **results}


def test_epochs_of_baselines_are_shortened_to_equal_passes(folder: Path, table: CostTable) -> None:
    mode = ("search=null", "search.mode=sensitivity", "search.images=64", "search.calibration_steps=2")
    config = changed(folder, *mode)
    results, worked = start(config, table, folder / "run")
    *baselines, searched = results["networks"]
    assert searched["image_passes_of"]["search"] == 2 * 64  # no whole number of epochs
    epochs = worked.count("seed0-baseline-BC8")
    assert epochs == config.relearn.epochs + 1
    for point in baselines:
        more = point["image_passes"] - searched["image_passes"]
        assert 0 <= more < epochs * config.relearn.batch_size


@pytest.mark.parametrize(
    ("changes", "relearned", "baseline", "epochs"),
    [  # parts in epochs: pretraining, search, training
        (["relearn.from=scratch"], (3, 3, 2), (0, 0, 8), 8),
        (["relearn.from=scratch", "search.from=scratch", "distill={}"], (3, 3, 2), (3, 0, 5), 5),
        (["search.from=scratch"], (3, 3, 2), (3, 0, 5), 5),
        (["relearn.from=search"], (3, 3, 2), (3, 0, 5), 5),
        (["baseline_epochs=relearn"], (3, 3, 2), (3, 0, 2), 2),
        (["baseline_epochs=7"], (3, 3, 2), (3, 0, 7), 7),
        (["pretrain=null"], (0, 3, 2), (0, 0, 2), 2),  # as it was before there were pretrainings
        (["pretrain=null", "baseline_epochs=equal"], (0, 3, 2), (0, 0, 5), 5),
        (["search.mode=single_level"], (3, 2, 2), (3, 0, 4), 4),
        (["search.second_order=true"], (3, 2 + 4, 2), (3, 0, 8), 8),
    ],
)
def test_passes_are_of_everything_that_a_network_came_from(
    folder: Path,
    table: CostTable,
    changes: list[str],
    relearned: tuple[int, ...],
    baseline: tuple[int, ...],
    epochs: int,
) -> None:
    config = changed(folder, *changes)
    run = Run(folder / "run", config, table)
    images = 40 * (len(dataset(config, 0).train) // 40)
    for kind, parts in (("relearn", relearned), ("baseline", baseline)):
        assert tuple(n // images for n in run.image_passes(of_kind(run, kind)).values()) == parts, kind
    assert run.epochs(of_kind(run, "baseline")) == epochs


def test_the_plan_shows_passes(folder: Path, table: CostTable) -> None:
    config = changed(folder)
    planned = plan(Run(folder / "run", config, table))
    lines = describe(planned)
    for p, line in zip(planned, lines, strict=False):
        assert f"{sum(p.image_passes.values()):,} image passes" in line
    assert [(p.stage.kind, p.epochs) for p in planned] == [
        ("pretrain", 3), ("search", 2), ("baseline", 5), ("baseline", 5), ("relearn", 2)
    ]  # fmt: skip
    images = planned[0].images
    assert f"(pretrain {3 * images:,}, search {3 * images:,}, relearn {2 * images:,})" in lines[-2]


def test_the_teacher_is_the_pretrained_network(folder: Path, table: CostTable) -> None:
    config = changed(folder, "distill.weight=1", "layers.quantiser=lsq")  # LSQ has a state besides the weights
    results, _ = start(config, table, folder / "run")
    run = Run(folder / "run", config, table)
    teacher = teacher_of(run, 0)
    assert teacher is not None
    data = dataset(config, 0)
    assert accuracy(teacher, data.test) == results["pretrained"][0]["test_accuracy"]
    plain, _ = start(changed(folder, "layers.quantiser=lsq"), table, folder / "plain")
    history = [json.loads((r / "stages" / "seed0-baseline-BC8.json").read_text())["history"]
               for r in (run.folder, folder / "plain")]  # fmt: skip
    assert history[0][0]["loss"] != history[1][0]["loss"]
    assert plain["pretrained"] == results["pretrained"]


@pytest.fixture
def given(folder: Path) -> Path:
    """A file of weights, beside the configuration, with statistics that no fresh network has."""
    torch.manual_seed(9)
    module = network_of(changed(folder)).module
    module.get_buffer("norm.running_mean").fill_(0.25)
    torch.save({"state_dict": {f"module.{n}": v for n, v in module.state_dict().items()}}, folder / "given.pt")
    with (folder / "tiny.yaml").open("a", encoding="utf-8") as file:
        file.write("init: given.pt\n")
    return folder / "given.pt"


def test_given_weights_are_started_from(folder: Path, table: CostTable, given: Path) -> None:
    weights = read_weights(given)["conv.weight"]
    still = ["pretrain.lr", "search.lr", "relearn.lr"]
    both = changed(folder, *(f"{name}={STILL}" for name in still))
    alone = changed(folder, "pretrain=null", *(f"{name}={STILL}" for name in still[1:]), "distill={}")
    for name, config in (("both", both), ("alone", alone)):
        results, _ = start(config, table, folder / name)
        run = Run(folder / name, config, table)
        assert {s.kind for s in run.stages} - {"pretrain"} == {"search", "relearn", "baseline"}
        for stage in run.stages:
            if run.checkpoint(stage).path.exists():  # not of twins
                assert near(conv(run, stage), weights), (name, stage)
        assert ("pretrained" in results) == (name == "both")
    longer = changed(folder)
    start(longer, table, folder / "longer")
    assert not near(read_weights(folder / "longer" / "weights" / "seed0-pretrain.pt")["conv.weight"], weights)


def test_a_run_keeps_the_weights_that_it_was_given(folder: Path, table: CostTable, given: Path) -> None:
    config = changed(folder)
    whole, _ = start(config, table, folder / "whole")
    open_run(folder / "run", config, table)
    moved = given.rename(folder / "moved.pt")
    results, _ = start(config, table, folder / "run")
    assert results == whole
    moved_config = replace(config, init=str(moved))
    open_run(folder / "run", moved_config, table)  # the same weights in another place
    other = read_weights(moved)
    other["conv.weight"] = other["conv.weight"] + 1
    torch.save(other, moved)
    with pytest.raises(InputError, match=r"moved.pt: is not what the run was begun with"):
        open_run(folder / "run", moved_config, table)


def test_weights_that_do_not_fit_are_named_before_anything_is_done(folder: Path, table: CostTable, given: Path) -> None:
    weights = read_weights(given)
    weights["fc.weight"] = weights["fc.weight"][:5]
    torch.save(weights, given)
    for i, change in enumerate(("seeds=[0]", "pretrain=null")):
        with pytest.raises(InputError, match=r"given.pt: does not fit the network: fc.weight has shape \(5, 96\), not"):
            open_run(folder / f"run{i}", changed(folder, change), table)
        assert not (folder / f"run{i}").exists()
    given.unlink()
    with pytest.raises(InputError, match=r"given.pt: cannot be read"):
        open_run(folder / "run", changed(folder), table)


def test_a_candidate_without_a_mapping_cannot_be_pretrained(folder: Path, table: CostTable) -> None:
    rows = [
        {**row, "status": "unmapped", "e_compute_pj": float("inf")}
        if row["candidate"] == "T4" and row["layer"] == "fc"
        else row
        for row in table.rows
    ]
    with pytest.raises(InputError, match=r"pretrain.candidate: T4 has no mapping in some layer"):
        open_run(folder / "run", changed(folder, "pretrain.candidate=T4"), CostTable(tuple(rows)))


def test_networks_from_the_weights_of_different_searches_are_different(folder: Path, table: CostTable) -> None:
    stochastic = ["search.mode=stochastic", "search.samples=3", "candidates=[T8, BC8]", "lambdas=[0.0, 0.5]"]
    for relearn_from in ("pretrained", "search"):
        config = changed(folder, *stochastic, f"relearn.from={relearn_from}")
        start(config, table, folder / relearn_from)
        run = Run(folder / relearn_from, config, table)
        relearned = [s for s in run.stages if s.kind == "relearn"]
        for stage in relearned:
            alike = [s for s in relearned if s != stage and run.assignment(s) == run.assignment(stage)]
            same = [s for s in alike if relearn_from == "pretrained" or s.lam == stage.lam]
            assert run.twins(stage, relearned) == same
        trained = {(s.lam if relearn_from == "search" else 0, str(run.assignment(s))) for s in relearned}
        assert sum(run.checkpoint(s).path.exists() for s in relearned) == len(trained)


def test_a_search_without_its_checkpoint_cannot_be_continued(folder: Path, table: CostTable) -> None:
    config = changed(folder, "relearn.from=search")
    start(config, table, folder / "run")
    run = Run(folder / "run", config, table)
    run.checkpoint(of_kind(run, "search")).path.unlink()
    for path in (run.file(of_kind(run, "relearn")), run.checkpoint(of_kind(run, "relearn")).path):
        path.unlink()
    with pytest.raises(InputError, match=r"seed0-search-0.5.pt: is missing"):
        start(config, table, folder / "run")
