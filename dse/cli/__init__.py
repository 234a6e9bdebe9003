"""The command line, `enos`: all its commands, each in a module that is imported only when the command is used.

This package is the top of both halves: it may import everything, and nothing imports it.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import click

from dse.core.errors import InputError
from dse.core.files import reason
from dse.core.processes import StoppedError, log_to_stderr, stopping_on_signals

# Pydantic would look for plugins among all installed packages, which takes longer than to read a file of ours.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

BAD_INPUT = 2

_COMMANDS = {
    "export": "dse.cli.export:export",
    "map": "dse.cli.map:map_",
    "table": "dse.cli.table:table",
    "cost": "dse.cli.cost:cost",
    "sweep": "dse.cli.sweep:sweep",
    "plot": "dse.cli.plot:plot",
    "model": "dse.cli.engine:model",
    "mapper": "dse.cli.engine:mapper",
    "check": "dse.cli.check:check",
    "doctor": "dse.cli.doctor:doctor",
    "schema": "dse.cli.schema:schema",
    "assign": "dse.cli.assign:assign",
    "search": "dse.cli.search:search",
    "run": "dse.cli.search:run",
    "report": "dse.cli.report:report",
    "export-network": "dse.cli.export_network:export_network",
    "reproduce": "dse.cli.reproduce:reproduce",
    "data": "dse.cli.data:data",
    "sample": "dse.cli.sample:sample",
    "rtl": "dse.cli.rtl:rtl",
}


def _log(context: click.Context, parameter: click.Parameter, verbose: bool) -> None:
    if verbose:
        log_to_stderr(logging.DEBUG)


_VERBOSE = click.Option(
    ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_log, help="Log on standard error what is done."
)


class _LazyGroup(click.Group):
    """A group whose commands are named here and loaded when they are asked for; all of them take `--verbose`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: Any = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        if _VERBOSE not in command.params:
            command.params.append(_VERBOSE)
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


enos.params.append(_VERBOSE)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Exit codes: 0; 2 for bad input, with one line on stderr; 130 and 143 where SIGINT and SIGTERM ended it.
    """
    if os.name != "posix":
        _fail("ENOS runs on Linux and macOS; on Windows use it in WSL")
    try:
        with stopping_on_signals(_say):
            _check_shadow()
            code = enos.main(arguments, prog_name="enos", standalone_mode=False)
    except InputError as e:
        _fail(str(e))
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _fail(f"{e.format_message()}{hint}")
    except StoppedError as e:
        _say(e)
        sys.exit(e.exit_code)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `enos map squeezenet | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        _fail(f"{e.filename or 'a file'}: {reason(e)}")
    sys.exit(code if isinstance(code, int) else 0)


def _check_shadow() -> None:
    """Refuses to start where a file of the user's hides our package `search`, as PYTHONPATH=. can make it."""
    spec = find_spec("search")
    beside = Path(__file__).absolute().parents[2] / "search" / "__init__.py"  # a checkout may be made of links
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() != beside.resolve():
        raise InputError(
            spec.origin, "hides the package 'search' of ENOS", hint="rename it, or take its folder off PYTHONPATH"
        )


def _say(stopped: StoppedError) -> None:
    click.echo(f"{stopped}; what is done is kept", err=True)


def _fail(line: str) -> NoReturn:
    click.echo(f"error: {' '.join(line.split())}", err=True)
    sys.exit(BAD_INPUT)
