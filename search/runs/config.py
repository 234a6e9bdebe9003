"""A run's configuration: YAML in, a frozen dataclass out; every wrong field is one clear line."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Len
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from dse.core.documents import parse_yaml, read_text
from dse.core.errors import InputError, unknown
from dse.core.schema import CONFIG, UNIQUE, Flag, Text, checked, number, one_of, validated, whole
from dse.hardware.accelerator import Accelerator, read_accelerator
from dse.hardware.candidate import Candidate
from dse.hardware.candidates import SHIPPED, find_operators, is_resolved, load_candidates
from search.data.catalogue import NAMES
from search.spaces import AnySpace, Space
from search.strategies.settings import AnySearch, Bilevel
from search.training.measures import LOSSES, METRICS
from search.training.settings import Distillation, Pretraining, Relearning, refuse_start

PAPER_BASELINES = ("T8", "MF8", "BC8")
"""The uniform networks that the paper's uni-operator lines go through."""

EXAMPLE = Path(__file__).parents[1] / "configs" / "digits.yaml"
"""The embedded example: real digits, no download, minutes on two cores."""


def _run_name(value: str) -> str:
    if not all(c.isalnum() or c in "-_." for c in value) or value[0] == ".":
        raise InputError("", f"found {value!r}", "letters, digits, '-', '_' and '.', for it names the run's folder")
    if len(value.encode()) > 100:
        raise InputError("", f"found {value!r}", "at most 100 bytes, for it names the run's folder")
    return value


def _device(value: str) -> str:
    kind, _, index = value.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (index.isascii() and index.isdigit() and len(index) < 4)):
        raise InputError("", f"found {value!r}", "cpu, cuda, cuda:N")
    return value


def _function_name(value: str) -> str:
    module, colon, name = value.partition(":")
    if not (module and colon and name):
        raise InputError("", f"found {value!r}", "package.module:function")
    return value


def _loss(value: str) -> str:
    return value if value in LOSSES or ":" in value else _unnamed(value, LOSSES)


def _metric(value: str) -> str:
    return value if value in METRICS or ":" in value else _unnamed(value, METRICS)


def _unnamed(value: str, names: Iterable[str]) -> str:
    raise InputError("", f"found {value!r}", ", ".join([*names, "package.module:function"]))


def _operators(value: str) -> str:
    find_operators(value, "")
    return value


def _baselines(value: Any) -> Any:
    """A list of candidates, or a word; pydantic alone would report each form's own error."""
    if isinstance(value, str) and value in ("all", "paper"):
        return value
    if not isinstance(value, list | tuple):
        raise InputError("", f"found {value!r}", "all, paper, or a list of candidates")
    for i, name in enumerate(value):
        if not isinstance(name, str) or not name:
            raise InputError(f"[{i}]", f"found {name!r}", "a candidate's name")
        if name in value[:i]:
            raise InputError(f"[{i}]", f"{name!r} is in the list twice")
    return tuple(value)


def _baseline_epochs(value: object) -> object:
    if value in ("equal", "relearn") or (type(value) is int and 1 <= value < 2**31):
        return value
    raise InputError("", f"found {value!r}", "equal, relearn, a whole number from 1")


@dataclass(frozen=True, config=CONFIG)
class NetworkChoice:
    """What to search: `factory` is a name such as ``squeezenet`` or ``package.module:factory``, called with `args`."""

    factory: Text = "squeezenet"
    args: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, config=CONFIG)
class DataChoice:
    """Data set: one that `name` names, digits without any; or one's own.

    Own data are what `factory`, ``package.module:function``, returns when it is called with `args`, or are read from
    `path`, a folder of images or a .npz file; see `search.data.own`.
    `dir` is the folder that holds its official files (not for digits). `subset` is a number of training and validation
    images to keep; official test images are kept whole (digits have none: theirs are in the number too).
    `validation` is the share of the images not for test that theta does not learn from (a tenth; of digits 2/7).
    With `augment`, training images are shifted a little and, where their class allows, mirrored.
    """

    name: Annotated[str, one_of(NAMES)] | None = None
    factory: Annotated[Text, checked(_function_name)] | None = None
    args: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    path: Text | None = None
    dir: Text | None = None
    subset: Annotated[int, whole(30)] | None = None
    validation: Annotated[float, number(0.01, 0.9)] | None = None
    augment: Flag = True

    def __post_init__(self) -> None:
        given = [field for field in ("name", "factory", "path") if getattr(self, field) is not None]
        if len(given) > 1:
            raise InputError(given[1], f"is given beside {given[0]}", "one of name, factory, path")
        if self.args and self.factory is None:
            raise InputError("args", "are given without factory", "a factory that is called with them")
        if not given:
            object.__setattr__(self, "name", "digits")

    @property
    def label(self) -> str:
        """What results call the data set."""
        return self.name or self.factory or Path(str(self.path)).name


