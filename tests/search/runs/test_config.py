from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dse.core.errors import InputError
from search.runs.config import (
    EXAMPLE,
    DataChoice,
    NetworkChoice,
    RunConfig,
    config_yaml,
    load_config,
)
from search.strategies.modes import STRATEGIES
from search.strategies.settings import MODES, Sequential, Variational
from search.training.settings import Distillation, Pretraining, Relearning


def load(tmp_path: Path, text: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_shipped_example_is_valid() -> None:
    config = load_config(EXAMPLE)
    assert config.name == "digits" and config.data.name == "digits" and len(config.seeds) == 3
    assert config.baselines == "all"


def test_defaults_fill_what_is_left_out(tmp_path: Path) -> None:
    assert load(tmp_path, "name: x") == RunConfig(name="x")
    assert len(RunConfig(name="x").candidates) == 9


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    modes = [load(tmp_path, f"name: x\nsearch: {{mode: {mode}, lr: 0.5}}") for mode in MODES]
    more = load(tmp_path, "name: x\nlambdas: [0, 1e-3]\ncandidates: [T8, BC2]")
    for config in (load_config(EXAMPLE), more, *modes):
        assert load(tmp_path, config_yaml(config)) == config


def test_each_mode_has_settings_of_its_own(tmp_path: Path) -> None:
    assert set(MODES) == set(STRATEGIES)
    for mode, kind in MODES.items():
        found = load(tmp_path, f"name: x\nsearch: {{mode: {mode}}}").search
        assert found == kind() and found.mode == mode
    text = "name: x\nsearch: {mode: variational, temperature: 2, samples: 4}"
    assert load(tmp_path, text).search == Variational(temperature=2.0, samples=4)


OWN = """
bits: [8, 3]
operators:
  typical:
    short: T
    act_bits: bits
    weight_bits: bits
    psum_bits: 20
    component: {class: typical_mac, attributes: {multiplier_width: bits, adder_width: 20}, actions: {compute: 1}}
"""


def test_the_operators_file_decides_what_candidates_there_are(tmp_path: Path) -> None:
    extended = load(tmp_path, "name: x\noperators: operators_extended")
    assert extended.candidates[-4:] == ("DS8", "DS4", "DS2", "XN1") and len(extended.candidates) == 13
    assert extended.declared[-1].operator == "xnor" and extended.baselines == "all"
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    own = load(tmp_path, f"name: x\noperators: {tmp_path / 'own.yaml'}")
    assert own.candidates == ("T8", "T3") and own.baselines == "all"
    for config in (extended, own):
        assert load(tmp_path, config_yaml(config)) == config
    chosen = "candidates: [T8, DS4]\npins: {first: XN1}\nname: x\noperators: operators_extended"
    assert load(tmp_path, chosen).candidates == ("T8", "DS4")  # whatever the order of the fields


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("candidates: [T8, MF8]", r"run.yaml: candidates\[1\]: unknown candidate 'MF8' \(allowed: T8, T3\)"),
        ("baselines: [BC8]", r"run.yaml: baselines\[0\]: unknown candidate 'BC8' \(allowed: T8, T3\)"),
        ("pins: {last: T2}", r"run.yaml: pins.last: unknown candidate 'T2' \(allowed: T8, T3\)"),
        ("candidates: [[T8]]", r"run.yaml: candidates\[0\]: found \['T8'\]"),
    ],
)
def test_candidates_that_the_operators_file_lacks_are_one_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    with pytest.raises(InputError, match=problem) as caught:
        load(tmp_path, f"name: x\noperators: {tmp_path / 'own.yaml'}\n{text}")
    assert "\n" not in str(caught.value)


