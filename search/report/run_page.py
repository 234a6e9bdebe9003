"""A finished run as one self-contained HTML page, and its figures as PNG files."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dse.core.documents import read_text
from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.core.text import text_table
from dse.page import page_data, render, sweep_data, write_page
from dse.page.table_page import LEVELS
from dse.table.cost_table import CostTable, Transmission
from search.report import figures
from search.report.page_data import group_of, name_of, run_data
from search.report.text import chips_line, data_line, sampling_lines
from search.runs.records import read_results
from search.runs.results import (
    NO_UNIFORM,
    NONE_AS_CHEAP,
    Label,
    Point,
    better_throughout,
    labels,
    setting,
    unequal_passes,
    with_gains,
)
from search.training.measures import ACCURACY, Measure, measure_of


def write_report(folder: Path, output: Path | None = None, sweep: Path | None = None) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` into a run's folder; returns the page's path.

    Args:
        output: where the page goes instead.
        sweep: the summary of an architecture sweep, whose curves the page shows too.

    Raises:
        InputError: a folder that holds no finished run, or one that is damaged.
    """
    if not (folder / "results.json").is_file():
        raise InputError(folder, "holds no finished run", hint="give the folder of a run that has a results.json")
    results = read_results(folder / "results.json")
    measure = measure_of(results)
    results = with_gains(results, measure)
    table, config = CostTable.load(folder / "table.csv"), read_text(folder / "config.yaml")
    curves = sweep_data(sweep) if sweep else None
    declared = labels(results)
    shown = best(results["networks"], measure)
    data = page_data(table, results["transmission"]) | run_data(results, table, declared, shown) | {"sweep": curves}
    drawn = _figures(table, results["networks"], declared, shown, measure)
    page = render(
        data,
        title=f"ENOS: {results['name']}",
        subtitle=subtitle(results, table),
        findings=[
            *findings(results["networks"], table, results["transmission"], measure),
            *on_chips(results),
            *(f"{line}." for line in sampling_lines(results)),
        ],
        commands=_commands(folder, results["name"], output, sweep),
        config=config,
    )
    _save_figures(drawn, folder / "figures")
    return write_page(output or folder / "report.html", page)


def _save_figures(drawn: Mapping[str, Any], folder: Path) -> None:
    with system_errors(folder):
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            (folder / f"{name}.png").write_bytes(figures.to_png(figure))


def _figures(
    table: CostTable, networks: Sequence[Point], declared: Sequence[Label], shown: Point, measure: Measure
) -> dict[str, Any]:
    return {
        "trade_off": figures.draw_trade_off(figures.trade_off_info(networks, declared, measure)),
        "operator_map": figures.draw_operator_map(figures.operator_map_info(shown, declared)),
        "breakdown": figures.draw_breakdown(figures.breakdown_info(table, shown["assignment"])),
    }


def best(networks: Sequence[Point], measure: Measure = ACCURACY) -> Point:
    """The network that the page shows in detail: of the searched ones, if there are any, the one that is best on the
    validation images."""
    searched = [p for p in networks if p["kind"] == "searched"]
    return max(searched or networks, key=lambda p: measure.rank(measure.of(p, "validation")))


def summary(results: Mapping[str, Any]) -> str:
    """The run's networks as a table of text, for a terminal."""
    measure = measure_of(results)
    networks = with_gains(results, measure)["networks"]
    passes = any(p.get("image_passes") is not None for p in networks)
    head = (*_NETWORK_HEAD, "image passes") if passes else _NETWORK_HEAD
    return text_table(head, [_network_row(p, measure, passes) for p in networks])


def findings(
    networks: Sequence[Point], table: CostTable, transmission: Transmission = "all", measure: Measure = ACCURACY
) -> list[str]:
    """What was found and why, as sentences: savings, gain over uniform networks, the costliest layers."""
    searched = [p for p in networks if p["kind"] == "searched"]
    texts = _about_uniform([p for p in networks if p["kind"] == "baseline"], measure)
    for name in dict.fromkeys(map(group_of, searched)):
        texts.append(_about_setting(name, [p for p in searched if group_of(p) == name], networks, measure))
    shown = best(networks, measure)
    reference = dict(zip(table.layers, _reference(table, transmission), strict=True))
    energy = dict(zip(table.layers, _energy(table, shown["assignment"], transmission), strict=True))
    total = sum(reference.values())
    costly = sorted(reference, key=lambda n: -reference[n])[:3]
    parts = []
    for n in costly:
        candidate, saved = shown["assignment"][n], 1 - energy[n] / reference[n]
        does = "stays" if energy[n] == reference[n] else f"now {candidate}, which saves {saved:.0%} of it"
        parts.append(f"{n} ({reference[n] / total:.0%} of the all-T8 energy, {does})")
    texts.append(
        f"The layers that cost most are {', '.join(parts)}. The page first shows the "
        f"{_name(shown)}, which did best on the validation images."
    )
    return texts


def on_chips(results: Mapping[str, Any]) -> list[str]:
    """How networks with layers in memory do on simulated chips, as a sentence; none where there is no such network."""
    measure = measure_of(results)
    parts = [
        f"{_name(p) if p['kind'] == 'searched' else 'all ' + p['candidate'] + ', seed ' + str(p['seed'])}: "
        f"mean {measure.text(p['chips']['mean'])}, deviation {measure.text(p['chips']['deviation'])}, "
        f"worst {measure.text(p['chips']['worst'])} ({measure.text(measure.of(p, 'test'))} without variations)"
        for p in results["networks"]
        if "chips" in p
    ]
    return [f"{chips_line(results)}: {'; '.join(parts)}."] if parts else []