@dataclass(frozen=True, config=CONFIG)
class Layers:
    """How searched and trained layers compute; see `search.layers.mixed_layer.LayerOptions`.

    `sign_width_input`, `sign_width_weight` and `steepness` shape the gradients of sign and magnitude, in root mean
    squares.
    """

    quantiser: Literal["rms", "lsq", "dorefa"] = "rms"
    latent: Literal["shared", "own"] = "shared"
    learned_scales: Flag = False
    sign_width_input: Annotated[float, number(0, 100, above=True)] = 0.5
    sign_width_weight: Annotated[float, number(0, 100, above=True)] = 1.0
    steepness: Annotated[float, number(0, 1000, above=True)] = 10.0


_Mismatch = Annotated[float, number(0, 1)]
_Offset = Annotated[float, number(0, 1000)]


@dataclass(frozen=True, config=CONFIG)
class Chips:
    """Simulated chips that trained networks with layers in memory are tested on.

    `mismatch` is the standard deviation of a cell's contribution, as a share of it; `offset` that of an ADC's offset,
    in codes. `calibration` is the number of training images that each chip's batch normalisation is measured with; 0
    leaves it as it was trained.
    """

    number: Annotated[int, whole(1, 1000)] = 10
    mismatch: _Mismatch = 0.02
    offset: _Offset = 0.3
    calibration: Annotated[int, whole(0)] = 0


