"""What a run keeps: records of stages, and results. Their forms are types, and files of them are checked when read.

They are JSON: mappings with the keys of these types. `SCHEMA` is the version that is written; files of version 1, which
had none, lack what was added since.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config

from dse.core.documents import read_json
from dse.core.errors import InputError
from dse.core.schema import validated
from search.sampling.sampler import Sampling
from search.training.measures import measure_of

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:  # pydantic needs the form of Python 3.12
    from typing_extensions import TypedDict

SCHEMA = 2

SEARCH_KEYS = ("seed", "lambda", "budget", "latency_budget")
"""What tells the searches of a run apart: the seed, and one of the others."""

Assignment = dict[str, str]
"""Layer -> candidate."""

Probabilities = dict[str, dict[str, float]]
"""Layer -> candidate -> softmax(alpha)."""


class Cycle(TypedDict):
    """What a cycle of a sequential search decided (Fig. 6a)."""

    cycle: int
    layer: str
    candidate: str
    weight: float


@with_config(ConfigDict(extra="allow"))
class Epoch(TypedDict):
    """An epoch of a stage: its number, from 1, and whatever the mode reports."""

    epoch: int
    seconds: NotRequired[float]
    assigned: NotRequired[Cycle]


class PassesOf(TypedDict):
    """Image passes by the stages that a network's weights or its assignment came from."""

    pretrain: int
    search: int
    relearn: int


class SearchResult(TypedDict):
    """What a search ends with; one assignment, or as many as it samples.

    A measure other than accuracy has `mixture_validation_metric` and `validation_metrics_discretised` instead.
    """

    energy_expected: float
    mixture_validation_accuracy: NotRequired[float]
    validation_accuracies_discretised: NotRequired[list[float]]
    mixture_validation_metric: NotRequired[float]
    validation_metrics_discretised: NotRequired[list[float]]
    assignments: list[Assignment]
    energies_discretised: list[float]
    probabilities: Probabilities
    sampling: NotRequired[Sampling]
    image_passes: NotRequired[int]
    image_passes_of: NotRequired[PassesOf]


class OnChips(TypedDict):
    """What the measure is on test images over simulated chips, each chip's value in `values`."""

    mean: float
    deviation: float
    worst: float
    values: list[float]


class Trained(TypedDict):
    """What training a decided network ends with: energy in units of the all-typical 8-bit network's, and in pJ.

    It has accuracies, or `validation_metric` and `test_metric` of another measure (`search.training.measures`).
    `chips` is of a network with layers in memory, if the run simulates chips.
    `image_passes` is all the training that the network has had; see `search.runs.passes`.
    """

    energy: float
    energy_pj: NotRequired[float]
    validation_accuracy: NotRequired[float]
    test_accuracy: NotRequired[float]
    validation_metric: NotRequired[float]
    test_metric: NotRequired[float]
    chips: NotRequired[OnChips]
    image_passes: NotRequired[int]
    image_passes_of: NotRequired[PassesOf]


class SearchRecord(TypedDict):
    """A finished search."""

    schema_version: NotRequired[int]
    history: list[Epoch]
    result: SearchResult


class TrainingRecord(TypedDict):
    """A finished pretraining, relearning or baseline."""

    schema_version: NotRequired[int]
    history: list[Epoch]
    result: Trained


@with_config(ConfigDict(extra="allow"))  # "lambda" cannot be a field's name here
class TrainedNetwork(Trained):
    """A trained network of the results.

    `kind` is baseline, with a `candidate`; or searched, with what it was searched with: one of ``lambda``, `budget` and
    `latency_budget` is a number. `sample` and `count` are of networks that were drawn, `cycles` of sequential searches;
    `above_line` is the distance from the uni-operator line of its seed; `gain` that from the uniform network `over`,
    the best one at no more energy, or `gain_reason` says why there is none.
    """

    kind: NotRequired[Literal["baseline", "searched", "sampled"]]
    seed: NotRequired[int]
    candidate: NotRequired[str]
    budget: NotRequired[float | None]
    latency_budget: NotRequired[float | None]
    sample: NotRequired[int | None]
    count: NotRequired[int]
    selected: NotRequired[bool]
    energy_expected: NotRequired[float]
    energy_discretised: NotRequired[float]
    validation_accuracy_discretised: NotRequired[float]
    validation_metric_discretised: NotRequired[float]
    latency: NotRequired[float]
    latency_expected: NotRequired[float]
    latency_discretised: NotRequired[float]
    above_line: NotRequired[float | None]
    gain: NotRequired[float | None]
    over: NotRequired[str | None]
    gain_reason: NotRequired[str]
    assignment: NotRequired[Assignment]
    probabilities: NotRequired[Probabilities]
    cycles: NotRequired[list[Cycle]]


