"""Variational mode: a distribution over assignments, learnt from relaxed samples of it.

q(assignment) is the product of the layers' softmax(alpha). Alpha descends the expectation of Eq. 2a under q plus
kl * KL(q || uniform), which keeps the entropy up. The expectation of the accuracy loss is estimated with one relaxed
sample a step (Gumbel-softmax: Jang et al. 2017; Concrete: Maddison et al. 2017); that of the energy is exact, for the
energy is linear in q.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from search.sampling.sampler import EXACT, InMemory, Sampler, sampler_of
from search.strategies.learner import Learner
from search.strategies.settings import Variational
from search.supernet import SearchableNetwork
from search.training.checkpoint import Record


def variational(learner: Learner[Variational]) -> list[Record]:
    """Updates alpha on a validation batch, then theta on a training batch, both under relaxed samples."""
    model, settings = learner.model, learner.settings
    sampler = sampler_of(settings.sampler, settings.macro)
    for epoch in learner.epochs(settings.epochs):
        temperature = settings.temperature
        if isinstance(sampler, InMemory):  # of an epoch that is resumed, not 0
            sampler.numbers, sampler.iterations = (epoch.counts.get(name, 0) for name in ("numbers", "iterations"))
        for batch in learner.batches(epoch):
            temperature = annealed(settings, epoch.progress)
            if learner.learns_alpha(epoch):
                with model.relaxed(relaxed_sample(model, temperature, sampler)):
                    loss = learner.loss(learner.held_out())
                learner.update_alpha(loss + settings.kl * divergence(model))
            with model.relaxed(relaxed_sample(model, temperature, sampler)):
                loss = learner.loss(batch)
            learner.update_theta(loss, epoch)
            if isinstance(sampler, InMemory):
                epoch.counts.update(numbers=sampler.numbers, iterations=sampler.iterations)
        epoch.record.update(temperature=temperature, divergence=float(divergence(model).detach()))
        if isinstance(sampler, InMemory):
            epoch.record["noise"] = {"numbers": sampler.numbers, "iterations": sampler.iterations}
    return learner.history


def annealed(settings: Variational, progress: float) -> float:
    """Temperature, from the first to the last in equal ratios; `progress` runs from 0 to 1."""
    return float(settings.temperature * (settings.temperature_end / settings.temperature) ** progress)


def relaxed_sample(model: SearchableNetwork, temperature: float, sampler: Sampler = EXACT) -> list[Tensor]:
    """softmax((alpha + Gumbel noise) / temperature) of each layer, in the order of `alphas`.

    The largest share is a candidate's with the probability softmax(alpha); the colder, the closer the share is to 1.
    """
    sizes = [len(alpha) for alpha in model.alphas()]
    # From the CPU's generator, which every epoch sets again: one copy of noise for all layers, which nothing waits for.
    noise = -sampler.exponential(sum(sizes)).log()
    if sizes:
        noise = noise.to(model.alphas()[0].device, non_blocking=True)
    return [
        ((alpha + gumbel) / temperature).softmax(0)
        for alpha, gumbel in zip(model.alphas(), torch.split(noise, sizes), strict=True)
    ]


def divergence(model: SearchableNetwork) -> Tensor:
    """KL(softmax(alpha) || uniform) in nats, the mean over layers: log of the number of candidates minus entropy."""
    layers = [
        math.log(len(alpha)) + (alpha.softmax(0) * alpha.log_softmax(0)).sum() for alpha in model.alphas()
    ]  # fmt: skip
    return torch.stack(layers).mean() if layers else torch.zeros(())
