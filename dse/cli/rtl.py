"""`enos rtl`: synthesises the MAC core with a cell library and measures the energy of every candidate's operation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.core.text import text_table

if TYPE_CHECKING:
    from dse.hardware.candidate import Candidate
    from dse.rtl.equivalence import Proof
    from dse.rtl.measure import Core, Row
    from dse.rtl.session import Session
    from dse.rtl.streams import Stream


@click.command()
@click.argument("liberty", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build/rtl"), show_default=True,
              help="Folder of netlists, operands and results.")  # fmt: skip
@click.option("--operands", type=click.Path(dir_okay=False, path_type=Path),
              help="Operands of a network (.npz); default: OUT/operands.npz, trained on the digits.")  # fmt: skip
@click.option("--period", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Clock period, ns.")
@click.option("--cycles", type=click.IntRange(min=10), default=2000, show_default=True, help="Cycles of a simulation.")
@click.option("--wire-ff", type=click.FloatRange(min=0.0), default=0.0, show_default=True,
              help="Capacitance of the wire to each pin, fF.")  # fmt: skip
@click.option("--opensta", type=click.Path(file_okay=False, path_type=Path),
              help="Folder that gets inputs of OpenSTA; with `sta` installed, its results are shown.")  # fmt: skip
@click.option("--candidates", "names", help="Only these candidates, such as T8,BC8; default: all of operators.yaml.")
@click.option("--long", type=int, default=20, show_default=True, help="Bits of the accumulator, its long form.")
@click.option("--short", type=int, default=12, show_default=True, help="Bits of its short form.")
def rtl(
    liberty: Path, out: Path, operands: Path | None, period: float, cycles: int, wire_ff: float,
    opensta: Path | None, names: str | None, long: int, short: int,
) -> None:  # fmt: skip
    """Area, critical path and energy per operation of the MAC core with the cells of LIBERTY.

    Needs Yosys and Icarus Verilog. OUT gets energies.csv, cores.csv, proofs.csv, table.csv (for --tables) and one CSV
    with all transitions for each candidate. The reconfigurable core is measured with both widths of its accumulator.
    Every netlist is proved to compute what its source does. Killed and started again, the command does only what is
    missing.

    \b
    Example:
      enos rtl cells.lib --out build/rtl
      enos map squeezenet --operators operators_rtl --tables build/rtl/table.csv
    """
    from dse.core.errors import InputError
    from dse.core.files import system_errors, write_atomically
    from dse.rtl.equivalence import ABC
    from dse.rtl.measure import write_rows
    from dse.rtl.operands import Accumulator
    from dse.rtl.session import Session, open_library
    from dse.rtl.synthesis import programs_needed
    from dse.rtl.tables import write_component_table, write_cores, write_proofs

    accumulator = Accumulator(long, short)
    candidates = _candidates(names)
    programs_needed("yosys", ABC, "iverilog", "vvp")
    with system_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    library = open_library(liberty, out)
    session = Session(library, out, accumulator, period, cycles, wire_ff, partial(click.echo, err=True))
    cores = _cores(session, candidates)
    proofs = _proofs(session, cores)
    source = [f"enos rtl {liberty.name} --period {period:g} --cycles {cycles} --wire-ff {wire_ff:g} "
              f"--long {long} --short {short}{f' --candidates {names}' if names else ''}",
              f"library {library.name} at {library.voltage:g} V; pJ per operation; e_op has no leakage"]  # fmt: skip
    write_atomically(out / "cores.csv", lambda path: write_cores(cores, path))
    write_atomically(out / "proofs.csv", lambda path: write_proofs(proofs, path, source[:1]))
    for name, proof in proofs.items():
        if proof.verdict == "refuted":
            raise InputError(out / "proofs.csv", f"{name}: netlist and source differ: {proof.detail}")
    click.echo(text_table(*_shown_cores(cores, proofs)))
    if opensta is not None:
        _compare_with_opensta(session, cores["mac_core"], opensta)
    rows = _rows(session, cores, candidates, _operands(session, operands, candidates))
    write_atomically(out / "energies.csv", lambda path: write_rows(rows, path, source))
    write_atomically(out / "table.csv", lambda path: write_component_table(rows, accumulator, path, source))
    click.echo(
        text_table(
            ["core", "candidate", "accumulator", "operands", "E_OP pJ", "clock pJ", "leakage pJ"],
            [
                [r.core, r.candidate, str(r.accumulator_bits), r.operands,
                 f"{r.e_op_pj:.4f}", f"{r.clock_pj:.4f}", f"{r.leakage_pj:.5f}"]
                for r in rows
            ],
        )
    )  # fmt: skip


def _candidates(names: str | None) -> list[Candidate]:
    from dse.core.errors import unknown
    from dse.core.shipped import data_dir
    from dse.hardware.candidates import load_candidates

    known = {candidate.name: candidate for candidate in load_candidates(data_dir("arch_specs") / "operators.yaml")}
    chosen = [*known] if names is None else names.split(",")
    for name in chosen:
        if name not in known:
            raise unknown("--candidates", "candidate", name, known)
    return [known[name] for name in dict.fromkeys(chosen)]


def _cores(session: Session, candidates: list[Candidate]) -> dict[str, Core]:
    """The reconfigurable core, with and without isolation and zero skipping, and the core of each candidate."""
    from dse.rtl.measure import single_core

    widths = session.accumulator.parameters
    plain = {**widths, "ISOLATE": 0, "ZERO_SKIP": 0}
    cores = {
        "mac_core": session.core("mac_core", widths, "mac_core"),
        "mac_core, plain": session.core("mac_core", plain, "mac_core_plain"),
    }
    for candidate in candidates:
        name, parameters = single_core(candidate, session.accumulator)
        cores[f"{name}, {candidate.bits} bits"] = session.core(name, parameters, f"{name}_{candidate.bits}")
    return cores


def _proofs(session: Session, cores: dict[str, Core]) -> dict[str, Proof]:
    """The proof of each netlist against its source; one that is not decided is said on standard error."""
    proofs = {name: session.proof(core) for name, core in cores.items()}
    for name, proof in proofs.items():
        if proof.verdict == "undecided":
            click.echo(f"{name}: the netlist is not proved: {proof.detail}", err=True)
    return proofs


def _shown_cores(
    cores: dict[str, Core], proofs: dict[str, Proof]
) -> tuple[list[str], list[list[str]]]:  # fmt: skip
    lines = []
    for name, core in cores.items():
        lines.append([name, f"{core.area:.0f}", str(len(core.netlist.instances)), f"{core.timing.critical_ns:.2f}",
                      proofs[name].verdict])  # fmt: skip
    return ["core", "area um2", "cells", "critical ns", "equal to its source"], lines


def _compare_with_opensta(session: Session, core: Core, folder: Path) -> None:
    """Critical path, leakage and switching power of the reconfigurable core, here and in OpenSTA."""
    import shutil
    from dataclasses import asdict

    from dse.rtl.opensta import our_figures, run_opensta, write_inputs

    script = write_inputs(core, session.library, session.period_ns, folder)
    if shutil.which("sta") is None:
        click.echo(f"OpenSTA (sta) is not installed; with it: cd {folder} && sta -exit {script.name}", err=True)
        return
    theirs = asdict(run_opensta(script))
    lines = [
        [name, f"{ours:.4f}", f"{theirs[name]:.4f}", f"{ours / theirs[name] - 1:+.1%}"]
        for name, ours in asdict(our_figures(core, session.library, session.period_ns)).items()
    ]
    click.echo(text_table(["mac_core", "here", "OpenSTA", "difference"], lines))


def _operands(session: Session, given: Path | None, candidates: list[Candidate]) -> dict[str, Stream]:
    """Operands of a network, from a file or trained."""
    from dse.core.files import write_atomically, write_json
    from dse.rtl.steps import digest, once
    from dse.rtl.streams import load_streams, save_streams

    if given is not None:
        return load_streams(given, candidates)
    folder = session.out / "operands"
    streams: dict[str, Stream] = {}
    accuracies = {}
    for candidate in candidates:
        path = folder / f"{candidate.name}.npz"

        def train(candidate: Candidate = candidate, path: Path = path) -> float:
            from search.export.operand_streams import digits_streams

            session.say(f"training a network with {candidate.name} on the digits")
            ((stream, accuracy),) = digits_streams([candidate], 8 * session.cycles).values()
            folder.mkdir(exist_ok=True)
            save_streams({candidate.name: stream}, path)
            return accuracy

        key = digest(candidate.identity, session.cycles)
        accuracies[candidate.name] = once(session.out / "steps" / f"operands_{candidate.name}.json", key, [path], train)
        streams |= load_streams(path, [candidate])
    write_atomically(session.out / "operands.npz", lambda path: save_streams(streams, path))
    write_json(session.out / "operands.json", accuracies)
    return streams


def _rows(
    session: Session, cores: dict[str, Core], candidates: list[Candidate], network: dict[str, Stream]
) -> list[Row]:  # fmt: skip
    """All measurements."""
    from dse.rtl.measure import single_core
    from dse.rtl.streams import uniform

    accumulator, rows = session.accumulator, []
    for candidate in candidates:
        single = cores[f"{single_core(candidate, accumulator)[0]}, {candidate.bits} bits"]
        streams = {"network": network[candidate.name], "uniform": uniform(candidate, 8 * session.cycles)}
        usual = accumulator.width(candidate.operator)
        (other,) = {accumulator.long, accumulator.short} - {usual}
        plan = [("mac_core", kind, usual) for kind in streams] + [("mac_core", "network", other)]
        plan += [(label, kind, usual) for label in ("mac_core, plain", "single") for kind in streams]
        for label, kind, width in plan:
            slots = session.out / f"{candidate.name}_{kind}.csv" if label == "mac_core" and width == usual else None
            core = cores.get(label, single)
            rows.append(session.row(core, label, candidate, width, kind, streams[kind], slots))
    return rows