@dataclass(frozen=True, config=CONFIG)
class RunConfig:
    """Everything that decides a run's results, and `jobs` and `tensorboard`.

    `operators` names the file that declares the operators, shipped or one's own; `candidates` are all that it
    declares, unless they are given. `baselines` are the uniform networks that searched ones are compared with: a list
    of candidates; ``all``, for nothing is known of their accuracies before they are trained; or ``paper``, the three of
    the paper's lines (`uniform_candidates`).
    `loss` is what networks learn from and `metric` what decides between them; see `search.training.metrics`.
    `lambdas`, `energy_budgets` and `latency_budgets` are searched one by one; more than one is a sweep. Where budgets
    are given and no lambdas, no lambda is searched. A budget is a share of the all-typical 8-bit network's energy or
    cycles, which the found network meets. `latency_weight` weighs the expected cycles beside each lambda,
    `energy_weight` the expected energy beside each latency budget. `space` and `pins` restrict `candidates`;
    `exclude` leaves layers out of the search, which stay as they are in floating point. `amp`
    trains in bfloat16 where torch's autocast does, None on a GPU only.
    `init` is a file of weights of the plain network; with `pretrain`, the network is trained before everything else,
    from these weights if they are given. Searches and trainings start from the pretrained weights, unless their
    ``from`` says otherwise. `distill` makes the pretrained network a teacher. `baseline_epochs` is the length of
    training of a baseline: a number, ``relearn`` for as long as a relearning, ``equal`` for as many image passes in all
    as the searched networks have; None for equal if there are pretrained weights, else relearn.
    `threads` is the number of CPU threads, None for torch's own choice; sums are added in another order on another
    number of threads, and networks as small as the example's are not faster on several.
    `jobs` is the number of processes that do stages side by side, None for as many as there are cores for `threads`;
    one if `threads` is None or the device is a GPU. `chips` tests trained networks on simulated chips too.
    `tensorboard` writes the metrics as event files too.
    """

    name: Annotated[Text, checked(_run_name)]
    network: NetworkChoice = NetworkChoice()
    data: DataChoice = DataChoice()
    arch: Text = "eyeriss_168"
    transmission: Literal["all", "on_chip"] = "all"
    operators: Annotated[Text, checked(_operators)] = SHIPPED
    candidates: Annotated[tuple[Text, ...], Len(1), UNIQUE] = tuple(c.name for c in load_candidates())
    space: AnySpace = Space()
    pins: dict[str, Text] = Field(default_factory=dict)
    exclude: Annotated[tuple[Text, ...], UNIQUE] = ()
    lambdas: Annotated[tuple[Annotated[float, number(0, 1e6)], ...], UNIQUE] = (1.0,)
    energy_budgets: Annotated[tuple[Annotated[float, number(0, 1e6, above=True)], ...], UNIQUE] = ()
    latency_budgets: Annotated[tuple[Annotated[float, number(0, 1e6, above=True)], ...], UNIQUE] = ()
    latency_weight: Annotated[float, number(0, 1e6)] = 0.0
    energy_weight: Annotated[float, number(0, 1e6)] = 0.0
    loss: Annotated[Text, checked(_loss)] = "cross_entropy"
    metric: Annotated[Text, checked(_metric)] = "accuracy"
    seeds: Annotated[tuple[Annotated[int, whole()], ...], Len(1), UNIQUE] = (0, 1, 2)
    baselines: Annotated[Literal["all", "paper"] | tuple[Text, ...], BeforeValidator(_baselines)] = "all"
    layers: Layers = Layers()
    search: AnySearch = Bilevel()
    relearn: Annotated[Relearning, BeforeValidator(refuse_start)] = Relearning()
    init: Text | None = None
    pretrain: Pretraining | None = None
    distill: Distillation | None = None
    baseline_epochs: Annotated[int | Literal["equal", "relearn"], BeforeValidator(_baseline_epochs)] | None = None
    chips: Chips | None = None
    device: Annotated[Text, checked(_device)] = "cpu"
    amp: Flag | None = None
    threads: Annotated[int, whole(1, 1024)] | None = None
    jobs: Annotated[int, whole(1, 1024)] | None = None
    tensorboard: Flag = False

    @functools.cached_property
    def declared(self) -> tuple[Candidate, ...]:
        """All candidates that can be named: of the operators file, or of the accelerator's computing modes."""
        if is_resolved(self.operators):  # a run's own copy, which needs the accelerator's files no more
            return load_candidates(self.operators)
        return self.accelerator.candidates

    @functools.cached_property
    def accelerator(self) -> Accelerator:
        """What the network is to run on.

        Raises:
            InputError: a file that cannot be read; operators beside a file of computing modes.
        """
        return read_accelerator(self.arch, None if self.operators == SHIPPED else self.operators)

    @property
    def reduced(self) -> bool:
        """Whether products are in bfloat16 while networks learn: by default on a GPU, which has fast units for it."""
        return self.device != "cpu" if self.amp is None else self.amp

    @property
    def trained(self) -> bool:
        """Whether there are pretrained weights."""
        return self.init is not None or self.pretrain is not None

    @property
    def search_from(self) -> str:
        """What searches start from: pretrained, scratch."""
        return self.search.start or ("pretrained" if self.trained else "scratch")

    @property
    def relearn_from(self) -> str:
        """What relearnings start from: search, pretrained, scratch."""
        if self.relearn.start or not self.trained:
            return self.relearn.start or "scratch"
        return "search" if self.search_from == "pretrained" else "pretrained"

    @property
    def baselines_from(self) -> str:
        """What baselines start from: pretrained, scratch."""
        if self.relearn_from == "search":
            return "pretrained" if self.trained else "scratch"
        return self.relearn_from


