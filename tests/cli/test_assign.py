"""`enos assign` as users type it, on a network that trains in no time."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dse.core.files import write_json
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
    return ["assign", NETWORK, "--weights", files / "tiny.pt", "--table", files / "table.csv", "--out", out, *more]


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
        raise KeyboardInterrupt

    # A kill between two batches: the sums of the first are kept.
    from search.sensitivity import job

    first, written = write_json, []

    def dying(path: Path, document: Any) -> None:
        first(path, document)
        if path.name == "partial.json":
            written.append(document["sums"]["batches"])
            raise LookupError

    monkeypatch.setattr(job, "BATCH", 64)
    monkeypatch.setattr(job, "write_json", dying)
    with pytest.raises(LookupError):
        run(*arguments(files, tmp_path / "b", "--images", 128, "--budget", 0.4))
    monkeypatch.setattr(job, "write_json", first)
    monkeypatch.setattr(job, "calibrate", fail)
    assert run(*arguments(files, tmp_path / "b", "--images", 128, "--budget", 0.4, "--json"))[0] == 0
    assert written == [1]
    monkeypatch.setattr(job, "BATCH", 250)
    whole = run(*arguments(files, tmp_path / "a", "--budget", 0.4, "--images", 128, "--json"))
    assert whole == once  # calibrated weights and sums are kept
    monkeypatch.undo()
    monkeypatch.setattr(job, "BATCH", 64)
    assert run(*arguments(files, tmp_path / "c", "--images", 128, "--budget", 0.4))[0] == 0
    b, c = (Sensitivities.load(tmp_path / x / "sensitivities.json") for x in "bc")
    assert b.losses.tolist() == c.losses.tolist() and b.images == 128


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
        ("owndata:real", "--data owndata:real: is not of images or inputs with one class each"),
        ("owndata:none", "--data 'owndata:none'"),
        (str(tmp_path / "own.npy"), "--data: unknown data set"),
    ]:
        code, out, err = run(*arguments(files, tmp_path / "x", "--data", name))
        assert code == 2 and problem in err and err.count("\n") == 1 and not out, err
    code, _, err = run(*arguments(files, tmp_path / "x", "--data", "owndata:make", "--data-dir", tmp_path))
    assert code == 2 and "--data-dir: goes with a data set of ENOS" in err
