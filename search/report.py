"""A finished run as one self-contained HTML page, and its figures as PNG files."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from dse.cli.common import text_table
from dse.documents import read_text
from dse.errors import InputError
from dse.table import CostTable, Transmission
from search import plots
from search.results import Label, Point, labels, setting

_TEMPLATE = Path(__file__).with_name("report.html")


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` into a run's folder; returns the page's path.

    Raises:
        InputError: a folder that holds no finished run.
    """
    if not (folder / "results.json").is_file():
        raise InputError(folder, "holds no finished run", "the folder of a run that has a results.json")
    try:
        results = json.loads(read_text(folder / "results.json"))
        networks: list[Point] = results["networks"]
        declared = labels(results)
    except (ValueError, KeyError, TypeError):
        raise InputError(folder / "results.json", "is damaged", "remove it and start the run again") from None
    table = CostTable.load(folder / "table.csv")
    shown = best(networks)
    figures = {
        "trade_off": plots.draw_trade_off(plots.trade_off_info(networks, declared)),
        "operator_map": plots.draw_operator_map(plots.operator_map_info(shown, declared)),
        "breakdown": plots.draw_breakdown(plots.breakdown_info(table, shown["assignment"])),
    }
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(plots.to_png(figure))
    page = folder / "report.html"
    page.write_text(
        Template(read_text(_TEMPLATE)).substitute(
            title=html.escape(f"ENOS: {results['name']}"),
            subtitle=html.escape(_subtitle(results, table)),
            findings="".join(
                f"<p>{html.escape(text)}</p>" for text in findings(networks, table, results["transmission"])
            ),
            networks=_html_table(_NETWORK_HEAD, map(_network_row, networks)),
            layers=_html_table(_LAYER_HEAD, layer_rows(table, shown["assignment"], declared, results["transmission"])),
            shown=html.escape(_name(shown).capitalize()),
            commands=html.escape(_commands(folder, results["name"])),
            config=html.escape(read_text(folder / "config.yaml")),
            **{name: plots.to_svg(figure, name) for name, figure in figures.items()},
        ),
        encoding="utf-8",
    )
    return page


def best(networks: Sequence[Point]) -> Point:
    """The searched network that the page shows in detail: the one with the highest validation accuracy."""
    return max((p for p in networks if p["kind"] == "searched"), key=lambda p: float(p["validation_accuracy"]))


def summary(results: Mapping[str, Any]) -> str:
    """The run's networks as a table of text, for a terminal."""
    return text_table(_NETWORK_HEAD, [[_strip(cell) for cell in _network_row(p)] for p in results["networks"]])


def findings(networks: Sequence[Point], table: CostTable, transmission: Transmission = "all") -> list[str]:
    """What was found and why, as sentences: savings, distance from the uni-operator line, the costliest layers."""
    texts = []
    searched = [p for p in networks if p["kind"] == "searched"]
    for name in dict.fromkeys(map(setting, searched)):
        texts.append(_about_setting(name, [p for p in searched if setting(p) == name], networks))
    shown = best(networks)
    reference = dict(zip(table.layers, _reference(table, transmission), strict=True))
    energy = dict(zip(table.layers, _energy(table, shown["assignment"], transmission), strict=True))
    total = sum(reference.values())
    costly = sorted(reference, key=lambda n: -reference[n])[:3]
    parts = [
        f"{n} ({reference[n] / total:.0%} of the all-T8 energy, now {shown['assignment'][n]}, which saves "
        f"{1 - energy[n] / reference[n]:.0%} of it)"
        for n in costly
    ]
    texts.append(
        f"The layers that cost most are {', '.join(parts)}. The figures below show the {_name(shown)}, "
        "which did best on the validation images."
    )
    return texts


