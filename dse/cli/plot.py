"""`enos plot`: figures of a cost table."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.common import FILE, check_writable
from dse.table.cost_table import CostTable


def _breakdown(table: CostTable, candidate: str, output: Path) -> None:
    from dse.plots.breakdown import breakdown_info, draw_breakdown

    draw_breakdown(breakdown_info(table, candidate), output)


_KINDS = {"breakdown": _breakdown}


@click.command()
@click.argument("table", type=FILE)
@click.option("--output", type=FILE, required=True, help="Figure to write: .png, .pdf or .svg.")
@click.option("--kind", type=click.Choice(list(_KINDS)), default="breakdown", show_default=True)
@click.option("--candidate", default="T8", show_default=True, help="Operator and precision, such as BC4.")
def plot(table: Path, output: Path, kind: str, candidate: str) -> None:
    """Draws a cost table: where the energy of each layer goes.

    TABLE is a file that `enos map` or `enos table` wrote.

    \b
    Example:
      enos plot table.csv --output breakdown.png --candidate T8
    """
    check_writable(output)
    _KINDS[kind](CostTable.load(table), candidate, output)
    click.echo(f"Figure: {output}")
