"""`enos export-network`: the found network of a run as files that other tools read."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from dse.cli.common import input_options
from dse.core.errors import InputError

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("export-network")
@click.argument("run", type=_FOLDER)
@click.option("--stage", help="Such as seed0-relearn-0.3; default: the relearned network best on validation images.")
@click.option("--out", type=_FOLDER, help="Default: RUN/export.")
@click.option("--onnx/--no-onnx", default=True, help="Whether network.onnx is written; it needs enos-dse[onnx].")
@input_options
def export_network(
    run: Path,
    stage: str | None,
    out: Path | None,
    onnx: bool,
    input_texts: tuple[str, ...],
    inputs_factory: str | None,
) -> None:
    """Exports a trained network of a finished run: weights, assignment, workload, ONNX.

    The ONNX file has QuantizeLinear and DequantizeLinear around every layer and product of activations; weights are
    int8 words. It takes what the run's data are, or what --input or --inputs says; its batch is free where the network
    allows it.

    \b
    Example:
      enos export-network runs/digits
      enos export-network runs/digits --stage seed1-baseline-T8 --out t8
      enos export-network runs/mine --inputs mynets.text:example
    """
    from dse.workload.inputs import parse_input
    from dse.workload.networks import example_of
    from search.export.network_folder import export_run

    if input_texts and inputs_factory is not None:
        raise InputError("--inputs", "is given beside --input", "one of them")
    example = example_of([parse_input(text) for text in input_texts] or inputs_factory)
    if example is not None and not onnx:
        raise InputError("--no-onnx", "does not go with --input or --inputs, which are for network.onnx")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        name, files = export_run(run, out if out is not None else run / "export", stage, onnx, example)
    for text in dict.fromkeys(str(one.message) for one in said if issubclass(one.category, UserWarning)):
        click.echo(f"note: {text}", err=True)
    click.echo(f"{name}:")
    for file in files:
        click.echo(f"  {file}")
