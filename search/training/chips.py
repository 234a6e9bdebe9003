"""Trained networks with layers in memory on simulated chips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from search.layers.in_memory.chips import Chip
from search.layers.mixed_layer import MixedLayer, PlainLayer


def layers_in_memory(network: nn.Module) -> dict[str, MixedLayer]:
    """The layers of a network that have a candidate in memory, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, MixedLayer)
        and not isinstance(module, PlainLayer)
        and any(c.macro is not None for c in module.candidates)
    }


@contextmanager
def placed_on(network: nn.Module, chip: Chip) -> Iterator[None]:
    """Inside, layers in memory compute on this chip where they are decided, in evaluation mode."""
    layers = layers_in_memory(network).values()
    try:
        for i, layer in enumerate(layers):
            layer.chip = chip, i
        yield
    finally:
        for layer in layers:
            layer.chip = None


def over_chips(
    network: nn.Module, number: int, mismatch: float, offset: float, measure: Callable[[], float]
) -> list[float]:
    """What is measured of a network on each of `number` chips, which are numbered from 0.

    Args:
        mismatch, offset: see `Chip`.
        measure: of the network in evaluation mode.

    Example:
        >>> over_chips(nn.Linear(2, 2), 2, 0.02, 0.3, lambda: 0.5)
        [0.5, 0.5]
    """
    values = []
    for chip in range(number):
        with placed_on(network, Chip(chip, mismatch, offset)):
            values.append(measure())
    return values
