"""Sensitivity mode: assigns every layer from single-layer measurements of trained weights; nothing is trained."""

from __future__ import annotations

import math

import numpy as np
import torch

from search.costs import Quantity
from search.objective import EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.sensitivity.correct import Choice, correct
from search.sensitivity.crew import default_processes
from search.sensitivity.measure import task_of
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.sensitivity.study import Settings, Study
from search.sensitivity.subject import choice_costs, fix_others, measured_choices, mixed_layers
from search.strategies.learner import Learner
from search.strategies.settings import Sensitivity
from search.supernet import SearchableNetwork
from search.training.checkpoint import Record
from search.training.epochs import batches
from search.training.train import renew_statistics


def sensitivity(learner: Learner[Sensitivity]) -> list[Record]:
    """Measures all layers on validation images, and fixes each to the candidate that the best assignment gives it.

    The measurements are kept beside the learner's checkpoint: a search of the same weights, data and settings with
    another budget reads them. A search that needs them while another one measures waits for it.

    The one epoch's record has loss and metric of the reference, and the loss that was predicted and measured of the
    assignment. Layers have the weights that were calibrated for their candidates, where these help.
    """
    model, data = learner.model, learner.data
    for epoch in learner.epochs(1):
        study = study_of(learner)
        found, (best, loss) = study.sensitivities, _solve(learner, study)
        names = study.names(best)
        for name, mixed in measured_choices(model).items():
            mixed.fix([c.name for c in mixed.candidates].index(names[name]))
        fix_others(model, found.reference)
        study.load_calibrated(mixed_layers(model), names)
        renew_statistics(model, batches(data.train, min(256, len(data.train)), learner.seed, 0))
        epoch.losses.append(torch.tensor(found.reference_loss))
        epoch.record.update(
            reference_loss=found.reference_loss,
            reference_accuracy=found.reference_accuracy,
            predicted_loss=found.reference_loss
            + float(sum(row[i] for row, i in zip(found.increases(), best, strict=True))),
            measured_loss=loss,
        )
    return learner.history


def study_of(learner: Learner[Sensitivity]) -> Study:
    """The measurements of a learner's network. They do not depend on its regulariser."""
    model, settings, compute = learner.model, learner.settings, learner.compute
    wanted = Settings(settings.images, reference_of(model), settings.calibration_steps,
                      corrections=settings.corrections, seed=learner.seed)  # fmt: skip
    processes = default_processes(compute.device, torch.get_num_threads())
    return Study(model, learner.data, wanted, learner.checkpoint.path.parent,
                 task_of(compute.criterion, compute.metric), processes, own_folder=True)  # fmt: skip


def reference_of(model: SearchableNetwork) -> str:
    """The candidate that other layers have meanwhile: the typical operator at most bits, or what comes first."""
    candidates = {c.name: c for layer in mixed_layers(model).values() for c in layer.candidates}
    return max(candidates, key=lambda name: (candidates[name].operator == "typical", candidates[name].bits))


def _solve(learner: Learner[Sensitivity], study: Study) -> tuple[Choice, float]:
    """The best assignment that the regulariser allows, corrected by measurements; and the loss that was measured."""
    model, regulariser, found = learner.model, learner.regulariser, study.sensitivities
    quantity: Quantity = "latency" if isinstance(regulariser, LatencyBudget) else "energy"
    budget = regulariser.budget if isinstance(regulariser, EnergyBudget) else math.inf
    if budget < math.inf:
        model.check_budget(budget, quantity)
    penalties = [np.zeros(len(found.candidates)) for _ in found.layers]
    for which, weight in _weights(regulariser).items():
        for penalty, cost in zip(penalties, _costs(model, found, which), strict=True):
            penalty += weight * cost if weight else 0.0
    measurements = study.measurements(_costs(model, found, quantity), penalties)
    best = correct(measurements, budget, study.settings.corrections)
    return best.choice, best.loss - sum(float(p[i]) for p, i in zip(penalties, best.choice, strict=True))


def _weights(regulariser: Regulariser) -> dict[Quantity, float]:
    """What counts besides the loss: each quantity's weight."""
    if isinstance(regulariser, WeightedEnergy):
        return {"energy": regulariser.lam, "latency": regulariser.latency_weight}
    return {"energy": regulariser.energy_weight} if isinstance(regulariser, LatencyBudget) else {}


def _costs(model: SearchableNetwork, found: Sensitivities, quantity: Quantity) -> list[FloatArray]:
    """The costs of each layer's candidates, in the order of the sensitivities."""
    return choice_costs(model, found.layers, found.candidates, found.reference, quantity)
