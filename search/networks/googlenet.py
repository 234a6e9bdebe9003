"""GoogLeNet (Inception v1, Szegedy et al., CVPR 2015) in the form used for CIFAR: a 3x3 stem, batch normalisation.

The stem of 224x224 images (7x7, two pools, two more convolutions) is one 3x3 convolution with as many outputs. The two
auxiliary classifiers, which belong to training without batch normalisation, are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dse.workload.networks import Network
from search.networks.cifar_variants import default_stem_stride, form, scaled

STEM_CHANNELS = 192

INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Output channels: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection behind the pool (Table 1)."""

POOLED_AFTER = ("3b", "4e")


class Branch(nn.Module):
    """A convolution that keeps height and width, batch normalisation, ReLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Inception(nn.Module):
    """Four branches side by side (Figure 2b); input (N, C, H, W), output (N, sum of the branches, H, W).

    Args:
        sizes: output channels in the order of `INCEPTIONS`.
    """

    def __init__(self, channels: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, projection = sizes
        self.one = Branch(channels, one, 1)
        self.three_reduce = Branch(channels, three_reduce, 1)
        self.three = Branch(three_reduce, three, 3)
        self.five_reduce = Branch(channels, five_reduce, 1)
        self.five = Branch(five_reduce, five, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.projection = Branch(channels, projection, 1)
        self.out_channels = one + three + five + projection

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.one(x),
            self.three(self.three_reduce(x)),
            self.five(self.five_reduce(x)),
            self.projection(self.pool(x)),
        ]
        return torch.cat(branches, 1)


class GoogLeNet(nn.Module):
    """56 layers: conv1, the six of each of nine Inception modules, fc; input (N, C, H, W), output (N, classes).

    Args:
        num_classes: outputs of fc.
        in_channels: channels of the images.
        width: multiplies every hidden layer's channels.
        stem_stride: stride of conv1, 1 for images of 32x32 and below.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0, stem_stride: int = 1) -> None:
        super().__init__()
        channels = scaled(STEM_CHANNELS, width)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        for name, sizes in INCEPTIONS.items():
            module = Inception(channels, tuple(scaled(size, width) for size in sizes))
            self.add_module(f"inception{name}", module)
            channels = module.out_channels
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        for name in INCEPTIONS:
            x = self.get_submodule(f"inception{name}")(x)
            if name in POOLED_AFTER:
                x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        scores: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return scores


def googlenet_cifar(
    num_classes: int = 10,
    in_channels: int = 3,
    width: float = 1.0,
    stem_stride: int | None = None,
    image: int = 32,
) -> Network:
    """GoogLeNet for `image` x `image` pictures.

    Args:
        stem_stride: None for `default_stem_stride`, which gives 64x64 the MACs of 32x32 behind conv1.

    Example:
        >>> googlenet_cifar(num_classes=47, in_channels=1, width=0.25, image=28).input_shape
        (1, 1, 28, 28)
    """
    stride = default_stem_stride(image) if stem_stride is None else stem_stride
    module = GoogLeNet(num_classes, in_channels, width, stride)
    return Network(form("googlenet", image), module, (1, in_channels, image, image))
