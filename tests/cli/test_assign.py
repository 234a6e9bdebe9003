"""`enos assign` as users type it, on a network that trains in no time."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import yaml

from dse.core.files import write_json
from dse.hardware.candidates import load_candidates
from dse.table.cost_table import CostTable
from search.costs import share
from search.data.datasets import digits
from search.sensitivity.sensitivities import Sensitivities
from tests.search.conftest import synthetic_table
from tests.search.tiny import tiny

NETWORK = "tests.search.tiny:tiny"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights and the table of the tiny network."""
    folder = tmp_path_factory.mktemp("assign")
    torch.manual_seed(0)
    module, data = tiny().module, digits()
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for step in range(100):
        chosen = torch.arange(step * 64, (step + 1) * 64) % len(data.train)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(data.train.images[chosen]), data.train.labels[chosen]).backward()
        optimiser.step()
    torch.save(module.state_dict(), folder / "tiny.pt")
    synthetic_table(tiny()).save(folder / "table.csv")
    return folder


def arguments(files: Path, out: Path, *more: object) -> list[object]:
    given = ["--weights", files / "tiny.pt", "--table", files / "table.csv", "--out", out, "--jobs", 1]
    return ["assign", NETWORK, *given, *more]  # of an option that is given twice, the last counts


def test_front_assignments_and_picture(files: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out"
    code, text, err = run(*arguments(files, out, "--budget", 0.4, "--budget", 0.6, "--json"))
    assert code == 0, err
    document = json.loads(text)
    found = {x["name"]: x for x in document["found"]}
    assert set(found) == {"0.4", "0.6"} and {x["name"] for x in document["uniform"]} >= {"T8", "MF4", "BC2"}
    table = CostTable.load(files / "table.csv")
    for name, x in found.items():
        assert x["cost"] <= float(name) and x["cost"] == pytest.approx(share(table, x["assignment"]))
        assert yaml.safe_load((out / "assignments" / f"energy{name}.yaml").read_text()) == x["assignment"]
        for uniform in document["uniform"]:  # at least as good as each uniform network of no more energy
            if uniform["cost"] <= float(name):
                assert x["loss"] <= uniform["loss"]
    rows = list(csv.DictReader((out / "front.csv").open()))
    assert len(rows) == len(document["front"])
    for row, point in zip(rows, document["front"], strict=True):
        assert float(row["energy"]) == pytest.approx(share(table, {n: row[n] for n in table.layers}), abs=1e-6)
        assert float(row["predicted_loss_increase"]) == pytest.approx(point["predicted"], abs=1e-6)
    assert Sensitivities.load(out / "sensitivities.json").layers == ("conv", "fc")
    assert (out / "front.png").stat().st_size > 10_000
    code, text, _ = run(*arguments(files, out, "--budget", 0.4))
    assert code == 0 and "found, 0.4" in text and "all BC2" in text and str(out / "front.csv") in text


def test_what_is_done_is_not_done_again(files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    once = run(*arguments(files, tmp_path / "a", "--budget", 0.4, "--images", 128, "--json"))
    assert once[0] == 0

    def fail(*_: object, **__: object) -> None:
        pytest.fail("fitted again")

    # A kill within the second batch: what was measured before is kept.
    first, written = write_json, list[list[list[str]]]()

    def dying(path: Path, document: Any) -> None:
        first(path, document)
        if path.name == "measured.json":
            written.append([list(batch) for batch in document["trials"]["own"]])
            if len(written) == 3:
                raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr("search.sensitivity.study.BATCH", 64)
        patch.setattr("search.sensitivity.study.write_json", dying)
        with pytest.raises(LookupError):
            run(*arguments(files, tmp_path / "b", "--images", 128, "--budget", 0.4))
        patch.setattr("search.sensitivity.study.fit_layer", fail)
        assert run(*arguments(files, tmp_path / "b", "--images", 128, "--budget", 0.4, "--json"))[0] == 0
    assert written == [[["conv"]], [["conv", "fc"]], [["conv", "fc"], ["conv"]], [["conv", "fc"], ["conv", "fc"]]]
    with monkeypatch.context() as patch:
        patch.setattr("search.sensitivity.study.fit_layer", fail)
        patch.setattr("search.sensitivity.measure.try_layer", fail)
        whole = run(*arguments(files, tmp_path / "a", "--budget", 0.4, "--images", 128, "--json"))
    assert whole == once
    with monkeypatch.context() as patch:
        patch.setattr("search.sensitivity.study.BATCH", 64)
        assert run(*arguments(files, tmp_path / "c", "--images", 128, "--budget", 0.4))[0] == 0
    b, c = (Sensitivities.load(tmp_path / x / "sensitivities.json") for x in "bc")
    assert b.losses.tolist() == c.losses.tolist() and b.images == 128


def test_two_processes_and_a_cluster_find_what_one_finds(
    files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    documents = []
    for name, workers in (("1", ("--jobs", 1)), ("2", ("--jobs", 2)), ("c", ("--jobs", -1, "--cluster", "local:2"))):
        more = ("--budget", 0.4, "--images", 128, *workers, "--json")
        code, text, err = run(*arguments(files, tmp_path / name, *more))
        assert code == 0, err
        documents.append({k: v for k, v in json.loads(text).items() if k != "folder"})
        assert not (tmp_path / name / "workers.pkl").exists()
    assert documents[0] == documents[1] == documents[2]


def test_other_weights_are_measured_anew(files: Path, tmp_path: Path, run: Any) -> None:
    assert run(*arguments(files, tmp_path / "a", "--images", 64))[0] == 0
    before = Sensitivities.load(tmp_path / "a" / "sensitivities.json")
    torch.manual_seed(5)
    torch.save(tiny().module.state_dict(), tmp_path / "other.pt")
    assert run(*arguments(files, tmp_path / "a", "--images", 64, "--weights", tmp_path / "other.pt"))[0] == 0
    after = Sensitivities.load(tmp_path / "a" / "sensitivities.json")
    assert before.reference_loss != after.reference_loss


def test_finetuning_trains_found_and_uniform_networks(files: Path, tmp_path: Path, run: Any) -> None:
    more = ("--budget", 0.4, "--images", 64, "--candidates", "T8,T4,BC4", "--finetune", 1, "--json")
    code, text, err = run(*arguments(files, tmp_path / "a", *more))
    assert code == 0, err
    document = json.loads(text)
    networks = [*document["found"], *document["uniform"]]
    assert len({x["trained"]["passes"] for x in networks}) == 1 and networks[0]["trained"]["passes"] > 0
    assert all(0 <= x["trained"]["test_accuracy"] <= 1 for x in networks)
    code, again, _ = run(*arguments(files, tmp_path / "a", *more))
    assert again == text


def test_a_latency_budget(files: Path, tmp_path: Path, run: Any) -> None:
    code, text, _ = run(*arguments(files, tmp_path, "--latency", "--budget", 1.0, "--images", 64, "--json"))
    assert code == 0 and json.loads(text)["quantity"] == "latency"
    assert json.loads(text)["found"][0]["cost"] == pytest.approx(1.0)  # in the synthetic table all take as long


def test_a_budget_of_size(files: Path, tmp_path: Path, run: Any) -> None:
    code, text, err = run(*arguments(files, tmp_path, "--size", "--budget", 0.3, "--images", 64, "--json"))
    assert code == 0, err
    document = json.loads(text)
    weights = {"conv": 6 * 9, "fc": 96 * 10}
    bits = {c.name: c.weight_bits for c in load_candidates("operators")}
    for x in [*document["found"], *document["uniform"]]:
        size = sum(n * bits[x["assignment"][layer]] for layer, n in weights.items()) / (8 * sum(weights.values()))
        assert x["cost"] == pytest.approx(size)
    found = document["found"][0]
    assert found["cost"] <= 0.3 and {x["name"]: x["cost"] for x in document["uniform"]}["T4"] == 0.5
    assert all(found["loss"] <= x["loss"] for x in document["uniform"] if x["cost"] <= 0.3)
    assert (tmp_path / "front.csv").read_text().startswith("size,")


def test_layers_are_left_out(files: Path, tmp_path: Path, run: Any) -> None:
    more = ("--exclude", "f*", "--budget", 0.95, "--images", 64, "--json")
    code, text, err = run(*arguments(files, tmp_path, *more))
    assert code == 0, err
    document, table = json.loads(text), CostTable.load(files / "table.csv")
    assert {x["name"]: x["assignment"] for x in document["uniform"]}["BC4"] == {"conv": "BC4", "fc": "T8"}
    for x in [*document["found"], *document["uniform"]]:
        assert x["assignment"]["fc"] == "T8" and x["cost"] == pytest.approx(share(table, x["assignment"]))
    assert all(document["found"][0]["loss"] <= x["loss"] for x in document["uniform"] if x["cost"] <= 0.95)


def test_loss_and_metric_of_ones_own(files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owntask.py").write_text(
        "from search.data.datasets import digits\n"
        "def data():\n    x = digits().train.images.float()\n    pair = x, x.mean((1, 2, 3))[:, None]\n"
        "    return pair, pair\n"
        "def error(y, target):\n    return ((y - target) ** 2).mean()\n"
        "def worst(y, target):\n    return (y - target).abs().max()\n"
        "worst.higher_is_better = False\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(tiny(classes=1).module.state_dict(), tmp_path / "one.pt")
    synthetic_table(tiny(classes=1)).save(tmp_path / "one.csv")
    documents = []
    for i, (loss, metric) in enumerate((("mse", "mae"), ("owntask:error", "owntask:worst"))):
        more = ("--data", "owntask:data", "--loss", loss, "--metric", metric, "--arg", "classes=1", "--weights",
                tmp_path / "one.pt", "--table", tmp_path / "one.csv", "--images", 64, "--finetune", 1,
                "--candidates", "T8,BC4", "--budget", 0.9)  # fmt: skip
        code, text, err = run(*arguments(files, tmp_path / str(i), *more, "--json"))
        assert code == 0, err
        documents.append(json.loads(text))
        code, text, err = run(*arguments(files, tmp_path / str(i), *more))
        assert code == 0 and f"test {metric.rpartition(':')[2]}" in text and "%" not in text
    mse, own = documents
    assert mse["reference_loss"] == pytest.approx(own["reference_loss"]) and mse["metric"] == "mae"
    assert own["reference_accuracy"] > mse["reference_accuracy"] > 0  # the largest error and the mean one
    assert all(x["trained"]["test_metric"] > 0 for x in [*own["found"], *own["uniform"]])


def test_wrong_input_is_one_line(files: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    for more, problem in [
        (("--budget", 0.01, "--images", 64), "energy budget: 0.01 is below the cheapest assignment (allowed: at least"),
        (("--budget", "nan"), "--budget: found nan (allowed: a number above 0)"),
        (("--lr", 0), "--lr: found 0.0"),
        (("--arch", "eyeriss_168"), "--arch: does not go with --table"),
        (("--data", "digit"), "--data: unknown data set 'digit'; did you mean 'digits'?"),
        (("--weights", tmp_path / "bad.pt"), "bad.pt: holds no weights that can be read safely"),
        (("--weights", tmp_path / "none.pt"), "none.pt: cannot be read"),
        (("--candidates", "T8,T3"), "unknown candidate 'T3'"),
        (("--candidates", "T4,BC4", "--images", 64), "reference: unknown candidate 'T8'"),
        (("--arg", "width"), "--arg width: expected NAME=VALUE"),
        (("--arg", "width=7"), "does not fit the network"),
        (("--arg", "image=16"), "does not fit the network"),
        (("--threads", 0), "Invalid value for '--threads'"),
        (("--images", 3), "Invalid value for '--images'"),
        (("--size", "--latency"), "--size: does not go with --latency"),
        (("--size", "--budget", 0.01, "--images", 64), "size budget: 0.01 is below the cheapest assignment"),
        (("--loss", "cross"), "--loss: unknown loss 'cross'"),
        (("--loss", "nomodule:f"), "loss 'nomodule:f': module nomodule cannot be imported"),
        (("--loss", "mse"), "--loss: found 'mse', but the targets of digits are labels"),
        (("--metric", "acuracy"), "--metric: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (("--metric", "mae"), "--metric: found 'mae', but the targets of digits are labels"),
        (("--metric", "math:sqrt"), "metric 'math:sqrt': does not say its direction"),
        (("--exclude", "none"), "exclude[0]: no layer is called 'none'"),
        (("--exclude", "*"), "exclude: leaves no layer to search"),
        (("--device", "gpu"), "--device: found 'gpu' (allowed: cpu, cuda, cuda:N)"),
        (("--device", "cuda:99"), "--device: 'cuda:99' is not available to torch (allowed: cpu)"),
        (("--jobs", 0), "--jobs: found 0"),
    ]:
        code, out, err = run(*arguments(files, tmp_path / "x", *more))
        assert code == 2 and problem in err and err.count("\n") == 1 and not out, (more, err)


def test_data_of_ones_own(files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits()
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    arrays = {f"{a}_{s}": v.numpy() for s, x in splits.items() for a, v in (("x", x.images), ("y", x.labels))}
    np.savez(tmp_path / "own.npz", **{k.replace("validation", "val"): v for k, v in arrays.items()})
    (tmp_path / "owndata.py").write_text(
        "import torch\nfrom search.data.datasets import digits\n"
        "def make():\n    d = digits()\n    return d\n"
        "def real():\n    x = digits().train.images.float()\n    pair = x, x.mean((1, 2, 3))\n    return pair, pair\n"
    )
    monkeypatch.chdir(tmp_path)
    losses = []
    for i, name in enumerate(("digits", "owndata:make", str(tmp_path / "own.npz"))):
        more = ("--data", name, "--budget", 0.9, "--images", 64, "--calibration-steps", 0, "--json")
        code, text, err = run(*arguments(files, tmp_path / str(i), *more))
        assert code == 0, err
        losses.append(json.loads(text)["reference_loss"])
    assert losses[0] == losses[1] and losses[2] > 0
    for name, problem in [
        (
            "owndata:real",
            "--loss: found 'cross_entropy', but the targets of owndata:real are numbers (allowed: mse, l1, bce",
        ),
        ("owndata:none", "--data 'owndata:none'"),
        (str(tmp_path / "own.npy"), "--data: unknown data set"),
    ]:
        code, out, err = run(*arguments(files, tmp_path / "x", "--data", name))
        assert code == 2 and problem in err and err.count("\n") == 1 and not out, err
    code, _, err = run(*arguments(files, tmp_path / "x", "--data", "owndata:make", "--data-dir", tmp_path))
    assert code == 2 and "--data-dir: goes with a data set of ENOS" in err
