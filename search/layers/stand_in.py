"""What is in the place of a layer that a network may read."""

from __future__ import annotations

from typing import Any

from torch import nn


class StandIn(nn.Module):
    """A module in the place of a layer, which it has as `layer`: networks can read the layer's attributes from it.

    A module that calls `torch.nn.functional.linear` with the weights of such a layer computes what is in its place
    (`search.layers.products`).

    Example:
        >>> class Doubled(StandIn):
        ...     def __init__(self, layer):
        ...         super().__init__()
        ...         self.layer = layer
        >>> Doubled(nn.Linear(4, 2)).out_features
        2
    """

    def __getattr__(self, name: str) -> Any:
        """What the layer has, as ``weight`` and ``out_channels``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer = self.__dict__.get("_modules", {}).get("layer")
            if layer is None:
                raise
            return getattr(layer, name)
