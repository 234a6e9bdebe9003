"""What the commands share: options, checks, numbers as text."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dse.core.documents import parse_yaml
from dse.core.errors import InputError
from dse.engines import MAPPINGS, Engine, load_engine
from dse.mapper import OBJECTIVES
from dse.mapper.slack import read_slack

if TYPE_CHECKING:
    from dse.hardware.accelerator import AcceleratorLike
    from dse.table.fill import Report

FILE = click.Path(dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)
ARCH_HELP = "Timeloop v4 specification, or the name of a shipped one; default: eyeriss_168."

_Function = TypeVar("_Function", bound=Callable[..., Any])


def workload_options(function: _Function, *, required: bool = True, joined: bool = True) -> Callable[..., Any]:
    """WORKLOAD and the options that decide which table it has and where that is stored.

    The function gets `--include`, `--tables` and `--leakage` as part of `arch`, the options of the engine as an engine,
    and `--perfect` as `remainders`, which is None where it is not given.

    Args:
        required: WORKLOAD must be given.
        joined: False leaves `tables` and `leakage` to the function, which may have another `arch` for them.
    """

    @functools.wraps(function)
    def call(*, arch: Path | None, include: ArchReading, engine: Engine, perfect: bool | None, **others: Any) -> Any:
        remainders = remainders_wanted(perfect, engine)
        if not joined:
            others |= {"tables": include.tables, "leakage": include.leakage}
            include = replace(include, tables=(), leakage=LEAKAGE[0])
        return function(arch=arch_with(arch, include), engine=engine, remainders=remainders, **others)

    decorated = engine_options(call)
    for option in reversed(
        (
            click.argument("workload", required=required),
            click.option("--arch", type=FILE, help=ARCH_HELP),
            include_option,
            click.option("--operators", type=FILE, help="Operators and precisions; default: the shipped ones."),
            click.option(
                "--objective", type=click.Choice(OBJECTIVES), help="What a mapping minimises; default: energy."
            ),
            perfect_option,
            slack_option,
            click.option("--store", type=FILE, help="Store of results; default: $ENOS_STORE or the user's cache."),
        )
    ):
        decorated = option(decorated)
    return decorated


def engine_options(function: _Function) -> Callable[..., Any]:
    """Which engine searches, and how; the function gets it as `engine`."""

    @functools.wraps(function)
    def call(*, engine: str, mapping: str | None, seconds: float | None, **others: Any) -> Any:
        chosen = {name: value for name, value in (("mapping", mapping), ("seconds", seconds)) if value is not None}
        if chosen and engine != "timeloop":
            raise InputError(
                f"--{next(iter(chosen))}", f"does not go with --engine {engine}", hint="use it with --engine timeloop"
            )
        return function(engine=load_engine(engine, **chosen), **others)

    decorated = call
    for option in (
        click.option("--seconds", type=float, help="Limit of one search by timeloop-mapper; default: 60."),
        click.option(
            "--mapping",
            type=click.Choice(MAPPINGS),
            help="With --engine timeloop: who finds the mappings that it evaluates; default: timeloop.",
        ),
        engine_option,
    ):
        decorated = option(decorated)
    return decorated


def input_options(function: _Function) -> _Function:
    """What a network is called with; the function gets `input_texts` and `inputs_factory`."""
    texts = click.option(
        "--input",
        "input_texts",
        multiple=True,
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="A tensor that the network takes, with its batch, such as 1,3,32,32 or input_ids=1,128:int64; once for "
        "each. Default: the network's own.",
    )
    factory = click.option(
        "--inputs",
        "inputs_factory",
        metavar="PACKAGE.MODULE:FACTORY",
        help="A function that returns what the network is called with: a tensor, a tuple, or a dict of keywords.",
    )
    return texts(factory(function))


def engine_option(function: _Function) -> _Function:
    return click.option(
        "--engine",
        default="native",
        show_default=True,
        help="native, or timeloop, which needs the real one installed (docs/timeloop.md).",
    )(function)


LEAKAGE = ("memories", "all")
"""What leaks: memories alone, as in Timeloop, or compute units too."""


@dataclass(frozen=True)
class ArchReading:
    """How a specification is read: more files of it, values for templates, whether sparse designs are dense, and what
    is given beside it: tables of components, and what leaks."""

    include: tuple[Path, ...] = ()
    jinja: Mapping[str, Any] = field(default_factory=dict)
    dense: bool = False
    functions: bool = False
    tables: tuple[Path, ...] = ()
    leakage: str = LEAKAGE[0]


def include_option(function: _Function) -> Callable[..., Any]:
    """How the specification is read; the function gets it as `include`."""

    @functools.wraps(function)
    def call(
        *,
        include: tuple[Path, ...],
        jinja: tuple[str, ...],
        dense: bool,
        functions: bool,
        tables: tuple[Path, ...],
        leakage: str,
        **others: Any,
    ) -> Any:
        reading = ArchReading(include, named_values(jinja, "--jinja"), dense, functions, tables, leakage)
        return function(include=reading, **others)

    decorated: Callable[..., Any] = call
    for option in (
        click.option(
            "--leakage",
            type=click.Choice(LEAKAGE),
            default=LEAKAGE[0],
            show_default=True,
            help="What leaks: memories, as in Timeloop, or all, compute units too.",
        ),
        click.option(
            "--tables",
            type=PATH,
            multiple=True,
            help="Component tables or classes, ERT or ART files, or a folder of these; repeatable.",
        ),
        click.option("--functions", is_flag=True, help="Run the programs in Python whose functions ARCH calls."),
        click.option("--dense", is_flag=True, help="Read a design with sparse optimisations as if it had none."),
        click.option(
            "--jinja", metavar="NAME=VALUE", multiple=True, help="A value for ARCH that is a template; repeatable."
        ),
        click.option(
            "--include",
            type=FILE,
            multiple=True,
            help="More top-level keys of ARCH: variables, components; repeatable.",
        ),
    ):
        decorated = option(decorated)
    return decorated


def arch_with(arch: Path | None, reading: ArchReading) -> AcceleratorLike:
    """A specification in one file, or in several, with the tables that are given beside it."""
    alone = replace(reading, tables=(), leakage=LEAKAGE[0])
    if alone != ArchReading() and arch is None:
        given = next(f"--{name}" for name, value in vars(alone).items() if value)
        raise InputError(given, "has nothing to go with", hint="give --arch FILE too")
    if reading == ArchReading():
        return arch
    from dse.hardware.accelerator import is_modes_file, with_tables  # not every command needs it
    from dse.hardware.instance import find_arch
    from dse.hardware.spec_reader import SpecFile

    read: AcceleratorLike = arch
    if alone != ArchReading():
        if is_modes_file(find_arch(arch)):
            given = next(f"--{name}" for name, value in vars(alone).items() if value)
            raise InputError(given, f"is for a specification, and {arch} names computing modes")
        read = SpecFile.read(find_arch(arch), reading.include, reading.jinja, reading.dense, reading.functions)
    return with_tables(read, reading.tables, compute_leakage=reading.leakage != LEAKAGE[0])


def named_values(texts: tuple[str, ...], option: str) -> dict[str, Any]:
    """The values of a repeated option NAME=VALUE: numbers, truth values, else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(option, f"found {text!r}", "NAME=VALUE")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def perfect_option(function: _Function) -> _Function:
    """The function gets `perfect` as None where neither form is given."""
    return click.option(
        "--perfect/--imperfect",
        default=None,
        help="Perfect factors only, or also mappings with remainders, which fill fan-outs better; default: the latter.",
    )(function)