def test_changes_take_the_place_of_the_files_fields(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\nsearch: {epochs: 7, lr: 0.5}", encoding="utf-8")
    config = load_config(path, ["search.mode=sequential", "search.epochs=null", "lambdas=[0, 1]", "data.subset=300"])
    assert config == RunConfig("x", search=Sequential(lr=0.5), lambdas=(0.0, 1.0), data=DataChoice(subset=300))
    for change, problem in [
        ("search.mode=sequential", r"search.epochs: mode sequential does not use it"),
        ("lamda=1", r"unknown field 'lamda'"),
        ("lambdas", r"--set lambdas: expected FIELD=VALUE"),
        ("=1", r"--set =1: expected FIELD=VALUE"),
        ("name.x=1", r"--set name.x=1: its parent is not a mapping"),
        ("lambdas=[", r"--set lambdas=\[: line 2: not readable as YAML"),
    ]:
        with pytest.raises(InputError, match=problem) as caught:
            load_config(path, [change])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seeds: [1]", r"run.yaml: field 'name' is missing"),
        ("name: a/b", r"run.yaml: name: found 'a/b'"),
        ("name: ..", r"run.yaml: name: found '..'"),
        (
            "name: x\nlamda: [1]",
            r"run.yaml: unknown field 'lamda'; did you mean 'lambdas'\? \(allowed: name, network,.*lambdas",
        ),
        (
            "name: x\nsearch: {epoch: 3}",
            r"run.yaml: search: unknown field 'epoch'; did you mean 'epochs'\? \(allowed: mode, warmup_epochs",
        ),
        ("name: x\nsearch: 3", r"run.yaml: search: found 3 \(allowed: a mapping with mode"),
        ("name: x\nsearch: {epochs: 0}", r"run.yaml: search.epochs: found 0 \(allowed: a whole number from 1"),
        ("name: x\nsearch: {epochs: true}", r"search.epochs: found True"),
        (
            "name: x\nsearch: {epochs: 2, warmup_epochs: 2}",
            r"search.warmup_epochs: found 2 \(allowed: fewer than epochs",
        ),
        ("name: x\nsearch: {epoch_images: 63}", r"search.epoch_images: found 63 \(allowed: at least batch_size, 64\)"),
        ("name: x\nrelearn: {epoch_images: 9, batch_size: 10}", r"relearn.*epoch_images: found 9"),
        ("name: x\npretrain: {epoch_images: true}", r"pretrain.epoch_images: found True"),
        (
            "name: x\nsearch: {mode: magic}",
            r"search.mode: found 'magic' \(allowed: single_level, bilevel, sequential, ",
        ),
        ("name: x\nsearch: {mode: [bilevel]}", r"search.mode: found \['bilevel'\]"),
        (
            "name: x\nsearch: {samples: 3}",
            r"search.samples: mode bilevel does not use it \(allowed: mode, warmup_epochs",
        ),
        ("name: x\nsearch: {mode: sequential, epochs: 3}", r"search.epochs: mode sequential does not use it"),
        (
            "name: x\nsearch: {mode: single_level, second_order: true}",
            r"search.second_order: mode single_level does not",
        ),
        (
            "name: x\nsearch: {mode: stochastic, samples: 0}",
            r"search.samples: found 0 \(allowed: a whole number from 1",
        ),
        (
            "name: x\nsearch: {mode: stochastic, sampler: sram}",
            r"search.sampler: found 'sram'; did you mean 'mc2ram'\? ",
        ),
        (
            "name: x\nsearch: {mode: variational, macro: {adc_bits: 4}}",
            r"search.macro: is given, but the sampler is exact; set sampler: mc2ram",
        ),
        (
            "name: x\nsearch: {mode: stochastic, sampler: mc2ram, macro: {adc_bits: 99}}",
            r"search.macro.adc_bits: found 99 \(allowed: a whole number from 1 to 16\)",
        ),
        ("name: x\nsearch: {mode: bilevel, sampler: mc2ram}", r"search.sampler: mode bilevel does not use it"),
        ("name: x\nsearch: {mode: variational, temperature: 0}", r"search.temperature: found 0 \(allowed: .* above 0"),
        ("name: x\nsearch: {mode: sequential, cycle_epochs: 1.5}", r"search.cycle_epochs: found 1.5"),
        ("name: x\namp: 1", r"amp: found 1 \(allowed: true, false\)"),
        ("name: x\nrelearn: {lr: 0}", r"relearn.lr: found 0 \(allowed: a number above 0"),
        ("name: x\nrelearn: {lr: fast}", r"relearn.lr: found 'fast'"),
        ("name: x\nlambdas: []", r"lambdas: found \[\]"),
        ("name: x\nlambdas: [-1]", r"lambdas\[0\]: found -1"),
        ("name: x\nlambdas: [.nan]", r"lambdas\[0\]: found nan"),
        ("name: x\njobs: 0", r"jobs: found 0 \(allowed: a whole number from 1"),
        (
            "name: x\nbaselines: some",
            r"run.yaml: baselines: found 'some' \(allowed: all, paper, or a list of candidates",
        ),
        ("name: x\nbaselines: [T8, T8]", r"run.yaml: baselines\[1\]: 'T8' is in the list twice"),
        ("name: x\nbaselines: [true]", r"run.yaml: baselines\[0\]: found True"),
        ("name: x\nseeds: [1, 1]", r"seeds\[1\]: 1 is in the list twice"),
        (
            "name: x\noperators: none",
            r"operators: found None|operators: unknown file or shipped name 'none' \(allowed: operators, operato",
        ),
        ("name: x\noperators: 3", r"run.yaml: operators: found 3"),
        ("name: x\nlatency_budgets: [0]", r"run.yaml: latency_budgets\[0\]: found 0 \(allowed: a number above 0"),
        ("name: x\nenergy_weight: 1", r"run.yaml: energy_weight: found 1.0, and no latency_budgets that it would"),
        ("name: x\nlatency_weight: 1\nenergy_budgets: [0.5]", r"latency_weight: found 1.0, and no lambdas"),
        ("name: x\nenergy_weight: -1", r"run.yaml: energy_weight: found -1"),
        ("name: x\ncandidates: [T8, T9]", r"candidates\[1\]: unknown candidate 'T9' \(allowed: T8"),
        ("name: x\ndata: {name: mnist}", r"data.name: found 'mnist' \(allowed: digits, cifar10, cifar100, emn"),
        ("name: x\ndata: {name: digits, path: a}", r"data.path: is given beside name \(allowed: one of name, fac"),
        ("name: x\ndata: {factory: mine}", r"data.factory: found 'mine' \(allowed: package.module:function\)"),
        ("name: x\ndata: {args: {n: 3}}", r"data.args: are given without factory"),
        ("name: x\nloss: mean", r"loss: found 'mean' \(allowed: cross_entropy, next_token, mse, l1, bce, package"),
        ("name: x\nmetric: true", r"metric: found True"),
        ("name: x\nmetric: iou", r"metric: found 'iou' \(allowed: accuracy, mean_iou, mse, mae, perplexity, pack"),
        (
            "name: x\nloss: mse\ninit: w.pt\ndistill: {weight: 0.5}",
            r"distill: found with the loss 'mse', which is not "
            r"of class scores \(allowed: the losses cross_entropy, next_token, package.module:function\)",
        ),
        ("name: x\ndata: {augment: 1}", r"data.augment: found 1 \(allowed: true, false\)"),
        ("name: x\ndevice: tpu", r"device: found 'tpu' \(allowed: cpu, cuda"),
        ("name: x\ntransmission: some", r"transmission: found 'some' \(allowed: all, on_chip\)"),
        ("name: x\nname: y", r"run.yaml: line 2: .*duplicate key 'name'"),
        ("- x", r"run.yaml: found \['x'\]"),
        ("name: [", r"run.yaml: line"),
    ],
)
def test_every_wrong_field_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_the_manual_names_every_option() -> None:
    text = (Path(__file__).parents[3] / "docs" / "search.md").read_text(encoding="utf-8")
    for kind, prefix in [(RunConfig, ""), (NetworkChoice, "network."), (DataChoice, "data."), (Relearning, "relearn.")]:
        for field in dataclasses.fields(kind):
            name = "from" if field.name == "start" else field.name
            assert f"`{prefix}{name}`" in text or dataclasses.is_dataclass(field.default), field.name
    for mode, settings in MODES.items():
        assert f"`{mode}`" in text
        names = ["from" if field.name == "start" else field.name for field in dataclasses.fields(settings)]
        assert all(f"`{name}`" in text for name in names), mode
    for part in (Pretraining, Distillation):
        assert all(f"`{field.name}`" in text for field in dataclasses.fields(part)), part


