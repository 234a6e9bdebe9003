"""Commands of the learning half: `enos search`, `enos run`, `enos report`. Imports torch only when they work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.errors import InputError
from dse.resources import data_dir
from dse.table import CostTable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from search.config import RunConfig
    from search.stages import Stage

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_DATA_DIR = click.option(
    "--data-dir", type=_FOLDER, help="Folder of the data set's official files; overrides data.dir of CONFIG."
)
_JOBS = click.option("--jobs", type=click.IntRange(min=1), help="Processes; the results do not depend on it.")


@click.command()
@click.argument("config", type=_FILE)
@click.option("--table", required=True, type=_FILE, help="Energies of every layer: what `enos table` wrote.")
@click.option("--out", type=_FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs' folders.")
@_DATA_DIR
@_JOBS
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of a summary.")
def search(config: Path, table: Path, out: Path, data_dir: Path | None, jobs: int | None, as_json: bool) -> None:
    """Searches operators and precisions against a cached table of energies.

    CONFIG is a run configuration (YAML). A run that was interrupted goes on where it stopped.

    \b
    Example:
      enos search squeezenet.yaml --table squeezenet.csv
    """
    _finish(_configuration(config, data_dir), CostTable.load(table), out, jobs, as_json)


@click.command()
@click.argument("config", type=_FILE, required=False)
@click.option("--out", type=_FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs' folders.")
@click.option("--store", type=_FILE, default=None, help="Store of mappings; default: the one `enos map` uses.")
@_DATA_DIR
@_JOBS
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of a summary.")
def run(
    config: Path | None, out: Path, store: Path | None, data_dir: Path | None, jobs: int | None, as_json: bool
) -> None:
    """Does the whole job: export, map, search, relearn, report.

    CONFIG is a run configuration (YAML); without it the embedded example runs: SqueezeNet on scikit-learn's digits.
    A run that was interrupted goes on where it stopped.

    \b
    Example:
      enos run
      enos run squeezenet.yaml --out runs
    """
    from dse.export import export_network
    from dse.pipeline import map_workload
    from search.config import EXAMPLE
    from search.stages import network_of

    chosen = _configuration(config if config is not None else EXAMPLE, data_dir)
    workload = export_network(replace(network_of(chosen), name=chosen.name))
    arch = _arch_file(chosen.arch)
    with _bar("searches for a mapping") as (bar, task):
        table = map_workload(
            workload,
            arch=arch,
            store=store,
            progress=lambda report: bar.update(task, total=report.to_compute, completed=report.computed),
        )
    _finish(chosen, table, out, jobs, as_json)


@click.command()
@click.argument("run", type=_FOLDER)
def report(run: Path) -> None:
    """Builds the page and the figures of a finished run: RUN/report.html, RUN/figures.

    \b
    Example:
      enos report runs/digits
    """
    from search.report import write_report

    click.echo(f"Page: {write_report(run)}")


def _configuration(path: Path, data_dir: Path | None) -> RunConfig:
    from search.config import load_config

    config = load_config(path)
    return config if data_dir is None else replace(config, data=replace(config.data, dir=str(data_dir)))


def _finish(config: RunConfig, table: CostTable, out: Path, jobs: int | None, as_json: bool) -> None:
    """Search, relearn and report, which both commands share."""
    from search.report import summary, write_report
    from search.runs import do_run, open_run
    from search.stages import dataset

    opened = open_run(out / config.name, config, table)
    if notice := dataset(config, config.seeds[0]).notice:
        click.echo(f"note: {notice}", err=True)
    with _bar("epochs", sum(stage.epochs for stage in opened.stages)) as (bar, task):

        def on_progress(stage: Stage, _: object) -> None:
            bar.update(task, advance=1, description=_describe(stage))

        results = do_run(opened, on_progress, jobs)
    page = write_report(opened.folder)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        click.echo(f"{summary(results)}\nPage: {page}")


def _arch_file(name: str) -> Path:
    """A configuration's `arch`: the name of a shipped specification, or a file."""
    shipped = sorted(data_dir("arch_specs").glob("*.yaml"))
    found = next((path for path in shipped if path.stem == name), Path(name))
    if not found.is_file():
        raise InputError(
            "arch", f"{name!r} is no file", [*(p.stem for p in shipped if p.stem != "operators"), "a path"]
        )
    return found


@contextmanager
def _bar(unit: str, total: float | None = None) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on standard error; gives what its `update` needs."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar, bar.add_task("", total=total)


def _describe(stage: Stage) -> str:
    what = f"baseline {stage.candidate}" if stage.candidate else f"{stage.kind} with lambda {stage.lam:g}"
    return f"seed {stage.seed}: {what}"
