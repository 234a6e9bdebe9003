"""`enos model` and `enos mapper`: one layer on one accelerator, as `timeloop-model` and `timeloop-mapper` do it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from dse.cli.common import (
    FILE,
    PATH,
    ArchReading,
    arch_with,
    check_writable,
    echo_json,
    engine_option,
    engine_options,
    include_option,
    json_option,
    named_values,
    perfect_option,
    remainders_wanted,
    slack_option,
    uj,
)
from dse.cli.count import COUNTS, count_option, counted_document, counted_lines, extra_of
from dse.cli.fronts import among, front_option, layer_document, layer_text, most_points, numbered, refuse_with_front
from dse.cli.network_totals import areas_text
from dse.core.errors import InputError
from dse.core.files import system_errors
from dse.core.templates import read_template
from dse.core.text import text_table
from dse.engines import Engine, load_engine
from dse.hardware.accelerator import Accelerator, is_modes_file
from dse.hardware.energy.area import Areas, areas_of
from dse.hardware.energy.ert import Ert, read_art, read_ert, run_files
from dse.hardware.instance import find_arch, library_for, read_arch
from dse.hardware.spec import Spec
from dse.hardware.spec_reader import SpecFile
from dse.mapper import OBJECTIVES
from dse.mapper.slack import check_slack
from dse.model.evaluation import Evaluation, evaluate
from dse.model.mapping import Mapping, directives, loop_nest, parse_directives
from dse.model.padding import check_padding
from dse.model.real_iterations import steps
from dse.model.uncounted import PADDING
from dse.workload.problem import Problem, problem_from_document

_FEW = 0.5  # compute units that work, of all: where fewer do, a line says how to use more

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _var_option(function: _Function) -> _Function:
    return click.option(
        "--var", "variables", metavar="NAME=VALUE", multiple=True, help="A variable of ARCH, such as act_bits=4."
    )(function)


@click.command()
@click.argument("arch", type=FILE)
@click.argument("problem", type=FILE)
@click.argument("mapping", type=FILE)
@click.argument("ert", type=PATH, required=False)
@_var_option
@include_option
@engine_option
@count_option(
    *COUNTS,
    help="How words and cycles of a mapping with remainders are counted; default: physical, what really happens, and "
    "with --engine timeloop only timeloop.",
)
@json_option
def model(
    arch: Path,
    problem: Path,
    mapping: Path,
    ert: Path | None,
    variables: tuple[str, ...],
    include: ArchReading,
    engine: str,
    count: tuple[str, ...],
    as_json: bool,
) -> None:
    """Evaluates one mapping.

    The numbers are those of timeloop-model, but for mappings whose loops have remainders: of these the iterations that
    really happen are counted, and Timeloop's energy and cycles are shown beside that. --count timeloop reproduces
    timeloop-model on them, too.

    --count drain,padding says beside that what Timeloop's conventions leave out: reads of outputs that leave a memory,
    and that zeros of the padding need not be read.

    ARCH and PROBLEM are Timeloop v4 files; one file may hold both, and ARCH may be the name of a shipped one. MAPPING
    is a list of Timeloop's directives, ERT an energy reference table of Accelergy; without it the engine estimates the
    components.

    \b
    Example:
      enos model arch.yaml problem.yaml mapping.yaml ERT.yaml --var act_bits=4 --json
    """
    if "physical" in count and engine == "timeloop":
        raise InputError("--count", "physical does not go with --engine timeloop", "timeloop")
    loaded = load_engine(engine)
    layer, spec, energies, areas = _read(loaded, arch, include, problem, ert, variables)
    document = read_template(mapping, include.jinja)
    entries = document["mapping"] if isinstance(document, dict) and "mapping" in document else document
    chosen = parse_directives(spec, layer, entries, mapping)
    physical = engine != "timeloop" and "timeloop" not in count
    evaluate_ = evaluate if "timeloop" in count and engine != "timeloop" else loaded.evaluate
    evaluation = evaluate_(spec, layer, chosen, energies)
    extra = extra_of(spec, layer, chosen, energies, evaluation, count, timeloop=not physical)
    beside = _timeloops(spec, layer, chosen, energies) if physical else {}
    if as_json:
        document = {**_document(spec, layer, chosen, evaluation), **beside, **_chip(areas)}
        echo_json({**document, **counted_document(evaluation, extra)})
    else:
        click.echo("\n".join([_text(spec, layer, chosen, evaluation, beside), *counted_lines(evaluation, extra)]))
        click.echo("".join(f"{line}\n" for line in _chip_lines(spec, energies, evaluation, areas)), nl=False)


@click.command()
@click.argument("arch", type=FILE)
@click.argument("problem", type=FILE)
@click.argument("ert", type=PATH, required=False)
@_var_option
@include_option
@engine_options
@click.option("--objective", type=click.Choice(OBJECTIVES), help="What is minimised; default: energy.")
@perfect_option
@slack_option
@front_option
@count_option()
@click.option("--output", type=FILE, help="Mapping to write, which enos model and timeloop-model read.")
@json_option
def mapper(
    arch: Path,
    problem: Path,
    ert: Path | None,
    variables: tuple[str, ...],
    include: ArchReading,
    engine: Engine,
    objective: str | None,
    perfect: bool | None,
    slack: float | None,
    front: int | str | None,
    count: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Finds the best of all mappings of a layer.

    The mapspace has the constraints of ARCH. The last run of a loop may be shorter, so that an array of 14 columns can
    take 55 in 4 steps. With --perfect all factors divide their dimension, as in timeloop-mapper.

    ARCH, PROBLEM and ERT are as in `enos model`. Where there is no mapping, the exit code is 2 and the line says why.

    With --slack 1% the mapping is the fastest of all that need at most 1% more than the least energy. Without it, it is
    the fastest of those of least energy that keep the same tensors; with --slack 0%, of all of least energy.

    --front prints all mappings of which none is better in both energy and cycles; --output then writes FILE-1, FILE-2
    and so on.

    \b
    Example:
      enos mapper arch.yaml problem.yaml ERT.yaml --output mapping.yaml
    """
    if output is not None:
        check_writable(output)
    if front is not None:
        refuse_with_front(objective=objective, slack=slack, count=count or None)
        if engine.name != "native":
            refuse_with_front(engine=engine.name)
    layer, spec, energies, areas = _read(engine, arch, include, problem, ert, variables)
    remainders = remainders_wanted(perfect, engine) is not False and engine.has_remainders
    if front is not None:
        _print_front(spec, layer, energies, most_points(front), remainders, output, as_json)
        return
    if PADDING in count:
        check_padding(layer)
    objective = objective or "energy"
    share = check_slack(slack or 0.0, objective, "--slack")
    if (
        slack == 0 and objective == "energy" and engine.name == "native"
    ):  # asked for: of all mappings of least energy the fastest
        from dse.mapper.front import fastest_within

        found = fastest_within(spec, layer, energies, 0.0, remainders=remainders)
    else:
        found = engine.search(spec, layer, energies, objective, remainders, slack=share)
    if found.mapping is None or found.evaluation is None:
        raise InputError("no mapping", found.reason)
    entries = directives(spec, layer, found.mapping)
    if output is not None:
        with system_errors(output):
            output.write_text(_mapping_yaml(entries), encoding="utf-8")
    beside = _timeloops(spec, layer, found.mapping, energies) if engine.name != "timeloop" else {}
    extra = extra_of(spec, layer, found.mapping, energies, found.evaluation, count, timeloop=engine.name == "timeloop")
    if as_json:
        document = {**_document(spec, layer, found.mapping, found.evaluation), **beside, **_chip(areas),
                    **counted_document(found.evaluation, extra)}  # fmt: skip
        echo_json({**document, "mapping": entries, "optimal": found.optimal, "mapspace": found.mapspace})
        return
    lines = [_text(spec, layer, found.mapping, found.evaluation, beside), *counted_lines(found.evaluation, extra)]
    click.echo("\n".join(lines))
    click.echo("".join(f"{line}\n" for line in _chip_lines(spec, energies, found.evaluation, areas)), nl=False)
    click.echo(f"{'Proven' if found.optimal else 'Not proven'} optimal {among(found.mapspace)}.")
    computing, _ = _utilisation(spec, layer, found.mapping, found.evaluation)
    if objective == "energy" and not share and computing < _FEW:
        click.echo(f"{1 - computing:.0%} of the compute units are idle: --slack 1% takes the fastest mapping within 1% "
                   "of this energy, --front shows what more speed costs.")  # fmt: skip
    if output is not None:
        click.echo(f"Mapping: {output}")


