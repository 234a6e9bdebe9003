"""A network that trains in no time, as a user's module would provide it."""

from __future__ import annotations

import multiprocessing
import os
from collections import OrderedDict

from torch import nn

from dse.workload.networks import Network


def tiny(classes: int = 10, image: int = 8, width: int = 6) -> Network:
    module = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
            flat=nn.Flatten(),
            fc=nn.Linear(width * (image // 2) ** 2, classes),
        )
    )
    return Network("tiny", module, (1, 1, image, image))


def dying() -> Network:
    """Ends every worker that makes it."""
    if multiprocessing.parent_process() is not None:
        os._exit(3)
    return tiny()


def frozen() -> Network:
    """Leaves a search nothing to learn."""
    network = tiny()
    network.module.requires_grad_(False)
    return network
