"""`enos sweep`: a network on every accelerator that some settings span."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.cluster import workers_options
from dse.cli.common import (
    FILE,
    LEAKAGE,
    check_table_file,
    check_writable,
    echo_json,
    json_option,
    origin,
    workload_options,
)
from dse.cli.network_totals import mm2
from dse.cli.progress import mapping_bar
from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.core.text import text_table
from dse.engines import Engine
from dse.hardware.accelerator import AcceleratorLike, with_tables
from dse.sweep.axes import combine, format_number, parse_set
from dse.sweep.run import plan_sweep, run_sweep, unchanged
from dse.sweep.sweep_file import SweepConfig, read_sweep
from dse.table.fill import Report
from dse.table.store import default_path
from dse.table.workers import Pool

if TYPE_CHECKING:
    from dse.sweep.sweep_table import SweepTable
    from dse.table.columns import Row
    from search.sensitivity.architectures import Architectures
    from search.sensitivity.sensitivities import Sensitivities

_SHOWN = "T8"
_MOST_POINTS = 100  # that are printed
_MOST_REASONS = 20
_BUDGETS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.7)  # where none is given
_LARGEST = 1e6


@click.command()
@partial(workload_options, required=False, joined=False)
@click.option("--set", "settings", metavar="PATHS=VALUES", multiple=True, help="What varies; repeatable.")
@click.option("--config", type=FILE, help="Sweep file; what the command line gives replaces what it says.")
@click.option("--candidate", "only", multiple=True, help="Only this one, such as T8; repeatable; default: all.")
@workers_options
@click.option("--output", type=FILE, multiple=True, help="Rows of points, layers, candidates: .csv, .parquet, .json.")
@click.option("--summary", type=FILE, multiple=True, help="Rows of points and candidates: .csv, .parquet, .json.")
@click.option("--sensitivities", "measured", type=FILE,
              help="What `enos assign` measured: finds the best assignments on every point.")  # fmt: skip
@click.option("--budget", "budgets", type=float, multiple=True, metavar="SHARE",
              help="Energy, as a share of the best all-typical 8-bit point's; repeatable.")  # fmt: skip
@click.option("--front", "front_file", type=FILE,
              help="Front of energy and loss over points and assignments: .csv, .parquet, .json.")  # fmt: skip
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), help="Folder for figures, PNG and SVG.")
@json_option
def sweep(
    workload: str | None,
    arch: AcceleratorLike,
    tables: tuple[Path, ...],
    leakage: str,
    operators: Path | None,
    engine: Engine,
    objective: str | None,
    remainders: bool | None,
    slack: float | None,
    store: Path | None,
    settings: tuple[str, ...],
    config: Path | None,
    only: tuple[str, ...],
    jobs: int | Pool,
    output: tuple[Path, ...],
    summary: tuple[Path, ...],
    measured: Path | None,
    budgets: tuple[float, ...],
    front_file: Path | None,
    figures: Path | None,
    as_json: bool,
) -> None:
    """Maps a network on every accelerator that some settings span.

    WORKLOAD is a workload file or the name of a shipped one. PATHS is NODE.ATTRIBUTE, NODE.meshX, NODE.meshY or
    variables.NAME, or several of these joined by commas, which take the same value. VALUES are numbers a,b,c, a range
    start:stop:xFACTOR or start:stop:+STEP, or words such as LPDDR4,HBM2. Every combination of several --set is a point.

    What the store already has is not computed again; a sweep that was killed resumes.

    With --sensitivities, what `enos assign` has measured of a trained network gives the assignment of the least
    predicted loss on every point, within each --budget, and the front over points and assignments.

    \b
    Example:
      enos sweep squeezenet --set glb_ifmap.depth=1024:65536:x2 --candidate T8 --figures sweep
      enos sweep squeezenet --set glb_ifmap.depth=1024:65536:x2 --sensitivities assign/sensitivities.json --budget 0.35
    """
    for path in (*output, *summary, *([front_file] if front_file else [])):
        check_table_file(path)
    sensitivities = _read(measured, budgets, front_file, only)
    if figures is not None:
        check_writable(figures)
    said = read_sweep(config) if config is not None else SweepConfig()
    name = workload or said.workload
    if name is None:
        raise InputError("enos sweep", "no workload is given", hint="give WORKLOAD, or workload in --config FILE")
    plan = plan_sweep(
        name,
        combine(said.axes, [parse_set(text) for text in settings]),
        arch=with_tables(arch or said.arch, tables or said.tables, compute_leakage=leakage != LEAKAGE[0]),
        candidates=operators or said.operators,
        only=only or (sensitivities.candidates if sensitivities else said.candidates),
        engine=engine,
        objective=objective or said.objective or "energy",
        remainders=(said.remainders if remainders is None else remainders) is not False,
        slack=said.slack if slack is None else slack,
    )
    if sensitivities is not None:
        sensitivities.check_rows([layer.name for layer in plan.workload.layers], f"workload {plan.workload.name}")
    reports: list[Report] = []
    with mapping_bar("sweeping") as show:

        def progress(report: Report) -> None:
            reports.append(report)
            show(report)

        found = run_sweep(plan, store=store, jobs=jobs, progress=progress)
    for path in output:
        found.save(path)
    for path in summary:
        found.save_summary(path)
    assigned = None
    if sensitivities is not None:
        from search.sensitivity.architectures import architectures

        assigned = architectures(sensitivities, found)
        for budget in budgets:
            assigned.best(budget)  # refuses what none can meet
        if front_file is not None:
            assigned.save_front(front_file)
    chosen = [c for c in found.candidates if c in (only or said.candidates)]
    shown = chosen or [_SHOWN if _SHOWN in found.candidates else found.candidates[0]]
    drawn = _draw(found, shown, figures) if figures is not None else []
    where = store or default_path()
    if as_json:
        document = _document(found, plan.arch, reports[-1], where) | {"changes_nothing": list(unchanged(plan))}
        echo_json(document if assigned is None else {**document, "assigned": _assigned_document(assigned, budgets)})
    else:
        if assigned is not None:
            click.echo("\n".join(_assigned_lines(found, assigned, budgets)))
        click.echo("\n".join(_lines(found, shown, reports[-1], where)))
        for line in unchanged(plan):
            click.echo(line)
        for path in (*output, *summary, *([front_file] if front_file else [])):
            click.echo(f"Table: {path}")
        for path in drawn:
            click.echo(f"Figure: {path}")


def _read(
    measured: Path | None, budgets: Sequence[float], front_file: Path | None, only: Sequence[str]
) -> Sensitivities | None:
    """The sensitivities that are asked for; refuses what needs them, and candidates that they need."""
    if measured is None:
        for option, given in (("--budget", budgets), ("--front", front_file)):
            if given:
                raise InputError(option, "goes with --sensitivities", hint="`enos assign` writes sensitivities.json")
        return None
    for budget in budgets:
        if not 0 < budget < _LARGEST:
            raise InputError("--budget", f"found {budget}", "a number above 0")
    from search.sensitivity.sensitivities import Sensitivities

    found = Sensitivities.load(measured)
    missing = [name for name in found.candidates if only and name not in only]
    if missing:
        raise InputError("--candidate", f"leaves out {missing[0]}, which {measured} has", hint="leave out --candidate")
    return found


def _assigned_lines(found: SweepTable, assigned: Architectures, budgets: Sequence[float]) -> list[str]:
    """Points down, budgets across: the predicted increase of the loss."""
    shown = sorted(set(budgets or _BUDGETS), reverse=True)
    cells = {budget: assigned.within(budget) for budget in shown}
    best = {budget: assigned.best(budget).point for budget in shown if cells[budget]}
    rows = []
    for point in found.points:
        row = [str(point.number), *map(format_number, point.settings.values())]
        for budget in shown:
            own = cells[budget].get(point.number)
            mark = "*" if best.get(budget) == point.number else " "
            row.append("-  " if own is None else f"{own.increase:.3f} {mark}")
        rows.append(row)
    paths = [path.replace(".", "\n.") for path in found.points[0].settings]
    s, joint = assigned.sensitivities, assigned.front()
    on_front = ", ".join(map(str, sorted({a.point for a in joint})))
    return [
        f"Predicted increase of the loss of {s.network} within an energy (nats; * least). Energies are shares of "
        f"{assigned.unit_pj / 1e6:.1f} uJ, all {s.reference} at point {assigned.unit_point}:",
        text_table(["point", *paths, *(f"{budget:g}  " for budget in shown)], rows),
        f"Front over points and assignments: {len(joint)} assignments of points {on_front}.",
        "",
    ]


def _assigned_document(assigned: Architectures, budgets: Sequence[float]) -> dict[str, Any]:
    return {
        "unit_pj": assigned.unit_pj,
        "unit_point": assigned.unit_point,
        "reference": assigned.sensitivities.reference,
        "budgets": [
            {"budget": budget, "best": assigned.best(budget).point,
             "points": [vars(a) for a in assigned.within(budget).values()]}
            for budget in sorted(set(budgets), reverse=True)
        ],
        "front": [{"point": a.point, "energy": a.energy, "increase": a.increase} for a in assigned.front()],
    }  # fmt: skip


def _draw(found: SweepTable, candidates: Sequence[str], folder: Path) -> list[Path]:
    """Draws every figure of the candidates that can be mapped at some point, each as PNG and as SVG."""
    from dse.plots.sweep import draw_figures

    with system_errors(folder, "cannot be made"):
        folder.mkdir(exist_ok=True)
    return draw_figures(found, [c for c in candidates if found.totals(c)], folder)


def _document(found: SweepTable, arch: str, report: Report, store: Path) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "arch": arch,
        "store": str(store),
        "rows_from_store": report.reused,
        "computed": report.computed,
        "points": [{"point": point.number, **point.settings} for point in found.points],
        "summary": list(found.summary),
        "pareto": {c: [row["point"] for row in found.pareto(c)] for c in found.candidates},
        "pareto_area": {c: [row["point"] for row in found.pareto(c, "area_mm2")] for c in found.candidates},
        "winners": {
            c: [{"layer": w.layer, "point": w.point, "energy_pj": w.energy_pj, "saving": w.saving}
                for w in found.winners(c)]
            for c in found.candidates
        },
    }  # fmt: skip


def _lines(found: SweepTable, shown: Sequence[str], report: Report, store: Path) -> list[str]:
    lines = [f"Energy per MAC of {found.workload}, pJ (* least, p on the energy-delay front, DRAM included):"]
    lines += [_points_table(found), ""]
    for candidate in shown:
        lines += _winners(found, candidate)
    lines += _refusals(found)
    return [*lines, origin(report), f"Store: {store}"]


def _points_table(found: SweepTable) -> str:
    """Points down, candidates across. Of very many points only those that are best or on a front."""
    best = {c: row["point"] for c in found.candidates if (row := found.best(c)) is not None}
    fronts = {c: {row["point"] for row in found.pareto(c)} for c in found.candidates}
    points = [
        p
        for p in found.points
        if len(found.points) <= _MOST_POINTS or any(p.number in f or p.number == best.get(c) for c, f in fronts.items())
    ]
    paths = list(found.points[0].settings)
    areas = any(total["area_mm2"] is not None for total in found.summary)
    rows = []
    for point in points:
        cells = [str(point.number), *map(format_number, point.settings.values())]
        totals = [found.total(point.number, c) for c in found.candidates]
        bits = next((t["on_chip_bits"] for t in totals if t["on_chip_bits"] is not None), None)
        cells.append("-" if bits is None else f"{bits / 8192:.1f}")
        if areas:
            area = next((t["area_mm2"] for t in totals if t["area_mm2"] is not None), None)
            cells.append("-" if area is None else mm2(area))
        for candidate, total in zip(found.candidates, totals, strict=True):
            marks = ("*" if best.get(candidate) == point.number else " ") + (
                "p" if point.number in fronts[candidate] else " "
            )
            ok = total["status"] == "ok"
            cells.append(f"{total['energy_per_mac_pj']:.3f} {marks}" if ok else f"{total['status']}   ")
        rows.append(cells)
    header = [
        "point",
        *(path.replace(".", "\n.") for path in paths),
        "on chip\nKB",
        *(["area\nmm2"] if areas else []),
        *(f"{c}   " for c in found.candidates),
    ]
    table = text_table(header, rows)
    omitted = len(found.points) - len(points)
    return table + (f"\n({omitted} more points; --summary FILE has them all)" if omitted else "")


def _winners(found: SweepTable, candidate: str) -> list[str]:
    """For each layer under a candidate, the point that is cheapest for it, beside the one that is best for all."""
    best = found.best(candidate)
    if best is None:
        return []
    winners = found.winners(candidate)
    labels = {point.number: point.label for point in found.points}
    rows = [
        [w.layer, str(w.point), labels[w.point], "-" if not w.saving else f"{w.saving:.1%}"]
        for w in winners
        if w.point is not None
    ]
    spared = sum((w.common_pj or 0.0) - (w.energy_pj or 0.0) for w in winners) / best["energy_pj"]
    front = ", ".join(str(row["point"]) for row in found.pareto(candidate))
    small = ", ".join(str(row["point"]) for row in found.pareto(candidate, "area_mm2"))
    return [
        f"{candidate}: best for all layers is point {best['point']}, {labels[best['point']]}: "
        f"{best['energy_pj'] / 1e6:.1f} uJ, {best['cycles']:,} cycles. Energy-delay front: {front}."
        + (f" Energy-area front: {small}." if small else ""),
        f"Each layer at its own best point would need {spared:.1%} less:",
        text_table(["layer", "point", "", "saves"], rows),
        "",
    ]


def _refusals(found: SweepTable) -> list[str]:
    """One line for each reason why points have no costs."""
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in found.summary:
        if row["status"] != "ok":
            reasons.setdefault((row["status"], row["reason"]), []).append(row)
    lines = [_refusal(status, reason, rows) for (status, reason), rows in reasons.items()]
    omitted = len(lines) - _MOST_REASONS
    return [*lines[:_MOST_REASONS], f"(and {omitted} more; --summary FILE has them all)"] if omitted > 0 else lines


def _refusal(status: str, reason: str, rows: Sequence[Row]) -> str:
    points = [str(number) for number in dict.fromkeys(row["point"] for row in rows)]
    listed = ", ".join(points[:8]) + (f" and {len(points) - 8} more" if len(points) > 8 else "")
    candidates = ", ".join(dict.fromkeys(row["candidate"] for row in rows))
    return f"{status}: point{'s' if len(points) > 1 else ''} {listed} under {candidates}: {reason}"
