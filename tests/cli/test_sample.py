"""`enos sample`: what it prints and writes, and one line for bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., tuple[int, str, str]]


def test_a_shipped_mixture_is_sampled_and_written(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sampled"
    code, text, _ = run("sample", "two_modes", "--samples", "2000", "--seed", "3", "--out", str(out))
    assert code == 0
    assert "2,000 samples of two_modes: 2 dimensions, 2 mixtures" in text and "sliced Wasserstein distance" in text
    with np.load(out / "samples.npz") as file:
        assert file["samples"].shape == (2000, 2) and file["chain"].max() == 63
        mean = file["samples"].mean(0)
    results = json.loads((out / "results.json").read_text())
    assert results["mean"] == pytest.approx(mean) and results["seed"] == 3
    assert {path.name for path in out.iterdir()} == {"samples.npz", "results.json", "samples.png", "trace.png"}


def test_the_same_command_gives_the_same_numbers(run: Run) -> None:
    one, same, other = (
        json.loads(run("sample", "two_modes", "--samples", "500", "--json", *options)[1])
        for options in ((), (), ("--set", "adc_bits=3"))
    )
    assert one == same and one["mean"] != other["mean"] and other["macro"]["adc_bits"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gmm.yaml",), "gmm.yaml: no such file (allowed: a file, two_modes)"),
        (("two_modes", "--study"), "--study: has no folder for its figure; give --out"),
        (("two_modes", "--samples", "100000000"), "--samples: found 100000000 of 2 dimensions"),
        (("two_modes", "--samples", "0"), "Invalid value for '--samples'"),
        (("two_modes", "--set", "chains=x"), "macro.chains: found 'x' (allowed: a whole number from 1 to 65536)"),
        (("two_modes", "--out", "file"), "file"),
    ],
)
def test_bad_input_is_one_line(run: Run, options: tuple[str, ...], message: str, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    code, _, errors = run("sample", *options)
    assert code == 2 and message in errors and errors.count("\n") == 1
