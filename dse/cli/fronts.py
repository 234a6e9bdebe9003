"""What `--front` prints: the energy-delay front of a layer, or of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dse.cli.common import origin, uj
from dse.core.errors import InputError
from dse.core.text import text_table
from dse.hardware.spec import Spec
from dse.mapper import REMAINDERS
from dse.model.mapping import directives, loop_nest
from dse.table.network_front import NetworkFront, spread
from dse.workload.problem import Problem

if TYPE_CHECKING:
    from dse.mapper.front import Front
    from dse.table.fill import Report

_ALL = "all"
_DEFAULT = "10"
_MOST_DIGITS = 10
_MOST_LINES = 40  # of a network's front, where all points of layers were asked for

_Function = TypeVar("_Function", bound=Callable[..., Any])


def front_option(function: _Function) -> _Function:
    """The function gets `front`: a number of points, `all`, or None where the option is not given."""

    def read(_context: click.Context, _option: click.Parameter, value: str | None) -> int | str | None:
        if value is None or value == _ALL:
            return value
        if not (value.isascii() and value.isdigit() and len(value) < _MOST_DIGITS and int(value) > 1):
            raise InputError(
                "--front", f"found {value!r}", "a whole number of points, at least 2, or all",
                "give it after the files, or as --front=10",
            )  # fmt: skip
        return int(value)

    return click.option(
        "--front",
        metavar="[N]",
        is_flag=False,
        flag_value=_DEFAULT,
        callback=read,
        help=f"Print the energy-delay front: N points of a layer, or all; default: {_DEFAULT}.",
    )(function)


def most_points(front: int | str) -> int | None:
    """The argument of `dse.mapper.front.front` that the option means."""
    return None if isinstance(front, str) else front


def refuse_with_front(**options: object) -> None:
    """Refuses options that have no meaning for a front; a value of None or False is an option that is not given."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise InputError(f"--{name}", "does not go with --front", hint="leave one of them out")


def among(mapspace: str) -> str:
    """The mappings of a mapspace, as the end of a sentence."""
    return f"among mappings with {REMAINDERS}" if mapspace == REMAINDERS else f"among {mapspace}"


def numbered(path: Path, number: int) -> Path:
    """The file of a point: ``mapping-2.yaml`` of ``mapping.yaml``."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def layer_document(spec: Spec, problem: Problem, found: Front) -> dict[str, Any]:
    """A layer's front as JSON data."""
    points = []
    for point in found.points:
        assert point.mapping is not None and point.evaluation is not None
        evaluation = point.evaluation
        points.append(
            {
                "energy_pj": evaluation.energy_pj,
                "cycles": evaluation.cycles,
                "edp_pj_cycles": evaluation.energy_pj * evaluation.cycles,
                "utilisation_with_stalls": problem.macs / spec.pe_count / evaluation.cycles,
                "optimal": point.optimal,
                "mapping": directives(spec, problem, point.mapping),
            }
        )
    return {"complete": found.complete, "mapspace": found.mapspace, "points": points}


def layer_text(spec: Spec, problem: Problem, found: Front) -> str:
    """A layer's front as a table, with the loop nest of each point."""
    evaluations = [p.evaluation for p in found.points if p.evaluation is not None]
    first = evaluations[0]
    rows = [
        [
            str(number),
            energy,
            f"{e.cycles:,}",
            f"{e.energy_pj / first.energy_pj:.4f}" if first.energy_pj else "-",
            f"{e.cycles / first.cycles:.4f}",
            f"{problem.macs / spec.pe_count / e.cycles:.1%}",
            f"{e.energy_pj * e.cycles:.4g}",
        ]
        for number, (e, energy) in enumerate(zip(evaluations, uj([e.energy_pj for e in evaluations]), strict=True), 1)
    ]
    header = [
        "point", "energy\nuJ", "\ncycles", "energy /\nleast", "cycles /\nthose of 1", "units\nthat work",
        "EDP\npJ cycles",
    ]  # fmt: skip
    nests = [f"{i}: {loop_nest(spec, p.mapping)}" for i, p in enumerate(found.points, 1) if p.mapping is not None]
    return "\n".join([text_table(header, rows), "", *nests, "", _layer_verdict(found)])


def _layer_verdict(found: Front) -> str:
    if not all(point.optimal for point in found.points):
        return f"Not proven optimal {among(found.mapspace)}."
    if found.complete:
        return f"All points of the front, proven optimal {among(found.mapspace)}."
    return f"Some points of the front, each proven optimal {among(found.mapspace)}; --front all finds the others."


def network_document(found: NetworkFront, report: Report, store: Path) -> dict[str, Any]:
    """A network's front as JSON data: points, and the fronts of the layers that they choose from."""
    return {
        "workload": found.workload,
        "candidate": found.candidate,
        "store": str(store),
        "rows_from_store": report.reused,
        "computed": report.computed,
        "complete": found.complete,
        "thinned": found.sums.thinned,
        "points": found.rows,
        "layers": [
            {
                "layer": layer,
                "complete": front.complete,
                "points": [
                    {"energy_pj": p.energy_pj, "cycles": p.cycles, "optimal": p.optimal, "mapping": p.mapping}
                    for p in front.points
                ],
            }
            for layer, front in zip(found.layers, found.fronts, strict=True)
        ],
    }


def network_lines(found: NetworkFront, most: int | None, report: Report, store: Path) -> list[str]:
    """A network's front as a table of at most so many points, and what is known of it."""
    every = found.rows
    rows = [every[i] for i in spread(found.sums.cycles, most or _MOST_LINES)]
    energies = uj([row["energy_pj"] for row in rows])
    cells = [
        [str(row["point"]), energy, f"{row['cycles']:,}", f"{row['energy_ratio']:.4f}", f"{row['cycles_ratio']:.4f}",
         f"{row['energy_pj'] * row['cycles']:.4g}"]
        for row, energy in zip(rows, energies, strict=True)
    ]  # fmt: skip
    header = ["point", "energy\nuJ", "\ncycles", "energy /\nleast", "cycles /\nthose of 1", "EDP\npJ cycles"]
    lines = [f"Energy-delay front of {found.workload}, all {found.candidate}:", text_table(header, cells)]
    if len(rows) < len(every):
        lines.append(f"({len(every) - len(rows)} more points; --output FILE has them all)")
    return [*lines, "", _network_verdict(found), origin(report), f"Store: {store}"]


def _network_verdict(found: NetworkFront) -> str:
    if not all(point.optimal for front in found.fronts for point in front.points):
        return "Not proven optimal."
    if found.complete:
        return "All points of the front, proven optimal."
    if found.sums.thinned:
        return f"Thinned to {len(found.sums.cycles):,} points, evenly spread in log cycles."
    partial = sum(not front.complete for front in found.fronts)
    return f"Of {partial} of {len(found.fronts)} layers only some points are summed; --front all takes all of them."
