"""`enos check`: the native engine against the real Timeloop and Accelergy."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dse.cli.common import (
    ARCH_HELP,
    FILE,
    ArchReading,
    arch_with,
    check_jobs,
    check_writable,
    echo_json,
    include_option,
    jobs_option,
    json_option,
    perfect_option,
    uj,
)
from dse.cli.progress import mapping_bar
from dse.core.errors import InputError
from dse.core.text import text_table
from dse.engines.timeloop.engine import Programs, TimeloopEngine, program_digest
from dse.engines.timeloop.installation import find
from dse.engines.timeloop.recorded import RunCheck, check_run, read_run
from dse.mapper import OBJECTIVES
from dse.model.mapping import loop_nest
from dse.table.check import (
    Agreement,
    Race,
    agreement,
    check_number,
    contestants,
    plans,
    race,
    write_differences,
    write_recorded,
)
from dse.table.fill import map_plans, read_results
from dse.table.plan import Plan
from dse.table.store import Store
from dse.workload.layers import find_workload

SHOWN = 20  # differences that are printed; --output has all
DIFFERENT = 1


@click.command()
@click.argument("workload")
@click.option("--arch", type=FILE, help=ARCH_HELP)
@include_option
@click.option("--operators", type=FILE, help="Operators and precisions; default: the shipped ones.")
@click.option("--objective", type=click.Choice(OBJECTIVES), default="energy", show_default=True)
@perfect_option
@click.option("--mapper", "mappers", type=int, default=3, show_default=True, metavar="N",
              help="Layers that timeloop-mapper searches too, the largest ones.")  # fmt: skip
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Limit of each of these searches.")
@click.option("--store", type=FILE, help="Store of results; default: $ENOS_STORE or the user's cache.")
@jobs_option
@click.option("--output", type=FILE, help="CSV file for every difference.")
@json_option
@click.pass_context
def check(
    context: click.Context,
    workload: str,
    arch: Path | None,
    include: ArchReading,
    operators: Path | None,
    objective: str,
    perfect: bool | None,
    mappers: int,
    seconds: float,
    store: Path | None,
    jobs: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compares the native engine with the real Timeloop and Accelergy.

    WORKLOAD may be the folder of a recorded run of Timeloop: then its mapping is counted and compared with its stats,
    and nothing but the folder is needed. Otherwise Timeloop must be installed, and is run.

    Every layer under every candidate: the components' energies, and the optimal mapping evaluated by both engines, per
    level and tensor. Counts and cycles must be equal, energies as far as Timeloop prints them. Then timeloop-mapper
    searches the N largest layers, and energies and times of both mappers on perfect factors are set side by side. Exit
    code 1 if anything differs, or if timeloop-mapper finds a better mapping.

    \b
    Example:
      enos check squeezenet --mapper 3 --seconds 10
      enos check example_designs/eyeriss_like/ref_outputs/default_problem
    """
    check_jobs(jobs)
    check_number(mappers)
    if Path(workload).is_dir():
        if arch is not None or operators is not None:
            raise InputError(workload, "a recorded run has its own accelerator", hint="leave out --arch, --operators")
        _check_recorded(context, Path(workload), include.dense, mappers > 0, output, as_json)
        return
    find_workload(workload)  # a mistyped name is said before what is missing
    rival = TimeloopEngine(seconds=seconds)
    if output is not None:
        check_writable(output)
    native, timeloop = plans(workload, arch_with(arch, include), operators, objective, not perfect)
    for plan in (native, timeloop):
        with mapping_bar(f"mapping, {plan.engine.name}") as show:
            map_plans([plan], store=store, jobs=jobs, progress=show)
    with Store(store, create=False) as opened:
        results = read_results([native, timeloop], opened)
    found = agreement(native, timeloop, results)
    if output is not None:
        write_differences(found, output)
    chosen = contestants(native, mappers)
    if chosen and not as_json:
        click.echo(f"timeloop-mapper searches {len(chosen)} layers, {seconds:g} s each ...", err=True)
    races = race(chosen, rival, objective)
    if as_json:
        echo_json(_document(found, races))
    else:
        click.echo("\n".join([*_versions(timeloop), "", *_agreement_lines(native, found), "", *_race_lines(races)]))
    worse = any(r.timeloop_pj is not None and r.timeloop_pj < r.native_pj * (1 - 1e-6) for r in races)
    if not found.complete or (worse and objective == "energy"):
        context.exit(DIFFERENT)


