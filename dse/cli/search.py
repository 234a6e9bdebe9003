"""Commands of the learning half: `enos search`, `enos run`. Imports torch only when they work."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.cluster import cluster_option, no_jobs, pool_of_cluster
from dse.cli.progress import mapping_bar, progress_bar
from dse.core.errors import InputError
from dse.table.cost_table import CostTable

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool
    from dse.table.workers import Pool
    from search.runs.config import RunConfig
    from search.runs.stages import Stage
    from search.training.checkpoint import Record

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_DATA_DIR = click.option(
    "--data-dir", type=_FOLDER, help="Folder of the data set's official files; overrides data.dir of CONFIG."
)
_SET = click.option(
    "--set", "changes", multiple=True, metavar="FIELD=VALUE",
    help="A field of CONFIG to take instead, as search.mode=sequential; null for its default. Repeatable.",
)  # fmt: skip
_BUDGET = click.option(
    "--energy-budget", "budgets", type=float, multiple=True, metavar="SHARE",
    help="Energy that the found network meets, as a share of the all-typical 8-bit one's: 0.4; replaces lambdas and "
    "budgets of CONFIG. Repeatable.",
)  # fmt: skip
_LATENCY_BUDGET = click.option(
    "--latency-budget", "latency_budgets", type=float, multiple=True, metavar="SHARE",
    help="The same for cycles: 0.7; with --energy-budget, each is searched by itself. Repeatable.",
)  # fmt: skip
_DEVICE = click.option("--device", help="Where networks learn: cpu, cuda or cuda:N; overrides device of CONFIG.")


def _check_minutes(context: click.Context, parameter: click.Parameter, minutes: float | None) -> float | None:
    if minutes is not None and not 0 < minutes < math.inf:
        raise InputError("--minutes", f"found {minutes}", "a number above 0")
    return minutes


minutes_option = click.option(
    "--minutes", type=float, callback=_check_minutes, help="Stop in time, between two epochs; the same command resumes."
)
_PLAN = click.option("--plan", "plan_only", is_flag=True, help="Say what is to be done and how long it takes, no more.")
_JOBS = click.option("--jobs", type=click.IntRange(min=1), help="Processes; the results do not depend on it.")


_OUT = click.option("--out", type=_FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs' folders.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print results.json instead of a summary.")


def _run_options(function: Callable[..., None]) -> Callable[..., None]:
    """What both commands take besides their own, in the order of the help."""
    options = (_OUT, _DATA_DIR, _SET, _BUDGET, _LATENCY_BUDGET, _DEVICE, _JOBS, cluster_option, minutes_option, _PLAN,
               _JSON)  # fmt: skip

    @functools.wraps(function)
    def call(*, jobs: int | None, cluster: str | None, **others: Any) -> None:
        if cluster is not None and jobs is not None:
            raise no_jobs()
        function(jobs=jobs if cluster is None else pool_of_cluster(cluster), **others)

    decorated: Callable[..., None] = call
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@click.command()
@click.argument("config", type=_FILE)
@click.option("--table", required=True, type=_FILE, help="Energies of every layer: what `enos table` wrote.")
@_run_options
def search(
    config: Path,
    table: Path,
    out: Path,
    data_dir: Path | None,
    changes: tuple[str, ...],
    budgets: tuple[float, ...],
    latency_budgets: tuple[float, ...],
    device: str | None,
    jobs: int | ClusterPool | None,
    minutes: float | None,
    plan_only: bool,
    as_json: bool,
) -> None:
    """Searches operators and precisions against a cached table of energies.

    CONFIG is a run configuration (YAML). A run that was interrupted resumes.

    \b
    Example:
      enos search squeezenet.yaml --table squeezenet.csv
      enos search squeezenet.yaml --table squeezenet.csv --energy-budget 0.4
      enos search squeezenet.yaml --table squeezenet.csv --set name=sampled --set search.mode=stochastic
    """
    began = time.monotonic()
    chosen = _configuration(config, data_dir, [*changes, *_searched_within(budgets, latency_budgets)], device)
    _finish(chosen, CostTable.load(table), out, jobs, as_json, minutes, began, plan_only)


@click.command()
@click.argument("config", type=_FILE, required=False)
@click.option("--store", type=_FILE, default=None, help="Store of mappings; default: the one `enos map` uses.")
@_run_options
def run(
    config: Path | None,
    out: Path,
    store: Path | None,
    data_dir: Path | None,
    changes: tuple[str, ...],
    budgets: tuple[float, ...],
    latency_budgets: tuple[float, ...],
    device: str | None,
    jobs: int | ClusterPool | None,
    minutes: float | None,
    plan_only: bool,
    as_json: bool,
) -> None:
    """Does the whole job: export, map, search, relearn, report.

    CONFIG is a run configuration (YAML); without it the embedded example runs: SqueezeNet on handwritten digits.
    A run that was interrupted resumes.

    \b
    Example:
      enos run
      enos run squeezenet.yaml --out runs
      enos run squeezenet.yaml --device cuda --minutes 25
    """
    from search.runs.config import EXAMPLE

    began = time.monotonic()
    chosen = _configuration(
        config if config is not None else EXAMPLE,
        data_dir,
        [*changes, *_searched_within(budgets, latency_budgets)],
        device,
    )
    table = mapped_with_bar(chosen, store, -1 if isinstance(jobs, int | None) else jobs)
    _finish(chosen, table, out, jobs, as_json, minutes, began, plan_only)


def _searched_within(energy: Sequence[float], latency: Sequence[float]) -> list[str]:
    """What `--energy-budget` and `--latency-budget` change in a configuration."""
    if not (energy or latency):
        return []
    return ["lambdas=[]", f"energy_budgets={list(energy)}", f"latency_budgets={list(latency)}"]


def _configuration(path: Path, data_dir: Path | None, changes: Sequence[str], device: str | None) -> RunConfig:
    from search.runs.config import load_config

    config = load_config(path, [*changes, *([] if device is None else [f"device={device}"])])
    return config if data_dir is None else replace(config, data=replace(config.data, dir=str(data_dir)))


def _finish(config: RunConfig, table: CostTable, out: Path,
            jobs: int | ClusterPool | None, as_json: bool, minutes: float | None,
            began: float, plan_only: bool) -> None:  # fmt: skip
    """Search, relearn and report, which both commands share; or the plan of that."""
    from search.report.run_page import summary, write_report
    from search.report.text import details
    from search.runs.limit import OutOfTimeError

    if plan_only:
        from search.runs.forecast import describe, plan
        from search.runs.on_cluster import on_cpu
        from search.runs.run import check_fit
        from search.runs.stages import Run

        planned = Run(out / config.name, config, table)
        if not isinstance(jobs, int | None):
            planned = on_cpu(planned)
        check_fit(planned)
        click.echo("\n".join(describe(plan(planned), minutes)))
        return
    try:
        results = done_with_bar(config, table, out / config.name, jobs, minutes, began)
    except OutOfTimeError:
        click.echo(stopped(config, table, out / config.name, minutes))
        return
    page = write_report(out / config.name)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        click.echo("\n".join([summary(results), *details(results), f"Page: {page}"]))


def stopped(config: RunConfig, table: CostTable, folder: Path, minutes: float | None) -> str:
    """What is said of a run that has stopped at its time limit."""
    from search.runs.stages import Run

    run = Run(folder, config, table)
    done = len(run.finished())
    return (f"Stopped after {minutes:.3g} minutes: {done} of {len(run.stages)} stages of {config.name} are finished, "
            "the next is kept up to its last epoch. The same command resumes.")  # fmt: skip


def mapped_with_bar(config: RunConfig, store: Path | None, jobs: int | Pool = -1) -> CostTable:
    """The cost table of a configuration's network; progress on standard error."""
    from search.runs.energies import energies

    with mapping_bar(f"mapping {config.name}") as show:
        return energies(config, store, show, jobs)


