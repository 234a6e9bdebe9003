"""Sequential ENOS: Algorithm 2 of the paper, which assigns one layer a cycle (Fig. 6a)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from search.strategies.learner import Learner
from search.strategies.settings import Sequential
from search.strategies.single_level import update_on_training_set
from search.supernet import SearchableNetwork
from search.training.checkpoint import Record


def sequential(learner: Learner[Sequential]) -> list[Record]:
    """Learns alpha and theta on the training set, assigns the layer that is surest, and continues with the others.

    The record of a cycle's last epoch has its assignment: `assigned`, with cycle, layer, candidate and weight.
    """
    model, settings = learner.model, learner.settings
    for epoch in learner.epochs(sequential_epochs(model, settings)):
        # Update alpha and theta by descending the loss on the training set.
        update_on_training_set(learner, epoch)
        cycle, rest = divmod(epoch.index + 1 - settings.warmup_epochs, settings.cycle_epochs)
        if cycle > 0 and rest == 0:
            # 1. Find the highest softmax weight of all undecided layers. 2. Assign it and learn it no more.
            layer, candidate, weight = surest(model, learner.regulariser.assignment(model))
            model.fix(layer, candidate)
            epoch.record["assigned"] = {"cycle": cycle, "layer": layer, "candidate": candidate, "weight": weight}
            if settings.restart_alpha:
                _restart_alpha(learner)
    return learner.history


def sequential_epochs(model: SearchableNetwork, settings: Sequential) -> int:
    """The warm-up and a cycle for every layer of `model`, none of which is decided yet."""
    return settings.warmup_epochs + len(model.undecided()) * settings.cycle_epochs


def surest(model: SearchableNetwork, allowed: Mapping[str, str]) -> tuple[str, str, float]:
    """Layer, candidate and weight of the highest softmax(alpha) of all undecided layers; the first of equals.

    Args:
        allowed: layer -> candidate that it may have: its most probable one, or what a budget leaves room for.
    """
    probabilities = model.probabilities()
    return max(
        ((layer, allowed[layer], probabilities[layer][allowed[layer]]) for layer in model.undecided()),
        key=lambda found: found[2],
    )


def _restart_alpha(learner: Learner[Sequential]) -> None:
    """Every undecided layer is as open as at the start."""
    with torch.no_grad():
        for alpha in learner.model.alphas():
            alpha.zero_()
    learner.of_alpha.state.clear()
