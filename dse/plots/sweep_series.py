"""The content of the figures of a sweep, as data; `dse.plots.sweep` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dse.sweep.axes import Axis, Point, format_number
from dse.sweep.sweep_table import LEVEL_ENERGY, SweepTable
from dse.table.columns import Row

_MOST_PANELS = 6


@dataclass(frozen=True)
class CurvePanel:
    """Energy per MAC in pJ at increasing sizes `x`: `parts[name][i]` of compute and of each level, whose sum is
    `totals[i]`. `best` is the index of the least total."""

    title: str
    x: tuple[float, ...]
    parts: dict[str, tuple[float, ...]]
    totals: tuple[float, ...]
    best: int


@dataclass(frozen=True)
class CurveInfo:
    """Energy per MAC against one setting; `missing` are the sizes at which a layer has no mapping."""

    title: str
    x_label: str
    panels: tuple[CurvePanel, ...]
    missing: tuple[float, ...]


@dataclass(frozen=True)
class ParetoSeries:
    """Points of one candidate, and the indices of those on its Pareto front, by increasing energy."""

    candidate: str
    x: tuple[float, ...]
    energy_uj: tuple[float, ...]
    labels: tuple[str, ...]
    front: tuple[int, ...]


@dataclass(frozen=True)
class ParetoPanel:
    x_label: str
    series: tuple[ParetoSeries, ...]


@dataclass(frozen=True)
class ParetoInfo:
    """Energy of an inference in uJ against other costs of a point; `label_meaning` explains the labels of points."""

    title: str
    label_meaning: str
    panels: tuple[ParetoPanel, ...]


@dataclass(frozen=True)
class WinnersInfo:
    """`relative[i][j]` is the energy of layer i at point j divided by the layer's least; None without a mapping.

    `winners[i]` is the index of a layer's cheapest point, `common` that of the best point for the whole network.
    """

    title: str
    layers: tuple[str, ...]
    points: tuple[str, ...]
    points_label: str
    relative: tuple[tuple[float | None, ...], ...]
    winners: tuple[int | None, ...]
    common: int | None


def curve_info(found: SweepTable, candidate: str, axis: Axis) -> CurveInfo | None:
    """The curve along an axis; None if fewer than two of its steps have a total.

    If one other axis with few steps varies, there is a panel for each of its steps. With more axes, or more steps,
    each size shows the point of least energy over the other settings.
    """
    k = found.axes.index(axis)
    others = [i for i in range(len(found.axes)) if i != k and len(found.axes[i].steps) > 1]
    x_label, sizes = _sizes(axis)
    points = {point.number: point for point in found.points}
    totals = [(points[row["point"]], row) for row in found.totals(candidate)]
    reached = {point.steps[k] for point, _ in totals}
    if len(reached) < 2:
        return None
    note = ""
    groups = {"": totals}
    if len(others) == 1 and len(found.axes[others[0]].steps) <= _MOST_PANELS:
        other = others[0]
        groups = {_step_label(found.axes[other], step): [t for t in totals if t[0].steps[other] == step]
                  for step in range(len(found.axes[other].steps))}  # fmt: skip
    elif others:
        note = "; other settings at their best values"
    panels = [_panel(title, k, sizes, group, found.levels) for title, group in groups.items() if group]
    return CurveInfo(
        f"{found.workload}, {candidate}: energy per MAC{note}",
        x_label,
        tuple(panels),
        tuple(sorted(size for step, size in enumerate(sizes) if step not in reached)),
    )


def _panel(
    title: str, k: int, sizes: Sequence[float], totals: Sequence[tuple[Point, Row]], levels: Sequence[str]
) -> CurvePanel:
    least: dict[float, Row] = {}
    for point, row in totals:
        size = sizes[point.steps[k]]
        if size not in least or row["energy_pj"] < least[size]["energy_pj"]:
            least[size] = row
    x = sorted(least)
    rows = [least[size] for size in x]
    columns = {"compute": "compute_pj", **{level: f"{level}{LEVEL_ENERGY}" for level in levels}}
    if any(row["leakage_pj"] for row in rows):
        columns["leakage"] = "leakage_pj"
    parts = {name: tuple((row.get(column) or 0.0) / row["n_ops"] for row in rows) for name, column in columns.items()}
    energies = tuple(row["energy_per_mac_pj"] for row in rows)
    return CurvePanel(title, tuple(x), parts, energies, energies.index(min(energies)))


def pareto_info(found: SweepTable, candidates: Sequence[str]) -> ParetoInfo:
    """Energy against delay, storage on the chip and, where it is known, area, of every point under these candidates."""
    seconds = all(found.delay_column(candidate) == "delay_s" for candidate in candidates)
    delay = ("delay_s", 1e3, "delay (ms)") if seconds else ("cycles", 1e-6, "cycles (millions)")
    storage = ("on_chip_bits", 1 / 8192, "on-chip storage (KB)")
    area = ("area_mm2", 1.0, "area (mm2)")
    known = any(row["area_mm2"] is not None for row in found.summary)
    panels = tuple(
        ParetoPanel(label, tuple(_series(found, candidate, column, unit) for candidate in candidates))
        for column, unit, label in (delay, storage, *([area] if known else []))
    )
    meaning = _varying_names(found) if len(_varying(found)) == 1 else "number of the point"
    return ParetoInfo(f"{found.workload}: least-energy mappings of every point", meaning, panels)


def _series(found: SweepTable, candidate: str, column: str, unit: float) -> ParetoSeries:
    totals = [row for row in found.totals(candidate) if row[column] is not None]
    front = [row["point"] for row in found.pareto(candidate, column)]
    numbers = [row["point"] for row in totals]
    labels = point_labels(found) if len(_varying(found)) == 1 else [str(point.number) for point in found.points]
    return ParetoSeries(
        candidate,
        tuple(row[column] * unit for row in totals),
        tuple(row["energy_pj"] / 1e6 for row in totals),
        tuple(labels[number - 1] for number in numbers),
        tuple(numbers.index(number) for number in front),
    )


def winners_info(found: SweepTable, candidate: str) -> WinnersInfo:
    """The cheapest point for each layer, and the energies of the other points relative to it."""
    winners = found.winners(candidate)
    best = found.best(candidate)
    relative = tuple(
        tuple(
            None if energy is None or not w.energy_pj else energy / w.energy_pj
            for point in found.points
            for energy in [found.energy_pj(point.number, w.layer, candidate)]
        )
        for w in winners
    )
    return WinnersInfo(
        f"{found.workload}, {candidate}: energy of each layer / its least energy",
        found.layers,
        tuple(point_labels(found)),
        _varying_names(found),
        relative,
        tuple(None if w.point is None else w.point - 1 for w in winners),
        None if best is None else best["point"] - 1,
    )


def point_labels(found: SweepTable) -> list[str]:
    """The value of each axis that varies, for every point: ``1024 / 224``."""
    varying = _varying(found) or range(len(found.axes))
    return [" / ".join(_step_text(found.axes[k], point.steps[k]) for k in varying) for point in found.points]


def _varying(found: SweepTable) -> list[int]:
    return [k for k, axis in enumerate(found.axes) if len(axis.steps) > 1]


def _varying_names(found: SweepTable) -> str:
    varying = _varying(found) or range(len(found.axes))
    return " / ".join(_axis_label(found.axes[k]) for k in varying)


def _axis_label(axis: Axis) -> str:
    return ", ".join(axis.paths)


def _step_text(axis: Axis, step: int) -> str:
    """Values of a step; equal values are given once."""
    return ",".join(dict.fromkeys(map(format_number, axis.steps[step])))


def _step_label(axis: Axis, step: int) -> str:
    return f"{_axis_label(axis)} = {_step_text(axis, step)}"


def _sizes(axis: Axis) -> tuple[str, list[float]]:
    """Label and positions of an axis' steps: the values of the first path whose values are all different."""
    for path, values in zip(axis.paths, zip(*axis.steps, strict=True), strict=True):
        if len(set(values)) == len(values) and not any(isinstance(value, str) for value in values):
            others = [p for p, v in zip(axis.paths, zip(*axis.steps, strict=True), strict=True) if v == values]
            in_step = "" if len(others) == len(axis.paths) else " (others in step)"
            return (", ".join(others) if not in_step else f"{path}{in_step}"), [float(v) for v in values]
    words = any(isinstance(value, str) for step in axis.steps for value in step)
    named = ", ".join(f"{i} {_step_text(axis, i - 1)}" for i in range(1, len(axis.steps) + 1)) if words else ""
    return f"step of {_axis_label(axis)}{f': {named}' if named else ''}", [
        float(i) for i in range(1, len(axis.steps) + 1)
    ]
