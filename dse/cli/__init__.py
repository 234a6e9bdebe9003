"""The command line, `enos`: all its commands, each in a module that is imported only when the command is used.

This package is the top of both halves: it may import everything, and nothing imports it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dse.core.errors import InputError

BAD_INPUT = 2
INTERRUPTED = 130

_COMMANDS = {
    "export": "dse.cli.export:export",
    "map": "dse.cli.map:map_",
    "table": "dse.cli.table:table",
    "sweep": "dse.cli.sweep:sweep",
    "plot": "dse.cli.plot:plot",
    "model": "dse.cli.engine:model",
    "mapper": "dse.cli.engine:mapper",
    "check": "dse.cli.check:check",
    "doctor": "dse.cli.doctor:doctor",
    "schema": "dse.cli.schema:schema",
    "search": "dse.cli.search:search",
    "run": "dse.cli.search:run",
    "report": "dse.cli.report:report",
    "export-network": "dse.cli.export_network:export_network",
    "reproduce": "dse.cli.reproduce:reproduce",
    "data": "dse.cli.data:data",
}


class _LazyGroup(click.Group):
    """A group whose commands are named here and loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: Any = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="enos-dse", prog_name="enos")
def enos() -> None:
    """Which inference operator, at which precision, for every layer of a network: highest accuracy for the energy.

    \b
    Example:
      enos export squeezenet
      enos map squeezenet --output table.csv
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0, 2 for bad input (one line on stderr), 130 when interrupted."""
    try:
        code = enos.main(arguments, prog_name="enos", standalone_mode=False)
    except InputError as e:
        _fail(str(e))
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _fail(f"{e.format_message()}{hint}")
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `enos map squeezenet | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(line: str) -> NoReturn:
    click.echo(f"error: {' '.join(line.split())}", err=True)
    sys.exit(BAD_INPUT)
