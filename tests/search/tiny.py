"""A network that trains in no time, as a user's module would provide it."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections import OrderedDict

from torch import Tensor, nn

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


class _Failing(nn.Flatten):
    """Fails with `error` where a worker trains."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if multiprocessing.parent_process() is not None:
            raise self.error
        return super().forward(x)


def failing(kind: str) -> Network:
    """Workers meet a full disk or a defect."""
    network = tiny()
    error = OSError(errno.ENOSPC, "No space left on device", "a.pt") if kind == "disk" else LookupError("a defect")
    network.module.flat = _Failing(error)
    return network


def frozen() -> Network:
    """Leaves a search nothing to learn."""
    network = tiny()
    network.module.requires_grad_(False)
    return network
