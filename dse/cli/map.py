"""`enos map`: fills the store for every layer and candidate, and prints what the network costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from dse.cli.cluster import workers_options
from dse.cli.common import (
    FILE,
    check_table_file,
    echo_json,
    json_option,
    origin,
    uj,
    workload_options,
)
from dse.cli.count import count_option, network_counted_lines
from dse.cli.fronts import front_option, most_points, network_document, network_lines, refuse_with_front
from dse.cli.network_totals import clock_option, totals_lines
from dse.cli.progress import mapping_bar
from dse.core.errors import InputError
from dse.core.text import text_table
from dse.engines import Engine
from dse.hardware.accelerator import Accelerator, AcceleratorLike, read_accelerator
from dse.table.fill import Report, map_plans
from dse.table.network_front import network_front
from dse.table.performance import clock_of, idle_layers
from dse.table.plan import make_plan
from dse.table.store import default_path
from dse.table.totals import PAPER_E_OP_RATIO, e_op_ratio, explain, uniform_totals
from dse.table.uncounted import check_plan, network_changes
from dse.table.workers import Pool

if TYPE_CHECKING:
    from dse.table.cost_table import CostTable, Transmission


@click.command("map")
@workload_options
@workers_options
@click.option("--candidate", "only", multiple=True, help="Only this one, such as T8; repeatable; default: all.")
@click.option("--output", type=FILE, multiple=True, help="Table to write: .csv, .parquet or .json; repeatable.")
@click.option(
    "--transmission",
    type=click.Choice(["all", "on_chip"]),
    default="all",
    show_default=True,
    help="Levels whose energy is set beside the paper's.",
)
@clock_option
@front_option
@count_option()
@json_option
def map_(
    workload: str,
    arch: AcceleratorLike,
    operators: Path | None,
    engine: Engine,
    objective: str | None,
    remainders: bool | None,
    slack: float | None,
    store: Path | None,
    jobs: int | Pool,
    only: tuple[str, ...],
    output: tuple[Path, ...],
    transmission: str,
    clock: float | None,
    front: int | str | None,
    count: tuple[str, ...],
    as_json: bool,
) -> None:
    """Maps a network's layers under every operator and precision.

    WORKLOAD is a workload file or the name of a shipped one. What the store already has is not computed again; a run
    that was killed resumes.

    With --candidate only the named ones are mapped and written; a later run with more of them reuses what is stored.

    With --front one candidate alone is mapped, T8 unless --candidate names another: every choice of one mapping for
    each layer of which none is better in both total energy and total cycles; --output then writes these points.

    With --count drain,padding the totals are also shown with what Timeloop's conventions leave out; table and store
    keep the ordinary numbers. For padding each layer with a window needs H, W, Hpad, Wpad in its instance.

    \b
    Example:
      enos map squeezenet --output table.csv --output table.parquet
    """
    for path in output:
        check_table_file(path)
    accelerator = read_accelerator(arch, operators).only(only, "--candidate")
    if front is not None:
        shown = None if transmission == "all" else transmission
        refuse_with_front(objective=objective, slack=slack, transmission=shown, clock=clock, count=count or None)
        if len(only) > 1:
            raise InputError("--candidate", f"is given {len(only)} times", "once, with --front")
        if engine.name != "native":
            refuse_with_front(engine=engine.name)
        _print_front(
            workload,
            accelerator,
            store,
            jobs,
            most_points(front),
            remainders is not False,
            output,
            as_json,
        )
        return
    plan = make_plan(
        workload,
        arch=accelerator,
        engine=engine,
        objective=objective or "energy",
        remainders=remainders is not False,
        slack=slack or 0.0,
    )
    check_plan(plan, count)
    reports: list[Report] = []
    with mapping_bar("mapping") as show:

        def progress(report: Report) -> None:
            reports.append(report)
            show(report)

        (table,) = map_plans([plan], store=store, jobs=jobs, progress=progress)
    for path in output:
        table.save(path)
    where, report = store or default_path(), reports[-1]
    changes = network_changes(plan, where, count) if count else {}
    if as_json:
        echo_json({**_document(table, report, where, clock), **({"counted": changes} if count else {})})
    else:
        counted = network_counted_lines(uniform_totals(table), changes)
        click.echo("\n".join(_lines(table, report, where, cast("Transmission", transmission), clock, counted)))
        for path in output:
            click.echo(f"Table: {path}")


def _print_front(
    workload: str,
    accelerator: Accelerator,
    store: Path | None,
    jobs: int | Pool,
    most: int | None,
    remainders: bool,
    output: tuple[Path, ...],
    as_json: bool,
) -> None:
    reports: list[Report] = []
    with mapping_bar("mapping") as show:

        def progress(report: Report) -> None:
            reports.append(report)
            show(report)

        found = network_front(
            workload, arch=accelerator, store=store, jobs=jobs, most=most, remainders=remainders, progress=progress
        )
    for path in output:
        found.save(path)
    where = store or default_path()
    if as_json:
        echo_json(network_document(found, reports[-1], where))
        return
    click.echo("\n".join(network_lines(found, most, reports[-1], where)))
    for path in output:
        click.echo(f"Table: {path}")


def _document(table: CostTable, report: Report, store: Path, clock: float | None) -> dict[str, Any]:
    totals = uniform_totals(table)
    return {
        "workload": table.rows[0]["workload"],
        "store": str(store),
        "rows_from_store": report.reused,
        "computed": report.computed,
        "totals": [asdict(total) for total in totals],
        "e_op_ratio": e_op_ratio(totals),
        "paper_e_op_ratio": PAPER_E_OP_RATIO,
        "cycle_seconds": clock_of(table, clock).seconds,
        "few_pes": {c: [asdict(idle) for idle in idle_layers(table, c)] for c in table.candidates},
        "signed_layers": None if table.provenance is None else table.provenance.signed_layers,
        "areas_mm2": dict(table.provenance.areas_mm2) if table.provenance else {},
        "rows": list(table.rows),
    }


def _lines(
    table: CostTable,
    report: Report,
    store: Path,
    transmission: Transmission,
    clock: float | None,
    counted: Sequence[str] = (),
) -> list[str]:
    totals = uniform_totals(table)
    lines = [f"Energy of each layer, uJ ({'DRAM included' if transmission == 'all' else 'levels on the chip only'}):"]
    energies = [table.layer_pj(layer, c, transmission) for layer in table.layers for c in table.candidates]
    texts = iter(uj([None if math.isinf(e) else e for e in energies]))
    layers = [
        [n, f"{table.row(n, table.candidates[0])['n_ops'] / 1e6:.2f}", *(next(texts) for _ in table.candidates)]
        for n in table.layers
    ]
    lines += [text_table(["layer", "M MACs", *table.candidates], layers), ""]
    lines += [*totals_lines(table, totals, clock), "", *counted, *_signs(table)]
    if explained := explain(totals, transmission):
        lines += [*explained, ""]
    lines += _refusals(table)
    return [*lines, origin(report), f"Store: {store}"]


_MOST_NAMES = 5


def _signs(table: CostTable) -> list[str]:
    """The layers whose inputs can be negative, if a candidate costs more for them."""
    signed = None if table.provenance is None else table.provenance.signed_layers
    if not signed or table.provenance is None:
        return []
    names = ", ".join(table.provenance.signed_cycles)
    layers = ", ".join(signed[:_MOST_NAMES]) + (", ..." if len(signed) > _MOST_NAMES else "")
    return [
        f"Inputs can be negative in {len(signed)} of {len(table.layers)} layers ({layers}): {names} cost more there."
    ]


def _refusals(table: CostTable) -> list[str]:
    """One line for each row without a mapping."""
    return [
        f"no mapping: {row['layer']}, {row['candidate']}: {row['reason']}"
        for row in table.rows
        if row["status"] != "ok"
    ]