def _print_front(
    spec: Spec,
    problem: Problem,
    ert: Ert,
    most: int | None,
    remainders: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    from dse.mapper.front import front

    found = front(spec, problem, ert, most, remainders=remainders)
    if not found.points:
        raise InputError("no mapping", found.reason)
    files = []
    for number, point in enumerate(found.points, 1):
        if output is not None and point.mapping is not None:
            files.append(numbered(output, number))
            with system_errors(files[-1]):
                files[-1].write_text(_mapping_yaml(directives(spec, problem, point.mapping)), encoding="utf-8")
    if as_json:
        echo_json(layer_document(spec, problem, found))
        return
    click.echo(layer_text(spec, problem, found))
    for file in files:
        click.echo(f"Mapping: {file}")


def _read(
    engine: Engine, arch: Path, reading: ArchReading, problem: Path, ert: Path | None, variables: tuple[str, ...]
) -> tuple[Problem, Spec, Ert, Areas]:
    document = read_template(problem, reading.jinja)
    if not isinstance(document, dict) or "problem" not in document:
        raise InputError(problem, "no `problem` key", "a Timeloop v4 problem file")
    given = arch_with(arch, reading)
    if isinstance(given, Accelerator) or (not isinstance(given, SpecFile) and is_modes_file(find_arch(given))):
        raise InputError(arch, "names computing modes", "the specification of one of them, in a file of its own")
    specification = read_arch(given)
    settings = named_values(variables, "--var")
    layer = problem_from_document(
        document["problem"], f"{problem}: problem", specification.scope(settings), dense=reading.dense
    )
    spec = specification.instance(settings, problem=layer, this_layer=True)
    library = library_for(specification)
    if ert is None:
        energies = engine.energies(spec, library, specification.where, (("compute", 1.0),))
    else:
        energies = read_ert(ert)
        energies = energies.with_compute_leakage(spec) if library.compute_leakage else energies
        library = replace(library, areas_of=read_art(ert)) if ert.is_dir() and run_files(ert).art else library
    return layer, spec, energies, areas_of(spec, library, specification.where)


def _chip(areas: Areas) -> dict[str, Any]:
    """The areas of the chip as JSON data; nothing where none is known."""
    return {"areas_mm2": {**areas.mm2, "total": areas.total_mm2}} if areas.known else {}


def _chip_lines(spec: Spec, ert: Ert, evaluation: Evaluation, areas: Areas) -> list[str]:
    """Lines on the area of the chip, and on leakage of compute units that the energy leaves out."""
    lines = areas_text(areas, "Area of the chip")
    leak = ert.compute_leakage(spec.compute.name)
    if leak:
        cycles = evaluation.cycles - spec.network_latency
        energy = leak * evaluation.compute_instances * cycles
        lines.append(
            f"Leakage of the compute units that work, {uj([energy])[0]} uJ, is not counted, as in Timeloop; "
            "--leakage all counts it."
        )
    return lines


def _mapping_yaml(entries: list[dict[str, Any]]) -> str:
    import yaml

    return yaml.safe_dump({"mapping": entries}, sort_keys=False, default_flow_style=None, width=200)


def _utilisation(spec: Spec, problem: Problem, mapping: Mapping, evaluation: Evaluation) -> tuple[float, float]:
    """Compute units that work, of all: while the array computes, and over all cycles, stalls of memories included."""
    busy = problem.macs / spec.pe_count
    return busy / steps(spec, problem, mapping), busy / evaluation.cycles


def _timeloops(spec: Spec, problem: Problem, mapping: Mapping, ert: Ert) -> dict[str, float | int | None]:
    """Timeloop's energy and cycles of a mapping with remainders, None where Timeloop stops; nothing of all others."""
    if not mapping.remainders:
        return {}
    try:
        found = evaluate(spec, problem, mapping, ert)
    except InputError:
        return {"timeloop_energy_pj": None, "timeloop_cycles": None}
    return {"timeloop_energy_pj": found.energy_pj, "timeloop_cycles": found.cycles}


def _document(spec: Spec, problem: Problem, mapping: Mapping, evaluation: Evaluation) -> dict[str, Any]:
    computing, stalled = _utilisation(spec, problem, mapping, evaluation)
    times = {"network_cycles": spec.network_latency, "utilisation": computing, "utilisation_with_stalls": stalled}
    return evaluation.document() | times


def _text(
    spec: Spec,
    problem: Problem,
    mapping: Mapping,
    evaluation: Evaluation,
    beside: MappingType[str, float | int | None],
) -> str:
    computing, stalled = _utilisation(spec, problem, mapping, evaluation)
    filling = f", {spec.network_latency:,} of them to fill and drain networks" if spec.network_latency else ""
    total_lines = [
        f"Cycles: {evaluation.cycles:,}{filling}",
        f"Utilisation: {computing:.1%} of the compute units, {stalled:.1%} with stalls",
    ]
    if beside:
        energy, cycles = beside["timeloop_energy_pj"], beside["timeloop_cycles"]
        counted = "nothing: it stops" if energy is None else f"{uj([energy])[0]} uJ, {cycles:,} cycles"
        total_lines.append(f"Timeloop, which approximates remainders, counts {counted}.")
    return _levels_text(evaluation, loop_nest(spec, mapping)) + "\n" + "\n".join(total_lines)


def _levels_text(evaluation: Evaluation, nest: str) -> str:
    levels = [
        (f"{level} {tensor}", a)
        for level, tensors in reversed(list(evaluation.levels.items()))
        for tensor, a in tensors.items()
    ]
    *energies, compute, leakage, total = uj(
        [*(a.energy_pj for _, a in levels), evaluation.compute_energy_pj, evaluation.leakage_pj, evaluation.energy_pj]
    )
    rows = [
        [name, *map(str, (a.tile, a.instances, a.reads, a.fills, a.updates)), energy]
        for (name, a), energy in zip(levels, energies, strict=True)
    ]
    rows.append([evaluation.compute_name, "", str(evaluation.compute_instances), "", "", "", compute])
    rows.append(["leakage", "", "", "", "", "", leakage])
    header = ["level", "tile\nwords", "\ninstances", "reads per\ninstance", "\nfills", "\nupdates", "energy\nuJ"]
    per_operation = evaluation.energy_pj / evaluation.computes
    return "\n".join(
        [
            nest,
            "",
            text_table(header, rows),
            "",
            f"Energy: {total} uJ, {per_operation:.5g} pJ for each of {evaluation.computes:,} operations",
        ]
    )
