"""How a fixed network is trained, as a run configuration says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from dse.core.errors import InputError
from dse.core.schema import CONFIG, Text, number, whole

FROM = ConfigDict(**CONFIG, populate_by_name=True)
"""Of classes with the field ``from``, a word of Python, which is `start` in the program; see `refuse_start`."""

Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True, config=CONFIG)
class Training:
    """One training of a fixed network.

    The learning rate rises to `lr` over the first 5 % of the training. Then it falls as half a cosine to zero, or stays
    if `schedule` is constant. An epoch has `epoch_images` of the training images, others each time; None for all.
    """

    epochs: Annotated[int, whole(1)] = 30
    batch_size: Annotated[int, whole(2)] = 64
    lr: Annotated[float, number(0, 10, above=True)] = 0.003
    schedule: Schedule = "cosine"
    epoch_images: Annotated[int, whole(1)] | None = None

    def __post_init__(self) -> None:
        check_epoch_images(self.epoch_images, self.batch_size)


@dataclass(frozen=True, config=FROM)
class Relearning(Training):
    """The training of the networks that were found and of the baselines, so that they are compared fairly.

    ``from``: the weights that it starts from: those of the search, of the pretraining, or fresh ones; None for
    pretrained ones if there are such. Baselines have no search: they start from pretrained weights instead, if there
    are such.
    """

    start: Literal["search", "pretrained", "scratch"] | None = Field(default=None, alias="from")


@dataclass(frozen=True, config=CONFIG)
class Pretraining(Training):
    """The training that searches, baselines and relearnings start from: `candidate` in every layer."""

    candidate: Text = "T8"


@dataclass(frozen=True, config=CONFIG)
class Distillation:
    """The loss of relearnings and baselines is (1 - weight) * cross entropy + weight * divergence from the teacher.

    The teacher is the pretrained network. The divergence is temperature ** 2 * KL(teacher || network) of the softmax of
    scores / temperature (Hinton et al. 2015).
    """

    weight: Annotated[float, number(0, 1, above=True)] = 0.5
    temperature: Annotated[float, number(0, 1000, above=True)] = 4.0


def check_epoch_images(epoch_images: int | None, batch_size: int) -> None:
    """Raises an InputError if an epoch would be shorter than a batch."""
    if epoch_images is not None and epoch_images < batch_size:
        raise InputError("epoch_images", f"found {epoch_images}", f"at least batch_size, {batch_size}")


def refuse_start(document: Any) -> Any:
    """A mapping as it is; refused if it has `start`, which is called ``from`` in files."""
    if isinstance(document, dict) and "start" in document:
        raise InputError("", "unknown field 'start'", hint="it is called from")
    return document
