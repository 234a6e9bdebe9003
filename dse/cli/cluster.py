"""Who does a command's work: processes of this machine, or the workers of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dse.cli.common import check_jobs, jobs_option
from dse.core.errors import InputError

if TYPE_CHECKING:
    from dse.cluster.pool import ClusterPool

cluster_option = click.option(
    "--cluster",
    metavar="ADDRESS|local:N",
    help="Workers of a Dask cluster: HOST:PORT, a scheduler file, or N processes of this machine (docs/cluster.md).",
)


def workers_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--jobs` and `--cluster`; the function gets as `jobs` a number of processes, or the cluster as a pool."""

    @functools.wraps(function)
    def call(*, jobs: int, cluster: str | None, **others: Any) -> Any:
        check_jobs(jobs)
        if cluster is None:
            return function(jobs=jobs, **others)
        if jobs != -1:
            raise no_jobs()
        return function(jobs=pool_of_cluster(cluster), **others)

    return jobs_option(cluster_option(call))


def no_jobs() -> InputError:
    """The error for both options at once."""
    return InputError("--jobs", "does not go with --cluster", hint="the cluster has as many workers as were started")


def pool_of_cluster(text: str) -> ClusterPool:
    """The cluster that a text names, as a pool; it is closed with the command."""
    from dse.cluster.connection import Connection
    from dse.cluster.pool import ClusterPool

    def notify(line: str) -> None:
        click.echo(line, err=True)

    return ClusterPool(click.get_current_context().with_resource(Connection(text, notify)))
