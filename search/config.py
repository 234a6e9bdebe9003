"""A run's configuration: YAML in, frozen dataclasses out; every wrong field is one clear line."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dse.candidates import load_candidates
from dse.documents import parse_yaml, read_text
from dse.errors import InputError
from search.catalogue import NAMES

EXAMPLE = Path(__file__).with_name("configs") / "digits.yaml"
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
    return value


def _device(value: Any, where: str) -> str:
    kind, _, index = str(value).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(where, f"found {value!r}", "cpu, cuda, cuda:N")
    return str(value)


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise InputError(where, f"found {value!r}", "a mapping of argument names to values")
    return value


def _optional(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Check) -> Check:
    def check_list(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise InputError(where, f"found {value!r}", "a list with at least one entry")
        found = tuple(check(v, f"{where}[{i}]") for i, v in enumerate(value))
        for i, v in enumerate(found):
            if v in found[:i]:
                raise InputError(f"{where}[{i}]", f"{v!r} is in the list twice")
        return found

    return check_list


def _candidate(value: Any, where: str) -> str:
    return str(_one_of(*(c.name for c in load_candidates()))(value, where))


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

    `dir` is the folder that holds its official files (not for digits), `subset` a number of images to keep of all.
    With `augment`, training images are shifted a little and, where their class allows, mirrored.
    """

    name: str = _checked(_one_of(*NAMES), "digits")
    dir: str | None = _checked(_optional(_text), None)
    subset: int | None = _checked(_optional(_whole(30)), None)
    augment: bool = _checked(_flag, True)


@dataclass(frozen=True)
class Training:
    """One training of a fixed network: the relearned ones and the baselines, so that they are compared fairly."""

    epochs: int = _checked(_whole(1), 30)
    batch_size: int = _checked(_whole(2), 64)
    lr: float = _checked(_number(0, 10, above=True), 0.003)


@dataclass(frozen=True)
class Search:
    """The search of alpha and theta; alpha stays untouched in the first `warmup_epochs`."""

    mode: str = _checked(_one_of("bilevel"), "bilevel")
    epochs: int = _checked(_whole(1), 20)
    warmup_epochs: int = _checked(_whole(0), 2)
    batch_size: int = _checked(_whole(2), 64)
    lr: float = _checked(_number(0, 10, above=True), 0.003)
    alpha_lr: float = _checked(_number(0, 10, above=True), 0.1)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's results, and `jobs`.

    `threads` is the number of CPU threads, None for torch's own choice; sums are added in another order on another
    number of threads, and networks as small as the example's are not faster on several.
    `jobs` is the number of processes that do stages side by side, None for as many as there are cores for `threads`;
    one if `threads` is None or the device is a GPU.
    """

    name: str = _checked(_run_name)
    network: NetworkChoice = NetworkChoice()
    data: DataChoice = DataChoice()
    arch: str = _checked(_text, "eyeriss_168")
    transmission: Literal["all", "on_chip"] = _checked(_one_of("all", "on_chip"), "all")
    candidates: tuple[str, ...] = _checked(_list(_candidate), tuple(c.name for c in load_candidates()))
    lambdas: tuple[float, ...] = _checked(_list(_number(0, 1e6)), (1.0,))
    seeds: tuple[int, ...] = _checked(_list(_whole(0)), (0, 1, 2))
    baselines: tuple[str, ...] = _checked(_list(_candidate), ("T8", "MF8", "BC8"))
    search: Search = Search()
    relearn: Training = Training()
    device: str = _checked(_device, "cpu")
    threads: int | None = _checked(_optional(_whole(1, 1024)), None)
    jobs: int | None = _checked(_optional(_whole(1, 1024)), None)


def load_config(path: Path | str) -> RunConfig:
    """Reads a configuration file; fields it leaves out have the defaults of `RunConfig`.

    Raises:
        InputError: an unknown field, a wrong type or value, a missing name; it names file, field and what is allowed.
    """
    config: RunConfig = _read(RunConfig, parse_yaml(read_text(path), path), f"{path}: ")
    if config.search.warmup_epochs >= config.search.epochs:
        raise InputError(f"{path}: search.warmup_epochs", f"found {config.search.warmup_epochs}",
                         f"fewer than search.epochs, {config.search.epochs}")  # fmt: skip
    return config


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
