"""When an epoch is kept: by time, between two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from search.data.datasets import digits
from search.training.checkpoint import Checkpoint, Record
from search.training.epochs import KEPT_EVERY, Epoch, epochs


class Counted(Checkpoint):
    """Notes which epochs were kept that had begun, by their steps."""

    def save(self, history: list[Record], begun: Record | None = None, /, **parts: object) -> None:
        kept.append(None if begun is None else begun["steps"])
        super().save(history, begun, **parts)


kept: list[int | None] = []


def test_a_long_epoch_is_kept_every_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.clear()
    now, data, network = [0.0], digits(subset=200), nn.Linear(2, 2)
    monkeypatch.setattr("search.training.epochs.time.monotonic", lambda: now[0])
    optimiser = torch.optim.Adam(network.parameters())

    def steps(epoch: Epoch) -> None:
        for _ in epoch.batches(data, 10, 0, optimiser, 0.1):
            now[0] += 0.4 * KEPT_EVERY
            epoch.losses.append(torch.tensor(float(epoch.steps)))

    parts = {"network": network, "optimiser": optimiser}
    seen: list[Record] = []
    for epoch in epochs(1, 0, Counted(tmp_path / "x.pt"), seen.append, dict, parts):
        steps(epoch)
    number = len(epoch.losses)
    assert number >= 7 and kept == [*range(3, number, 3), None]
    assert seen[0]["loss"] == pytest.approx((number - 1) / 2)
    assert seen[0]["seconds"] == pytest.approx(number * 0.4 * KEPT_EVERY)
