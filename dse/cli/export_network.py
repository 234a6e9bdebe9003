"""`enos export-network`: the found network of a run as files that other tools read."""

from __future__ import annotations

from pathlib import Path

import click

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("export-network")
@click.argument("run", type=_FOLDER)
@click.option("--stage", help="Such as seed0-relearn-0.3; default: the relearned network best on validation images.")
@click.option("--out", type=_FOLDER, help="Default: RUN/export.")
@click.option("--onnx/--no-onnx", default=True, help="Whether network.onnx is written; it needs enos-dse[onnx].")
def export_network(run: Path, stage: str | None, out: Path | None, onnx: bool) -> None:
    """Exports a trained network of a finished run: weights, assignment, workload, ONNX.

    The ONNX file has QuantizeLinear and DequantizeLinear around every layer, weights are int8 words.

    \b
    Example:
      enos export-network runs/digits
      enos export-network runs/digits --stage seed1-baseline-T8 --out t8
    """
    from search.export.network_folder import export_run

    name, files = export_run(run, out if out is not None else run / "export", stage, onnx)
    click.echo(f"{name}:")
    for file in files:
        click.echo(f"  {file}")
