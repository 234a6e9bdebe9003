"""Protocols: which runs stand for the paper's experiments at a scale, and which figure shows what of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core.documents import parse_yaml, read_text
from dse.core.errors import InputError
from search.runs.config import RunConfig, read_config

SCALES = {
    "smoke": "minutes on a laptop",
    "desk": "an evening on two cores",
    "desk-more": "further networks and data, over two hours on two cores",
    "full": "one GPU",
}
"""Protocols that come along, and what they take."""

FIGURES = ("fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10")


@dataclass(frozen=True)
class Panel:
    """One part of a figure: a network on a data set.

    `baselines` is the run that has its uni-operator networks; `series` are labels and the runs they stand for.
    """

    title: str
    baselines: str
    series: Mapping[str, str]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.baselines, *self.series.values())))


@dataclass(frozen=True)
class Protocol:
    """`about` says in words what differs from the paper's experiments, a sentence or two an entry."""

    name: str
    about: tuple[str, ...]
    runs: Mapping[str, RunConfig]
    panels: Mapping[str, tuple[Panel, ...]]

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
    document = _mapping(parse_yaml(read_text(path), path), str(path), ("about", "common", "runs", "figures", "shared"))
    common = _mapping(document.get("common", {}), f"{path}: common")
    runs: dict[str, RunConfig] = {}
    for name, own in _mapping(document.get("runs", {}), f"{path}: runs").items():
        fields = {"name": name, **common, **_mapping(own, f"{path}: runs.{name}")}
        runs[name] = read_config(fields, f"{path}: runs.{name}")
    figures = _mapping(document.get("figures", {}), f"{path}: figures", FIGURES[1:])
    panels = {}
    for figure, parts in figures.items():
        where = f"{path}: figures.{figure}"
        if not isinstance(parts, list) or not parts:
            raise InputError(where, f"found {parts!r}", "a list of panels")
        panels[figure] = tuple(_panel(p, f"{where}[{i}]", runs) for i, p in enumerate(parts))
        if figure == "fig6":
            _check_modes(panels[figure][0], f"{where}[0].series", runs)
    about = document.get("about", [])
    if not isinstance(about, list) or not all(isinstance(text, str) for text in about):
        raise InputError(f"{path}: about", f"found {about!r}", "a list of sentences")
    return Protocol(path.stem, tuple(about), runs, panels)


def _panel(document: Any, where: str, runs: Mapping[str, RunConfig]) -> Panel:
    fields = _mapping(document, where, ("title", "baselines", "series"))
    for name in ("title", "baselines", "series"):
        if name not in fields:
            raise InputError(where, f"field {name!r} is missing")
    series = _mapping(fields["series"], f"{where}.series")
    for at, run in (
        (f"{where}.baselines", fields["baselines"]),
        *((f"{where}.series.{k}", v) for k, v in series.items()),
    ):
        if run not in runs:
            raise InputError(at, f"found {run!r}", runs)
    if not series:
        raise InputError(f"{where}.series", "is empty", "a label and a run, at least once")
    return Panel(str(fields["title"]), fields["baselines"], series)


def _check_modes(panel: Panel, where: str, runs: Mapping[str, RunConfig]) -> None:
    """Fig. 6 shows what only two modes leave behind: cycles, and a population."""
    for mode in ("sequential", "stochastic"):
        run = panel.series.get(mode)
        if run is None or runs[run].search.mode != mode:
            raise InputError(f"{where}.{mode}", f"found {run!r}", f"a run whose search.mode is {mode}")


def _mapping(value: Any, where: str, allowed: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(where, f"found {value!r}", "a mapping")
    for key in value:
        if allowed is not None and key not in allowed:
            raise InputError(where, f"unknown field {key!r}", allowed)
    return value
