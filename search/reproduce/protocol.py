"""Protocols: which runs stand for the paper's experiments at a scale, and which figure shows what of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from dse.core.documents import parse_yaml, read_text
from dse.core.errors import InputError, unknown
from dse.core.schema import CONFIG, Text, validated
from dse.hardware.candidates import SHIPPED
from search.runs.config import RunConfig, read_config

SCALES = {
    "smoke": "minutes on a laptop",
    "desk": "an evening on two cores",
    "desk-more": "further networks and data, over two hours on two cores",
    "pretrained": "half a day on two cores: all of CIFAR-10, and one training a seed that all networks start from",
    "pretrained-more": "further networks and data, as pretrained",
    "full": "one GPU",
}
"""Protocols that come along, and what they take."""

FIGURES = ("fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10")


@validated_dataclass(frozen=True, config=CONFIG)
class Panel:
    """One part of a figure: a network on a data set.

    `baselines` is the run that has its uni-operator networks; `series` are labels and the runs they stand for.
    """

    title: Text
    baselines: Text
    series: Annotated[dict[str, Text], Len(1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.baselines, *self.series.values())))


@validated_dataclass(frozen=True, config=CONFIG)
class ProtocolFile:
    """The fields of a protocol file as they stand there."""

    about: tuple[Text, ...] = ()
    """What differs from the paper's experiments, a sentence or two in each entry."""
    common: dict[str, Any] = Field(default_factory=dict)
    """Fields of every run's configuration."""
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Fields of each run's configuration, which replace those of `common`."""
    figures: dict[str, Annotated[tuple[Panel, ...], Len(1)]] = Field(default_factory=dict)
    """fig5 to fig10: the panels of each figure."""
    shared: Any = None
    """What YAML anchors name."""


@dataclass(frozen=True)
class Protocol:
    """`about` says in words what differs from the paper's experiments, a sentence or two an entry.

    `operators` is the operators file of the runs that name no other, and of Fig. 4.
    """

    name: str
    about: tuple[str, ...]
    runs: Mapping[str, RunConfig]
    panels: Mapping[str, tuple[Panel, ...]]
    operators: str = SHIPPED

    def needs(self, figure: str) -> tuple[str, ...]:
        """Names of the runs that a figure shows, in the protocol's order."""
        shown = {run for panel in self.panels.get(figure, ()) for run in panel.runs}
        return tuple(name for name in self.runs if name in shown)


def shipped_protocol(scale: str) -> Path:
    return Path(__file__).with_name("protocols") / f"{scale}.yaml"


def load_protocol(path: Path) -> Protocol:
    """Reads a protocol file: ``about``, ``common`` (fields of every run), ``runs`` and ``figures``.

    ``runs`` maps a name to fields of a run configuration, which go before those of ``common``. ``figures`` maps
    ``fig5`` to ``fig10`` to a list of panels. ``shared`` may hold what YAML anchors name.

    Raises:
        InputError: naming the file and the field; a run's own fields are checked as in any configuration.
    """
    file = validated(ProtocolFile, parse_yaml(read_text(path), path), path)
    runs = {
        name: read_config({"name": name, **file.common, **fields}, f"{path}: runs.{name}")
        for name, fields in file.runs.items()
    }
    for figure, panels in file.figures.items():
        where = f"{path}: figures.{figure}"
        if figure not in FIGURES[1:]:
            raise unknown(f"{path}: figures", "figure", figure, FIGURES[1:])
        for i, panel in enumerate(panels):
            named = {"baselines": panel.baselines, **{f"series.{label}": run for label, run in panel.series.items()}}
            for field, run in named.items():
                if run not in runs:
                    raise unknown(f"{where}[{i}].{field}", "run", run, runs)
        if figure == "fig6":
            _check_modes(panels[0], f"{where}[0].series", runs)
    return Protocol(path.stem, file.about, runs, file.figures, str(file.common.get("operators", SHIPPED)))


def _check_modes(panel: Panel, where: str, runs: Mapping[str, RunConfig]) -> None:
    """Fig. 6 shows what only two modes leave behind: cycles, and a population."""
    for mode in ("sequential", "stochastic"):
        run = panel.series.get(mode)
        if run is None or runs[run].search.mode != mode:
            raise InputError(f"{where}.{mode}", f"found {run!r}", f"a run whose search.mode is {mode}")
