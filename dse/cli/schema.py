"""`enos schema`: JSON schemas of our own files, for editors."""

from __future__ import annotations

import importlib

import click

from dse.cli.common import echo_json

FILES = {
    "run": "search.runs.config:RunConfig",
    "sweep": "dse.sweep.sweep_file:SweepFile",
    "protocol": "search.reproduce.protocol:ProtocolFile",
    "workload": "dse.workload.layers:WorkloadFile",
    "operators": "dse.hardware.candidates:OperatorsFile",
    "mixture": "search.sampling.mixture_file:MixtureFile",
}
"""The files that are ours, and the type of each; Timeloop's and Accelergy's have no schema here."""


@click.command()
@click.argument("file", type=click.Choice(list(FILES)))
def schema(file: str) -> None:
    """Prints the JSON schema of a file of ours: an editor that reads it completes fields and marks wrong ones.

    \b
    Example:
      enos schema run > run.schema.json
    """
    from dse.core.schema import json_schema

    module, _, name = FILES[file].partition(":")
    echo_json(json_schema(getattr(importlib.import_module(module), name)))
