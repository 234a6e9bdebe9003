"""`enos rtl`: synthesises the MAC core with a cell library and measures the energy of every candidate's operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.core.text import text_table

if TYPE_CHECKING:
    from dse.rtl.measure import Row


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
@click.option("--long", type=int, default=20, show_default=True, help="Bits of the accumulator, its long form.")
@click.option("--short", type=int, default=12, show_default=True, help="Bits of its short form.")
def rtl(
    liberty: Path, out: Path, operands: Path | None, period: float, cycles: int, wire_ff: float, long: int, short: int
) -> None:
    """Area, critical path and energy per operation of the MAC core with the cells of LIBERTY.

    Needs Yosys and Icarus Verilog. OUT gets energies.csv, cores.csv, table.csv (for --tables) and one CSV with all
    transitions for each candidate. The reconfigurable core is measured with both widths of its accumulator.

    \b
    Example:
      enos rtl cells.lib --out build/rtl
      enos map squeezenet --operators operators_rtl --tables build/rtl/table.csv
    """
    from dse.core.shipped import data_dir
    from dse.hardware.candidates import load_candidates
    from dse.rtl.library import read_library
    from dse.rtl.measure import build_core, measure, single_core, write_rows, write_slots
    from dse.rtl.operands import Accumulator
    from dse.rtl.streams import load_streams, save_streams, uniform
    from dse.rtl.synthesis import programs_needed
    from dse.rtl.tables import write_component_table

    accumulator = Accumulator(long, short)
    programs_needed("yosys", "iverilog", "vvp")
    library = read_library(liberty)
    candidates = load_candidates(data_dir("arch_specs") / "operators.yaml")
    out.mkdir(parents=True, exist_ok=True)
    if operands is None:
        operands = out / "operands.npz"
        if not operands.exists():
            from search.export.operand_streams import digits_streams

            click.echo("training a network with each candidate on the digits", err=True)
            trained = digits_streams(candidates, 8 * cycles)
            save_streams({name: stream for name, (stream, _) in trained.items()}, operands)
            accuracies = {name: accuracy for name, (_, accuracy) in trained.items()}
            (out / "operands.json").write_text(json.dumps(accuracies, indent=1) + "\n", "utf-8")
    of_network = load_streams(operands, candidates)
    widths = accumulator.parameters
    plain = {**widths, "ISOLATE": 0, "ZERO_SKIP": 0}
    cores = {
        "mac_core": build_core("mac_core", widths, library, out / "mac_core", wire_ff),
        "mac_core, plain": build_core("mac_core", plain, library, out / "mac_core_plain", wire_ff),
    }
    rows: list[Row] = []
    for candidate in candidates:
        name, parameters = single_core(candidate, accumulator)
        single = cores[f"{name}, {candidate.bits} bits"] = build_core(
            name, parameters, library, out / f"{name}_{candidate.bits}", wire_ff
        )
        random = uniform(candidate, 8 * cycles)
        streams = {"network": of_network[candidate.name], "uniform": random}
        usual, other = sorted((long, short), key=lambda width: width != accumulator.width(candidate.operator))
        plan = [("mac_core", kind, usual) for kind in streams] + [("mac_core", "network", other)]
        plan += [(label, kind, usual) for label in ("mac_core, plain", "single") for kind in streams]
        for label, kind, width in plan:
            row, found = measure(
                cores.get(label, single), candidate, width, streams[kind], kind, library, period, cycles,
                out / "simulation", label, accumulator,
            )  # fmt: skip
            rows.append(row)
            if label == "mac_core" and width == usual:
                write_slots(found.slots, out / f"{candidate.name}_{kind}.csv")
    source = [f"enos rtl {liberty.name} --period {period:g} --cycles {cycles} --wire-ff {wire_ff:g} "
              f"--long {long} --short {short}",
              f"library {library.name} at {library.voltage:g} V; pJ per operation; e_op has no leakage"]  # fmt: skip
    write_rows(rows, out / "energies.csv", source)
    write_component_table(rows, accumulator, out / "table.csv", source)
    lines = [[name, f"{core.area:.0f}", str(len(core.netlist.instances)), f"{core.timing.critical_ns:.2f}"]
             for name, core in cores.items()]  # fmt: skip
    header = ["core", "area um2", "cells", "critical ns"]
    (out / "cores.csv").write_text(
        "\n".join(",".join(v.replace(",", "") for v in line) for line in [header, *lines]) + "\n", "utf-8"
    )
    click.echo(text_table(header, lines))
    click.echo(
        text_table(
            ["core", "candidate", "accumulator", "operands", "E_OP pJ", "clock pJ", "leakage pJ"],
            [
                [
                    r.core,
                    r.candidate,
                    str(r.accumulator_bits),
                    r.operands,
                    f"{r.e_op_pj:.4f}",
                    f"{r.clock_pj:.4f}",
                    f"{r.leakage_pj:.5f}",
                ]
                for r in rows
            ],
        )
    )
