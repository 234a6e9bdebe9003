"""The command line, `enos`. Each command's module is imported only when the command is."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from dse.errors import InputError

ENTRY_POINTS = "enos.commands"
"""Other packages' commands: the learning half registers its own here, so that `dse` never imports it."""

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
}


class _LazyGroup(click.Group):
    """A group whose commands are named here and in entry points, and loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *(name for name in sorted(_others()) if name not in _COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is not None:
            module, _, attribute = target.partition(":")
            command: Any = getattr(importlib.import_module(module), attribute)
        elif (entry := _others().get(cmd_name)) is not None:
            command = entry.load()
        else:
            return None
        assert isinstance(command, click.Command)
        return command


def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


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