def load_config(path: Path | str, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a configuration file; fields it leaves out have the defaults of `RunConfig`.

    Args:
        changes: fields to take instead of the file's, as ``search.epochs=5``; the value is YAML, and null takes the
            field out, so that it has its default.

    Raises:
        InputError: an unknown field, a wrong type or value, a missing name, an option that the search mode does not
            use; it names file, field and what is allowed.
    """
    document = _beside(parse_yaml(read_text(path), path), Path(path).parent)
    for change in changes:
        _change(document, change)
    return read_config(_beside(document, Path()), path)


def _beside(document: Any, folder: Path) -> Any:
    """The document with `init` as an absolute path: it is relative to `folder`."""
    if isinstance(document, dict) and isinstance(init := document.get("init"), str) and init:
        return {**document, "init": str((folder / init).absolute())}
    return document


def read_config(document: Any, where: object) -> RunConfig:
    """A configuration from what YAML or JSON holds; `where` names its file in errors. See `load_config`."""
    if isinstance(document, dict) and (document.get("energy_budgets") or document.get("latency_budgets")):
        document = {"lambdas": [], **document}
    config = validated(RunConfig, document, where)
    if not (config.lambdas or config.energy_budgets or config.latency_budgets):
        lists = "at least one of lambdas, energy_budgets, latency_budgets"
        raise InputError(f"{where}: lambdas", "found [], and no budgets", lists)
    for weight, beside in (("latency_weight", "lambdas"), ("energy_weight", "latency_budgets")):
        if getattr(config, weight) and not getattr(config, beside):
            raise InputError(f"{where}: {weight}", f"found {getattr(config, weight)!r}, and no {beside} that it "
                             "would count beside", "0")  # fmt: skip
    _check_starts(config, where)
    if config.distill is not None and LOSSES.get(config.loss) == "numbers":
        named = ", ".join([*(name for name, kind in LOSSES.items() if kind == "labels"), "package.module:function"])
        raise InputError(f"{where}: distill", f"found with the loss {config.loss!r}, which is not of class scores",
                         f"the losses {named}")  # fmt: skip
    return _with_candidates(config, document, where)


def _check_starts(config: RunConfig, where: object) -> None:
    """Refuses pretrained weights that are wanted and not there, and a pretraining that nothing starts from."""
    for field, wanted in (("search.from", config.search.start), ("relearn.from", config.relearn.start)):
        if wanted == "pretrained" and not config.trained:
            raise InputError(f"{where}: {field}", "found 'pretrained', but there are no such weights",
                             hint="give init or pretrain")  # fmt: skip
    if config.distill is not None and not config.trained:
        raise InputError(f"{where}: distill", "there is no pretrained network to be the teacher",
                         hint="give init or pretrain")  # fmt: skip
    if config.trained and not config.distill and "pretrained" not in (config.search_from, config.baselines_from):
        field = "init" if config.pretrain is None else "pretrain"
        raise InputError(f"{where}: {field}", "nothing starts from these weights",
                         hint="search.from or relearn.from: pretrained")  # fmt: skip


def _with_candidates(config: RunConfig, given: Mapping[str, Any], file: object) -> RunConfig:
    """Fills the defaults that the operators file decides; checks every candidate that is named against it."""
    names = [c.name for c in config.declared]
    if "candidates" not in given:
        config = dataclasses.replace(config, candidates=tuple(names))
    lists = {"candidates": config.candidates}
    if not isinstance(config.baselines, str):
        lists["baselines"] = config.baselines
    named = {f"{which}[{i}]": name for which, found in lists.items() for i, name in enumerate(found)}
    if config.pretrain is not None:
        named["pretrain.candidate"] = config.pretrain.candidate
    named.update({f"pins.{layer}": name for layer, name in config.pins.items()})
    for where, name in named.items():
        if name not in names:
            raise unknown(f"{file}: {where}", "candidate", name, names)
    in_memory = [c.name for c in config.declared if c.macro is not None]
    if config.chips is not None and not {*in_memory} & {*config.candidates, *named.values()}:
        raise InputError(f"{file}: chips", "found, but no candidate of the run is computed in memory",
                         hint=f"name one of {', '.join(in_memory)}" if in_memory else "leave it out")  # fmt: skip
    return config


def _change(document: Any, change: str) -> None:
    field_path, equals, text = change.partition("=")
    *parents, name = field_path.split(".")
    if not (equals and all((*parents, name))):
        raise InputError(f"--set {change}", "expected FIELD=VALUE", hint="for example search.mode=sequential")
    for parent in parents:
        document = document.setdefault(parent, {}) if isinstance(document, dict) else None
    if not isinstance(document, dict):
        raise InputError(f"--set {change}", "its parent is not a mapping")
    value = parse_yaml(text, f"--set {change}")
    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


def config_yaml(config: RunConfig) -> str:
    """The configuration with every default written out; `load_config` reads it back equal."""
    document = _plain(dataclasses.asdict(config))
    for part in ("search", "relearn"):
        document[part]["from"] = document[part].pop("start")
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
