"""What the tests of the strategies share: a learner on digits and a tiny network, which may drop values out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.data.datasets import Dataset, digits
from search.objective import WeightedEnergy
from search.strategies.learner import Learner
from search.strategies.modes import STRATEGIES
from search.strategies.settings import MODES
from search.supernet import SearchableNetwork, searchable
from search.training.checkpoint import Checkpoint, Record
from search.training.train import PLAIN, Compute
from tests.search.conftest import synthetic_table
from tests.search.tiny import tiny

TABLE = synthetic_table(tiny())
DATA = replace(digits(subset=200), augmentation=None)
SMALL = {"warmup_epochs": 1, "batch_size": 20, "alpha_lr": 0.2, "lr": 0.01}


def settings_of(mode: str, epochs: int = 3, **more: Any) -> Any:
    length = {} if mode in ("sequential", "sensitivity") else {"epochs": epochs}
    return MODES[mode](**{**SMALL, **length, **more})


def ignore(record: Record) -> None:
    pass


def make_learner(
    mode: str,
    path: Path,
    *,
    lam: float = 0.5,
    data: Dataset = DATA,
    dropout: bool = False,
    compute: Compute = PLAIN,
    on_epoch: Callable[[Record], None] = ignore,
    **more: Any,
) -> Learner[Any]:
    return Learner(small_model(dropout), data, settings_of(mode, **more), WeightedEnergy(lam), 0, Checkpoint(path),
                   on_epoch, compute)  # fmt: skip


def small_model(dropout: bool = False) -> SearchableNetwork:
    torch.manual_seed(0)
    module = tiny().module
    if dropout:
        module.relu = nn.Sequential(nn.ReLU(), nn.Dropout(0.2))
    return searchable(module, TABLE)


def learnt(mode: str, path: Path, **more: Any) -> SearchableNetwork:
    learner = make_learner(mode, path, **more)
    STRATEGIES[mode](learner)
    return learner.model
