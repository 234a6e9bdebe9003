"""`enos export`: a network's layers as a workload file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.common import FILE, argument_option, check_writable, input_options, network_arguments
from dse.core.errors import InputError
from dse.core.files import system_errors

if TYPE_CHECKING:
    from dse.workload.layers import Workload


@click.command()
@click.argument("network")
@argument_option
@input_options
@click.option("--output", type=FILE, help="Default: workloads/NAME.yaml.")
def export(network: str, arguments: tuple[str, ...], input_texts: tuple[str, ...], inputs_factory: str | None,
           output: Path | None) -> None:  # fmt: skip
    """Writes the layers of a network as Timeloop problems.

    NETWORK is a name that is known (squeezenet) or package.module:factory of your own torch.nn.Module. It runs once,
    and every product that it computes is a layer. Or it is an ONNX file, FILE.onnx, which does not run (docs/onnx.md).

    \b
    Example:
      enos export squeezenet
      enos export squeezenet --arg width=0.25 --arg stem_stride=2 --output quarter.yaml
      enos export mynets.small:make --input 1,3,32,32 --output small.yaml
      enos export mynets.text:make --input input_ids=1,128:int64 --input attention_mask=1,128:bool
      enos export model.onnx --input 1,3,224,224 --output model.yaml
    """
    from dse.workload.export import export_network
    from dse.workload.inputs import InputTensor, parse_input
    from dse.workload.layers import write_workload
    from dse.workload.networks import load_network

    if output is not None:
        check_writable(output)
    elif arguments:
        raise InputError("--arg", "needs --output: the default file is that of the network without arguments")
    if input_texts and inputs_factory is not None:
        raise InputError("--inputs", "is given beside --input", "one of them")
    if network.lower().endswith(".onnx"):
        workload = _imported(network, input_texts, arguments, inputs_factory)
    else:
        tensors = [parse_input(text) for text in input_texts]
        shape = tensors[0].shape if len(tensors) == 1 and tensors[0] == InputTensor(tensors[0].shape) else None
        inputs = inputs_factory if shape or not tensors else tensors
        loaded = load_network(network, shape, network_arguments(arguments), inputs=inputs)
        workload = export_network(loaded)
    if output is None:
        output = Path("workloads") / f"{workload.name}.yaml"
        output.parent.mkdir(exist_ok=True)
    with system_errors(output):
        write_workload(workload, output)
    for kind, reason in workload.passed_over.items():
        click.echo(f"passed over: {kind}: {reason}")
    click.echo(f"{output}: {len(workload.layers)} layers, {workload.macs:,} MACs")


def _imported(network: str, input_texts: tuple[str, ...], arguments: tuple[str, ...], factory: str | None) -> Workload:
    from dse.workload.onnx_import import import_onnx

    for option, given in (("--arg", arguments), ("--inputs", factory)):
        if given:
            raise InputError(option, "does not go with an ONNX file", hint="give --input for its free axes")
    return import_onnx(network, input_texts)
