"""Single-level ENOS: the baseline of Section II.A, alpha and theta learnt together (Eq. 2b)."""

from __future__ import annotations

from typing import Any

from search.strategies.learner import Learner
from search.strategies.settings import SingleLevel
from search.training.checkpoint import Record
from search.training.epochs import Epoch


def single_level(learner: Learner[SingleLevel]) -> list[Record]:
    """Updates alpha and theta together by descending the network loss on the training set."""
    for epoch in learner.epochs(learner.settings.epochs):
        update_on_training_set(learner, epoch)
    return learner.history


def update_on_training_set(learner: Learner[Any], epoch: Epoch) -> None:
    """One epoch of steps in alpha and theta, or in theta alone as long as the warm-up lasts."""
    for batch in learner.batches(epoch):
        if learner.learns_alpha(epoch):
            learner.update_both(learner.loss(batch), epoch)
        else:
            learner.update_theta(learner.loss(batch), epoch)
