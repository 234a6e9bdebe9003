"""Fits single layers to other operators before these are judged: a few steps on the layer's own weights.

An operator that is no approximation of the typical one (MF) gives something else from the same weights. What it could
give is seen only after its weights have been adapted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search.layers.choice import Choice
from search.layers.in_memory.adc import rounds
from search.layers.mixed_layer import MixedLayer
from search.sensitivity.measure import Batch
from search.sensitivity.subject import Subject

BATCH = 64
"""Images in a step."""


def wanted(layer: Choice) -> list[str]:
    """Candidates of a layer that are calibrated: all but those of the typical operator whose sums are exact.

    A product of activations has no weights that could be fitted, and typical candidates only.
    """
    return [c.name for c in layer.candidates if c.operator != "typical" or rounds(c)]


def calibrate(
    subject: Subject, batch: Batch, layer: str, candidates: Sequence[str], steps: int, seed: int, lr: float = 0.03
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Weights of a layer under each of `candidates`, fitted to the output that the reference has.

    The error is `relative_error`. Half of the images are learned from. Weights are kept only where they lower the error
    on the other half.

    Args:
        batch: images as the network reads them.
        steps: of Adam, with a cosine learning rate; 0 fits nothing.
        seed: decides the images of each step.
        lr: in units of the root mean square of the weights.

    Returns:
        The weights by candidate, and for each candidate the error on the other half before and after; 0 to 1.
    """
    own = subject.layers[layer]
    if steps < 1 or not candidates or not isinstance(own, MixedLayer):
        return {}, {}
    inputs, outputs = captured(subject, batch[0], layer)
    half, free = max(1, len(inputs) // 2), normalised_behind(subject, batch[0][:64], layer)
    last = isinstance(own.layer, nn.Linear)

    def error(mixed: MixedLayer, x: Tensor, target: Tensor) -> Tensor:
        y = mixed(x)
        return relative_error(y.flatten(0, -2) if last else y, target.flatten(0, -2) if last else target, free)

    found: dict[str, Tensor] = {}
    errors: dict[str, tuple[float, float]] = {}
    for name in candidates:
        mixed = copy.deepcopy(own)
        mixed.fixed = [c.name for c in mixed.candidates].index(name)
        noisy = rounds(mixed.candidates[mixed.fixed])
        mixed.train()
        weight = mixed.layer.weight = nn.Parameter(mixed.layer.weight.detach().clone())
        before = _value(error, mixed, inputs[half:], outputs[half:])
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam([weight], lr * float(weight.detach().square().mean().sqrt()))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.random.fork_rng(enabled=noisy):
            if noisy:  # whoever fits a layer, and whatever came before, it has the same noise
                torch.manual_seed(seed)
            for _ in range(steps):
                chosen = torch.randperm(half, generator=generator)[:BATCH]
                loss = error(mixed, inputs[chosen], outputs[chosen])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        after = _value(error, mixed, inputs[half:], outputs[half:])
        errors[name] = (before, after)
        if after < before:
            found[name] = weight.detach()
    return found, errors


@dataclass
class Fitting:
    """What all layers are fitted with.

    Attributes:
        batch: images as the network reads them.
        steps, seed: as for `calibrate`.
    """

    subject: Subject
    batch: Batch
    steps: int
    seed: int

    def close(self) -> None:
        """Nothing is open between two layers."""


def fit_layer(fitting: Fitting, layer: str) -> dict[str, Tensor]:
    """The weights of a layer under all candidates that are `wanted`, as a `Crew` fits them; see `calibrate`."""
    names = wanted(fitting.subject.layers[layer])
    return calibrate(fitting.subject, fitting.batch, layer, names, fitting.steps, fitting.seed)[0]


def relative_error(y: Tensor, target: Tensor, free: bool) -> Tensor:
    """The squared error of each channel over the channel's variance, the mean over channels.

    Args:
        y, target: shape (N, C, ...).
        free: whether each channel has the factor and the offset that fit best, as where a normalisation follows. The
            error then is 1 - correlation ** 2, from 0 to 1.
    """
    dims, tiny = (0, *range(2, y.dim())), 1e-12
    centred = target - target.mean(dims, keepdim=True)
    variance = centred.square().sum(dims) + tiny
    if not free:
        return ((y - target).square().sum(dims) / variance).mean()
    y = y - y.mean(dims, keepdim=True)
    return 1 - ((y * centred).sum(dims).square() / (y.square().sum(dims) * variance + tiny)).mean()


@torch.no_grad()
def normalised_behind(subject: Subject, images: Tensor, layer: str) -> bool:
    """Whether the network's output is the same if a layer gives twice its output: then a normalisation follows it."""
    with subject.measured():
        before = subject.model.network(images)
        hook = subject.layers[layer].register_forward_hook(lambda _module, _arguments, output: 2 * output)
        try:
            after = subject.model.network(images)
        finally:
            hook.remove()
    return bool((after - before).norm() <= 0.1 * before.std(correction=0) * before.numel() ** 0.5)


class _Reached(BaseException):
    """Ends a run of a network at a layer. No `Exception`, which a module may handle."""


def captured(subject: Subject, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Inputs and outputs of a layer in the reference, of its first call; shapes (N, ...).

    The layers that follow are not computed.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        kept.extend((arguments[0].clone(), output.clone()))
        raise _Reached

    hook = subject.layers[layer].register_forward_hook(keep)
    try:
        with subject.measured(), torch.no_grad(), suppress(_Reached):
            subject.model.network(images)
    finally:
        hook.remove()
    return kept[0], kept[1]


@torch.no_grad()
def _value(error: Callable[[MixedLayer, Tensor, Tensor], Tensor], mixed: MixedLayer, *arguments: Tensor) -> float:
    mixed.training = False  # its parts still measure their batch, but its sums are exact
    try:
        return float(error(mixed, *arguments))
    finally:
        mixed.training = True
