"""`enos table`: a cost table from the store, and where its energy goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from dse.cli.common import FILE, check_table_file, uj, workload_options
from dse.cli.count import count_option
from dse.cli.network_totals import area_lines, percent
from dse.core.errors import InputError
from dse.core.text import text_table
from dse.engines import Engine
from dse.hardware.accelerator import AcceleratorLike, read_accelerator
from dse.model.uncounted import Changes
from dse.table.breakdown import breakdown
from dse.table.cost_table import CostTable
from dse.table.fill import stored_table
from dse.table.performance import layer_times, performance
from dse.table.plan import make_plan
from dse.table.uncounted import LayerChanges, check_plan, layer_changes


@click.command()
@workload_options
@click.option("--candidate", "only", multiple=True, help="Only this one, such as T8; repeatable; default: all.")
@click.option("--output", type=FILE, multiple=True, help="Table to write: .csv, .parquet or .json; repeatable.")
@click.option("--breakdown", metavar="CANDIDATE", help="Print each layer's energy by level and tensor, such as T8.")
@count_option()
def table(
    workload: str,
    arch: AcceleratorLike,
    operators: Path | None,
    engine: Engine,
    objective: str | None,
    remainders: bool | None,
    slack: float | None,
    store: Path | None,
    only: tuple[str, ...],
    output: tuple[Path, ...],
    breakdown: str | None,
    count: tuple[str, ...],
) -> None:
    """Exports what `enos map` has stored; computes nothing. With --candidate only the named ones need to be stored.

    \b
    Example:
      enos table squeezenet --output table.parquet --breakdown T8
    """
    if not output and breakdown is None:
        raise InputError("enos table", "nothing to do", hint="give --output FILE or --breakdown CANDIDATE")
    if count and breakdown is None:
        raise InputError("--count", "has nothing to go with", hint="give --breakdown CANDIDATE too")
    for path in output:
        check_table_file(path)
    accelerator = read_accelerator(arch, operators)
    costs = stored_table(
        workload,
        arch=accelerator.only(only, "--candidate"),
        store=store,
        engine=engine,
        objective=objective or "energy",
        remainders=remainders is not False,
        slack=slack or 0.0,
    )
    for path in output:
        costs.save(path)
        click.echo(f"{path}: {len(costs.rows)} rows, {len(costs.layers)} layers, {len(costs.candidates)} candidates")
    if breakdown is not None:
        click.echo(f"Energy of each layer under {breakdown}, uJ:\n{breakdown_table(costs, breakdown)}")
        click.echo(f"\nCycles of each layer under {breakdown}, and PEs that work:\n{times_table(costs, breakdown)}")
        if count:
            plan = make_plan(
                workload,
                arch=accelerator.only([breakdown], "--breakdown"),
                engine=engine,
                objective=objective or "energy",
                remainders=remainders is not False,
                slack=slack or 0.0,
            )
            check_plan(plan, count)
            counted = counted_table(layer_changes(plan, store, breakdown, count))
            click.echo(f"\nWhat Timeloop's conventions leave out of each layer under {breakdown}, uJ:\n{counted}")
        for line in area_lines(costs, breakdown):
            click.echo(line)


def breakdown_table(costs: CostTable, candidate: str) -> str:
    """Layers down; compute, every level's tensors and leakage across, with a last row of sums."""
    parts = breakdown(costs, candidate)
    columns = [parts.compute, *parts.levels.values()]
    header = ["layer", "compute", *(f"{column.level}\n{column.tensor}" for column in parts.levels)]
    if any(parts.leakage):
        columns.append(parts.leakage)
        header.append("leakage")
    rows = [list(row) for row in zip(*columns, strict=True)]
    rows.append([sum(e for e in column if e is not None) for column in columns])
    texts = iter(uj([e for row in rows for e in row]))
    return text_table(header, [[name, *(next(texts) for _ in columns)] for name in (*costs.layers, "sum")])


def times_table(costs: CostTable, candidate: str) -> str:
    """Layers down; cycles, those that networks add where there are any, PEs busy without and with stalls across."""
    times = layer_times(costs, candidate)
    total = performance(costs, candidate)
    filling = [time.network_cycles for time in times]
    all_filling = sum(n or 0 for n in filling)
    columns: list[tuple[str, list[str]]] = [
        ("layer", [*(time.layer for time in times), "all"]),
        ("cycles", [_whole(n) for n in (*(time.cycles for time in times), total.cycles)]),
        ("of them to fill\nand drain", [_whole(n) for n in (*filling, all_filling)]),
        ("PEs\nbusy", [percent(u) for u in (*(time.utilisation for time in times), total.utilisation)]),
        ("with\nstalls", [percent(u) for u in (*(t.utilisation_with_stalls for t in times),
                                               total.utilisation_with_stalls)]),
    ]  # fmt: skip
    columns = [column for column in columns if all_filling or not column[0].startswith("of them")]
    rows = [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]
    return text_table([name for name, _ in columns], rows)


def _whole(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def counted_table(changes: Mapping[str, LayerChanges]) -> str:
    """Layers down; what is counted of every level's tensors across, with a last row of sums."""
    columns: dict[tuple[str, str, str], None] = {}
    for of_kinds in changes.values():
        for kind, found in of_kinds.items():
            columns.update({(kind, level, tensor): None for level, of in (found or {}).items() for tensor in of})
    ordered = sorted(columns, key=lambda column: list(next(iter(changes.values()))).index(column[0]))

    def energy(found: Changes | None, level: str, tensor: str) -> float | None:
        if found is None:
            return None
        change = found.get(level, {}).get(tensor)
        return change.energy_pj if change else 0.0

    rows = [[energy(of[kind], level, tensor) for kind, level, tensor in ordered] for of in changes.values()]
    rows.append([sum(e for e in column if e is not None) for column in zip(*rows, strict=True)])
    texts = iter(uj([e for row in rows for e in row]))
    header = ["layer", *("\n".join(column) for column in ordered)]
    return text_table(header, [[name, *(next(texts) for _ in ordered)] for name in (*changes, "sum")])
