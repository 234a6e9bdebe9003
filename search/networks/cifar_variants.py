"""What the shipped networks share: how their form follows the size of the images."""

from __future__ import annotations

import math

from dse.core.errors import InputError


def form(network: str, image: int) -> str:
    """Name of a network's form for `image` x `image` pictures: ``NAME_cifar`` up to 32, else such as ``NAME_64``.

    Example:
        >>> form("squeezenet", 32), form("squeezenet", 64)
        ('squeezenet_cifar', 'squeezenet_64')
    """
    return f"{network}_cifar" if image <= 32 else f"{network}_{image}"


def default_stem_stride(image: int) -> int:
    """Stride of the first convolution: 1 up to 32 pixels, above it 2, so that 64x64 costs what 32x32 does behind it.

    Example:
        >>> default_stem_stride(32), default_stem_stride(64)
        (1, 2)
    """
    return 1 if image <= 32 else 2


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`width` times `channels`, to the nearest multiple of `multiple` and at least one of it.

    Raises:
        InputError: a width that is not a number above 0.

    Example:
        >>> scaled(96, 0.125), scaled(240, 0.25, multiple=12)
        (12, 60)
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < math.inf:
        raise InputError("width", f"found {width!r}", "a number above 0")
    return max(1, round(width * channels / multiple)) * multiple