def remainders_wanted(perfect: bool | None, engine: Engine) -> bool | None:
    """Whether mappings with remainders are to be looked at; None where the command line does not say.

    Raises:
        InputError: they are asked of an engine that has none.
    """
    if perfect is False and not engine.has_remainders:
        raise InputError("--imperfect", "timeloop-mapper has no mappings with remainders", hint="use --mapping native")
    return None if perfect is None else not perfect


def slack_option(function: _Function) -> _Function:
    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
        return None if value is None else read_slack(value, "--slack")

    return click.option(
        "--slack",
        metavar="SHARE",
        callback=read,
        help="Take the fastest mapping within this share of the least energy, such as 1%; default: 0.",
    )(function)


def json_option(function: _Function) -> _Function:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def jobs_option(function: _Function) -> _Function:
    return click.option(
        "--jobs",
        type=int,
        default=-1,
        show_default=True,
        help="Processes, at most one for each core; -1 for every core.",
    )(function)


def check_jobs(jobs: int) -> None:
    if jobs < 1 and jobs != -1:
        raise InputError("--jobs", f"found {jobs}", "at least 1, or -1 for every core")


def echo_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=1))


def check_writable(path: Path) -> None:
    """Refuses a file that cannot be written, before work is done for it."""
    if not path.absolute().parent.is_dir():
        raise InputError(path, "cannot be written: no such folder", hint="name an existing folder")


def check_table_file(path: Path) -> None:
    """Refuses a file no table can be written to, before anything is computed."""
    if path.suffix not in (".csv", ".parquet", ".json"):
        raise InputError(path, f"cannot write a table as {path.suffix!r}", ".csv, .parquet, .json")
    check_writable(path)


def uj(energies_pj: Sequence[float | None]) -> list[str]:
    """Energies given in pJ as text in uJ: all with the decimals that give the largest five digits, each at least three.

    So a small energy beside a large one is not shown as 0.
    """
    largest = max((abs(e) for e in energies_pj if e is not None), default=0.0) / 1e6
    decimals = _decimals(largest, 5)
    return ["-" if e is None else f"{e / 1e6:.{max(decimals, _decimals(abs(e) / 1e6, 3))}f}" for e in energies_pj]


def _decimals(value: float, digits: int) -> int:
    """Decimals that show so many significant digits of a value, 12 at most; 0 for 0."""
    return min(12, max(0, digits - 1 - math.floor(math.log10(value)))) if value else 0


def origin(report: Report) -> str:
    """Says how much was computed."""
    if not report.to_compute:
        return f"{report.reused} of {report.jobs} rows from the store, nothing recomputed."
    return (
        f"{report.reused} of {report.jobs} rows from the store, {report.computed} computed; "
        f"{report.duplicates} share the mapping of a layer of the same shape."
    )


argument_option = click.option(
    "--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="Argument of the network's factory; repeatable."
)


def network_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """The arguments of a network's factory, from ``NAME=VALUE``; values are YAML.

    Raises:
        InputError: another form, or an argument that is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"--arg {text}", "expected NAME=VALUE", hint="for example width=0.25")
        if name in found:
            raise InputError(f"--arg {text}", f"{name} is given twice")
        found[name] = parse_yaml(value, f"--arg {text}")
    return found
