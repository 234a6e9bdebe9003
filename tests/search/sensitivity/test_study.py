"""A study's measurements: of which task they are, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.nn import functional

from search.sensitivity.study import Study
from search.strategies.sensitivity import study_of
from search.training.metrics import Criterion
from search.training.train import PLAIN
from tests.search.strategies.helpers import make_learner


def study(folder: Path, **more: Any) -> Study:
    return study_of(make_learner("sensitivity", folder / "search.pt", **{"images": 32, "calibration_steps": 2, **more}))


def test_the_loss_of_a_run_is_measured(tmp_path: Path) -> None:
    double = Criterion("double", lambda outputs, labels: 2 * functional.cross_entropy(outputs, labels))
    plain, own = study(tmp_path), study(tmp_path, compute=replace(PLAIN, criterion=double))
    assert plain.folder != own.folder  # neither takes what the other has measured
    assert own.sensitivities.losses == pytest.approx(2 * plain.sensitivities.losses)
    assert own.sensitivities.loss == "double" and plain.sensitivities.loss == "cross_entropy"


def test_what_decides_no_measurement_keeps_the_folder(tmp_path: Path) -> None:
    first = study(tmp_path)
    assert study(tmp_path, lam=7.0, corrections=3).folder == first.folder
    assert study(tmp_path, calibration_steps=3).folder != first.folder


def test_damaged_files_are_measured_again(tmp_path: Path) -> None:
    whole = study(tmp_path)
    losses = whole.sensitivities.losses
    for name in ("measured.json", "calibrated.pt"):
        (whole.folder / name).write_bytes(b"{")
    assert np.array_equal(study(tmp_path).sensitivities.losses, losses)
