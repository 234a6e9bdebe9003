"""A run's configuration: YAML in, frozen dataclasses out; every wrong field is one clear line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from dse.core.documents import parse_yaml, read_text
from dse.core.errors import InputError
from dse.hardware.candidates import SHIPPED, Candidate, find_operators, load_candidates
from search.data.catalogue import NAMES
from search.spaces import Space, read_pins, read_space

EXAMPLE = Path(__file__).parents[1] / "configs" / "digits.yaml"
"""The embedded example: real digits, no download, minutes on two cores."""

Check = Callable[[Any, str], Any]


def _number(low: float, high: float, *, above: bool = False) -> Check:
    def check(value: Any, where: str) -> float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a point, as text
            with contextlib.suppress(ValueError):
                value = float(value)
        ok = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not ok or (above and value == low):
            allowed = f"a number {'above' if above else 'from'} {low:g} {'up ' if above else ''}to {high:g}"
            raise InputError(where, f"found {value!r}", allowed)
        return float(value)

    return check


def _whole(low: int, high: int = 2**31) -> Check:
    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(where, f"found {value!r}", f"a whole number from {low} to {high}")
        return value

    return check


def _one_of(*names: str) -> Check:
    def check(value: Any, where: str) -> str:
        if value not in names:
            raise InputError(where, f"found {value!r}", names)
        return str(value)

    return check


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(where, f"found {value!r}", "a text")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(where, f"found {value!r}", "true, false")
    return value


def _run_name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or not all(c.isalnum() or c in "-_." for c in value) or value[0] == ".":
        raise InputError(where, f"found {value!r}", "letters, digits, '-', '_' and '.', for it names the run's folder")
    if len(value.encode()) > 100:
        raise InputError(where, f"found {value!r}", "at most 100 bytes, for it names the run's folder")
    return value


def _device(value: Any, where: str) -> str:
    kind, _, index = str(value).partition(":")
    if kind not in ("cpu", "cuda") or (index and not (index.isascii() and index.isdigit() and len(index) < 4)):
        raise InputError(where, f"found {value!r}", "cpu, cuda, cuda:N")
    return str(value)


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise InputError(where, f"found {value!r}", "a mapping of argument names to values")
    return value


def _optional(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Check, *, empty: bool = False) -> Check:
    def check_list(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not (value or empty):
            raise InputError(where, f"found {value!r}", "a list" if empty else "a list with at least one entry")
        found = tuple(check(v, f"{where}[{i}]") for i, v in enumerate(value))
        for i, v in enumerate(found):
            if v in found[:i]:
                raise InputError(f"{where}[{i}]", f"{v!r} is in the list twice")
        return found

    return check_list


def _operators(value: Any, where: str) -> str:
    find_operators(_text(value, where), where)
    return str(value)


def _checked(check: Check, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class NetworkChoice:
    """What to search: `factory` is a name such as ``squeezenet`` or ``package.module:factory``, called with `args`."""

    factory: str = _checked(_text, "squeezenet")
    args: dict[str, Any] = field(default_factory=dict, metadata={"check": _arguments})


@dataclass(frozen=True)
class DataChoice:
    """Data set.

    `dir` is the folder that holds its official files (not for digits). `subset` is a number of training and validation
    images to keep; official test images are kept whole (digits have none: theirs are in the number too).
    `validation` is the share of the images not for test that theta does not learn from (a tenth; of digits 2/7).
    With `augment`, training images are shifted a little and, where their class allows, mirrored.
    """

    name: str = _checked(_one_of(*NAMES), "digits")
    dir: str | None = _checked(_optional(_text), None)
    subset: int | None = _checked(_optional(_whole(30)), None)
    validation: float | None = _checked(_optional(_number(0.01, 0.9)), None)
    augment: bool = _checked(_flag, True)


@dataclass(frozen=True)
class Layers:
    """How searched and trained layers compute; see `search.layers.mixed_layer.LayerOptions`.

    `sign_width_input`, `sign_width_weight` and `steepness` shape the gradients of sign and magnitude, in root mean
    squares.
    """

    quantiser: Literal["rms", "lsq", "dorefa"] = _checked(_one_of("rms", "lsq", "dorefa"), "rms")
    latent: Literal["shared", "own"] = _checked(_one_of("shared", "own"), "shared")
    learned_scales: bool = _checked(_flag, False)
    sign_width_input: float = _checked(_number(0, 100, above=True), 0.5)
    sign_width_weight: float = _checked(_number(0, 100, above=True), 1.0)
    steepness: float = _checked(_number(0, 1000, above=True), 10.0)


@dataclass(frozen=True)
class Training:
    """One training of a fixed network: the relearned ones and the baselines, so that they are compared fairly."""

    epochs: int = _checked(_whole(1), 30)
    batch_size: int = _checked(_whole(2), 64)
    lr: float = _checked(_number(0, 10, above=True), 0.003)


@dataclass(frozen=True)
class Search:
    """What every search mode is given; alpha stays untouched in the first `warmup_epochs`.

    `lr` is of theta, `alpha_lr` of alpha. Each mode is a class of its own, with what it needs besides.
    """

    mode: str = _checked(_text, "")
    warmup_epochs: int = _checked(_whole(0), 2)
    batch_size: int = _checked(_whole(2), 64)
    lr: float = _checked(_number(0, 10, above=True), 0.003)
    alpha_lr: float = _checked(_number(0, 10, above=True), 0.1)


@dataclass(frozen=True)
class SingleLevel(Search):
    """Alpha and theta learn together on the training set for `epochs`, the warm-up included."""

    mode: str = _checked(_text, "single_level")
    epochs: int = _checked(_whole(1), 20)


@dataclass(frozen=True)
class Bilevel(SingleLevel):
    """Algorithm 1: alpha on the validation set; with `second_order`, through a step of theta."""

    mode: str = _checked(_text, "bilevel")
    second_order: bool = _checked(_flag, False)


@dataclass(frozen=True)
class Stochastic(Bilevel):
    """Algorithm 3: bi-level learning, then `samples` networks from softmax(alpha), of which the best is kept."""

    mode: str = _checked(_text, "stochastic")
    samples: int = _checked(_whole(1, 10_000), 6)


@dataclass(frozen=True)
class Sequential(Search):
    """Algorithm 2: `cycle_epochs` for every layer; `restart_alpha` opens the undecided ones anew in each cycle."""

    mode: str = _checked(_text, "sequential")
    cycle_epochs: int = _checked(_whole(1), 1)
    restart_alpha: bool = _checked(_flag, False)


@dataclass(frozen=True)
class Variational(SingleLevel):
    """Relaxed samples, from `temperature` to `temperature_end`; `kl` weighs the divergence from a uniform choice.

    The most probable assignment is relearnt, or, if `samples` is given, that many samples, of which the best is kept.
    """

    mode: str = _checked(_text, "variational")
    temperature: float = _checked(_number(0, 1000, above=True), 1.0)
    temperature_end: float = _checked(_number(0, 1000, above=True), 0.2)
    kl: float = _checked(_number(0, 1e6), 0.01)
    samples: int | None = _checked(_optional(_whole(1, 10_000)), None)


MODES: dict[str, type[Search]] = {
    kind().mode: kind for kind in (SingleLevel, Bilevel, Sequential, Stochastic, Variational)
}
"""Search modes by their name in a configuration."""


def _search(document: Any, where: str) -> Search:
    """The settings of the mode that `document` names, bi-level where it names none."""
    kind: Any = Bilevel
    if isinstance(document, dict):
        kind = MODES[_one_of(*MODES)(document.get("mode", kind().mode), f"{where}.mode")]
        own = [f.name for f in dataclasses.fields(kind)]
        for key in document:
            if key not in own and any(key == f.name for k in MODES.values() for f in dataclasses.fields(k)):
                raise InputError(f"{where}.{key}", f"mode {kind().mode} does not use it", own)
    found: Search = _read(kind, document, f"{where}.")
    if isinstance(found, SingleLevel) and found.warmup_epochs >= found.epochs:
        raise InputError(
            f"{where}.warmup_epochs", f"found {found.warmup_epochs}", f"fewer than search.epochs, {found.epochs}"
        )
    return found


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's results, and `jobs` and `tensorboard`.

    `operators` names the file that declares the operators, shipped or one's own; `candidates` are all that it
    declares, unless they are given, and `baselines` those of T8, MF8 and BC8 that it declares.
    `lambdas`, `energy_budgets` and `latency_budgets` are searched one by one; more than one is a sweep. Where budgets
    are given and no lambdas, no lambda is searched. A budget is a share of the all-typical 8-bit network's energy or
    cycles, which the found network meets. `latency_weight` weighs the expected cycles beside each lambda,
    `energy_weight` the expected energy beside each latency budget. `space` and `pins` restrict `candidates`. `amp`
    trains in bfloat16 where torch's autocast does, None on a GPU only.
    `threads` is the number of CPU threads, None for torch's own choice; sums are added in another order on another
    number of threads, and networks as small as the example's are not faster on several.
    `jobs` is the number of processes that do stages side by side, None for as many as there are cores for `threads`;
    one if `threads` is None or the device is a GPU. `tensorboard` writes the metrics as event files too.
    """

    name: str = _checked(_run_name)
    network: NetworkChoice = NetworkChoice()
    data: DataChoice = DataChoice()
    arch: str = _checked(_text, "eyeriss_168")
    transmission: Literal["all", "on_chip"] = _checked(_one_of("all", "on_chip"), "all")
    operators: str = _checked(_operators, SHIPPED)
    candidates: tuple[str, ...] = _checked(_list(_text), tuple(c.name for c in load_candidates()))
    space: Space = field(default=Space(), metadata={"check": read_space})
    pins: dict[str, str] = field(default_factory=dict, metadata={"check": read_pins})
    lambdas: tuple[float, ...] = _checked(_list(_number(0, 1e6), empty=True), (1.0,))
    energy_budgets: tuple[float, ...] = _checked(_list(_number(0, 1e6, above=True), empty=True), ())
    latency_budgets: tuple[float, ...] = _checked(_list(_number(0, 1e6, above=True), empty=True), ())
    latency_weight: float = _checked(_number(0, 1e6), 0.0)
    energy_weight: float = _checked(_number(0, 1e6), 0.0)
    seeds: tuple[int, ...] = _checked(_list(_whole(0)), (0, 1, 2))
    baselines: tuple[str, ...] = _checked(_list(_text, empty=True), ("T8", "MF8", "BC8"))
    layers: Layers = Layers()
    search: Search = field(default=Bilevel(), metadata={"check": _search})
    relearn: Training = Training()
    device: str = _checked(_device, "cpu")
    amp: bool | None = _checked(_optional(_flag), None)
    threads: int | None = _checked(_optional(_whole(1, 1024)), None)
    jobs: int | None = _checked(_optional(_whole(1, 1024)), None)
    tensorboard: bool = _checked(_flag, False)

    @functools.cached_property
    def declared(self) -> tuple[Candidate, ...]:
        """All candidates of the operators file, which is read once."""
        return load_candidates(self.operators)


