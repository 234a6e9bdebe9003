"""Image passes are those that are done: the images of every batch that something learns from are counted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from search.data.datasets import digits
from search.data.sets import Split
from search.objective import WeightedEnergy
from search.runs.passes import epoch_passes, equal_training, search_passes
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.strategies.sequential import sequential_epochs
from search.strategies.settings import MODES, Bilevel, Search, Sensitivity, Sequential, SingleLevel
from search.supernet import searchable
from search.training.checkpoint import Checkpoint
from search.training.epochs import batches
from search.training.settings import Training
from search.training.train import Compute, learn
from tests.search.conftest import synthetic_table
from tests.search.tiny import tiny

DATA = digits(subset=200)
NUMBERED = Split(torch.zeros(200, 1, 2, 2), torch.arange(200))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every loss that is computed."""
    found: list[int] = []
    loss = Compute.loss

    def counting(self: Compute, network: Any, batch: Any) -> Any:
        assert torch.is_grad_enabled()
        found.append(len(batch[0]))
        return loss(self, network, batch)

    monkeypatch.setattr(Compute, "loss", counting)
    return found


SETTINGS = [
    *(kind(batch_size=30, warmup_epochs=1) if kind is Sequential else kind(batch_size=30, warmup_epochs=1, epochs=3)  # type: ignore[call-arg]
      for kind in MODES.values() if kind is not Sensitivity),
    Bilevel(batch_size=30, warmup_epochs=1, epochs=3, second_order=True),
    Bilevel(batch_size=60, warmup_epochs=0, epochs=2),  # more than there are validation images
    Sequential(batch_size=20, warmup_epochs=1, epoch_images=50),
    Bilevel(batch_size=20, warmup_epochs=1, epochs=3, epoch_images=79),
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.mode}-{s.batch_size}")
def test_the_passes_of_a_search_are_those_that_it_does(settings: Search, counted: list[int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = searchable(tiny().module, synthetic_table(tiny()), ["T8", "BC8"])
    epochs = settings.epochs if isinstance(settings, SingleLevel) else sequential_epochs(model, settings)  # type: ignore[arg-type]
    learner = Learner(model, DATA, settings, WeightedEnergy(0.1), 0, Checkpoint(tmp_path / "x.pt"), lambda record: None)
    STRATEGIES[settings.mode](learner)
    assert sum(counted) == search_passes(settings, epochs, DATA)


@pytest.mark.parametrize(("batch_size", "images"), [(30, None), (1000, None), (20, 50), (20, 10_000)])
def test_the_passes_of_a_training_are_those_that_it_does(
    batch_size: int, images: int | None, counted: list[int], tmp_path: Path
) -> None:
    training = Training(epochs=2, batch_size=batch_size, epoch_images=images)
    learn(tiny().module, DATA, training, 0, Checkpoint(tmp_path / "x.pt"), lambda record: None)
    assert sum(counted) == 2 * epoch_passes(DATA.train, batch_size, images)
    assert images is None or sum(counted) <= 2 * images


def test_short_epochs_have_other_images_each() -> None:
    first, second = (torch.cat([labels for _, labels in batches(NUMBERED, 10, 0, epoch, None, 50)]) for epoch in (0, 1))
    assert len(first) == len(second) == 50
    assert len(set(first.tolist())) == 50
    assert set(first.tolist()) != set(second.tolist())


@pytest.mark.parametrize("seed", range(40))
def test_equal_training_is_equal_to_a_batch_an_epoch(seed: int) -> None:
    rng = random.Random(seed)
    batch = rng.randint(2, 64)
    an_epoch, passes = batch * rng.randint(1, 50), rng.randint(1, 20_000)
    epochs, each = equal_training(passes, an_epoch, batch)
    assert each <= an_epoch and each % batch == 0
    assert passes <= epochs * each < passes + epochs * batch
    assert (epochs - 1) * an_epoch < passes


def test_equal_training_of_fewer_images_than_a_batch_is_whole_epochs() -> None:
    assert equal_training(100, 40, 64) == (3, 40)
    assert equal_training(0, 128, 64) == (1, 128)
