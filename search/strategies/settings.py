"""The search modes and what each is given, as a run configuration says it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from dse.core.errors import InputError, did_you_mean
from dse.core.schema import Flag, number, whole
from search.sampling.macro import Macro, SamplerName
from search.training.settings import FROM, check_epoch_images, refuse_start


@dataclass(frozen=True, config=FROM)
class Search:
    """What every search mode is given; alpha stays untouched in the first `warmup_epochs`.

    `lr` is of theta, `alpha_lr` of alpha. ``from``: the weights that theta starts from; None for pretrained ones if
    there are such. `paths` is the number of candidates that each layer computes in a step, drawn with the chances
    softmax(alpha); None for all whose weight is at least `negligible` / (number of candidates). An epoch has
    `epoch_images` of the training images, others each time; None for all. Each mode is a class of its own, with what
    it needs besides.
    """

    mode: str = ""
    warmup_epochs: Annotated[int, whole()] = 2
    batch_size: Annotated[int, whole(2)] = 64
    lr: Annotated[float, number(0, 10, above=True)] = 0.003
    alpha_lr: Annotated[float, number(0, 10, above=True)] = 0.1
    start: Literal["pretrained", "scratch"] | None = Field(default=None, alias="from")
    paths: Annotated[int, whole(2, 1000)] | None = None
    negligible: Annotated[float, number(0, 1)] = 0.1
    epoch_images: Annotated[int, whole(1)] | None = None

    def __post_init__(self) -> None:
        check_epoch_images(self.epoch_images, self.batch_size)


@dataclass(frozen=True, config=FROM)
class SingleLevel(Search):
    """Alpha and theta learn together on the training set for `epochs`, the warm-up included."""

    mode: Literal["single_level"] = "single_level"
    epochs: Annotated[int, whole(1)] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs >= self.epochs:
            raise InputError("warmup_epochs", f"found {self.warmup_epochs}", f"fewer than epochs, {self.epochs}")


@dataclass(frozen=True, config=FROM)
class Bilevel(SingleLevel):
    """Algorithm 1: alpha on the validation set; with `second_order`, through a step of theta."""

    mode: Literal["bilevel"] = "bilevel"  # type: ignore[assignment]
    second_order: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.second_order and self.paths is not None:
            raise InputError("paths", f"found {self.paths}, but second_order compares losses of the same candidates",
                             "null")  # fmt: skip


def _check_macro(sampler: SamplerName, macro: Macro) -> None:
    if sampler == "exact" and macro != Macro():
        raise InputError("macro", "is given, but the sampler is exact", hint="set sampler: mc2ram")


@dataclass(frozen=True, config=FROM)
class Stochastic(Bilevel):
    """Algorithm 3: bi-level learning, then `samples` networks from softmax(alpha), of which the best is kept.

    `sampler` draws the noise that samples are made of, exactly or as a `macro` inside SRAM would (docs/sampler.md).
    """

    mode: Literal["stochastic"] = "stochastic"  # type: ignore[assignment]
    samples: Annotated[int, whole(1, 10_000)] = 6
    sampler: SamplerName = "exact"
    macro: Macro = Macro()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_macro(self.sampler, self.macro)


@dataclass(frozen=True, config=FROM)
class Sequential(Search):
    """Algorithm 2: `cycle_epochs` for every layer; `restart_alpha` opens the undecided ones again in each cycle."""

    mode: Literal["sequential"] = "sequential"
    cycle_epochs: Annotated[int, whole(1)] = 1
    restart_alpha: Flag = False


@dataclass(frozen=True, config=FROM)
class Variational(SingleLevel):
    """Relaxed samples, from `temperature` to `temperature_end`; `kl` weighs the divergence from a uniform choice.

    The most probable assignment is relearnt, or, if `samples` is given, that many samples, of which the best is kept.
    `sampler` and `macro` are as in `Stochastic`; here the noise of every step is drawn by it, too.
    """

    mode: Literal["variational"] = "variational"  # type: ignore[assignment]
    temperature: Annotated[float, number(0, 1000, above=True)] = 1.0
    temperature_end: Annotated[float, number(0, 1000, above=True)] = 0.2
    kl: Annotated[float, number(0, 1e6)] = 0.01
    samples: Annotated[int, whole(1, 10_000)] | None = None
    sampler: SamplerName = "exact"
    macro: Macro = Macro()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_macro(self.sampler, self.macro)


@dataclass(frozen=True, config=FROM)
class Sensitivity(Search):
    """Nothing is trained: each layer is measured alone on `images` validation images, with trained weights.

    Operators other than the typical one are fitted to the layer's output in `calibration_steps` before. `corrections`
    whole assignments are measured around the solution. Nothing else that `Search` is given has an effect.
    """

    mode: Literal["sensitivity"] = "sensitivity"
    images: Annotated[int, whole(32)] = 1000
    calibration_steps: Annotated[int, whole(0, 10_000)] = 20
    corrections: Annotated[int, whole(0, 10_000)] = 16


MODES: dict[str, type[Search]] = {
    "single_level": SingleLevel,
    "bilevel": Bilevel,
    "sequential": Sequential,
    "stochastic": Stochastic,
    "variational": Variational,
    "sensitivity": Sensitivity,
}
"""Search modes by their name in a configuration."""


def _of_its_mode(document: Any) -> Any:
    """A mapping with its mode, bi-level where it names none; an option of another mode only is refused by name."""
    if not isinstance(document, dict):
        if isinstance(document, Search):
            return document
        names = ", ".join(_names(Bilevel))
        raise InputError("", f"found {document!r}", f"a mapping with {names}")
    mode = document.get("mode", "bilevel")
    if not isinstance(mode, str) or mode not in MODES:
        near = did_you_mean(str(mode), MODES)
        raise InputError("mode", f"found {mode!r}{near}", MODES)
    refuse_start(document)
    options = {name: _names(kind) for name, kind in MODES.items()}
    for key in document:
        if key not in options[mode] and any(key in names for names in options.values()):
            raise InputError(str(key), f"mode {mode} does not use it", options[mode])
    return {"mode": mode, **document}


def _names(kind: type[Search]) -> list[str]:
    """The fields of a mode as files name them."""
    return ["from" if field.name == "start" else field.name for field in dataclasses.fields(kind)]


AnySearch = Annotated[
    SingleLevel | Bilevel | Sequential | Stochastic | Variational | Sensitivity,
    Field(discriminator="mode"),
    BeforeValidator(_of_its_mode),
]
"""The settings of the mode that a configuration names."""
