"""Operands that the MAC cores meet in a network: a small one, trained on the digits with each candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dse.hardware.candidate import Candidate
from dse.rtl.streams import Stream
from search.data.datasets import digits
from search.layers.mac_cores import integer_layer
from search.layers.mixed_layer import MixedLayer

CHANNELS = 16
EPOCHS = 6


def digits_streams(candidates: Sequence[Candidate], operations: int, seed: int = 0) -> dict[str, tuple[Stream, float]]:
    """For each candidate the operands of the second convolution of a trained network, and its accuracy on test images.

    The network is convolution (3x3, 16 channels), ReLU, convolution with the candidate (3x3, 16 to 32 channels), ReLU,
    mean of 2x2, linear layer. A sum of the stream is one output: 144 operations, channel by channel, of a random image,
    position and output channel of the test images.

    Args:
        operations: how many a stream has, rounded up to whole sums.
    """
    data = digits()
    found = {}
    for candidate in candidates:
        torch.manual_seed(seed)
        mixed = MixedLayer(nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1, bias=False), [candidate])
        before = nn.Sequential(
            nn.Conv2d(data.image_shape[0], CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        after = nn.Sequential(
            nn.BatchNorm2d(2 * CHANNELS), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.LazyLinear(data.classes),
        )  # fmt: skip
        network = nn.Sequential(before, mixed, after)
        network(data.train.images[:2])
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        network.train()
        for _ in range(EPOCHS):
            for batch in torch.utils.data.BatchSampler(torch.randperm(len(data.train.images)).tolist(), 64, False):
                loss = functional.cross_entropy(network(data.train.images[batch]), data.train.labels[batch])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
                optimiser.step()
        network.eval()
        with torch.no_grad():
            correct = (network(data.test.images).argmax(1) == data.test.labels).double().mean().item()
            layer = integer_layer(mixed, before(data.test.images))
        windows = functional.unfold(torch.from_numpy(layer.inputs).double(), 3, padding=1).to(torch.int64).numpy()
        rng = np.random.default_rng(seed)
        sums = -(-operations // windows.shape[1])
        image, position = rng.integers(0, windows.shape[0], sums), rng.integers(0, windows.shape[2], sums)
        w = layer.weights.reshape(len(layer.weights), -1)[rng.integers(0, len(layer.weights), sums)]
        found[candidate.name] = Stream(windows[image, :, position], w, layer.signed), correct
    return found