def _check_recorded(
    context: click.Context, folder: Path, dense: bool, with_mapper: bool, output: Path | None, as_json: bool
) -> None:
    if output is not None:
        check_writable(output)
    found = check_run(read_run(folder, dense), with_mapper)
    if output is not None:
        write_recorded(found.differences, output)
    if as_json:
        echo_json(
            {
                "energy_pj": found.native.energy_pj,
                "cycles": found.native.cycles,
                "recorded_energy_pj": found.run.recorded.energy_pj,
                "recorded_cycles": found.run.recorded.cycles,
                "differences": [asdict(d) for d in found.differences],
                "by_old_rule": found.by_old_rule,
                "best_energy_pj": None if found.best is None else found.best.energy_pj,
                "best_cycles": None if found.best is None else found.best.cycles,
                "why_no_best": found.why_not,
            }
        )
    else:
        click.echo("\n".join(_recorded_lines(found)))
    if found.differences and not found.by_old_rule:
        context.exit(DIFFERENT)


def _recorded_lines(found: RunCheck) -> list[str]:
    native, recorded = found.native, found.run.recorded
    energies = uj([native.energy_pj, recorded.energy_pj])
    lines = [
        f"Mapping: {loop_nest(found.run.spec, found.run.mapping)}",
        f"Native engine: {energies[0]} uJ, {native.cycles:,} cycles; recorded: {energies[1]} uJ, "
        f"{recorded.cycles:,} cycles.",
        f"Counts, energies and cycles of every level and tensor: {_differ(len(found.differences))}.",
    ]
    lines += [
        f"  {d.level or 'layer'} {d.tensor} {d.quantity}: native {d.native}, recorded {d.timeloop}"
        for d in found.differences[:SHOWN]
    ]
    if found.by_old_rule:
        lines.append(
            "All of them are those of Timeloop before January 2025, which fetched a sliding window as a whole after a "
            "step that does not move it: counted by that rule, every number is equal."
        )
    if found.best is not None:
        share = found.best.energy_pj / native.energy_pj
        best = uj([found.best.energy_pj])[0]
        lines.append(f"Best mapping of perfect factors: {best} uJ, {share:.4f} of the recorded one's.")
    elif found.why_not:
        lines.append(f"No best mapping: {found.why_not}")
    return lines


def _document(found: Agreement, races: list[Race]) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "searches": found.searches,
        "actions": found.actions,
        "energy_differences": [{"candidate": c, **asdict(d)} for c, d in found.energies],
        "differences": [{"layer": layer, "candidate": c, **asdict(d)} for layer, c, d in found.differences],
        "mappers": [asdict(r) for r in races],
    }


def _versions(timeloop: Plan) -> list[str]:
    installed, programs = find(), Programs.installed()
    versions = ", ".join(f"{name} {version}" for name, version in installed.versions.items()) or "not told"
    native = timeloop.engine.version.rpartition("native")[2]
    return [
        f"Engines: native {native}; front end {programs.front_end}; {versions}",
        f"Programs (SHA-256): timeloop-model {program_digest(programs.model)}, "
        f"timeloop-mapper {program_digest(programs.mapper)}",
    ]


def _agreement_lines(plan: Plan, found: Agreement) -> list[str]:
    lines = [
        f"Components: {found.actions} energies of {len({j.instance.candidate for j in plan.jobs})} candidates, "
        f"{_differ(len(found.energies))} between embedded estimator and Accelergy.",
        f"Mappings: {found.rows} rows of {plan.workload}, {found.searches} searches; counts, energies and "
        f"cycles of native engine and timeloop-model: {_differ(len(found.differences))}.",
    ]
    lines += [
        f"  {candidate}: {d.component}.{d.action}: {d.embedded_pj} pJ, Accelergy {d.accelergy_pj} pJ"
        for candidate, d in found.energies[:SHOWN]
    ]
    if found.differences:
        where = Counter((d.level, d.tensor, d.quantity) for _, _, d in found.differences)
        rows = [[" ".join(filter(None, key)), str(n)] for key, n in where.most_common()]
        lines += ["", text_table(["level, tensor, quantity", "rows that differ"], rows), ""]
        lines += [
            f"  {layer} {candidate}: {d.level} {d.tensor} {d.quantity}: native {d.native}, Timeloop {d.timeloop}"
            for layer, candidate, d in found.differences[:SHOWN]
        ]
    return lines


def _differ(number: int) -> str:
    return "no difference" if not number else f"{number} DIFFERENCES"


def _race_lines(races: list[Race]) -> list[str]:
    if not races:
        return []
    rows = [
        [
            f"{r.layer} {r.candidate}",
            f"{r.native_pj / 1e6:.4f}",
            "none" if r.timeloop_pj is None else f"{r.timeloop_pj / 1e6:.4f}",
            "-" if r.timeloop_pj is None else f"{r.native_pj / r.timeloop_pj:.4f}",
            f"{r.native_cpu:.3f}",
            f"{r.timeloop_cpu:.1f}",
            f"{r.native_cpu / r.timeloop_cpu:.5f}" if r.timeloop_cpu else "-",
        ]
        for r in races
    ]
    header = ["layer", "native\nuJ", "timeloop-mapper\nuJ", "energy\nratio", "native\nCPU s", "timeloop-mapper\nCPU s",
              "CPU\nratio"]  # fmt: skip
    return ["Mappers, ours over theirs:", text_table(header, rows)]