def done_with_bar(config: RunConfig, table: CostTable, folder: Path, jobs: int | ClusterPool | None,
                  minutes: float | None = None, began: float | None = None) -> dict[str, Any]:  # fmt: skip
    """A run's results, when all its stages are done; progress on standard error.

    Args:
        jobs: processes, None for the configuration's; or the workers of a cluster.
        minutes: limit of the time since `began`, on the monotonic clock; None for none.

    Raises:
        OutOfTimeError: the limit is reached; what is done is kept.
    """
    from search.runs.inputs import dataset
    from search.runs.limit import Limit
    from search.runs.on_cluster import on_cpu
    from search.runs.progress import Remaining, in_words
    from search.runs.run import default_jobs, do_run, open_run

    spent = 0.0 if began is None else (time.monotonic() - began) / 60
    limit = Limit(None if minutes is None else minutes - spent)
    connection = None if isinstance(jobs, int | None) else jobs.connection
    processes = jobs if isinstance(jobs, int | None) else None
    opened = open_run(folder, config, table, elsewhere=connection is not None)
    leading = opened if connection is None else on_cpu(opened)
    if notice := dataset(leading.config, config.seeds[0]).notice:
        click.echo(f"note: {notice}", err=True)
    side_by_side = processes or default_jobs(config) if connection is None else max(1, len(connection.cluster.workers))
    remaining = Remaining({s: leading.epochs(s) for s in leading.stages}, side_by_side)
    with progress_bar("epochs") as bar:
        bar.update(total=remaining.epochs)

        def on_progress(stage: Stage, record: Record) -> None:
            remaining.add(stage, record)
            bar.update(advance=1, description=f"{_describe(stage)}, {in_words(remaining.seconds())} left")

        return do_run(opened, on_progress, processes, limit, connection)


def _describe(stage: Stage) -> str:
    if stage.kind == "pretrain":
        what = f"pretraining with {stage.candidate}"
    elif stage.candidate:
        what = f"baseline {stage.candidate}"
    elif stage.lam is not None:
        what = f"{stage.kind} with lambda {stage.lam:g}"
    elif stage.budget is not None:
        what = f"{stage.kind} with energy budget {stage.budget:g}"
    else:
        what = f"{stage.kind} with latency budget {stage.latency_budget:g}"
    return f"seed {stage.seed}: {what}" + (f", sample {stage.sample}" if stage.sample else "")
