"""Bi-level ENOS: Algorithm 1 of the paper (Eq. 4), in the first-order approximation or with the second order."""

from __future__ import annotations

from search.strategies.learner import Learner
from search.strategies.settings import Bilevel
from search.training.checkpoint import Record


def bilevel(learner: Learner[Bilevel]) -> list[Record]:
    """Updates alpha on a validation batch, then theta on a training batch, until the epochs are over (Algorithm 1).

    With `second_order`, alpha descends the validation loss of the theta that a plain gradient step on the training
    batch would give (DARTS, reference 7 of the paper), not of the present theta.
    """
    for epoch in learner.epochs(learner.settings.epochs):
        for batch in learner.batches(epoch):
            if learner.learns_alpha(epoch):
                # 1. Update alpha by descending the loss on the validation set.
                if learner.settings.second_order:
                    learner.update_alpha_behind_step(batch, learner.held_out())
                else:
                    learner.update_alpha(learner.loss(learner.held_out()))
            # 2. Update theta by descending the loss on the training set.
            learner.update_theta(learner.loss(batch), epoch)
    return learner.history
