"""Networks and data of one's own, as a user writes them: a ResNet-20, a segmentation, a regression, a language."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return torch.relu(y + self.skip(x))


class ResNet20(nn.Module):
    """He et al. 2016, Section 4.2: three groups of three blocks, 20 layers with weights (and two shortcuts)."""

    def __init__(self, width: int = 16, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        widths = [width, width, width, width, 2 * width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in itertools.pairwise(widths)))
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.fc(y.mean((2, 3)))


def _squares(n: int, seed: int) -> Pair:
    """Bright squares and dark ones on noise (N, 1, 8, 8), and which pixels are of which."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(90, 160, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(n, 8, 8, dtype=torch.int64)
    for i in range(n):
        row, column = torch.randint(0, 5, (2,), generator=generator).tolist()
        images[i, 0, row : row + 3, column : column + 3] = 255 if i % 2 else 0
        masks[i, row : row + 3, column : column + 3] = 1 + i % 2
    return images, masks


def squares(n: int = 120) -> dict[str, Any]:
    """Which square is in the image."""
    parts = {name: _squares(size, seed) for seed, (name, size) in enumerate((("train", n), ("test", n // 2)))}
    return {name: (images, masks.flatten(1).max(1).values - 1) for name, (images, masks) in parts.items()}


def masks(n: int = 120) -> tuple[Pair, Pair]:
    return _squares(n, 0), _squares(n // 2, 1)


def segmentation() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)
    )


def _sums(n: int, seed: int) -> Pair:
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :4].sum(1) - x[:, 4:6].prod(1)


def sums(n: int = 200) -> tuple[Pair, Pair, Pair]:
    return _sums(n, 0), _sums(n // 4, 1), _sums(n // 2, 2)


def regression() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1))


def counting(n: int = 150) -> tuple[Tensor, Tensor]:
    """Texts that count modulo 7, from any number."""
    texts = (torch.arange(n)[:, None] + torch.arange(9)) % 7
    return texts, texts[: n // 3]


class Language(nn.Module):
    """The next token from the present one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.hidden = nn.Linear(8, 12)
        self.out = nn.Linear(12, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.embedding(tokens.long()))))


def language() -> nn.Module:
    return Language()


def resnet20(width: int = 4) -> nn.Module:
    return ResNet20(width, channels=1, classes=2)


def weighted(scores: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy, in which squares count twice as much as what is around them."""
    return nn.functional.cross_entropy(scores, labels, weight=torch.tensor([1.0, 2.0, 2.0]))


def one_channel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


def of_one_channel(outputs: Tensor, labels: Tensor) -> Tensor:
    """Whether a pixel is of a square."""
    return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], (labels > 0).float())
