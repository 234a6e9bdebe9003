"""ShuffleNet v1 (Zhang et al., CVPR 2018) in the form used for CIFAR: a stem of stride 1 and no pool behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dse.core.errors import InputError
from dse.workload.networks import Network
from search.networks.cifar_variants import default_stem_stride, form, scaled

STAGE_CHANNELS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
"""Output channels of stages 2 to 4 by the number of groups (Table 1)."""

STAGE_UNITS = (4, 8, 4)
"""Units of stages 2 to 4; the first of each has stride 2 (Table 1)."""

STEM_CHANNELS = 24


class ChannelShuffle(nn.Module):
    """Channel (group, place) becomes channel (place, group), so that the next groups read from all (Section 3.1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        grouped: Tensor = x.unflatten(1, (self.groups, -1))  # type: ignore[no-untyped-call]
        return grouped.transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """A ShuffleNet unit (Figure 2b, 2c): grouped 1x1, shuffle, depth-wise 3x3, grouped 1x1, beside a shortcut.

    With stride 1 the shortcut is added, with stride 2 it is average-pooled and concatenated.
    Input (N, channels, H, W), output (N, out_channels, H / stride, W / stride).

    Args:
        first_groups: groups of the first 1x1; 1 where its input has few channels.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        bottleneck = out_channels // 4
        computed = out_channels - channels if stride == 2 else out_channels
        self.compress = nn.Conv2d(channels, bottleneck, 1, groups=first_groups, bias=False)
        self.compress_norm = nn.BatchNorm2d(bottleneck)
        self.shuffle = ChannelShuffle(first_groups)
        self.depthwise = nn.Conv2d(bottleneck, bottleneck, 3, stride=stride, padding=1, groups=bottleneck, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, computed, 1, groups=groups, bias=False)
        self.expand_norm = nn.BatchNorm2d(computed)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(torch.relu(self.compress_norm(self.compress(x))))
        y = self.expand_norm(self.expand(self.depthwise_norm(self.depthwise(y))))
        return torch.relu(x + y if self.pool is None else torch.cat([self.pool(x), y], 1))


class ShuffleNet(nn.Module):
    """50 layers: conv1, the three of each of 16 units, fc; input (N, C, H, W), output (N, classes).

    Args:
        num_classes: outputs of fc.
        in_channels: channels of the images.
        width: multiplies the channels of Table 1, to the nearest number that the groups divide.
        groups: groups of the 1x1 convolutions, one of `STAGE_CHANNELS`.
        stem_stride: stride of conv1, 1 for images of 32x32 and below.
        stem_pool: a 3x3 max pool of stride 2 behind conv1, as for images of 224x224 (with a stem of stride 2).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        groups: int = 3,
        stem_stride: int = 1,
        stem_pool: bool = False,
    ) -> None:
        super().__init__()
        if groups not in STAGE_CHANNELS:
            raise InputError("groups", f"found {groups!r}", STAGE_CHANNELS)
        channels = scaled(STEM_CHANNELS, width, groups)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stem_stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1) if stem_pool else nn.Identity()
        for stage, (table_channels, units) in enumerate(zip(STAGE_CHANNELS[groups], STAGE_UNITS, strict=True), start=2):
            out = scaled(table_channels, width, 4 * groups)
            for i in range(units):
                first_groups = 1 if (stage, i) == (2, 0) else groups
                self.add_module(f"stage{stage}_{i}", Unit(channels, out, 1 if i else 2, groups, first_groups))
                channels = out
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(torch.relu(self.norm1(self.conv1(x))))
        for stage, units in enumerate(STAGE_UNITS, start=2):
            for i in range(units):
                x = self.get_submodule(f"stage{stage}_{i}")(x)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


def shufflenet_cifar(
    num_classes: int = 10,
    in_channels: int = 3,
    width: float = 1.0,
    groups: int = 3,
    stem_stride: int | None = None,
    stem_pool: bool = False,
    image: int = 32,
) -> Network:
    """ShuffleNet for `image` x `image` pictures; with stem_pool and image=224 it is that of the paper.

    Args:
        stem_stride: None for `default_stem_stride`, which gives 64x64 the MACs of 32x32 behind conv1.

    Example:
        >>> shufflenet_cifar(num_classes=200, image=64).name
        'shufflenet_64'
    """
    stride = default_stem_stride(image) if stem_stride is None else stem_stride
    module = ShuffleNet(num_classes, in_channels, width, groups, stride, stem_pool)
    return Network(form("shufflenet", image), module, (1, in_channels, image, image))
