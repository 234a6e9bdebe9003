"""Trained networks with layers in memory on simulated chips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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


@contextmanager
def calibrated(network: nn.Module, images: Iterable[Tensor]) -> Iterator[None]:
    """Inside, batch normalisation has the statistics of these batches, means over all of them, as the network computes
    in evaluation mode: in memory, with the conversions and the chip that it is placed on. Afterwards it has its own.

    Example:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> with calibrated(norm, [torch.tensor([[4.0], [6.0]])]):
        ...     norm.running_mean
        tensor([5.])
        >>> norm.running_mean
        tensor([0.])
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    own = [({name: b.clone() for name, b in norm.named_buffers(recurse=False)}, norm.momentum) for norm in norms]
    try:
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
            norm.train()
        with torch.no_grad():
            for batch in images:
                network(batch)
        network.eval()
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, own, strict=True):
            norm.load_state_dict(buffers, strict=False)
            norm.momentum = momentum


def over_chips(
    network: nn.Module,
    number: int,
    mismatch: float,
    offset: float,
    measure: Callable[[], float],
    calibration: Iterable[Tensor] | None = None,
) -> list[float]:
    """What is measured of a network on each of `number` chips, which are numbered from 0.

    Args:
        mismatch, offset: see `Chip`.
        measure: of the network in evaluation mode.
        calibration: batches that each chip is calibrated with (`calibrated`) before it is measured; None: it is not.

    Example:
        >>> over_chips(nn.Linear(2, 2), 2, 0.02, 0.3, lambda: 0.5)
        [0.5, 0.5]
    """
    values = []
    for chip in range(number):
        ready = nullcontext() if calibration is None else calibrated(network, calibration)
        with placed_on(network, Chip(chip, mismatch, offset)), ready:
            values.append(measure())
    return values
