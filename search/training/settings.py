"""How a fixed network is trained, as a run configuration says it."""

from __future__ import annotations

from typing import Annotated

from pydantic.dataclasses import dataclass

from dse.core.schema import CONFIG, number, whole


@dataclass(frozen=True, config=CONFIG)
class Training:
    """One training of a fixed network: the relearned ones and the baselines, so that they are compared fairly."""

    epochs: Annotated[int, whole(1)] = 30
    batch_size: Annotated[int, whole(2)] = 64
    lr: Annotated[float, number(0, 10, above=True)] = 0.003
