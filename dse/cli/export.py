"""`enos export`: a network's layers as a workload file."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.common import FILE, argument_option, check_writable, network_arguments
from dse.core.errors import InputError
from dse.core.files import system_errors


@click.command()
@click.argument("network")
@argument_option
@click.option("--input", "input_shape", help="Input with its batch, such as 1,3,32,32; default: the network's own.")
@click.option("--output", type=FILE, help="Default: workloads/NAME.yaml.")
def export(network: str, arguments: tuple[str, ...], input_shape: str | None, output: Path | None) -> None:
    """Writes the layers of a network as Timeloop problems.

    NETWORK is a name that is known (squeezenet) or package.module:factory of your own torch.nn.Module.

    \b
    Example:
      enos export squeezenet
      enos export squeezenet --arg width=0.25 --arg stem_stride=2 --output quarter.yaml
      enos export mynets.small:make --input 1,3,32,32 --output small.yaml
    """
    from dse.workload.layers import write_workload
    from dse.workload.networks import load_network
    from dse.workload.trace import export_network

    shape = _shape(input_shape) if input_shape is not None else None
    if output is not None:
        check_writable(output)
    elif arguments:
        raise InputError("--arg", "needs --output: the default file is that of the network without arguments")
    workload = export_network(load_network(network, shape, network_arguments(arguments)))
    if output is None:
        output = Path("workloads") / f"{workload.name}.yaml"
        output.parent.mkdir(exist_ok=True)
    with system_errors(output):
        write_workload(workload, output)
    for name, reason in workload.passed_over.items():
        click.echo(f"passed over: {name} ({reason})")
    click.echo(
        f"{output}: {len(workload.layers)} layers, {workload.macs:,} MACs, {len(workload.passed_over)} passed over"
    )


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError("--input", f"found {text!r}", "whole numbers with commas, such as 1,3,32,32") from None