def load_config(path: Path | str, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a configuration file; fields it leaves out have the defaults of `RunConfig`.

    Args:
        changes: fields to take instead of the file's, as ``search.epochs=5``; the value is YAML, and null takes the
            field out, so that it has its default.

    Raises:
        InputError: an unknown field, a wrong type or value, a missing name, an option that the search mode does not
            use; it names file, field and what is allowed.
    """
    document = parse_yaml(read_text(path), path)
    for change in changes:
        _change(document, change)
    return read_config(document, path)


def read_config(document: Any, where: object) -> RunConfig:
    """A configuration from what YAML or JSON holds; `where` names its file in errors. See `load_config`."""
    if isinstance(document, dict) and (document.get("energy_budgets") or document.get("latency_budgets")):
        document = {"lambdas": [], **document}
    config: RunConfig = _read(RunConfig, document, f"{where}: ")
    if not (config.lambdas or config.energy_budgets or config.latency_budgets):
        lists = "at least one of lambdas, energy_budgets, latency_budgets"
        raise InputError(f"{where}: lambdas", "found [], and no budgets", lists)
    for weight, beside in (("latency_weight", "lambdas"), ("energy_weight", "latency_budgets")):
        if getattr(config, weight) and not getattr(config, beside):
            raise InputError(f"{where}: {weight}", f"found {getattr(config, weight)!r}, and no {beside} that it "
                             "would count beside", "0")  # fmt: skip
    return _with_candidates(config, document, where)


def _with_candidates(config: RunConfig, given: Mapping[str, Any], file: object) -> RunConfig:
    """Fills the defaults that the operators file decides; checks every candidate that is named against it."""
    names = [c.name for c in config.declared]
    if "candidates" not in given:
        config = replace(config, candidates=tuple(names))
    if "baselines" not in given:
        config = replace(config, baselines=tuple(name for name in config.baselines if name in names))
    lists = {"candidates": config.candidates, "baselines": config.baselines}
    named = {f"{which}[{i}]": name for which, found in lists.items() for i, name in enumerate(found)}
    named.update({f"pins.{layer}": name for layer, name in config.pins.items()})
    for where, name in named.items():
        _one_of(*names)(name, f"{file}: {where}")
    return config


def _change(document: Any, change: str) -> None:
    field_path, equals, text = change.partition("=")
    *parents, name = field_path.split(".")
    if not (equals and all((*parents, name))):
        raise InputError(f"--set {change}", "is no change", "FIELD=VALUE, as in search.mode=sequential")
    for parent in parents:
        document = document.setdefault(parent, {}) if isinstance(document, dict) else None
    if not isinstance(document, dict):
        raise InputError(f"--set {change}", "what is to be changed is no mapping")
    value = parse_yaml(text, f"--set {change}")
    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


def config_yaml(config: RunConfig) -> str:
    """The configuration with every default written out; `load_config` reads it back equal."""
    text: str = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)
    return text


def _read(kind: Any, document: Any, where: str) -> Any:
    """A dataclass from a mapping; nested dataclasses are nested mappings."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if not isinstance(document, dict):
        raise InputError(where.rstrip(": ."), f"found {document!r}", f"a mapping with {', '.join(fields)}")
    for key in document:
        if key not in fields:
            raise InputError(where.rstrip(": ."), f"unknown field {key!r}", fields)
    values = {}
    for name, f in fields.items():
        if name not in document:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise InputError(where.rstrip(": ."), f"field {name!r} is missing")
        elif "check" in f.metadata:
            values[name] = f.metadata["check"](document[name], where + name)
        else:
            values[name] = _read(type(f.default), document[name], f"{where}{name}.")
    return kind(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
