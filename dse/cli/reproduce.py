"""`enos reproduce`: the paper's tables and figures, made again. Imports torch only when it works."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.search import minutes_option
from dse.core.errors import InputError
from search.reproduce.protocol import FIGURES, SCALES, Protocol

if TYPE_CHECKING:
    from search.reproduce.artefact import Artefact
    from search.runs.config import RunConfig


@click.command()
@click.argument("figures", nargs=-1, required=True, type=click.Choice([*FIGURES, "all"]), metavar="FIGURE...")
@click.option(
    "--scale",
    type=click.Choice(list(SCALES)),
    help="; ".join(f"{scale}: {what}" for scale, what in SCALES.items()) + ". Default: smoke.",
)
@click.option(
    "--protocol",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A protocol file of your own instead of a scale's (docs/reproduce.md).",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data sets' official files; smoke needs none.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reproduced"),
    show_default=True,
    help="Folder of figures and runs.",
)
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Store of mappings; default: the one `enos map` uses.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; the results do not depend on it.")
@click.option("--device", help="Where networks learn: cpu, cuda or cuda:N; default: what the protocol says.")
@minutes_option
def reproduce(
    figures: tuple[str, ...],
    scale: str | None,
    protocol: Path | None,
    data_dir: Path | None,
    out: Path,
    store: Path | None,
    jobs: int | None,
    device: str | None,
    minutes: float | None,
) -> None:
    """Makes figures of the paper anew, side by side with what it says.

    Writes OUT/FIGURE/: data.csv, data.json, the drawing as PNG and SVG, README.md; and OUT/README.md, the paper's
    claims one by one. Runs are in OUT/runs; what is done there is not done again, and an interrupted run resumes.

    \b
    Example:
      enos reproduce fig4
      enos reproduce all --scale smoke
      enos reproduce fig8 --scale desk --data-dir data
    """
    began = time.monotonic()
    from search.reproduce.claims import write_claims
    from search.reproduce.protocol import load_protocol, shipped_protocol

    if scale and protocol:
        raise InputError("--protocol", "does not go with --scale", "one of the two")
    loaded = load_protocol(protocol or shipped_protocol(scale or "smoke"))
    wanted = _wanted(figures, loaded)
    configs = {name: _placed(config, data_dir, device) for name, config in loaded.runs.items()}
    options = {
        "--scale": None if protocol else scale or "smoke",
        "--protocol": protocol,
        "--data-dir": data_dir and Path("DATA"),
        "--out": out,
    }
    shown = " ".join(["", *(f"{option} {value}" for option, value in options.items() if value is not None)])
    results: dict[str, Mapping[str, Any]] = {}
    for figure in wanted:
        for name in loaded.needs(figure):
            if name not in results:
                found = _results(configs[name], out / "runs" / name, store, jobs, minutes, began)
                if found is None:
                    return
                results[name] = found
        seeds = sorted({seed for name in loaded.needs(figure) for seed in configs[name].seeds})
        page = _write(figure, f"enos reproduce {figure}{shown}", loaded, seeds, results, out, store)
        claims = write_claims(out)
        click.echo(f"{figure}: {page}")
    click.echo(f"Claims: {claims}")


def _wanted(figures: Sequence[str], protocol: Protocol) -> list[str]:
    """The figures to make; of ``all`` those that the protocol has."""
    has = ["fig4", *protocol.panels]
    found = [f for figure in figures for f in (has if figure == "all" else [figure])]
    for figure in found:
        if figure not in has:
            raise InputError(f"protocol {protocol.name}", f"has no panels for {figure}", has)
    return sorted(dict.fromkeys(found), key=FIGURES.index)


def _placed(config: RunConfig, data_dir: Path | None, device: str | None) -> RunConfig:
    """A protocol's configuration on this machine."""
    if config.data.name != "digits":
        config = replace(config, data=replace(config.data, dir=None if data_dir is None else str(data_dir)))
    return config if device is None else replace(config, device=device)


def _results(
    config: RunConfig, folder: Path, store: Path | None, jobs: int | None, minutes: float | None, began: float
) -> Mapping[str, Any] | None:
    """A run's results; None where the time is up, which is then said."""
    from dse.cli.search import done_with_bar, mapped_with_bar, stopped
    from search.report.run_page import write_report
    from search.runs.limit import OutOfTimeError

    click.echo(f"run {config.name}", err=True)
    table = mapped_with_bar(config, store)
    try:
        results = done_with_bar(config, table, folder, jobs, minutes, began)
    except OutOfTimeError:
        click.echo(stopped(config, table, folder, minutes))
        return None
    write_report(folder)
    return results


def _write(
    figure: str,
    command: str,
    protocol: Protocol,
    seeds: Sequence[int],
    results: Mapping[str, Mapping[str, Any]],
    out: Path,
    store: Path | None,
) -> Path:
    from search.reproduce.artefact import provenance, write_artefact

    made = _made(figure, protocol, results, store)
    about = protocol.about if figure != "fig4" else ()
    write_artefact(made, out, provenance(command, protocol.name, seeds), about)
    return out / figure / "README.md"


def _made(figure: str, protocol: Protocol, results: Mapping[str, Mapping[str, Any]], store: Path | None) -> Artefact:
    from search.reproduce.figures import assignments, fig4, planes

    if figure == "fig4":
        from dse.table.fill import map_workload

        return fig4.reproduce(map_workload("squeezenet", candidates=protocol.operators, store=store))
    draw = {
        "fig5": assignments.fig5,
        "fig6": assignments.fig6,
        "fig7": planes.fig7,
        "fig8": planes.fig8,
        "fig9": planes.fig9,
        "fig10": planes.fig10,
    }[figure]
    return draw(protocol.panels[figure], results)
