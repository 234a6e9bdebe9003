"""A run on files in an official layout, as users begin it."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.cli import main
from search.report.text import details
from tests.search.runs.test_run import ROOT
from tests.search.tiny import tiny

RUN = """
name: letters
threads: 1
jobs: 1
network: {factory: "tests.search.tiny:tiny", args: {classes: 47, image: 28}}
data: {name: emnist_balanced}
candidates: [T8, BC8]
baselines: [T8]
lambdas: [0.5]
seeds: [0]
search: {epochs: 2, warmup_epochs: 1, batch_size: 100, lr: 0.01}
relearn: {epochs: 3, batch_size: 50, lr: 0.01}
"""


def write_letters(folder: Path) -> None:
    """Forty images of each class, all black but one pixel that tells the class."""
    labels = np.arange(47 * 40) % 47
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[np.arange(len(labels)), 3 * (labels // 7) + 4, 3 * (labels % 7) + 4] = 255
    raw = folder / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        header = struct.pack(">IIII", 2051, *images.shape)
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        header = struct.pack(">II", 2049, len(labels))
        content = gzip.compress(header + labels.astype(np.uint8).tobytes())
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte.gz").write_bytes(content)


def test_a_run_on_a_part_of_the_official_files_says_so_and_learns(
    tmp_path: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(ROOT)
    write_letters(tmp_path / "data")
    (tmp_path / "run.yaml").write_text(RUN.replace("emnist_balanced", "emnist_balanced, augment: false"))
    make_table(tiny(47, 28)).save(tmp_path / "table.csv")
    with pytest.raises(SystemExit) as stopped:
        main(["search", str(tmp_path / "run.yaml"), "--table", str(tmp_path / "table.csv"), "--json",
              "--out", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")])  # fmt: skip
    out, err = capsys.readouterr()
    assert not stopped.value.code, err
    assert "note: emnist_balanced on disk is not the official set: 1,880 training" in err
    results = json.loads(out)
    notice = "emnist_balanced on disk is not the official set: 1,880 training and 1,880 test images instead of 112,800 "
    assert results["data"].pop("notice").startswith(notice)
    assert results["data"] == {
        "name": "emnist_balanced",
        "train": 1692,
        "validation": 188,
        "test": 1880,
        "subset": None,
    }
    assert f"note: {notice}" in details(results | {"data": {**results["data"], "notice": notice}})[0]
    for network in results["networks"]:
        assert network["test_accuracy"] > 0.2  # chance is 0.02