def _about_uniform(points: Sequence[Point], measure: Measure) -> list[str]:
    """Energy and test value of the uniform networks, as one sentence; empty without uniform networks."""
    parts = []
    for candidate in dict.fromkeys(p["candidate"] for p in points):
        same = [p for p in points if p["candidate"] == candidate]
        tested = float(np.mean([measure.of(p, "test") for p in same]))
        parts.append(f"all {candidate} {measure.text(tested)} at {same[0]['energy']:.2f}")
    return [f"Uniform networks, on test images, at shares of the all-T8 energy: {', '.join(parts)}."] if parts else []


def _about_setting(name: str, points: Sequence[Point], networks: Sequence[Point], measure: Measure) -> str:
    energy, value = (float(np.mean([p[k] for p in points])) for k in ("energy", measure.key("test")))
    text = f"With {name} the searched networks need {energy:.2f} of the all-T8 energy"
    if all("energy_expected" in p for p in points):
        expected = float(np.mean([p["energy_expected"] for p in points]))
        text += f" (expected before discretisation: {expected:.2f})"
    text += f" and reach {_valued(measure, value)} on the test images (mean over seeds: {len(points)})."
    text += _about_gain(points, networks, measure)
    if better := better_throughout(points, networks, measure):
        text += (
            f" Nothing was gained by searching: all {' and all '.join(better)} cost no more and did better on the "
            "validation images."
        )
    gaps = [p["above_line"] for p in points if p.get("above_line") is not None]
    if gaps:
        above = sum(gap > 0 for gap in gaps)
        text += (
            f" {above} of {len(gaps)} lie above the line through the uni-operator networks of their seed; the mean "
            f"distance is {measure.gain_text(float(np.mean(gaps)))} {measure.unit}."
        )
    return text


def _about_gain(points: Sequence[Point], networks: Sequence[Point], measure: Measure) -> str:
    """The gain over the best uniform network at no more energy, or why there is none; and whether passes are equal."""
    compared = [p for p in points if p.get("gain") is not None]
    text = ""
    if compared:
        gain = float(np.mean([p["gain"] for p in compared]))
        over = " and ".join(f"all {name}" for name in dict.fromkeys(p["over"] for p in compared))
        text = (
            f" Over the uniform network that is best on validation images at no more energy ({over}), the gain on "
            f"test images is {measure.gain_text(gain)} {measure.unit}"
        )
        text += f" (mean of {len(compared)} of {len(points)})." if len(points) > 1 else "."
    for reason in (NONE_AS_CHEAP, NO_UNIFORM):
        if count := sum(p.get("gain_reason") == reason for p in points):
            text += f" For {count} of {len(points)} there is no such gain: {reason}."
    if passes := unequal_passes(compared, networks):
        text += f" {passes}"
    return text


def _valued(measure: Measure, value: float) -> str:
    return measure.text(value) if measure == ACCURACY else f"a {measure.name} of {measure.text(value)}"


_NETWORK_HEAD = ("network", "seed", "energy", "expected", "validation", "test", "gain over uniform", "above the line")


def _network_row(p: Point, measure: Measure, passes: bool) -> list[str]:
    gap, gain = p.get("above_line"), p.get("gain")
    reason = {NONE_AS_CHEAP: "none as cheap", NO_UNIFORM: ""}.get(str(p.get("gain_reason")), "")
    row = [
        f"all {p['candidate']}" if p["kind"] == "baseline" else f"searched, {setting(p)}",
        str(p["seed"]),
        f"{p['energy']:.3f}",
        f"{p['energy_expected']:.3f}" if "energy_expected" in p else "",
        measure.text(measure.of(p, "validation")),
        measure.text(measure.of(p, "test")),
        reason if gain is None else f"{measure.gain_text(gain)} ({p['over']})",
        "" if gap is None else measure.gain_text(gap),
    ]
    total = p.get("image_passes")
    return [*row, "" if total is None else f"{total:,.0f}"] if passes else row


def _name(p: Point) -> str:
    if "name" in p or p["kind"] == "baseline":
        return f"network {name_of(p)}"
    return f"network found with {setting(p)}, seed {p['seed']}"


def subtitle(results: Mapping[str, Any], table: CostTable) -> str:
    """The line below the page's heading: layers, candidates, the unit of energy, and the data if they are known."""
    text = (
        f"{len(table.layers)} layers, {len(table.candidates)} candidates a layer. Shares are of the network with the "
        f"typical operator at 8 bits in every layer, {results['unit_pj'] * 1e-6:.3g} µJ per image; "
        f"{LEVELS[results['transmission']]}."
    )
    return f"{text} {data_line(results['data']).replace(chr(10), '; ')}." if "data" in results else text


def _commands(folder: Path, name: str, output: Path | None, sweep: Path | None) -> str:
    search = ["enos", "search", str(folder / "config.yaml"), "--table", str(folder / "table.csv"), "--out", "again"]
    report = ["enos", "report", f"again/{name}"]
    report += ["--sweep", str(sweep)] if sweep else []
    report += ["--output", str(output)] if output else []
    return f"{shlex.join(search)}\n{shlex.join(report)}"


def _reference(table: CostTable, transmission: Transmission) -> list[float]:
    """Energy in pJ of each layer with the typical operator at 8 bits."""
    name = next(r["candidate"] for r in table.rows if (r["operator"], r["bits"]) == ("typical", 8))
    return _energy(table, dict.fromkeys(table.layers, name), transmission)


def _energy(table: CostTable, assignment: Mapping[str, str], transmission: Transmission) -> list[float]:
    """Energy in pJ of each layer under an assignment."""
    energy = table.energy_pj(transmission)
    return [float(energy[i, table.candidates.index(assignment[n])]) for i, n in enumerate(table.layers)]