def test_weights_are_beside_the_configuration_and_those_of_a_change_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = load(tmp_path, "name: x\ninit: a.pt")
    assert given.init == str(tmp_path / "a.pt")
    assert load(tmp_path, config_yaml(given)) == given
    assert load_config(tmp_path / "run.yaml", ["init=b.pt"]).init == str(tmp_path / "elsewhere" / "b.pt")


STARTS = [
    ("", ("scratch", "scratch", "scratch")),
    ("init: a.pt", ("pretrained", "search", "pretrained")),
    ("pretrain: {epochs: 2}", ("pretrained", "search", "pretrained")),
    ("pretrain: {}\nsearch: {from: scratch}", ("scratch", "pretrained", "pretrained")),
    ("pretrain: {}\nrelearn: {from: scratch}", ("pretrained", "scratch", "scratch")),
    ("pretrain: {}\nrelearn: {from: search}", ("pretrained", "search", "pretrained")),
    ("relearn: {from: search}", ("scratch", "search", "scratch")),
]


@pytest.mark.parametrize(("text", "starts"), STARTS)
def test_what_is_started_from(tmp_path: Path, text: str, starts: tuple[str, str, str]) -> None:
    config = load(tmp_path, f"name: x\n{text}")
    assert (config.search_from, config.relearn_from, config.baselines_from) == starts
    assert load(tmp_path, config_yaml(config)) == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("search: {from: pretrained}", "search.from: found 'pretrained', but there are no such weights"),
        ("relearn: {from: pretrained}", "relearn.from: found 'pretrained', but there are no such weights"),
        ("search: {from: search}", r"search.from: found 'search'.* \(allowed: pretrained, scratch\)"),
        ("search: {start: scratch}", "search: unknown field 'start'; it is called from"),
        ("relearn: {start: scratch}", "relearn: unknown field 'start'; it is called from"),
        ("distill: {}", "distill: there is no pretrained network to be the teacher"),
        ("distill: {weight: 0}\ninit: a.pt", r"distill.weight: found 0 \(allowed: a number above 0 up to 1\)"),
        ("distill: {temperature: true}\ninit: a.pt", "distill.temperature: found True"),
        ("pretrain: {candidate: T9}", "pretrain.candidate: unknown candidate 'T9'"),
        ("pretrain: {epochs: true}", "pretrain.epochs: found True"),
        ("pretrain: {}\nsearch: {from: scratch}\nrelearn: {from: scratch}", "pretrain: nothing starts from these"),
        ("init: a.pt\nsearch: {from: scratch}\nrelearn: {from: scratch}", "init: nothing starts from these"),
        ("search: {paths: 1}", r"search.paths: found 1 \(allowed: a whole number from 2"),
        ("search: {paths: true}", "search.paths: found True"),
        ("search: {paths: 2, second_order: true}", "search.paths: found 2, but second_order compares"),
        ("init: 3", r"init: found 3 \(allowed: a text\)"),
        ("relearn: {schedule: step}", r"relearn.schedule: found 'step' \(allowed: cosine, constant\)"),
        ("baseline_epochs: true", r"baseline_epochs: found True \(allowed: equal, relearn, a whole number from 1\)"),
        ("baseline_epochs: 0", "baseline_epochs: found 0"),
        ("baseline_epochs: 1.0", "baseline_epochs: found 1.0"),
        ("baseline_epochs: equl", "baseline_epochs: found 'equl'"),
    ],
)
def test_starts_that_cannot_be_are_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"run.yaml: {problem}") as found:
        load(tmp_path, f"name: x\n{text}")
    assert "\n" not in str(found.value)
