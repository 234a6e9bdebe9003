"""`enos report`: the page of a finished run or of a cost table. Imports what it needs for either only then."""

from __future__ import annotations

from pathlib import Path

import click

from dse.core.errors import InputError

_TABLES = (".csv", ".parquet", ".json")
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("run_or_table", type=click.Path(path_type=Path))
@click.option("--output", type=_FILE, help="Page to write; default: RUN/report.html, or TABLE's name with .html.")
@click.option("--sweep", type=_FILE, help="Summary of an architecture sweep, whose curves the page shows too.")
@click.option(
    "--transmission", type=click.Choice(["all", "on_chip"]),
    help="Of a TABLE: the levels whose energy counts; default: all. A run has its own.",
)  # fmt: skip
def report(run_or_table: Path, output: Path | None, sweep: Path | None, transmission: str | None) -> None:
    """Builds the page of a finished run or of a cost table: one HTML file that needs no network.

    RUN is the folder of a finished run; its figures are written too, to RUN/figures. TABLE is a file that `enos map`
    or `enos table` wrote.

    \b
    Example:
      enos report runs/digits
      enos report table.csv --sweep points.csv --output squeezenet.html
    """
    if run_or_table.suffix in _TABLES and not run_or_table.is_dir():
        from dse.page import write_table_page

        page = write_table_page(run_or_table, output, transmission=transmission or "all", sweep=sweep)  # type: ignore[arg-type]
    else:
        if transmission is not None:
            raise InputError("--transmission", "does not go with a run, which has its own", "a table")
        if not run_or_table.is_dir():
            raise InputError(run_or_table, "is neither a run nor a table", f"a folder, or a file {', '.join(_TABLES)}")
        from search.report.run_page import write_report

        page = write_report(run_or_table, output, sweep)
    click.echo(f"Page: {page}")
