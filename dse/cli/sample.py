"""`enos sample`: samples of a Gaussian mixture as a macro inside SRAM would draw them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dse.cli.common import PATH, echo_json, json_option
from dse.cli.progress import progress_bar
from dse.core.errors import InputError
from dse.core.files import system_errors, write_atomically, write_json
from dse.core.text import text_table

if TYPE_CHECKING:
    from search.sampling.measure import Sampled
    from search.sampling.mixture_file import Job

_MOST_NUMBERS = 5 * 10**7
"""Coordinates of all samples, which are kept in memory."""


@click.command()
@click.argument("mixture", type=PATH)
@click.option("--samples", type=click.IntRange(1, 10**8), default=100_000, show_default=True, help="In all chains.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option("--set", "changes", multiple=True, metavar="ATTRIBUTE=VALUE",
              help="Attribute of the macro to take instead of the file's, as adc_bits=4; repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of samples, results and figures.")  # fmt: skip
@click.option("--study", is_flag=True, help="Vary each attribute, and draw the error; needs --out.")
@json_option
def sample(
    mixture: Path, samples: int, seed: int, changes: tuple[str, ...], out: Path | None, study: bool, as_json: bool
) -> None:
    """Samples a Gaussian mixture with a model of Metropolis-Hastings inside SRAM.

    MIXTURE is a file with weights, means, covariances and the attributes of the macro, or the name of a shipped one
    (two_modes). Moments, distances, effective sample size, cycles and energy are printed beside the exact ones.

    \b
    Example:
      enos sample two_modes
      enos sample two_modes --samples 1000000 --set adc_bits=4 --out sampled
      enos sample gmm.yaml --out sampled --study
    """
    from search.sampling.measure import draw, measured
    from search.sampling.mixture_file import read_mixture_file

    if study and out is None:
        raise InputError("--study", "has no folder for its figure", hint="give --out")
    job = read_mixture_file(mixture, changes)
    if samples * job.target.dimensions > _MOST_NUMBERS:
        raise InputError("--samples", f"found {samples} of {job.target.dimensions} dimensions",
                         f"samples x dimensions up to {_MOST_NUMBERS:,}")  # fmt: skip
    if out is not None:
        with system_errors(out, "cannot be made"):
            out.mkdir(parents=True, exist_ok=True)
    found = draw(job.target, job.macro, samples, seed)
    results = {"name": job.name, **measured(found)}
    files = [] if out is None else _written(found, results, out)
    if study and out is not None:
        files += _studied(job, seed, out)
    if as_json:
        echo_json(results)
        return
    click.echo("\n".join(summary(results)))
    for file in files:
        click.echo(f"Written: {file}")


def _written(found: Sampled, results: dict[str, Any], out: Path) -> list[Path]:
    import numpy as np

    from search.sampling.figures import draw_samples, draw_trace, write_figure

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, samples=found.samples, chain=np.arange(len(found.samples)) % found.macro.chains)

    write_atomically(out / "samples.npz", save)
    write_json(out / "results.json", results)
    write_figure(draw_samples(found), out / "samples.png")
    write_figure(draw_trace(found), out / "trace.png")
    return [out / name for name in ("samples.npz", "results.json", "samples.png", "trace.png")]


def _studied(job: Job, seed: int, out: Path) -> list[Path]:
    import dataclasses

    from search.sampling.figures import draw_study, write_figure
    from search.sampling.study import study

    with progress_bar("values") as bar:
        found = study(job.target, job.macro, seed, on_point=lambda done, of: bar.update(completed=done, total=of))
    write_json(out / "study.json", found)
    write_figure(draw_study(found, dataclasses.asdict(job.macro)), out / "study.png")
    return [out / "study.json", out / "study.png"]


def summary(results: dict[str, Any]) -> list[str]:
    """The lines that are printed."""
    mean, exact, error = results["mean"], results["mean_exact"], results["mean_error"]
    covariance, marginals = results["covariance"], results["wasserstein"]["marginals"]
    rows = [
        [f"x{i}", f"{mean[i]:.4g}", f"{exact[i]:.4g}", f"{error[i]:.2g}",
         "-" if covariance is None else f"{covariance[i][i]:.4g}", f"{results['covariance_exact'][i][i]:.4g}",
         f"{marginals[i]:.4f}", f"{results['effective_samples'][i]:,.0f}", _number(results["r_hat"][i])]
        for i in range(len(mean))
    ]  # fmt: skip
    header = ["", "mean", "exact", "statistical\nerror", "variance", "exact", "Wasserstein\n(std)",
              "effective\nsamples", "R-hat"]  # fmt: skip
    distance, cost = results["wasserstein"], results["cost"]
    shares = [f"{a:.3f} ({b:.3f})" for a, b in
              zip(results["nearest_component"], results["nearest_component_exact"], strict=True)]  # fmt: skip
    lines = [
        f"{results['samples']:,} samples of {results['name']}: {results['dimensions']} dimensions, "
        f"{results['mixtures']} mixtures, {results['macro']['chains']} chains, seed {results['seed']}",
        "",
        text_table(header, rows),
        "",
        f"sliced Wasserstein distance: {distance['sliced']:.4f} std; {distance['exact']:.4f} with as many independent "
        f"exact samples, {distance['exact_effective']:.4f} with as many as are effective",
        f"samples nearest to each component (of an exact sampler): {', '.join(shares)}",
        f"accepted proposals: {results['acceptance']:.1%}",
        "",
        *_cost_lines(cost, results["published"]),
    ]
    return lines + [f"note: {note}" for note in results["notes"]]


def _cost_lines(cost: dict[str, float], published: dict[str, Any]) -> Sequence[str]:
    """Cost of the samples beside the published point, whose figures it is scaled from."""
    burn_in, samples = cost["burn_in_energy_pj"], published["samples"]
    energy = published["power_w"] * published["cycles"] / published["clock_hz"] * 1e12
    rows = [
        ["cycles of a sample", f"{cost['cycles_per_sample']:g}", f"{published['cycles'] / samples:g}"],
        ["energy of a sample (pJ)", f"{cost['energy_per_sample_pj']:.3g}", f"{energy / samples:.3g}"],
        ["power at 1 GHz (uW)", f"{cost['power_w'] * 1e6:.3g}", f"{published['power_w'] * 1e6:.3g}"],
        [f"cycles of {samples} samples", f"{cost['cycles_per_sample'] * samples:,.0f}", f"{published['cycles']:,}"],
        ["energy of an effective sample (pJ)", f"{cost['energy_per_effective_sample_pj']:.3g}", "-"],
        ["energy of all samples (nJ)", f"{cost['energy_pj'] * 1e-3:.4g}", "-"],
        ["energy of burn-in (nJ)", f"{burn_in * 1e-3:.4g}", "-"],
    ]
    size = f"{published['dimensions']} dimensions, {published['mixtures']} mixtures"
    return [
        text_table(["", "here", f"published\n({size})"], rows),
        f"Costs are scaled from the published ones ({published['source']}), not computed: see docs/sampler.md.",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
