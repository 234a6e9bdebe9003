"""Sensitivity mode: assigns every layer from single-layer measurements of trained weights; nothing is trained."""

from __future__ import annotations

import math

import numpy as np
import torch

from search.costs import Quantity
from search.objective import EnergyBudget, LatencyBudget, Regulariser, WeightedEnergy
from search.sensitivity.calibrate import calibrate_all
from search.sensitivity.correct import Choice, Measurements, correct
from search.sensitivity.measure import Batch, Subject, Sums, held_out, helpful, joint, measure, mixed_layers
from search.sensitivity.sensitivities import FloatArray, Sensitivities
from search.strategies.learner import Learner
from search.strategies.settings import Sensitivity
from search.supernet import SearchableNetwork
from search.training.checkpoint import Record
from search.training.train import batches, renew_statistics

CALIBRATED_ON = 512
"""Training images that layers are calibrated with."""


def sensitivity(learner: Learner[Sensitivity]) -> list[Record]:
    """Measures all layers on validation images, and fixes each to the candidate that the best assignment gives it.

    The one epoch's record has loss and accuracy of the reference, and the increase of the loss that was predicted and
    measured of the assignment. Layers have the weights that were calibrated for their candidates.
    """
    model, settings, data = learner.model, learner.settings, learner.data
    for epoch in learner.epochs(1):
        reference = reference_of(model)
        few = data.train.images[:CALIBRATED_ON]
        images = (data.train.prepared(few), data.train.labels[:CALIBRATED_ON])
        calibrated = calibrate_all(Subject(model, reference), images, settings.calibration_steps, learner.seed)
        sums, held = Sums(), held_out(data.validation, settings.images)
        found = measure(Subject(model, reference, calibrated), held, sums=sums)
        subject = Subject(model, reference, helpful(calibrated, sums))
        best = _solve(learner, found, subject, held)
        for layer, i in zip(found.layers, best, strict=True):
            candidate = found.candidates[i]
            mixed = subject.layers[layer]
            mixed.fix([c.name for c in mixed.candidates].index(candidate))
            if candidate in subject.calibrated.get(layer, {}):
                with torch.no_grad():
                    mixed.layer.weight.copy_(subject.calibrated[layer][candidate])
        renew_statistics(model, batches(data.train, min(256, len(data.train)), learner.seed, 0))
        epoch.losses.append(torch.tensor(found.reference_loss))
        names = {layer: found.candidates[i] for layer, i in zip(found.layers, best, strict=True)}
        epoch.record.update(
            reference_loss=found.reference_loss,
            reference_accuracy=found.reference_accuracy,
            predicted_loss=found.reference_loss
            + float(sum(row[i] for row, i in zip(found.increases(), best, strict=True))),
            measured_loss=joint(Subject(model, reference), held, names)[0],
        )
    return learner.history


def reference_of(model: SearchableNetwork) -> str:
    """The candidate that other layers have meanwhile: the typical operator at most bits, or what comes first."""
    candidates = {c.name: c for layer in mixed_layers(model).values() for c in layer.candidates}
    return max(candidates, key=lambda name: (candidates[name].operator == "typical", candidates[name].bits))


def _solve(learner: Learner[Sensitivity], found: Sensitivities, subject: Subject, held: list[Batch]) -> Choice:
    """The best assignment that the regulariser allows, corrected by measurements."""
    model, regulariser = learner.model, learner.regulariser
    quantity: Quantity = "latency" if isinstance(regulariser, LatencyBudget) else "energy"
    budget = regulariser.budget if isinstance(regulariser, EnergyBudget) else math.inf
    if budget < math.inf:
        model.check_budget(budget, quantity)
    penalties = [np.zeros(len(found.candidates)) for _ in found.layers]
    for which, weight in _weights(regulariser).items():
        for penalty, cost in zip(penalties, _costs(model, found, which), strict=True):
            penalty += weight * cost if weight else 0.0

    def evaluate(choice: Choice) -> tuple[float, float]:
        names = {layer: found.candidates[i] for layer, i in zip(found.layers, choice, strict=True)}
        loss, accuracy = joint(subject, held, names)
        return loss + float(sum(p[i] for p, i in zip(penalties, choice, strict=True))), accuracy

    values = [increase + penalty for increase, penalty in zip(found.increases(), penalties, strict=True)]
    measurements = Measurements(values, _costs(model, found, quantity), evaluate)
    return correct(measurements, budget, learner.settings.corrections).choice


def _weights(regulariser: Regulariser) -> dict[Quantity, float]:
    """What counts besides the loss: each quantity's weight."""
    if isinstance(regulariser, WeightedEnergy):
        return {"energy": regulariser.lam, "latency": regulariser.latency_weight}
    return {"energy": regulariser.energy_weight} if isinstance(regulariser, LatencyBudget) else {}


def _costs(model: SearchableNetwork, found: Sensitivities, quantity: Quantity) -> list[FloatArray]:
    """The costs of each layer's candidates, in the order of the sensitivities."""
    by_layer = dict(zip((id(layer) for layer, _ in model.choices(quantity)), model.choices(quantity), strict=True))
    layers, result = mixed_layers(model), []
    for name in found.layers:
        mixed, costs = by_layer[id(layers[name])]
        row = np.full(len(found.candidates), np.inf)
        for candidate, cost in zip(mixed.candidates, costs, strict=True):
            row[found.candidates.index(candidate.name)] = cost
        result.append(row)
    return result
