"""SqueezeNet v1.0 (Iandola et al. 2016) in the form used for CIFAR, with batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dse.workload.networks import Network
from search.networks.cifar_variants import default_stem_stride, form, scaled

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Output channels of the squeeze and of each expand layer of fire2 to fire9."""


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expand layers side by side; input (N, C, H, W), output (N, 2 expand, H, W)."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(squeeze)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1, bias=False)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(2 * expand)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze_norm(self.squeeze(x)))
        return torch.relu(self.expand_norm(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)))


class SqueezeNet(nn.Module):
    """26 convolutions: conv1, the three of each of fire2 to fire9, conv10; input (N, C, H, W), output (N, classes).

    Args:
        num_classes: outputs of conv10.
        in_channels: channels of the images.
        width: multiplies every hidden layer's channels.
        stem: channels of conv1 before `width`.
        stem_stride: stride of conv1, 1 for images of 32x32 and below.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0, stem: int = 96, stem_stride: int = 1
    ) -> None:
        super().__init__()
        channels = scaled(stem, width)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        for i, (squeeze, expand) in enumerate(FIRES, start=2):
            self.add_module(f"fire{i}", Fire(channels, scaled(squeeze, width), scaled(expand, width)))
            channels = 2 * scaled(expand, width)
        self.conv10 = nn.Conv2d(channels, num_classes, 1, bias=False)
        self.norm10 = nn.BatchNorm2d(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        for i in range(2, 2 + len(FIRES)):
            x = self.get_submodule(f"fire{i}")(x)
            if i in (4, 8):
                x = nn.functional.max_pool2d(x, 2)
        scores: Tensor = self.norm10(self.conv10(x))
        return scores.mean((2, 3))


def squeezenet_cifar(
    num_classes: int = 10,
    in_channels: int = 3,
    width: float = 1.0,
    stem: int = 96,
    stem_stride: int | None = None,
    image: int = 32,
) -> Network:
    """SqueezeNet for `image` x `image` pictures: fire4 of the default is the paper's layer of 46 million MACs.

    Args:
        stem_stride: None for `default_stem_stride`, which gives 64x64 the MACs of 32x32 behind conv1.

    Example:
        >>> squeezenet_cifar(in_channels=1, width=0.125, image=8).input_shape
        (1, 1, 8, 8)
    """
    stride = default_stem_stride(image) if stem_stride is None else stem_stride
    module = SqueezeNet(num_classes, in_channels, width, stem, stride)
    return Network(form("squeezenet", image), module, (1, in_channels, image, image))