@with_config(ConfigDict(extra="allow"))
class Population(TypedDict):
    """The distinct networks of a search that samples them, and the one that was taken."""

    seed: int
    budget: NotRequired[float | None]
    latency_budget: NotRequired[float | None]
    selected: int
    networks: list[TrainedNetwork]


@with_config(ConfigDict(extra="allow"))
class SamplingOfSearch(Sampling):
    """What the sampler inside SRAM drew for a search, of a seed and one of `SEARCH_KEYS`, and its cost."""

    seed: int


class Data(TypedDict):
    """The data set of a run: sizes of its splits, and what is to be said of it."""

    name: str
    train: int
    validation: int
    test: int
    subset: int | None
    notice: str | None


class Declared(TypedDict):
    """A candidate as results name it."""

    name: str
    operator: str
    bits: int


class ChipsOf(TypedDict):
    """The chips that were simulated; see `search.runs.config.Chips`."""

    number: int
    mismatch: float
    offset: float
    calibration: NotRequired[int]


class Metric(TypedDict):
    """What networks were judged by, if it was not accuracy; see `search.training.measures.Measure`."""

    name: str
    higher_is_better: bool
    percent: bool


@with_config(ConfigDict(extra="allow"))
class PretrainedNetwork(Trained):
    """What the searches and trainings of a seed started from: `candidate` in every layer."""

    seed: int
    candidate: str


class Computed(TypedDict):
    """Where networks learned, and the type of their products."""

    device: str
    precision: Literal["float32", "bfloat16"]


class Results(TypedDict):
    """``results.json``; see `search.runs.results.summarise`."""

    schema_version: NotRequired[int]
    name: str
    data: NotRequired[Data]
    candidates: NotRequired[list[Declared]]
    unit_pj: float
    transmission: Literal["all", "on_chip"]
    mode: NotRequired[str]
    computed: NotRequired[Computed]
    metric: NotRequired[Metric]
    chips: NotRequired[ChipsOf]
    excluded: NotRequired[Assignment]
    pretrained: NotRequired[list[PretrainedNetwork]]
    networks: Annotated[list[TrainedNetwork], Field(min_length=1)]
    populations: NotRequired[list[Population]]
    sampling: NotRequired[list[SamplingOfSearch]]
    pareto: NotRequired[list[TrainedNetwork]]


def read_results(file: Path) -> dict[str, Any]:
    """The content of a run's ``results.json``, of the form of `Results`.

    Raises:
        InputError: a file that is missing or damaged, naming the field; the run's stages are not concerned.
    """
    hint = "run the same configuration again: it writes this file from the finished stages"
    results: dict[str, Any] = _read(Results, file, hint)
    measure = measure_of(results)
    values = (measure.key("validation"), measure.key("test"))
    for i, point in enumerate(results["networks"]):
        needed = ("seed", "candidate") if point.get("kind") == "baseline" else ("seed", "assignment", "probabilities")
        _need(point, ("kind", *needed, *values), f"{file}: networks[{i}]", hint)
    searches = [search_of(point) for point in results["networks"] if point["kind"] == "searched"]
    if not searches:
        raise InputError(f"{file}: networks", "none of them was searched", hint=hint)
    for i, population in enumerate(results.get("populations", [])):
        if search_of(population) not in searches:
            raise InputError(f"{file}: populations[{i}]", "belongs to none of the searches in networks", hint=hint)
        for j, point in enumerate(population["networks"]):
            _need(point, values, f"{file}: populations[{i}].networks[{j}]", hint)
    return {"populations": [], **results}


def _need(point: Mapping[str, Any], keys: Iterable[str], where: str, hint: str) -> None:
    for key in keys:
        if key not in point:
            raise InputError(where, f"field {key!r} is missing", hint=hint)


def search_of(point: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the searches of a run apart."""
    return tuple(point.get(key) for key in SEARCH_KEYS)


def read_record(file: Path, kind: str) -> dict[str, Any]:
    """The record of a finished stage, of the form of `SearchRecord` or `TrainingRecord`.

    Args:
        kind: of the stage: pretrain, search, relearn or baseline.

    Raises:
        InputError: a damaged file; its checkpoint is not concerned.
    """
    record: Any = SearchRecord if kind == "search" else TrainingRecord
    hint = "remove this file: the stage is finished again from its checkpoint"
    found: dict[str, Any] = dict(_read(record, file, hint))
    if kind != "search" and "test_metric" not in found["result"]:
        _need(found["result"], ("validation_accuracy", "test_accuracy"), f"{file}: result", hint)
    return found


def _read(kind: Any, file: Path, hint: str) -> Any:
    try:
        document = read_json(file)
        version = document.get("schema_version", 1) if isinstance(document, Mapping) else 1
        if isinstance(version, int) and version > SCHEMA:
            raise InputError(file, f"has schema {version}, which is newer than this program's", hint="update enos-dse")
        return validated(kind, document, file, strict=True)
    except InputError as e:
        raise e if e.hint else InputError(e.where, e.problem, e.allowed, hint) from None