def _about_setting(name: str, points: Sequence[Point], networks: Sequence[Point]) -> str:
    energy, accuracy = (float(np.mean([p[k] for p in points])) for k in ("energy", "test_accuracy"))
    expected = float(np.mean([p["energy_expected"] for p in points]))
    text = (
        f"With {name} the searched networks need {energy:.2f} of the all-T8 energy (expected before "
        f"discretisation: {expected:.2f}) and reach {accuracy:.1%} on the test images (mean over seeds: {len(points)})."
    )
    for candidate in dict.fromkeys(p["candidate"] for p in networks if p["kind"] == "baseline"):
        same = [p for p in networks if p.get("candidate") == candidate]
        text += f" All {candidate}: {np.mean([p['test_accuracy'] for p in same]):.1%} at {same[0]['energy']:.2f}."
    gaps = [p["above_line"] for p in points if p["above_line"] is not None]
    if gaps:
        above = sum(gap > 0 for gap in gaps)
        text += (
            f" {above} of {len(gaps)} lie above the line through the uni-operator networks of their seed; the mean "
            f"distance is {100 * np.mean(gaps):+.1f} percentage points."
        )
    return text


def layer_rows(
    table: CostTable, assignment: Mapping[str, str], declared: Sequence[Label], transmission: Transmission = "all"
) -> list[list[str]]:
    """Rows of the layer table: layer, operator, precision, energy, share of the network, energy against T8."""
    named = {c.name: c for c in declared}
    energy = _energy(table, assignment, transmission)
    rows = []
    for name, own, reference in zip(table.layers, energy, _reference(table, transmission), strict=True):
        candidate = named[assignment[name]]
        rows.append([
            name, f'<span class="chip" style="background:{plots.colour(candidate.name, declared)}"></span>'
            f"{candidate.operator.replace('_', ' ')}", f"{candidate.bits}", f"{own * 1e-6:.3g}",
            f"{own / sum(energy):.1%}", f"{own / reference:.2f}",
        ])  # fmt: skip
    return rows


_LAYER_HEAD = ("layer", "operator", "bits", "energy (µJ)", "share", "energy / T8")
_NETWORK_HEAD = ("network", "seed", "energy", "expected", "validation", "test", "above the line")


def _network_row(p: Point) -> list[str]:
    gap = p.get("above_line")
    return [
        f"all {p['candidate']}" if p["kind"] == "baseline" else f"searched, {setting(p)}",
        str(p["seed"]),
        f"{p['energy']:.3f}",
        f"{p['energy_expected']:.3f}" if "energy_expected" in p else "",
        f"{p['validation_accuracy']:.1%}",
        f"{p['test_accuracy']:.1%}",
        "" if gap is None else f'<span class="{"good" if gap > 0 else "bad"}">{100 * gap:+.1f}</span>',
    ]


def _strip(cell: str) -> str:
    """A cell without its markup."""
    return cell[cell.index(">") + 1 : cell.rindex("<")] if cell.startswith("<") else cell


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table>"


def _name(p: Point) -> str:
    return f"network found with {setting(p)}, seed {p['seed']}"


def _subtitle(results: Mapping[str, Any], table: CostTable) -> str:
    levels = {"all": "all memory levels count", "on_chip": "only on-chip levels count"}[results["transmission"]]
    return (
        f"{len(table.layers)} layers, {len(table.candidates)} candidates a layer. Energies are in units of the network "
        f"with the typical operator at 8 bits in every layer: {results['unit_pj'] * 1e-6:.3g} µJ per image; {levels}."
    )


def _commands(folder: Path, name: str) -> str:
    return f"enos search {folder / 'config.yaml'} --table {folder / 'table.csv'} --out again\nenos report again/{name}"


def _reference(table: CostTable, transmission: Transmission) -> list[float]:
    """Energy in pJ of each layer with the typical operator at 8 bits."""
    name = next(r["candidate"] for r in table.rows if (r["operator"], r["bits"]) == ("typical", 8))
    return _energy(table, dict.fromkeys(table.layers, name), transmission)


def _energy(table: CostTable, assignment: Mapping[str, str], transmission: Transmission) -> list[float]:
    """Energy in pJ of each layer under an assignment."""
    energy = table.energy_pj(transmission)
    return [float(energy[i, table.candidates.index(assignment[n])]) for i, n in enumerate(table.layers)]
