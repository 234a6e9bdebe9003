"""A vision transformer (Dosovitskiy et al. 2021) for small images, as it is commonly written.

A class token, learned positions, normalisation before each part of a block, one linear layer for queries, keys and
values, and torch's scaled dot product attention, whose two products are layers of their own (``matmul_1``,
``matmul_2``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.core.errors import InputError
from dse.workload.networks import Network
from search.networks.cifar_variants import form


class Attention(nn.Module):
    """Multi-head self-attention; input and output (N, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.proj(y.transpose(1, 2).reshape(n, tokens, width))
        return result


class Block(nn.Module):
    """Attention, then two linear layers with `ratio` times the width between them; (N, tokens, width) in and out."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc1, self.fc2 = (
            nn.LayerNorm(width),
            nn.Linear(width, ratio * width),
            nn.Linear(ratio * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        hidden = functional.gelu(self.fc1(self.norm2(x)))
        result: Tensor = x + self.fc2(hidden)
        return result


class VisionTransformer(nn.Module):
    """Input (N, C, H, W), output (N, classes).

    Args:
        patch: height and width of a token in pixels.
        depth: number of blocks.
    """

    def __init__(
        self, num_classes: int, in_channels: int, image: int, patch: int, width: int, depth: int, heads: int, ratio: int
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (image // patch) ** 2, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, ratio) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        tokens: Tensor = self.norm(self.blocks(x))
        result: Tensor = self.head(tokens[:, 0])
        return result


def vit_cifar(
    num_classes: int = 10,
    in_channels: int = 3,
    image: int = 32,
    *,
    patch: int = 4,
    width: int = 96,
    depth: int = 6,
    heads: int = 3,
    ratio: int = 2,
) -> Network:
    """A transformer for `image` x `image` pictures: of 32x32, 65 tokens of 96 values in 6 blocks.

    Raises:
        InputError: `width` is no multiple of `heads`, or `image` none of `patch`.

    Example:
        >>> vit_cifar(in_channels=1, image=8, patch=2, width=16, depth=1, heads=2).input_shape
        (1, 1, 8, 8)
    """
    for what, whole, part, by in [("width", width, heads, "heads"), ("image", image, patch, "patch")]:
        if min(whole, part) < 1 or whole % part:
            raise InputError(what, f"found {whole}", f"a multiple of {by}, {part}")
    module = VisionTransformer(num_classes, in_channels, image, patch, width, depth, heads, ratio)
    return Network(form("vit", image), module, (1, in_channels, image, image))
